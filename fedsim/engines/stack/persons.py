"""Sums of many sites' persons: each person's gradients are summed over her rows, and the sum is clipped.

What a row adds to a person's sum is its gradient itself, computed once. The norm that a person is clipped by is that of
the very numbers that are added to the site's sum, in float64, so that it does not matter which digits were lost on the
way to them: see the first way in ``fedsim.engines.stack.layers``. A person with a row that would count as zero alone
counts as zero, as in ``fedsim.privacy.optimizer``, with which this module agrees up to rounding.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from fedsim.engines.stack.layers import like
from fedsim.engines.stack.model import StackedModel
from fedsim.privacy.norms import largest_square, square_norms, summed_by

_FLOATS = 2**24  # of rows' gradients that are computed at once; a person's rows are never taken apart


def sum_persons(model: StackedModel, person: Tensor, share: Tensor, clip: float) -> None:
    """Write each site's sum of clipped gradients of persons, times their shares, into the model's gradients.

    Args:
        model: The model after a backward pass.
        person: The number of each row's person, int64 (rows,), another one at another site; below 0 for rows that only
            fill up.
        share: The factor of each row in its site's step, (rows,), the same for all rows of a site.
        clip: The largest norm of a person's sum.
    """
    for gradient in model.gradients:
        gradient.zero_()

    parameters = sum(gradient[0].numel() for gradient in model.gradients)
    for rows, group in _whole_persons(person.cpu().numpy(), max(1, _FLOATS // max(1, parameters))):
        _add(model, torch.from_numpy(rows).to(person.device), torch.from_numpy(group).to(person.device), share, clip)
    model.forget_uses()


def _add(model: StackedModel, rows: Tensor, group: Tensor, share: Tensor, clip: float) -> None:
    """Add the clipped sums of some persons, given their rows, int64 (n,), and whose each is, 0 to persons - 1, (n,)."""
    of_rows = list(model.row_gradients(rows).values())  # (n, *shape) of each trainable parameter, in their order
    if not of_rows:
        return  # all parameters are frozen
    row_squares = torch.stack([square_norms(gradient) for gradient in of_rows]).sum(0)  # (n,)
    largest = largest_square(of_rows[0])

    of_persons = [summed_by(group, gradient) for gradient in of_rows]  # each (persons, *shape)
    squares = torch.stack([square_norms(gradient) for gradient in of_persons]).sum(0)  # (persons,)

    # No NaN is sound. A factor of zero would not remove one.
    unsound_rows = summed_by(group, (~(row_squares <= largest)).to(squares))
    sound = (squares <= largest) & (unsound_rows == 0)
    squares = squares.masked_fill(~sound, 0.0)

    # One unit in the last place more for what scaling a float loses; Opacus adds the 1e-6, too.
    bounds = squares.sqrt() * (1 + torch.finfo(of_rows[0].dtype).eps) + 1e-6  # (persons,)
    factor = (clip / bounds).clamp(max=1.0).to(share.dtype)

    # All rows of a person are at one site: any of them names it, and its share.
    row_of_person = torch.empty(len(squares), dtype=rows.dtype, device=rows.device).scatter_(0, group, rows)
    site = model.now.rows.site[row_of_person]
    factor = factor * share[row_of_person]
    for total, gradient in zip(model.gradients, of_persons, strict=True):
        scaled = gradient.masked_fill(like(~sound, gradient), 0.0) * like(factor, gradient)
        total.view(len(total), -1).index_add_(0, site, scaled.flatten(1))


def _whole_persons(person: np.ndarray, most_rows: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Cut rows into chunks of whole persons, of at most so many rows where no person has more.

    Args:
        person: The number of each row's person, (rows,); rows below 0 are in no chunk.
        most_rows: The rows of a chunk.

    Yields:
        The numbers of a chunk's rows, and whose each is, counted from 0, int64 (n,) each.
    """
    rows = np.argsort(person, kind="stable")
    rows = rows[person[rows] >= 0]
    _, first, inverse = np.unique(person[rows], return_index=True, return_inverse=True)
    ends = np.append(first[1:], len(rows))  # of each person's rows
    begin = 0  # the first person of a chunk
    while begin < len(first):
        end = max(begin + 1, int(np.searchsorted(ends, first[begin] + most_rows, side="right")))
        chunk = slice(first[begin], ends[end - 1])
        yield rows[chunk], inverse[chunk] - begin
        begin = end
