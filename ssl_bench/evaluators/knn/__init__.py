"""Weighted k-nearest-neighbor classification and the exact search under it."""
