"""Krum: the one model that has the closest neighbours.

Blanchard, El Mhamdi, Guerraoui, Stainer, "Machine Learning with Adversaries: Byzantine Tolerant Gradient Descent",
NeurIPS 2017, https://arxiv.org/abs/1703.02757, section 4.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from fedsim.strategy import State, Strategy, check

_COLUMNS = 4096  # that are turned to float64 at once


@dataclass(frozen=True)
class Krum(Strategy):
    """``f`` >= 0: how many sites may be malicious. It takes n >= 2 f + 3 sites."""

    f: int = 1

    def __post_init__(self) -> None:
        check(self, f="whole [0, inf)")

    def aggregate(self, center: Tensor, updates: Tensor, weights: Tensor, state: State) -> tuple[Tensor, State]:
        """Return the update with the least sum of squared distances to its n - f - 2 nearest others.

        Raises:
            ValueError: Fewer than 2 f + 3 updates came.
        """
        check_enough("Krum", len(updates), self.f)
        distances = squared_distances(updates - center)  # (sites, sites)
        return updates[best(distances, self.f)].clone(), state


def check_enough(name: str, n: int, f: int) -> None:
    """Raise a ValueError if n updates are too few for f malicious ones among them."""
    if n < 2 * f + 3:
        raise ValueError(f"{name}: expected n >= 2 f + 3 = {2 * f + 3} updates for f = {f} malicious ones, got n = {n}")


def squared_distances(vectors: Tensor) -> Tensor:
    """Return the squared distance of each pair of rows, float64 (n, n); infinite where one is not finite."""
    n = len(vectors)
    gram = vectors.new_zeros(n, n, dtype=torch.float64)
    for start in range(0, vectors.shape[1], _COLUMNS):
        part = vectors[:, start : start + _COLUMNS].double()
        gram.addmm_(part, part.T)
    norms = gram.diagonal()
    return (norms[:, None] + norms - 2 * gram).clamp(min=0.0).nan_to_num(nan=torch.inf)


def best(distances: Tensor, f: int) -> Tensor:
    """Return the row with the least score; where two tie, as nearest neighbours may, that nearer to all others."""
    return least(scores(distances, f), distances.nan_to_num(posinf=0.0).sum(1))


def least(score: Tensor, otherwise: Tensor) -> Tensor:
    """Return where a score >= 0 is least; where it is least several times, up to rounding, where another number is."""
    tied = score <= score.min() * (1 + 1e-9)  # rounding
    return otherwise.masked_fill(~tied, torch.inf).argmin()


def scores(distances: Tensor, f: int) -> Tensor:
    """Return each row's sum of squared distances to its n - f - 2 nearest others, at least to one, (n,)."""
    n = len(distances)
    itself = torch.diag(torch.full((n,), torch.inf).to(distances))  # no neighbour of its own
    nearest = (distances + itself).topk(max(1, n - f - 2), largest=False).values
    return nearest.sum(1)
