"""One's own table: read with care, its public ranges declared beside it, made into a task."""
