"""What a local rule is: the client half of a strategy, pure functions of flat tensors.

A site asks its rule three times in a round: where to start, how to correct the gradient of each step, and what to send
and what to keep. Between rounds a site has nothing but what it kept, which is in Flower's ``Context.state``.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from fedsim.mistakes import Mistake
from fedsim.strategy.hooks import check_spelling, defines, public_names

State = dict[str, Tensor]
"""Tensors by name that are kept from one round to the next."""

CHOSEN = "chosen"
"""The name under which a ``Choosing`` rule finds the number of the model that was chosen."""


@dataclass(frozen=True)
class Part:
    """One of a model's parameters: its name, the kind of its layer such as ``Linear``, and its place in the vector."""

    name: str
    layer: str
    start: int
    stop: int


Parts = tuple[Part, ...]


class LocalRule:
    """The base class of local rules: a frozen dataclass that changes what it needs to.

    As it stands it is the client half of federated averaging. Under record-level privacy all that a rule sees is noisy,
    so it can't spoil the guarantee. A rule with more to say derives from ``Personal``, ``Comparing`` or ``Choosing``.

    Attributes:
        follows: Of a second rule: ``begin`` is told the path of the round's first training.
    """

    follows: ClassVar[bool] = False

    def __init_subclass__(cls, **more: Any) -> None:  # noqa: ANN401
        super().__init_subclass__(**more)
        if cls.__module__ != __name__:
            _check(cls)

    def begin(self, center: Tensor, kept: State, parts: Parts) -> tuple[Tensor, State]:
        """Return where the site's steps start, (params,), and what the other two methods need, each (params,).

        By default the steps start from the global model.

        Args:
            center: The global model that came, (params,).
            kept: What ``finish`` kept in the site's last round, and what the server tells (the strategy's ``tells``);
                empty in the first round. A second rule with ``follows`` gets what the first training of the round went
                through, too: ``path-0``, where it started, ``path-1``, where its first step led, and so on.
            parts: The model's parameters.
        """
        return center, {}

    def correct(self, gradient: Tensor, parameters: Tensor, memory: State, step: int) -> Tensor:
        """Return the gradient to step with: after clipping, noise and division, before the optimizer.

        Works element by element: all tensors have one shape, which may be a part of one site's or of many sites'. By
        default the gradient stays as it is.

        Args:
            gradient: The gradient of the rows' losses.
            parameters: Where the site is.
            memory: What ``begin`` returned.
            step: The number of the step, from 0 on.
        """
        return gradient

    def finish(self, parameters: Tensor, memory: State, steps: int) -> tuple[Tensor, State]:
        """Return what to send to the server and what to keep, from where ``steps`` steps led, (params,).

        By default the model is sent, and nothing is kept.
        """
        return parameters, {}


class Personal(LocalRule, ABC):
    """A local rule that leaves a site with a model of its own."""

    @abstractmethod
    def personal(self, center: Tensor, kept: State) -> Tensor:
        """Return the model the site uses, (params,), from the newest global one, what it kept and what it is told."""


class Comparing(LocalRule, ABC):
    """A local rule whose loss of a row has a term about the row's representation.

    The representation is the input of the model's last layer with parameters, (features,). The term depends on the row
    and on the models alone, so that clipping the row's gradient covers it.
    """

    @abstractmethod
    def compared(self, memory: State) -> Sequence[Tensor]:
        """Return the models, (params,) each, whose representations of a row its own is compared with; at least one."""

    @abstractmethod
    def term(self, own: Tensor, others: Sequence[Tensor]) -> Tensor:
        """Return what is added to each row's loss, (rows,), from representations, (rows, features) each.

        Args:
            own: By the model in training.
            others: By the models that ``compared`` returned, in this order; they don't change in a round.
        """


class Choosing(LocalRule, ABC):
    """A local rule that starts from one of several models: that with the least loss on the site's training rows.

    ``begin`` finds the number of the chosen one in ``kept[CHOSEN]``, (1,), and so does ``personal``. The choice is
    made of rows without noise, so the strategy has to report it (``cluster``), and is refused under privacy.
    """

    @abstractmethod
    def candidates(self, kept: State) -> Sequence[Tensor]:
        """Return the models, (params,) each, from what the server tells.

        Raises:
            ValueError: It has not told them.
        """


@dataclass(frozen=True)
class Plain(LocalRule):
    """Steps along the gradient, and the model is sent: the client half of federated averaging."""


KINDS = (Personal, Comparing, Choosing)
"""Rules that can do more than start, correct and finish."""

_OURS = (LocalRule, *KINDS, ABC)
RULE_HOOKS = [name for base in (LocalRule, *KINDS) for name in public_names(base)]


def kinds_of(kind: type) -> Sequence[type[LocalRule]]:
    """Return which base classes a rule needs for the methods it defines; ``LocalRule`` where it has no others."""
    needed = [base for base in KINDS if any(defines(kind, hook) for hook in public_names(base))]
    return needed or [LocalRule]


def _check(kind: type[LocalRule]) -> None:
    """Refuse a rule with a misspelt hook, or with a hook of a kind that it does not derive from."""
    check_spelling(kind, RULE_HOOKS, _OURS)
    for base in kinds_of(kind):
        if not issubclass(kind, base):
            hook = public_names(base)[0]
            raise Mistake(f"{kind.__name__}.{hook}: expected a subclass of {base.__name__} beside this method; "
                          f"write class {kind.__name__}({base.__name__})")  # fmt: skip
