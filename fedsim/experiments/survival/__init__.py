"""A survival curve of all sites together, as one private release."""
