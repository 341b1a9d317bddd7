"""IFCA: several models, each trained by the sites whose rows it fits best.

Ghosh, Chung, Yin, Ramchandran, "An Efficient Framework for Clustered Federated Learning", NeurIPS 2020,
https://arxiv.org/abs/2006.04088, Algorithm 1 with model averaging. Here a site's mean is weighted by its public weight.

A site's choice is made of its rows without noise, so under privacy it is refused. Like any clustering it depends on the
start: where one of the models is the best for all, the others stay as they were drawn.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from fedsim.strategy import CHOSEN, Choosing, Parts, Personal, State, Strategy, check


@dataclass(frozen=True)
class IFCA(Strategy):
    """``k`` >= 1: how many models there are. The global model is the one that most of the weight chose."""

    reports: ClassVar = ("cluster",)
    k: int = 2

    def __post_init__(self) -> None:
        check(self, k="whole [1, 1000]")

    @property
    def tells(self) -> tuple[str, ...]:  # type: ignore[override]  there are as many as k says
        """Return the names of the models, which are sent to all sites."""
        return _names(self.k)

    def first_state(self, draw: Callable[[int], Sequence[Tensor]]) -> State:
        """Start from k random models."""
        return dict(zip(self.tells, draw(self.k), strict=True))

    def local_rule(self) -> "BestOfSeveral":
        """Return what the sites do."""
        return BestOfSeveral(self.k)

    def aggregate(
        self, center: Tensor, updates: Tensor, weights: Tensor, state: State, reports: Mapping[str, Tensor]
    ) -> tuple[Tensor, State]:
        """Return the model of the heaviest cluster; every cluster's is the mean of those who chose it, if any did.

        Raises:
            ValueError: An update is not finite: it would spoil a model that others choose.
        """
        finite = updates.isfinite().all(1)  # (sites,)
        if not finite.all():
            raise ValueError(f"IFCA: expected finite updates, got {int((~finite).sum())} that are not")

        models = {}
        share = torch.zeros(self.k)  # of the weight, by model
        for number, name in enumerate(self.tells):
            members = weights * (reports["cluster"] == number)  # (sites,)
            share[number] = members.sum()
            if members.any():
                models[name] = members @ updates / members.sum()
            else:
                models[name] = state.get(name, center)

        if not share.any():
            return center, models
        heaviest = self.tells[int(share.argmax())]
        return models[heaviest], models


@dataclass(frozen=True)
class BestOfSeveral(Choosing, Personal):
    """Trains the model that fits the site's rows best; which one that is, is remembered where it is chosen."""

    k: int

    def candidates(self, kept: State) -> Sequence[Tensor]:
        """Return the k models that the server told.

        Raises:
            ValueError: It told fewer.
        """
        told = [kept[name] for name in _names(self.k) if name in kept]
        if len(told) < self.k:
            raise ValueError(f"IFCA: expected {self.k} models from the server, got {len(told)}")
        return told

    def begin(self, center: Tensor, kept: State, parts: Parts) -> tuple[Tensor, State]:
        """Start from the chosen model."""
        return self.personal(center, kept), {}

    def personal(self, center: Tensor, kept: State) -> Tensor:
        """Return the newest model of the site's cluster, the global one if it has not chosen yet."""
        if CHOSEN not in kept:
            return center
        return self.candidates(kept)[int(kept[CHOSEN])]


def _names(k: int) -> tuple[str, ...]:
    return tuple(f"model-{number}" for number in range(k))
