"""The local page on a folder of runs: it reads, and changes nothing."""
