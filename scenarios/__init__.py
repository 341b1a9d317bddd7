"""Scenarios: TOML files, one experiment each."""
