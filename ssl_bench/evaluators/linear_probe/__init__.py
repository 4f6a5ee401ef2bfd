"""The linear probe: many learning rates trained in one pass, the rate chosen on training data."""
