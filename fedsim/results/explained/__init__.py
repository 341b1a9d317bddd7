"""Explanations of the models of a run, as a table."""
