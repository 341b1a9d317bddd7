"""Standardize encoded inputs and targets for training: by public values, or by training rows.

A public range may be far wider than the data, as an honest range is. Encoded by it, all values are
nearly the same number, and training goes nowhere. So inputs and targets are centred and divided by
a spread: both public, where the columns declare them; or learned from training rows alone, where
nothing is promised to the rows. Metrics stay in the outcome's own unit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fedsim.data.tables import Column, Number
from fedsim.mistakes import Mistake
from fedsim.scenario.schema import Scenario

_BOUND = 10.0  # spreads from the mean, at which an input is cut
_LISTED = 5  # columns that a note names
_LEAST_SPREAD = 1e-7  # of encoded values; below it, values differ by rounding only

SENT = (
    "scale: in trainings without privacy, each site sends the count, the sum and the sum of "
    "squares of each input and of a number to predict, over its training rows, in the clear "
    "before round 1; the local arm uses each site's own"
)
"""The account of a learned scale, for people."""


@dataclass(frozen=True, eq=False)
class Scale:
    """The mean and the spread by which encoded inputs and targets are standardized.

    Attributes:
        means: Of each input, float64 (inputs,).
        spreads: Of each input, float64 (inputs,), all above 0.
        flags: The place of the input that says whether an input is missing; -1 where it never is,
            int64 (inputs,).
        target_mean: Of the target; 0 for one that is no number.
        target_spread: Of the target, above 0; 1 for one that is no number.
    """

    means: np.ndarray
    spreads: np.ndarray
    flags: np.ndarray
    target_mean: float = 0.0
    target_spread: float = 1.0

    def inputs(self, encoded: Tensor) -> Tensor:
        """Standardize inputs, float32 (rows, inputs).

        Each is bounded, and missing ones are 0.
        """
        means = encoded.new_tensor(self.means)
        spreads = encoded.new_tensor(self.spreads)
        standardized = ((encoded - means) / spreads).clamp(-_BOUND, _BOUND)
        return standardized.masked_fill(_missing(encoded, self.flags), 0.0)

    def target(self, encoded: Tensor) -> Tensor:
        """Standardize targets, (rows,); class numbers stay as they are."""
        if not encoded.is_floating_point():
            return encoded
        return (encoded - self.target_mean) / self.target_spread

    def encoded_target(self, standardized: np.ndarray) -> np.ndarray:
        """Convert standardized targets or predictions back to the encoding, float64 (rows,)."""
        return standardized.astype(np.float64) * self.target_spread + self.target_mean

    def as_json(self) -> dict[str, Any]:
        """Return the scale as values for JSON."""
        return {
            "input_means": self.means.tolist(),
            "input_spreads": self.spreads.tolist(),
            "input_flags": self.flags.tolist(),
            "target_mean": self.target_mean,
            "target_spread": self.target_spread,
            "input_bound": _BOUND,
        }


@dataclass(frozen=True, eq=False)
class Sums:
    """The sums that a site tells of its training rows, each (inputs + 1,): the target is last.

    Attributes:
        counts: The numbers of rows in which a value is known, float64.
        sums: The sums of these values, float64.
        squares: The sums of their squares, float64.
    """

    counts: Tensor
    sums: Tensor
    squares: Tensor

    @classmethod
    def of(cls, inputs: Tensor, target: Tensor, flags: np.ndarray) -> Sums:
        """Sum over a site's training rows."""
        known = ~torch.cat([_missing(inputs, flags), torch.zeros_like(target[:, None] > 0)], dim=1)
        values = torch.cat([inputs.double(), target[:, None].double()], dim=1)
        values = values * known
        return cls(known.double().sum(0), values.sum(0), values.square().sum(0))

    def __add__(self, other: Sums) -> Sums:
        """Return the sums over the rows of both."""
        return Sums(
            self.counts + other.counts,
            self.sums + other.sums,
            self.squares + other.squares,
        )


