"""The model of a run: SmolVLM, its attention, what it starts from, adapters."""
