"""The one training loop: batches, checkpoints, metrics log, collapse doctor."""
