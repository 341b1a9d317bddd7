"""The server's round loop: drives a Flower Strategy's public methods over a Grid."""

import gc
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from flwr.app import ArrayRecord, ConfigRecord, Message
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from fedsim.mistakes import RunFailed
from fedsim.privacy.central import CentralNoise
from fedsim.privacy.ledger import Ledger, Party, Release
from fedsim.privacy.secure_aggregation import Refused
from fedsim.records import MECHANISM, to_mechanism
from fedsim.screening import Rejected, screen


@dataclass(frozen=True)
class Budget:
    """What the sites may spend, where each adds the noise itself.

    Attributes:
        ledger: Where every release is written down.
        epsilon: The most any site may spend.
        planned: {node: (site, what it does in one round)}.
        rounds: The most rounds that any site is to take part in.
    """

    ledger: Ledger
    epsilon: float
    planned: Mapping[int, tuple[Party, Release]]
    rounds: int

    def allows(self, nodes: Iterable[int]) -> bool:
        """Whether each of some nodes may take part in one more round."""
        return _allows(self.ledger, self.epsilon, self.rounds, (self.planned[node] for node in nodes))

    def charge(self, round_number: int, reply: Message) -> None:
        """Write down what a reply released: what the site says it did, or the plan if it doesn't say properly.

        That includes a site that failed: whether it does may depend on its rows.
        """
        site, planned = self.planned[reply.metadata.src_node_id]
        try:
            did = to_mechanism(reply.content[MECHANISM], type(planned))  # type: ignore[arg-type]  an error has none: ValueError
        except (KeyError, TypeError, ValueError):
            did = planned
        self.ledger.charge(site, round_number, did)


@runtime_checkable
class Screens(Protocol):
    """A strategy that screens replies itself and keeps those that it set aside in the round, also in other steps."""

    set_aside: list[Rejected]

    def screen(self, replies: Iterable[Message], asked: Iterable[int]) -> list[Message]:
        """Return the usable replies to train messages."""
        ...


@dataclass(frozen=True)
class CentralBudget:
    """What the sites may spend, where the server adds the noise: whoever draws it writes into the ledger.

    Attributes:
        noise: Who draws it.
        epsilon: The most any site may spend.
        rounds: The most rounds that any site is to take part in.
    """

    noise: CentralNoise
    epsilon: float
    rounds: int

    def allows(self, nodes: Iterable[int]) -> bool:
        """Whether one more round's model may leave, which these nodes are asked for; there may be none."""
        planned = ((who, self.noise.planned(1)) for who in self.noise.charged(nodes))
        return _allows(self.noise.ledger, self.epsilon, self.rounds, planned)

    def charge(self, round_number: int, reply: Message) -> None:
        """Write nothing down: only the server sees a reply."""


def _allows(ledger: Ledger, epsilon: float, rounds: int, planned: Iterable[tuple[Party, Release]]) -> bool:
    """Whether each of some sites may release one thing more.

    Asks first for all the rounds that are left: their epsilon is the same in every round, and costly to compute.
    """
    alike = {(ledger.spent(site), ledger.rounds(site), mechanism) for site, mechanism in planned}
    return all(
        any(ledger.epsilon_of(spent, mechanism, times) <= epsilon for times in (max(1, rounds - done), 1))
        for spent, done, mechanism in alike
    )


@dataclass(frozen=True)
class Finished:
    """What came out of the rounds.

    Attributes:
        arrays: The global model.
        rejected: {round: replies set aside}.
        refused: {round: why it was refused}; the model stayed as it was.
        rounds: How many rounds were run.
    """

    arrays: ArrayRecord
    rejected: Mapping[int, list[Rejected]]
    refused: Mapping[int, str]
    rounds: int


