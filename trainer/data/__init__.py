"""Shards -> micro-batches: memory maps, the order of rows, what a step reads."""
