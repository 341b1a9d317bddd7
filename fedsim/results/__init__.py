"""Metrics, evaluation, comparisons, and the run directory."""
