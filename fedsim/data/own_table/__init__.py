"""Read the user's own table with its declared public ranges, and make it a task."""
