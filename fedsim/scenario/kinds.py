"""The kinds of things that a scenario chooses from, apart from the sections that use them."""

from typing import Literal

Kind = str
"""Of outcomes that a task may have: the name of a ready-made kind, or of one that the task brings (fedsim.outcomes)."""

TableKind = Literal["binary", "classes", "number"]
"""Of outcomes that a column of one's own table may have."""

Rng = Literal["reproducible", "secure"]
"""Of random numbers; those of ``fedsim.randomness.Random``, which needs torch and so can't be imported here."""
