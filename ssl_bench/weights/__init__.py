"""Weights that a network starts from or is evaluated with: read, fingerprinted, loaded whole or refused."""
