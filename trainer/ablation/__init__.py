"""Runs that are compared: their identity, arms times seeds, what a difference shows."""
