"""The embedded synthetic dataset: images, masks and clips."""
