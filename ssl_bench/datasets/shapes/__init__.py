"""The embedded synthetic data set: images, masks and clips."""
