"""Benchmarks kept out: lists of their hashes, and the rule that knows a leak by them."""
