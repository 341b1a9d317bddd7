"""Describe inputs of a row that come by name: an image and a table, or words and their mask.

They are packed into one row of numbers, so that everything between the file and the model handles one tensor, and are
unpacked at the model's door.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fedsim.mistakes import Mistake

MOST_WHOLE = 2**24
"""Whole numbers below it are kept exactly by a float32."""


@dataclass(frozen=True)
class Input:
    """An input of a row.

    Attributes:
        name: The name of the argument of the model's ``forward``.
        shape: Its shape for one row.
        whole: For whole numbers, such as words, the count of different ones: they are 0 to ``whole - 1``, and reach the
            model as int64. None for float32 numbers.
        mask: Whether it marks which parts of another input count, 0 or 1: the model gets it as bool.
    """

    name: str
    shape: tuple[int, ...]
    whole: int | None = None
    mask: bool = False

    def __post_init__(self) -> None:
        if not self.name.isidentifier():
            raise Mistake(f"input {self.name!r}: expected a name that an argument can have")
        if self.mask and self.whole is not None:
            raise Mistake(f"input {self.name!r}: expected a mask or whole numbers, not both")
        if self.whole is not None and not 0 < self.whole <= MOST_WHOLE:
            raise Mistake(f"input {self.name!r}: expected whole from 1 to {MOST_WHOLE}, got {self.whole}")

    @property
    def size(self) -> int:
        """The count of its numbers in a row."""
        return math.prod(self.shape)


def pack(place: str, inputs: Sequence[Input], given: Mapping[str, np.ndarray]) -> np.ndarray:
    """Pack inputs by name into float32 (rows, numbers), in the order in which they are declared.

    Args:
        place: The name of the rows' source in messages.
        inputs: The inputs.
        given: {name: values (rows, *shape)}.

    Raises:
        Mistake: They are not those that are declared: all faults at once.
    """
    faults = []
    if set(given) != {declared.name for declared in inputs}:
        expected = ", ".join(declared.name for declared in inputs)
        raise Mistake(f"{place}: expected the inputs {expected}, got {', '.join(given) or 'none'}")

    counts = {len(values) for values in given.values()}
    if len(counts) != 1:
        faults.append(f"{place}: expected as many rows of each input, got {', '.join(map(str, sorted(counts)))}")
    parts = []
    for declared in inputs:
        values = np.asarray(given[declared.name])
        faults += [f"{place}: input {declared.name}: {fault}" for fault in _faults_of(declared, values)]
        parts.append(values.reshape(len(values), -1).astype(np.float32))
    if faults:
        raise Mistake("\n".join(faults))
    return np.concatenate(parts, axis=1)


def _faults_of(declared: Input, values: np.ndarray) -> Sequence[str]:
    """Return how an input differs from its declaration."""
    if values.shape[1:] != declared.shape:
        return [f"expected rows of shape {declared.shape}, got {values.shape[1:]}"]
    if declared.mask:
        return [] if np.isin(values, (0, 1)).all() else ["expected 0 or 1 in a mask"]
    if declared.whole is None:
        return [] if np.isfinite(values).all() else ["expected finite numbers"]
    if not np.issubdtype(values.dtype, np.integer):
        return [f"expected whole numbers, got {values.dtype}"]
    inside = ((values >= 0) & (values < declared.whole)).all()
    return [] if inside else [f"expected numbers from 0 to {declared.whole - 1}, got {values.min()} to {values.max()}"]
