"""Commands that serve something on this machine."""
