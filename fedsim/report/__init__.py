"""Words, tables and charts about a run."""
