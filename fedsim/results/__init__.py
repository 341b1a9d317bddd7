"""Evaluate models, compare arms and groups, and keep the results in a run directory."""
