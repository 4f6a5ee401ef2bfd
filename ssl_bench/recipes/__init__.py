"""Recipes: what a run is, and how a request becomes a complete one."""
