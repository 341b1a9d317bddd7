"""The schema of an experiment, its files, and the names in them."""
