"""Whole experiments: the arms of one scenario, and tournaments of strategies."""
