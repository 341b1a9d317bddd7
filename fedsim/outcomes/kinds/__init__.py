"""The ready-made kinds of outcomes, one file each."""
