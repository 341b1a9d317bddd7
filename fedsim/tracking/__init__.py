"""Whoever watches a run: a callback, and trackers that write its series down, each in a file under ``trackers``."""
