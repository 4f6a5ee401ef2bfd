"""Evaluating one frozen network: features extracted once, every evaluator, attention maps."""
