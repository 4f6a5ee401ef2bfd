"""The official evaluators, one file each."""
