"""The story: one scenario at several privacy levels, trained, attacked, and told on one page."""
