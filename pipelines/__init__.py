"""The build: sources to shards. `python -m pipelines --help`."""
