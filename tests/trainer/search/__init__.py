"""Tests of the search for ratios."""
