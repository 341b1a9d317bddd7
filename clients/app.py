"""The Flower ClientApp that every site runs: the entry point that Flower is given by name."""

from fedsim.site.app import app

__all__ = ["app"]
