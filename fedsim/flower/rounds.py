"""The server's round loop: drives a Flower Strategy's public methods over a Grid."""

import gc
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from flwr.app import ArrayRecord, ConfigRecord, Message
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from fedsim.flower.records import MECHANISM, to_mechanism
from fedsim.flower.screening import Rejected, match, screen
from fedsim.mistakes import Mistake, RunFailed
from fedsim.privacy.central import CentralNoise
from fedsim.privacy.ledger import Ledger, Party, Release
from fedsim.privacy.secure_aggregation import Refused


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

    def charge(self, round_number: int, node: int, answer: Message | None) -> str:
        """Write down what a node that was asked released: what it says it did, or the plan if that can't be.

        That includes a site that failed, or whose answer did not come: whether it does may depend on its rows.

        Args:
            round_number: The round.
            node: The node that was asked; it is charged, whoever the answer says it is from.
            answer: What it answered; None if nothing came, or nothing under its own id.

        Returns:
            Why the site is charged as planned in place of what it says; empty if it says so properly, or failed.
        """
        site, planned = self.planned[node]
        if answer is None or not answer.has_content():
            self.ledger.charge(site, round_number, planned)
            return ""
        try:
            did = to_mechanism(answer.content[MECHANISM], type(planned))  # type: ignore[arg-type]
            did.check_claim(planned)
        except KeyError:
            did, doubt = planned, "it does not say what it did"
        except (TypeError, ValueError, ArithmeticError) as error:
            did, doubt = planned, f"what it says it did can't be ({error})"
        else:
            doubt = ""
        self.ledger.charge(site, round_number, did)
        return doubt


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

    def charge(self, round_number: int, node: int, answer: Message | None) -> str:
        """Write nothing down: only the server sees an answer."""
        return ""


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
        doubted: {round: {node: why it was charged as planned in place of what it said it did}}.
        refused: {round: why it was refused}; the model stayed as it was.
        rounds: How many rounds were run.
    """

    arrays: ArrayRecord
    rejected: Mapping[int, list[Rejected]]
    doubted: Mapping[int, Mapping[int, str]]
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
    names: Mapping[int, str] | None = None,
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
        names: {node: name of its site}, for messages; without it they name nodes by their numbers.

    Raises:
        Mistake: A strategy asks a site twice in one round, which no plan of what it may spend foresees.
        RunFailed: Not one usable model came back in a round, or every round was refused; the message has the reasons.
    """
    with _old_objects_left_alone():
        return _run_rounds(strategy, grid, initial, rounds, budget, observe, patient, names or {})


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
    names: Mapping[int, str],
) -> Finished:
    arrays, done, answered = initial, 0, False
    rejected: dict[int, list[Rejected]] = {}
    doubted: dict[int, dict[int, str]] = {}
    refused: dict[int, str] = {}
    for number in range(1, rounds + 1):
        may_fail = patient and (answered or number < rounds)
        account = _Account()
        try:
            new = _round(strategy, grid, number, arrays, budget, may_fail, account, names)
            if new is None:
                break
            answered, arrays = answered or new is not arrays, new
        except Refused as error:
            refused[number] = str(error)
        if isinstance(strategy, Screens):  # also those of its last step, which it takes when it aggregates
            account.rejected += strategy.set_aside
        rejected[number] = account.rejected
        doubted[number] = account.doubted
        evaluations = grid.send_and_receive(strategy.configure_evaluate(number, arrays, ConfigRecord(), grid))
        strategy.aggregate_evaluate(number, evaluations)
        observe(number, arrays)
        done = number
    if refused and len(refused) == done:
        last = max(refused)
        raise RunFailed(f"every round was refused; round {last}: {refused[last]}\n{_reasons(rejected[last], names)}")
    return Finished(arrays, rejected, doubted, refused, done)


@dataclass
class _Account:
    """What did not go by the book in a round, kept also where the round is refused: see ``Finished``."""

    rejected: list[Rejected] = field(default_factory=list)
    doubted: dict[int, str] = field(default_factory=dict)


def _round(
    strategy: Strategy,
    grid: Grid,
    number: int,
    arrays: ArrayRecord,
    budget: Budget | CentralBudget | None,
    may_fail: bool,
    account: _Account,
    names: Mapping[int, str],
) -> ArrayRecord | None:
    """Return the new model, or None if the budget does not allow a round; write into the account what went wrong.

    Raises:
        Mistake: Under privacy, a site is asked twice.
        RunFailed: Not one usable model came back, and the round may not fail.
        Refused: The strategy does not go on with this round.
    """
    messages = list(strategy.configure_train(number, arrays, ConfigRecord(), grid))
    asked = [message.metadata.dst_node_id for message in messages]
    if budget and len(set(asked)) != len(asked):
        raise Mistake(f"round {number}: expected a strategy that asks each site once under privacy, got one that asks "
                      f"{len(asked)} times {len(set(asked))} sites")  # fmt: skip
    if budget and not budget.allows(asked):
        return None
    answers, foreign = match(messages, grid.send_and_receive(messages), names)
    account.rejected += foreign

    # Everybody who was asked is charged once, whatever came back.
    if budget:
        for node, answer in zip(asked, answers, strict=True):
            if doubt := budget.charge(number, node, answer):
                account.doubted[node] = doubt

    replies = [answer for answer in answers if answer is not None]
    if isinstance(strategy, Screens):
        usable = strategy.screen(replies, asked)
    else:
        usable, rejected = screen(replies, arrays, asked)
        account.rejected += rejected
        alone = isinstance(budget, CentralBudget)  # noise alone is a release, too
        if not usable and asked and not may_fail and not alone:
            raise RunFailed(f"round {number}: no site sent a usable model\n{_reasons(account.rejected, names)}")
    aggregated, _ = strategy.aggregate_train(number, usable)
    return arrays if aggregated is None else aggregated


def _reasons(rejected: Iterable[Rejected], names: Mapping[int, str]) -> str:
    nodes: dict[str, list[int]] = {}
    for one in rejected:
        nodes.setdefault(one.reason, []).append(one.node)
    return "\n".join(f"  {_few(numbers, names)}: {reason}" for reason, numbers in nodes.items())


def _few(nodes: list[int], names: Mapping[int, str]) -> str:
    first = names.get(nodes[0], f"node {nodes[0]}")
    return first + (f" and {len(nodes) - 1} more" if len(nodes) > 1 else "")
