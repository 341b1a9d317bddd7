"""Strategies of Flower's, or in Flower's interface: they aggregate messages in place of vectors."""

from dataclasses import dataclass
from typing import Any, ClassVar

from flwr.server.strategy import FedProx as OlderFedProx
from flwr.server.strategy import Strategy as OlderStrategy
from flwr.serverapp.strategy import FedProx, QFedAvg
from flwr.serverapp.strategy import Strategy as FlowerStrategy
from torch import Tensor

from fedsim.mistakes import Mistake
from fedsim.scenario import catalog
from fedsim.strategy.contract import Strategy
from fedsim.strategy.local_rule import LocalRule, State


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
class ForeignProximal(Foreign):
    """Flower's FedProx, which leaves the proximal term to the sites: they do what those of ours do."""

    def local_rule(self) -> LocalRule:
        """Return the rule of fedsim's FedProx with Flower's ``proximal_mu``."""
        return catalog.load("strategies", "fedprox")(mu=float(self.inner.proximal_mu)).local_rule()


@dataclass(frozen=True)
class ForeignByLosses(Foreign):
    """Flower's q-FedAvg, which reads a loss from each site's reply."""

    reports: ClassVar = ("loss",)


def is_flowers(kind: type) -> bool:
    """Whether a class is one of Flower's, or derives from one."""
    return any(part.__module__.partition(".")[0] == "flwr" for part in kind.__mro__)


def check_is_strategy(kind: type, name: str) -> None:
    """Make sure that a class of Flower's is a strategy, and one that does here what it says.

    Raises:
        Mistake: It is something else, or does not.
    """
    if not issubclass(kind, FlowerStrategy | OlderStrategy):
        raise Mistake(f"strategy.name: expected a strategy, got {name}, which is none")
    for part in kind.__mro__:
        if part.__module__.startswith("flwr.") and part.__name__ in _UNFIT:
            raise Mistake(f"strategy.name: expected another strategy than {name}: {_UNFIT[part.__name__]}")


_OWN_PRIVACY = "the privacy unit client does that, with a ledger: privacy.unit=client"
_UNFIT = {
    **dict.fromkeys(
        ("DifferentialPrivacyClientSideFixedClipping", "DifferentialPrivacyClientSideAdaptiveClipping"),
        f"it adds noise for a clip that the sites would have to keep to, and they don't read it; {_OWN_PRIVACY}",
    ),
    **dict.fromkeys(
        (
            *("DifferentialPrivacyServerSideFixedClipping", "DifferentialPrivacyServerSideAdaptiveClipping"),
            *("DPFedAvgFixed", "DPFedAvgAdaptive"),
        ),
        f"its noise would be in no ledger, and the report would say that there is no privacy; {_OWN_PRIVACY}",
    ),
    **dict.fromkeys(
        ("FedXgbBagging", "FedXgbCyclic", "FedXgbNnAvg"),
        "it aggregates trees of XGBoost, and sites send the parameters of a model",
    ),
    "FedAvgAndroid": "it aggregates the bytes of phones, and sites send the parameters of a model",
}
"""{class of Flower's: why it can't do here what it says}; what derives from it can't, either."""


def foreign(inner: object) -> Foreign:
    """Wrap an instance of one of Flower's classes.

    Raises:
        Mistake: It holds another strategy of Flower's that can't do here what it says.
    """
    for held in vars(inner).values():
        if isinstance(held, FlowerStrategy | OlderStrategy):
            check_is_strategy(type(held), type(held).__name__)
    if isinstance(inner, QFedAvg):
        return ForeignByLosses(inner)
    return ForeignProximal(inner) if isinstance(inner, FedProx | OlderFedProx) else Foreign(inner)
