"""Samples that others repeat: equal or near, in one component or the whole mixture."""
