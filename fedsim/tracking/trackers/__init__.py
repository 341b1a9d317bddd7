"""The trackers, one file each: see ``fedsim.tracking.contract``."""
