"""The kinds of things that a scenario chooses from, apart from the sections that use them."""

from typing import Literal

Kind = Literal["binary", "classes", "number"]
"""Of targets that a task may have."""

Rng = Literal["reproducible", "secure"]
"""Of random numbers; those of ``fedsim.randomness.Random``, which needs torch and so can't be imported here."""
