"""What an aggregation strategy is: pure math on flat tensors."""

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, ClassVar

import torch
from torch import Tensor

from fedsim.mistakes import Mistake
from fedsim.strategy.hooks import check_spelling, public_names
from fedsim.strategy.local_rule import LocalRule, Plain, State

FACTS = ("local_steps", "lr", "weight_decay", "participation")
"""Fields that are filled in: a site's steps in a round, learning rate and weight decay, and the share of sites asked.

The last is set anew in each round, to the share of all sites' weight that the round's sites have together."""

REPORTS = ("loss", "cluster", "steps", "staleness")
"""What a strategy can be told of each update. By the site: the mean loss on its training rows of the model it was sent,
which of several models had the least, how many steps it took. By the server: how many rounds ago the model that was
sent was the newest, which is 0 unless the strategy is ``Buffered``."""

WITHOUT_NOISE = {"loss": "losses", "cluster": "a choice by losses"}
"""Of these what is computed from rows without noise, and so never sent under privacy; in words."""


class Strategy(ABC):
    """The base class of strategies: a frozen dataclass whose fields are the paper's hyperparameters.

    Fields are checked at construction (see ``check``). A field named like a public fact of the scenario (``FACTS``)
    takes its value from there unless it is given. All hooks but ``aggregate`` have a default.

    Attributes:
        reports: What the strategy wants to know of each site beside its model, of ``REPORTS``. ``aggregate`` takes it
            as a fifth argument, ``{name: (sites,)}``.
        tells: Which tensors of its state the server sends to the sites beside the model; a local rule finds them in
            ``kept``.
        mean_only: The strategy would do the same with the weighted mean of the updates as its only update. So it also
            runs where the server may use nothing else: under client-level privacy and secure aggregation.
        plain_sgd: The strategy computes with the sites' steps as those of SGD without momentum; other optimizers are
            refused.
    """

    reports: ClassVar[tuple[str, ...]] = ()
    tells: ClassVar[tuple[str, ...]] = ()
    mean_only: ClassVar[bool] = False
    plain_sgd: ClassVar[bool] = False

    def __init_subclass__(cls, **more: Any) -> None:  # noqa: ANN401
        super().__init_subclass__(**more)
        if cls.__module__ != __name__:
            check_spelling(cls, HOOKS, (Strategy, Buffered, ABC))
            _check_reports(cls)

    @abstractmethod
    def aggregate(
        self,
        center: Tensor,
        updates: Tensor,
        weights: Tensor,
        state: State,
        *args: Any,  # noqa: ANN401  a strategy with reports takes them here
        **kwargs: Any,  # noqa: ANN401
    ) -> tuple[Tensor, State]:
        """Return the new global vector and the new state.

        Args:
            center: The global model that was sent out, (params,).
            updates: The models that came back, (sites, params), sorted by site number. Not to be changed in place.
            weights: Each site's share, (sites,), > 0. They sum to 1 when every asked site answered; under privacy the
                denominator is public, so they sum to less when one did not.
            state: What the strategy returned last round; in the first what ``first_state`` gave, or nothing.
            *args: A strategy with ``reports`` has a fifth parameter, ``reports: Mapping[str, Tensor]``.
            **kwargs: Nothing.

        Raises:
            ValueError: These updates can't be aggregated, such as too few for a bound; the message has the numbers.
        """

    def first_state(self, draw: Callable[[int], Sequence[Tensor]]) -> State:
        """Return the state before the first round, for a strategy that starts from several models; by default none.

        Args:
            draw: From a number to as many models with random weights, (params,) each.
        """
        return {}

    def local_rule(self) -> LocalRule:
        """Return the client half of the strategy, a local rule; by default that of federated averaging."""
        return Plain()

    def second_rule(self) -> LocalRule | None:
        """Return the rule of a second training of each site in each round, paid for like the first; by default none."""
        return None


class Buffered(Strategy):
    """A strategy whose sites are not in step: a round is over when ``k`` answers have come.

    Attributes:
        k: How many answers make a round, >= 1.
        concurrency: How many sites are at work at once; 0 for all there are.
    """

    k: int
    concurrency: int

    def __init_subclass__(cls, **more: Any) -> None:  # noqa: ANN401
        super().__init_subclass__(**more)
        given = [name for part in cls.__mro__ if part is not Buffered for name in public_names(part)]
        missing = [name for name in public_names(Buffered) if name not in given]
        if missing:
            raise Mistake(
                f"{cls.__name__}: expected fields k and concurrency in a Buffered strategy, got no {missing[0]}"
            )


HOOKS = public_names(Strategy)
"""The names of all that a strategy may define."""


def _check_reports(kind: type[Strategy]) -> None:
    for name in kind.reports:
        if name not in REPORTS:
            raise Mistake(f"{kind.__name__}.reports: expected some of {', '.join(REPORTS)}, got {name!r}")


def aggregate(
    strategy: Strategy,
    center: Tensor,
    updates: Tensor,
    weights: Tensor,
    state: State,
    reports: Mapping[str, Tensor],
) -> tuple[Tensor, State]:
    """Aggregate with a strategy, which is handed the reports if it asks for any."""
    if strategy.reports:
        return strategy.aggregate(center, updates, weights, state, reports)
    return strategy.aggregate(center, updates, weights, state)


def needs_mean_only(strategy: Strategy) -> bool:
    """Whether a strategy says that the weighted mean of the updates, as one update, is all it needs."""
    return strategy.mean_only is True and not strategy.reports


def mean_delta(center: Tensor, updates: Tensor, weights: Tensor) -> Tensor:
    """Return ``sum_k weights[k] (updates[k] - center)``, (params,): what federated averaging adds to the model."""
    return weights @ updates - weights.sum() * center  # without a second matrix of all updates


def zeros(state: State, name: str, like: Tensor) -> Tensor:
    """Return what the state holds under a name, zeros in the first round."""
    if name in state:
        return state[name]
    return torch.zeros_like(like)


def check(checked: object, **ranges: str) -> None:
    """Make sure that hyperparameters are in their ranges, e.g. ``check(self, beta="[0, 1)", f="whole [0, inf)")``.

    Raises:
        ValueError: One is not; the message has its name, its range and what came.
    """
    for name, text in ranges.items():
        value = attrgetter(name)(checked)
        if not Range.read(text).holds(value):
            kind = "whole number" if text.startswith("whole ") else "number"
            raise ValueError(f"{name}: expected a {kind} in {text.removeprefix('whole ')}, got {value!r}")


@dataclass(frozen=True)
class Range:
    """An interval of numbers, such as ``[0, 1)`` or ``whole [1, inf)``."""

    whole: bool
    low: float
    low_belongs: bool
    high: float
    high_belongs: bool

    @classmethod
    def read(cls, text: str) -> "Range":
        """Return the range that a text stands for."""
        read = re.fullmatch(r"(whole )?([\[(])([^,]+), ([^\])]+)([\])])", text)
        if read is None:
            raise TypeError(f"expected a range such as '[0, 1)' or 'whole [1, inf)', got {text!r}")
        whole, opening, low, high, closing = read.groups()
        return cls(whole is not None, float(low), opening == "[", float(high), closing == "]")

    def holds(self, value: object) -> bool:
        """Whether a value is a number of the range; True and False are none."""
        kinds = int if self.whole else int | float
        if isinstance(value, bool) or not isinstance(value, kinds):
            return False
        above = value > self.low or (self.low_belongs and value == self.low)
        below = value < self.high or (self.high_belongs and value == self.high)
        return above and below
