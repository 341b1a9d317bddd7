"""Differential privacy of whole sites: the server clips each site's update and adds noise to their sum.

McMahan, Ramage, Talwar, Zhang, "Learning Differentially Private Recurrent Language Models", ICLR
2018, https://arxiv.org/abs/1710.06963, Algorithm 1 (DP-FedAvg with the estimator of a fixed
denominator).

Guarantee: the sequence of noisy means is differentially private for one site, added or removed (its
updates count as nothing) or replaced, on these conditions:

- The list of sites, their weights and the denominator are public; they don't depend on who answered.
- One site moves the sum by at most ``clip``, since no weight counts for more than 1.
- Where ``sampling_rate`` is claimed to be below 1, each site joined each round on its own with no more
  than this probability, and nobody whom the promise is against knows which sites joined.
- Where noise is correlated over rounds, no site is asked twice within ``band`` rounds.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from fedsim.of_sites import largest
from fedsim.privacy.adaptive_clip import AdaptiveClip, noise_on_the_sum
from fedsim.privacy.correlated import Correlated, column_norm
from fedsim.privacy.ledger import EACH_SITE, Ledger, Party, SiteUpdate
from fedsim.randomness import Normals, Random, Words, kind_of

_AT_ONCE = 2**22  # numbers of the updates that are clipped together, in float64


@dataclass(frozen=True)
class PublicSites:
    """The public facts about the sites.

    Attributes:
        names: {node: name}.
        weights: {node: public weight > 0}.
        sampling_rate: The probability with which each site joins a round on its own; None where it
            is chosen otherwise: then the sites that are asked are charged, each for itself, and
            nothing is claimed from the choice.
        expected: From the number of a round to the number of sites that are expected to join it, and
            to their weight together.
    """

    names: Mapping[int, str]
    weights: Mapping[int, float]
    sampling_rate: float | None
    expected: Callable[[int], tuple[float, float]]

    @cached_property
    def heaviest(self) -> float:
        """The largest weight."""
        return largest(self.weights)


@dataclass(frozen=True)
class CentralNoise:
    """Releases the noisy mean of a round's updates and writes it into the ledger in the same breath.

    Attributes:
        ledger: The ledger where every release is written down.
        noise_multiplier: The price of a round: it costs as much as noise of this deviation, over the
            clip, on the sum alone.
        clip: The largest norm of one site's update in the sum.
        sites: The public facts about the sites.
        words: From the number of a round to the random words of its noise; no two rounds share any.
        joining: From the number of a round to the random words by which sites joined it, if they
            joined on their own.
        adaptive: The rule that moves the clip, which then is the first; None keeps it.
        band: The number of rounds whose noise is correlated; 1 is independent noise.
    """

    ledger: Ledger
    noise_multiplier: float
    clip: float
    sites: PublicSites
    words: Callable[[int], Words]
    joining: Callable[[int], Words]
    adaptive: AdaptiveClip | None = None
    band: int = 1
    _correlated: Correlated = field(init=False, repr=False)
    _last: dict[int, int] = field(init=False, repr=False, default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_correlated", Correlated(self.band))

    def charged(self, asked: Iterable[int]) -> list[Party]:
        """Return the parties whom a round costs privacy that asks these nodes."""
        if self.sites.sampling_rate is not None:
            return [EACH_SITE]
        return [self.sites.names[node] for node in asked]

    def planned(self, number: int) -> SiteUpdate:
        """Describe the release of a round, but for the kind of its random numbers: none is drawn yet."""
        sampling_rate = self.sites.sampling_rate
        if sampling_rate is None:
            sampling_rate = 1.0
        heaviest = self.sites.heaviest
        _, expected_weight = self.sites.expected(number)

        # The bits by which the clip moves have a part of the budget, so the sum gets more noise.
        noise_multiplier = self.noise_multiplier
        clip = self.clip
        bit_noise = None
        if self.adaptive:
            clip = self.adaptive.clip
            bit_noise = self.adaptive.bit_noise
            noise_multiplier = noise_on_the_sum(self.noise_multiplier, bit_noise)

        return SiteUpdate(
            sampling_rate=sampling_rate,
            noise_multiplier=noise_multiplier,
            clip=clip,
            heaviest=heaviest,
            denominator=expected_weight / heaviest,
            bit_noise=bit_noise,
            band=self.band,
        )

    def release(
        self,
        number: int,
        asked: Sequence[int],
        center: Tensor,
        updates: Tensor,
        nodes: Sequence[int],
    ) -> Tensor:
        """Release the noisy mean change of a round, float32 (params,), and charge for it.

        Args:
            number: The round.
            asked: The nodes that were asked.
            center: The model they were sent, (params,).
            updates: The models that came back, (sites, params); there may be none. One that is not
                finite counts as no change.
            nodes: The nodes that sent them.

        Raises:
            ValueError: Noise is correlated, and a node was asked less than ``band`` rounds ago.
        """
        self._keep_apart(number, asked)
        words = self.words(number)
        did = replace(self.planned(number), rng=self._kind(number, words))

        # No weight in the sum is above 1, so that one site moves it by at most the clip.
        shares = [self.sites.weights[node] / did.heaviest for node in nodes]
        weights = torch.tensor(shares, dtype=torch.float64)
        total, within = clipped_sum(center, updates, weights, did.clip)

        drawn = torch.empty(1, len(center) + 1, device=center.device)  # the last number is for the bits
        Normals([words], center.device).fill(drawn)

        # A round costs the same whoever answered: those that were asked are charged.
        for party in self.charged(asked):
            self.ledger.charge(party, number, did)

        # A bit says whether a norm is within the clip, as plus or minus one half: their noisy sum.
        if self.adaptive:
            bits = within - len(nodes) / 2 + self.adaptive.bit_noise * float(drawn[0, -1])
            expected_sites, _ = self.sites.expected(number)
            self.adaptive.learn(bits, expected_sites)

        noise = self._correlated.next(column_norm(self.band) * drawn[0, :-1].double())
        return ((total + did.noise_multiplier * did.clip * noise) / did.denominator).float()

    def charge_unseen(self, number: int, asked: Iterable[int]) -> None:
        """Charge for a round that was begun and not finished: its noisy mean may have been seen."""
        did = replace(self.planned(number), rng=self._kind(number, self.words(number)))
        for party in self.charged(asked):
            self.ledger.charge(party, number, did)

    def snapshot(self) -> dict[str, Any]:
        """Return what later rounds depend on: the clip, the noise of rounds before, and who was asked when."""
        return {
            "clip": self.adaptive.clip if self.adaptive else None,
            "correlated": self._correlated.snapshot(),
            "last": dict(self._last),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what ``snapshot`` returned."""
        if self.adaptive:
            self.adaptive.clip = state["clip"]
        self._correlated.restore(state["correlated"])
        self._last.clear()
        self._last.update(state["last"])

    def _kind(self, number: int, noise: Words) -> Random:
        """Return the kind of randomness that a round's promise rests on.

        That is its noise and, where sampling counts, who joined.
        """
        rate = self.sites.sampling_rate
        if rate is not None and rate < 1:
            return kind_of(noise, self.joining(number))
        return kind_of(noise)

    def _keep_apart(self, number: int, asked: Sequence[int]) -> None:
        """Make sure that no node was asked less than ``band`` rounds ago, and remember this round.

        Raises:
            ValueError: A node was.
        """
        if self.band <= 1:
            return
        for node in asked:
            last = self._last.get(node)
            if last is not None and number - last < self.band:
                raise ValueError(
                    f"expected {self.sites.names[node]} at most once in {self.band} rounds, "
                    f"got it in rounds {last} and {number}"
                )
            self._last[node] = number


