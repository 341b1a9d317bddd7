"""What a local rule is: the client half of a strategy, pure functions of flat tensors.

A site asks its rule three times in a round: where to start, how to correct the gradient of each step, and what to send
and what to keep. Between rounds a site has nothing but what it kept, which is in Flower's ``Context.state``.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import Tensor

from fedsim.strategy.contract import State


@dataclass(frozen=True)
class Part:
    """One of a model's parameters: its name, the kind of its layer such as ``Linear``, and its place in the vector."""

    name: str
    layer: str
    start: int
    stop: int


Parts = tuple[Part, ...]


class LocalRule(Protocol):
    """A frozen dataclass. Under record-level privacy all it sees is noisy: it can't spoil the guarantee."""

    def begin(self, center: Tensor, kept: State, parts: Parts) -> tuple[Tensor, State]:
        """Return where the site's steps start, (params,), and what the other two methods need, each (params,).

        Args:
            center: The global model that came, (params,).
            kept: What ``finish`` kept in the site's last round, and what the server tells (the strategy's ``tells``);
                empty in the first round. A second rule with ``follows`` gets what the first training of the round went
                through, too: ``path-0``, where it started, ``path-1``, where its first step led, and so on.
            parts: The model's parameters.
        """
        ...

    def correct(self, gradient: Tensor, parameters: Tensor, memory: State, step: int) -> Tensor:
        """Return the gradient to step with: after clipping, noise and division, before the optimizer.

        Works element by element: all tensors have one shape, which may be a part of one site's or of many sites'.

        Args:
            gradient: What the rows say.
            parameters: Where the site is.
            memory: What ``begin`` returned.
            step: The number of the step, from 0 on.
        """
        ...

    def finish(self, parameters: Tensor, memory: State, steps: int) -> tuple[Tensor, State]:
        """Return what to send to the server and what to keep, from where ``steps`` steps led, (params,)."""
        ...


@runtime_checkable
class Personal(Protocol):
    """A local rule that leaves a site with a model of its own."""

    def personal(self, center: Tensor, kept: State) -> Tensor:
        """Return the model the site uses, (params,), from the newest global one, what it kept and what it is told."""
        ...


@runtime_checkable
class Comparing(Protocol):
    """A local rule whose loss of a row has a term about what the model makes of the row inside.

    That is the row's representation: the input of the model's last layer with parameters, (features,). The term
    depends on the row and on the models alone, so that clipping the row's gradient covers it.
    """

    def compared(self, memory: State) -> Sequence[Tensor]:
        """Return the models, (params,) each, whose representations of a row its own is compared with; at least one."""
        ...

    def term(self, own: Tensor, others: Sequence[Tensor]) -> Tensor:
        """Return what is added to each row's loss, (rows,), from representations, (rows, features) each.

        Args:
            own: By the model in training.
            others: By the models that ``compared`` returned, in this order; they don't change in a round.
        """
        ...


CHOSEN = "chosen"


@runtime_checkable
class Choosing(Protocol):
    """A local rule that starts from one of several models: that with the least loss on the site's training rows.

    ``begin`` finds the number of the chosen one in ``kept[CHOSEN]``, (1,), and so does ``personal``. The choice is
    made of rows without noise, so the strategy has to report it (``cluster``), and is refused under privacy.
    """

    def candidates(self, kept: State) -> Sequence[Tensor]:
        """Return the models, (params,) each, from what the server tells.

        Raises:
            ValueError: It has not told them.
        """
        ...


@dataclass(frozen=True)
class Plain:
    """Steps as the rows say, and the model is sent: the client half of federated averaging."""

    def begin(self, center: Tensor, kept: State, parts: Parts) -> tuple[Tensor, State]:
        """Start from the global model."""
        return center, {}

    def correct(self, gradient: Tensor, parameters: Tensor, memory: State, step: int) -> Tensor:
        """Leave the gradient as it is."""
        return gradient

    def finish(self, parameters: Tensor, memory: State, steps: int) -> tuple[Tensor, State]:
        """Send all, keep nothing."""
        return parameters, {}