def learns_scale(scenario: Scenario) -> bool:
    """Return whether the scale is learned from training rows.

    It never is where privacy is promised to these rows, or where a server sees no site's sums.
    """
    may_learn = not scenario.private and not scenario.secure_aggregation.on
    return may_learn and scenario.data.scale == "learned"


def public_scale(columns: Sequence[Column], target: Number | None, inputs: int) -> Scale | None:
    """Return the scale that columns and outcome declare; None where none of them declares any.

    Args:
        columns: The features.
        target: The range of an outcome that is a number.
        inputs: The number of inputs.

    Raises:
        Mistake: The inputs were not encoded from these columns.
    """
    numbers = [column for column in [*columns, target] if isinstance(column, Number)]
    if all(number.mean is None for number in numbers):
        return None
    return _declared_scale(columns, target, inputs)


def without_public_scale(columns: Sequence[Column], target: Number | None) -> list[str]:
    """Name the numbers that private trainings scale by their whole range, in at most one note."""
    numbers = [column for column in [*columns, target] if isinstance(column, Number)]
    names = [number.name for number in numbers if number.mean is None]
    if not names:
        return []
    listed = ", ".join(names[:_LISTED])
    if len(names) > _LISTED:
        listed += f" and {len(names) - _LISTED} more"
    return [
        f"scale: trainings under privacy scale {listed} by the whole range; where it is far wider "
        "than the values, declare a mean and a spread that are publicly known"
    ]


def learned_scale(
    columns: Sequence[Column],
    target: Number | None,
    sites: Sequence[tuple[Tensor, Tensor]],
) -> Scale:
    """Combine the sums of some sites to the scale of all their training rows.

    Args:
        columns: The features.
        target: The range of an outcome that is a number.
        sites: The inputs (rows, inputs) and the targets (rows,) that each site trains on.

    Raises:
        Mistake: The inputs were not encoded from these columns.
    """
    public = _declared_scale(columns, target, sites[0][0].shape[1])
    sums = reduce(add, [Sums.of(inputs, targets, public.flags) for inputs, targets in sites])

    counts = sums.counts.clamp(min=1).cpu().numpy()
    means = sums.sums.cpu().numpy() / counts
    squares = sums.squares.cpu().numpy() / counts - means**2
    spreads = np.sqrt(np.maximum(squares, 0.0))

    # Values that are all the same have no spread: they are centred, and otherwise left as they are.
    spreads[spreads < _LEAST_SPREAD] = 1.0
    if target is None:
        means[-1] = 0.0
        spreads[-1] = 1.0
    return Scale(means[:-1], spreads[:-1], public.flags, float(means[-1]), float(spreads[-1]))


def _declared_scale(columns: Sequence[Column], target: Number | None, inputs: int) -> Scale:
    """Return the declared scale; an input or target without one keeps its encoding."""
    means: list[float] = []
    spreads: list[float] = []
    flags: list[int] = []
    for column in columns:
        place = len(means)
        means += [0.0] * column.width
        spreads += [1.0] * column.width
        flags += [-1] * column.width
        if isinstance(column, Number):
            means[place], spreads[place] = column.encoded_scale
            flags[place] = place + 1 if column.missing else -1

    if len(means) != inputs:
        expected = f"{len(means)} inputs, as the columns have"
        raise Mistake(f"scale: expected {expected}, got {inputs}")
    target_mean, target_spread = target.encoded_scale if target else (0.0, 1.0)
    return Scale(np.array(means), np.array(spreads), np.array(flags, int), target_mean, target_spread)


def _missing(encoded: Tensor, flags: np.ndarray) -> Tensor:
    """Return which inputs are missing, by their flags: bool (rows, inputs)."""
    has_flag = torch.from_numpy(flags >= 0).to(encoded.device)
    of_flag = encoded[:, torch.from_numpy(np.maximum(flags, 0)).to(encoded.device)]
    return (of_flag == 1) & has_flag