def clipped_sum(
    center: Tensor,
    updates: Tensor,
    weights: Tensor,
    clip: float,
) -> tuple[Tensor, int]:
    """Compute the sum of clipped changes, and the number of norms that are within the clip.

    The sum is ``sum_k weights[k] delta_k min(1, clip / |delta_k|)``, float64 (params,).

    Args:
        center: The model that was sent, (params,).
        updates: The models that came back, (sites, params); ``delta_k`` is ``updates[k] - center``.
            One with a NaN or an infinity in it counts as no change.
        weights: From 0 to 1, (sites,).
        clip: The largest norm, > 0.
    """
    origin = center.double()
    total = torch.zeros_like(center, dtype=torch.float64)
    within = 0

    # Some sites at a time: all of them in float64 may not fit into memory.
    at_once = max(1, _AT_ONCE // max(1, len(center)))
    models_at_once = updates.split(at_once)
    weights_at_once = weights.to(center.device).split(at_once)
    for models, shares in zip(models_at_once, weights_at_once, strict=True):
        deltas = models.double() - origin  # (sites, params); in float64 the norm of 1e30 is finite
        deltas[~deltas.isfinite().all(1)] = 0.0
        norms = deltas.norm(dim=1)
        factors = (clip / norms).clamp(max=1.0)  # no change: clip / 0 is infinite, and 1 is left
        total += (shares * factors) @ deltas
        within += int((norms <= clip).sum())
    return total, within
