"""Jaccard of attention masks on VOC 2012, and pictures of attention."""
