"""Strategies of Flower's, or in Flower's interface: they aggregate messages in place of vectors."""

from dataclasses import dataclass
from typing import Any, ClassVar

from flwr.server.strategy import Strategy as OlderStrategy
from flwr.serverapp.strategy import QFedAvg
from flwr.serverapp.strategy import Strategy as FlowerStrategy
from torch import Tensor

from fedsim.mistakes import Mistake
from fedsim.strategy.contract import Strategy
from fedsim.strategy.local_rule import State


@dataclass(frozen=True)
class Foreign(Strategy):
    """A Flower Strategy among ours: its sites do what those of federated averaging do.

    ``fedsim.flower.foreign_strategy.Hosted`` runs it.
    """

    inner: Any

    def aggregate(
        self, center: Tensor, updates: Tensor, weights: Tensor, state: State, *args: object, **kwargs: object
    ) -> tuple[Tensor, State]:
        """Refuse: only messages can be aggregated."""
        raise TypeError(f"{type(self.inner).__name__} aggregates Flower's messages, not vectors")


@dataclass(frozen=True)
class ForeignByLosses(Foreign):
    """Flower's q-FedAvg, which reads a loss from each site's reply."""

    reports: ClassVar = ("loss",)


def is_flowers(kind: type) -> bool:
    """Whether a class is one of Flower's, or derives from one."""
    return any(part.__module__.partition(".")[0] == "flwr" for part in kind.__mro__)


def check_is_strategy(kind: type, name: str) -> None:
    """Make sure that a class of Flower's is a strategy.

    Raises:
        Mistake: It is something else.
    """
    if not issubclass(kind, FlowerStrategy | OlderStrategy):
        raise Mistake(f"strategy.name: expected a strategy, got {name}, which is none")


def foreign(inner: object) -> Foreign:
    """Wrap an instance of one of Flower's classes."""
    if isinstance(inner, QFedAvg):
        return ForeignByLosses(inner)
    return Foreign(inner)
