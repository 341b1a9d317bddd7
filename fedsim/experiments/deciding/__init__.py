"""Decide between settings and arms by many trainings: what ``compare``, ``sweep`` and ``tune`` share."""
