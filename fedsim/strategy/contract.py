"""What an aggregation strategy is: pure math on flat tensors."""

import math
import re
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

State = dict[str, Tensor]


class Strategy(Protocol):
    """A frozen dataclass whose fields are the paper's hyperparameters, checked at construction.

    A field named like a public fact of the scenario (``FACTS``) takes its value from there unless it is given. A
    strategy that needs numbers of the sites beside their models names them in ``reports`` (see ``REPORTS``) and takes
    them as a fifth argument, ``{name: (sites,)}``. One that starts from several models has a method ``first_state``,
    which gets the function that draws them: from how many to a list of (params,). One that would do the same with the
    weighted mean of the updates as its only update says so by ``mean_only: ClassVar = True``: it also runs where the
    server may use nothing else.
    """

    def aggregate(self, center: Tensor, updates: Tensor, weights: Tensor, state: State) -> tuple[Tensor, State]:
        """Return the new global vector and the new state.

        Args:
            center: The global model that was sent out, (params,).
            updates: The models that came back, (sites, params), sorted by site number. Not to be changed in place.
            weights: Each site's share, (sites,), > 0. They sum to 1 when every asked site answered; under privacy the
                denominator is public, so they sum to less when one did not.
            state: What the strategy returned last round; in the first what ``first_state`` gave, or nothing.

        Raises:
            ValueError: These updates can't be aggregated, such as too few for a bound; the message has the numbers.
        """
        ...


@runtime_checkable
class Buffered(Protocol):
    """A strategy whose sites are not in step: a round is over when ``k`` answers have come.

    Attributes:
        k: How many answers make a round, >= 1.
        concurrency: How many sites are at work at once; 0 for all there are.
    """

    @property
    def k(self) -> int:
        """See above."""
        ...

    @property
    def concurrency(self) -> int:
        """See above."""
        ...


FACTS = ("local_steps", "lr", "weight_decay", "participation")
"""Fields that are filled in: a site's steps in a round, learning rate and weight decay, and the share of sites asked.

The last is set anew in each round, to the share of all sites' weight that the round's sites have together."""

REPORTS = ("loss", "cluster", "steps", "staleness")
"""What a strategy can be told of each update. By the site: the mean loss on its training rows of the model it was sent,
which of several models had the least, how many steps it took. By the server: how many rounds ago the model that was
sent was the newest, which is 0 unless the strategy is ``Buffered``."""

WITHOUT_NOISE = {"loss": "losses", "cluster": "a choice by losses"}
"""Of these what is computed from rows without noise, and so never sent under privacy; in words."""


def reports_of(strategy: Any) -> tuple[str, ...]:  # noqa: ANN401  a strategy or its class
    """Return what a strategy wants to know of each site beside its model."""
    return tuple(getattr(strategy, "reports", ()))


def needs_mean_only(strategy: Any) -> bool:  # noqa: ANN401  a strategy or its class
    """Whether a strategy says that the weighted mean of the updates, as one update, is all it needs."""
    return getattr(strategy, "mean_only", False) is True and not reports_of(strategy)


def mean_delta(center: Tensor, updates: Tensor, weights: Tensor) -> Tensor:
    """Return ``sum_k weights[k] (updates[k] - center)``, (params,): what federated averaging adds to the model."""
    return weights @ updates - weights.sum() * center  # without a second matrix of all updates


def zeros(state: State, name: str, like: Tensor) -> Tensor:
    """Return what the state holds under a name, zeros in the first round."""
    return state[name] if name in state else torch.zeros_like(like)


def check(strategy: object, **ranges: str) -> None:
    """Make sure that hyperparameters are in their ranges, e.g. ``check(self, beta="[0, 1)", f="whole [0, inf)")``.

    Raises:
        ValueError: One is not; the message has its name, its range and what came.
    """
    for name, text in ranges.items():
        value = getattr(strategy, name)
        whole, low_end, low, high, high_end = _parsed(text)
        kinds = int if whole else int | float
        inside = isinstance(value, kinds) and not isinstance(value, bool) and (
            (value > low or (low_end == "[" and value == low)) and (value < high or (high_end == "]" and value == high))
        )  # fmt: skip
        if not inside:
            raise ValueError(f"{name}: expected a {'whole ' if whole else ''}number in {text.removeprefix('whole ')}, "
                             f"got {value!r}")  # fmt: skip


def _parsed(text: str) -> tuple[bool, str, float, float, str]:
    found = re.fullmatch(r"(whole )?([\[(])([^,]+), ([^\])]+)([\])])", text)
    if found is None:
        raise TypeError(f"expected a range such as '[0, 1)' or 'whole [1, inf)', got {text!r}")
    return bool(found[1]), found[2], float(found[3]), float(found[4]) if found[4] != "inf" else math.inf, found[5]
