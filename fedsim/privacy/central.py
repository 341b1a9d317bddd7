"""Differential privacy of whole sites: the server clips each site's update and adds noise to their sum.

McMahan, Ramage, Talwar, Zhang, "Learning Differentially Private Recurrent Language Models", ICLR 2018,
https://arxiv.org/abs/1710.06963, Algorithm 1 (DP-FedAvg with the estimator of a fixed denominator).

Guarantee: the sequence of noisy means is differentially private for one site, added or removed (its updates count as
nothing) or replaced, on these conditions. The list of sites, their weights and the denominator are public; they don't
depend on who answered. One site moves the sum by at most ``clip``, since no weight counts for more than 1. Where
``sampling_rate`` is claimed to be below 1, each site joined each round on its own with no more than this probability,
and who joined is not known to whom the promise is against.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fedsim.privacy.ledger import EACH_SITE, Ledger, SiteUpdate
from fedsim.randomness import Normals, Words

_AT_ONCE = 2**22  # numbers of the updates that are clipped together, in float64


@dataclass(frozen=True)
class CentralNoise:
    """Releases the noisy mean of a round's updates and writes it into the ledger in the same breath.

    Attributes:
        ledger: Where every release is written down.
        noise_multiplier: The standard deviation of the noise on the sum, over ``clip``.
        clip: The largest norm of one site's update in the sum.
        sampling_rate: The probability with which each site joins a round on its own; None where it is chosen otherwise:
            then the sites that are asked are charged, each for itself, and nothing is claimed from the choice.
        weights: {node: public weight > 0} of all sites there are.
        names: {node: name of the site}.
        expected: From the number of a round to the weight of all sites that is expected to join it, in the units of
            ``weights``.
        words: From the number of a round to the random words of its noise; no two rounds share any.
    """

    ledger: Ledger
    noise_multiplier: float
    clip: float
    sampling_rate: float | None
    weights: Mapping[int, float]
    names: Mapping[int, str]
    expected: Callable[[int], float]
    words: Callable[[int], Words]

    def charged(self, asked: Iterable[int]) -> list[str]:
        """Return whom a round costs privacy that asks these nodes."""
        return [EACH_SITE] if self.sampling_rate is not None else [self.names[node] for node in asked]

    def planned(self, number: int) -> SiteUpdate:
        """Return what is done in a round."""
        heaviest = max(self.weights.values())
        rate = 1.0 if self.sampling_rate is None else self.sampling_rate
        return SiteUpdate(rate, self.noise_multiplier, self.clip, heaviest, self.expected(number) / heaviest)

    def release(
        self, number: int, asked: Iterable[int], center: Tensor, updates: Tensor, nodes: Sequence[int]
    ) -> Tensor:
        """Return the noisy mean change of a round, float32 (params,), and charge for it.

        Args:
            number: The round.
            asked: The nodes that were asked.
            center: The model they were sent, (params,).
            updates: What came back, (sites, params); there may be none. One that is not finite counts as no change.
            nodes: Who sent them.
        """
        did = self.planned(number)
        weights = torch.tensor([self.weights[node] / did.heaviest for node in nodes], dtype=torch.float64)
        total = clipped_sum(center, updates, weights, did.clip)
        noise = torch.empty(1, len(center), device=center.device)
        Normals([self.words(number)], center.device).fill(noise)
        for who in self.charged(asked):
            self.ledger.charge(who, number, did)
        return ((total + did.noise_multiplier * did.clip * noise[0]) / did.denominator).float()


def clipped_sum(center: Tensor, updates: Tensor, weights: Tensor, clip: float) -> Tensor:
    """Return ``sum_k weights[k] (updates[k] - center) min(1, clip / |updates[k] - center|)``, float64 (params,).

    Args:
        center: The model that was sent, (params,).
        updates: The models that came back, (sites, params). One with a NaN or an infinity in it counts as no change.
        weights: From 0 to 1, (sites,).
        clip: The largest norm, > 0.
    """
    total, origin = torch.zeros_like(center, dtype=torch.float64), center.double()
    rows = max(1, _AT_ONCE // max(1, len(center)))
    for some, shares in zip(updates.split(rows), weights.to(center.device).split(rows), strict=True):
        deltas = some.double() - origin  # (sites, params); in float64 the norm of 1e30 is finite
        deltas[~deltas.isfinite().all(1)] = 0.0
        factors = (clip / deltas.norm(dim=1)).clamp(max=1.0)  # no change at all: clip / 0 is infinite, and 1 is left
        total += (shares * factors) @ deltas
    return total