def run_rounds(
    strategy: Strategy,
    grid: Grid,
    initial: ArrayRecord,
    rounds: int,
    budget: Budget | CentralBudget | None,
    observe: Callable[[int, ArrayRecord], None],
    patient: bool = False,
) -> Finished:
    """Run rounds until they are over or the next one would exceed the budget; then nothing is sent any more.

    Args:
        strategy: Any Flower Strategy.
        grid: Where the sites are.
        initial: The model to start from.
        rounds: The most rounds to run.
        budget: What may be spent, under privacy.
        observe: Called after each round with its number and the new global model.
        patient: Whether a round without a usable model leaves the model as it is, unless all rounds do: a few sites
            that are not in step may well all fail.

    Raises:
        RunFailed: Not one usable model came back in a round, or every round was refused; the message has the reasons.
    """
    with _old_objects_left_alone():
        return _run_rounds(strategy, grid, initial, rounds, budget, observe, patient)


@contextmanager
def _old_objects_left_alone() -> Iterator[None]:
    """Keep the garbage collector to new objects: each round makes thousands, and it would search all of torch too."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _run_rounds(
    strategy: Strategy,
    grid: Grid,
    initial: ArrayRecord,
    rounds: int,
    budget: Budget | CentralBudget | None,
    observe: Callable[[int, ArrayRecord], None],
    patient: bool,
) -> Finished:
    arrays, done, answered = initial, 0, False
    rejected: dict[int, list[Rejected]] = {}
    refused: dict[int, str] = {}
    for number in range(1, rounds + 1):
        try:
            may_fail = patient and (answered or number < rounds)
            new, rejected[number] = _round(strategy, grid, number, arrays, budget, may_fail)
            if new is None:
                break
            answered, arrays = answered or new is not arrays, new
        except Refused as error:
            refused[number] = str(error)
            rejected[number] = strategy.set_aside if isinstance(strategy, Screens) else []
        evaluations = grid.send_and_receive(strategy.configure_evaluate(number, arrays, ConfigRecord(), grid))
        strategy.aggregate_evaluate(number, evaluations)
        observe(number, arrays)
        done = number
    if refused and len(refused) == done:
        last = max(refused)
        raise RunFailed(f"every round was refused; round {last}: {refused[last]}\n{_reasons(rejected[last])}")
    return Finished(arrays, rejected, refused, done)


def _round(
    strategy: Strategy,
    grid: Grid,
    number: int,
    arrays: ArrayRecord,
    budget: Budget | CentralBudget | None,
    may_fail: bool,
) -> tuple[ArrayRecord | None, list[Rejected]]:
    """Return the new model, or None if the budget does not allow a round, and the replies set aside.

    Raises:
        RunFailed: Not one usable model came back, and the round may not fail.
        Refused: The strategy does not go on with this round.
    """
    messages = list(strategy.configure_train(number, arrays, ConfigRecord(), grid))
    asked = [message.metadata.dst_node_id for message in messages]
    if budget and not budget.allows(asked):
        return None, []
    replies = list(grid.send_and_receive(messages))
    if budget:
        for reply in replies:
            budget.charge(number, reply)
    if isinstance(strategy, Screens):
        usable, rejected = strategy.screen(replies, asked), strategy.set_aside
    else:
        usable, rejected = screen(replies, arrays, asked)
        alone = isinstance(budget, CentralBudget)  # noise alone is a release, too
        if not usable and asked and not may_fail and not alone:
            raise RunFailed(f"round {number}: no site sent a usable model\n{_reasons(rejected)}")
    aggregated, _ = strategy.aggregate_train(number, usable)
    return (arrays if aggregated is None else aggregated), rejected


def _reasons(rejected: Iterable[Rejected]) -> str:
    nodes: dict[str, list[int]] = {}
    for one in rejected:
        nodes.setdefault(one.reason, []).append(one.node)
    return "\n".join(f"  {_few(numbers)}: {reason}" for reason, numbers in nodes.items())


def _few(nodes: list[int]) -> str:
    return f"node {nodes[0]}" + (f" and {len(nodes) - 1} more" if len(nodes) > 1 else "")
