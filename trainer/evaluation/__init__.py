"""A checkpoint is judged: answers, benchmarks, held-out loss."""
