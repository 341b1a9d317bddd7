"""Pages about several runs, and files beside a report."""
