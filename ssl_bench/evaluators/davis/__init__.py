"""Mask propagation on DAVIS 2017: the evaluator, the official scores, result folders, pictures."""
