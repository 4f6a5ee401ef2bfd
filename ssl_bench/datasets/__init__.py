"""Datasets, one file each, and how what a user names behind --data becomes one of them."""
