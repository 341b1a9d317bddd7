"""The way to a noise multiplier: a fast estimate of epsilon to search by, and the answers of earlier commands."""
