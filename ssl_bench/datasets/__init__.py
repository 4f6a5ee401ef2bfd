"""Datasets, one file each, and `opening`, which finds the one that --data names."""
