"""Code of the user's own: tasks and strategies in files, and those that are given in Python as objects."""
