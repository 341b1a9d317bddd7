"""What ``fedsim`` offers in Python beside ``run``: functions that return frames or dataclasses and print nothing."""
