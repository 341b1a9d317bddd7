"""The server's round loop: drives a Flower Strategy's public methods over a Grid."""

import gc
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol, runtime_checkable

from flwr.app import ArrayRecord, ConfigRecord, Message
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from fedsim.flower.object_state import Opaque
from fedsim.flower.records import MECHANISM, flatten, to_mechanism, unflatten
from fedsim.flower.screening import Rejected, match, screen
from fedsim.mistakes import Mistake, RunFailed, said_by
from fedsim.privacy.central import CentralNoise
from fedsim.privacy.ledger import Ledger, Party, Release
from fedsim.privacy.secure_aggregation import Refused


@dataclass(frozen=True)
class Budget:
    """The budget of sites that add the noise themselves.

    Attributes:
        ledger: The ledger where every release is written down.
        epsilon: The most any site may spend.
        planned: {node: (site, its release in one round, as planned)}.
        rounds: The most rounds that any site is to take part in.
    """

    ledger: Ledger
    epsilon: float
    planned: Mapping[int, tuple[Party, Release]]
    rounds: int

    def allows(self, nodes: Iterable[int]) -> bool:
        """Whether each of some nodes may take part in one more round."""
        planned = (self.planned[node] for node in nodes)
        return _allows(self.ledger, self.epsilon, self.rounds, planned)

    def charge(self, round_number: int, node: int, answer: Message | None) -> str:
        """Write down the release of a node that was asked: as it reports it, or as planned if that can't be.

        That includes a site that failed, or whose answer did not come: whether it does may depend on
        its rows.

        Args:
            round_number: The round.
            node: The node that was asked; it is charged, whoever the answer says it is from.
            answer: Its answer; None if nothing came, or nothing under its own id.

        Returns:
            Why the site is charged as planned in place of what it reports; empty if it reports it
            properly, or failed.
        """
        site, planned = self.planned[node]
        if answer is None or not answer.has_content():
            self.ledger.charge(site, round_number, planned)
            return ""

        did = planned
        doubt = ""
        try:
            reported = to_mechanism(answer.content[MECHANISM], type(planned))  # type: ignore[arg-type]
            reported.check_claim(planned)
            did = reported
        except KeyError:
            doubt = "it does not say what it did"
        except (TypeError, ValueError, ArithmeticError) as error:
            doubt = f"what it says it did can't be ({error})"
        self.ledger.charge(site, round_number, did)
        return doubt

    def charge_unseen(self, round_number: int, asked: Sequence[int]) -> None:
        """Write down what the nodes released in a round that was begun and not finished."""
        for node in asked:
            self.charge(round_number, node, None)


@runtime_checkable
class Screens(Protocol):
    """A strategy that screens replies itself.

    It keeps those that it set aside in the round, in training and in all other steps.
    """

    set_aside: list[Rejected]

    def screen(self, replies: Iterable[Message], asked: Iterable[int]) -> list[Message]:
        """Return the usable replies to train messages."""
        ...


@dataclass(frozen=True)
class CentralBudget:
    """The budget of sites whose noise the server adds: the noise mechanism writes into the ledger.

    Attributes:
        noise: The server's noise mechanism.
        epsilon: The most any site may spend.
        rounds: The most rounds that any site is to take part in.
    """

    noise: CentralNoise
    epsilon: float
    rounds: int

    def allows(self, nodes: Iterable[int]) -> bool:
        """Whether the model of one more round may leave, for which these nodes are asked.

        There may be none of them: noise alone is a release, too.
        """
        planned = ((party, self.noise.planned(1)) for party in self.noise.charged(nodes))
        return _allows(self.noise.ledger, self.epsilon, self.rounds, planned)

    def charge(self, round_number: int, node: int, answer: Message | None) -> str:
        """Write nothing down: only the server sees an answer."""
        return ""

    def charge_unseen(self, round_number: int, asked: Sequence[int]) -> None:
        """Write down the noisy mean of a round that was begun and not finished."""
        self.noise.charge_unseen(round_number, asked)


def _allows(
    ledger: Ledger,
    epsilon: float,
    rounds: int,
    planned: Iterable[tuple[Party, Release]],
) -> bool:
    """Whether each of some sites may release one thing more.

    Args:
        ledger: The ledger.
        epsilon: The most any site may spend.
        rounds: The most rounds that any site is to take part in.
        planned: The sites, each with its next release.
    """
    # Most sites have spent alike, so most of them need not be looked at.
    alike = {(ledger.spent(site), ledger.rounds(site), release) for site, release in planned}
    for spent, rounds_done, release in alike:
        # First all the rounds that are left: their epsilon is the same in every round, so it is
        # computed once. Only when they no longer fit is it computed for one round more.
        rounds_left = max(1, rounds - rounds_done)
        all_fit = ledger.epsilon_of(spent, release, rounds_left) <= epsilon
        if not all_fit and ledger.epsilon_of(spent, release, 1) > epsilon:
            return False
    return True


@runtime_checkable
class Resumable(Protocol):
    """A strategy that can go on in another process from what it remembers."""

    def snapshot(self) -> dict[str, Any]:
        """Return what later rounds depend on, for ``pack``."""
        ...

    def restore(self, state: Mapping[str, Any], like: ArrayRecord) -> None:
        """Go on from what ``snapshot`` returned; models are like another one."""
        ...


class Halfway(Protocol):
    """Keeps what a training needs to go on after an interruption."""

    def found(self) -> Mapping[str, Any] | None:
        """Return what was kept of an interrupted training; None if it begins."""
        ...

    def unseen(self, number: int) -> Sequence[Sequence[int]]:
        """Return who was asked in a round each time that a training was interrupted in it, by number."""
        ...

    def begin(self, number: int, asked: Sequence[int]) -> None:
        """Tell that these are asked now in a round."""
        ...

    def end(self, number: int, snapshot: Callable[[], Mapping[str, Any]]) -> None:
        """Tell that a round is over, after which ``snapshot`` returns what may be kept."""
        ...


class NothingKept:
    """A ``Halfway`` that keeps nothing."""

    def found(self) -> None:
        """Find nothing."""
        return None

    def unseen(self, number: int) -> Sequence[Sequence[int]]:
        """Say that no round was begun before."""
        return ()

    def begin(self, number: int, asked: Sequence[int]) -> None:
        """Keep nothing."""

    def end(self, number: int, snapshot: Callable[[], Mapping[str, Any]]) -> None:
        """Keep nothing."""


def charge_unseen(
    halfway: Halfway,
    number: int,
    budget: Budget | CentralBudget | None,
    unseen: dict[int, int],
) -> None:
    """Charge for what may have left in a round each time that a training was interrupted in it.

    Args:
        halfway: Knows who was asked then.
        number: The round.
        budget: Whom it is charged to; None without privacy.
        unseen: {round: how often that was}, to which this round is added.
    """
    for asked in halfway.unseen(number):
        unseen[number] = unseen.get(number, 0) + 1
        if budget:
            budget.charge_unseen(number, asked)


@dataclass
class Finished:
    """The result of the rounds.

    Attributes:
        arrays: The global model.
        rejected: {round: replies set aside}; a round without any is not there.
        doubted: {round: {node: why it was charged as planned in place of what it said it did}}, likewise.
        refused: {round: why it was refused}; the model stayed as it was.
        unseen: {round: how often it was begun by trainings that were interrupted in it}; see ``Halfway``.
        rounds: The number of rounds that were run.
        changed: Whether any round changed the model.
    """

    arrays: ArrayRecord
    rejected: dict[int, list[Rejected]] = field(default_factory=dict)
    doubted: dict[int, dict[int, str]] = field(default_factory=dict)
    refused: dict[int, str] = field(default_factory=dict)
    unseen: dict[int, int] = field(default_factory=dict)
    rounds: int = 0
    changed: bool = False

    def snapshot(self) -> dict[str, Any]:
        """Return this as values that can be written down."""
        rejected = {}
        for number, replies in self.rejected.items():
            rejected[number] = [(one.node, one.reason) for one in replies]
        return {
            "model": flatten(self.arrays),
            "rejected": rejected,
            "doubted": self.doubted,
            "refused": self.refused,
            "unseen": self.unseen,
            "rounds": self.rounds,
            "changed": self.changed,
        }

    @classmethod
    def from_snapshot(cls, state: Mapping[str, Any], like: ArrayRecord) -> "Finished":
        """Return what ``snapshot`` was taken of; the model is like another one."""
        rejected = {}
        for number, replies in state["rejected"].items():
            rejected[number] = [Rejected(node, reason) for node, reason in replies]
        return cls(
            arrays=unflatten(state["model"], like),
            rejected=rejected,
            doubted=state["doubted"],
            refused=state["refused"],
            unseen=state["unseen"],
            rounds=state["rounds"],
            changed=state["changed"],
        )


def run_rounds(
    strategy: Strategy,
    grid: Grid,
    initial: ArrayRecord,
    rounds: int,
    budget: Budget | CentralBudget | None,
    observe: Callable[[int, ArrayRecord], None],
    patient: bool = False,
    names: Mapping[int, str] | None = None,
    halfway: Halfway | None = None,
    enough: Callable[[], bool] = lambda: False,
) -> Finished:
    """Run rounds until they are over, until the next one would exceed the budget, or until there are enough.

    Args:
        strategy: Any Flower Strategy.
        grid: Flower's grid, which reaches the sites.
        initial: The model to start from.
        rounds: The most rounds to run.
        budget: The budget, under privacy.
        observe: Called after each round with its number and the new global model.
        patient: Whether a round without a usable model leaves the model as it is, unless all rounds
            do: a few sites that are not in step may well all fail.
        names: {node: name of its site}, for messages; without it they name nodes by their numbers.
        halfway: Where the state after a round is kept, and from which an interrupted training goes on.
        enough: Asked before each round: whether the training ends without it.

    Raises:
        Mistake: A strategy asks a site twice in one round, which no plan of a budget foresees.
        RunFailed: Not one usable model came back in a round, or every round was refused; the message
            has the reasons.
    """
    with _old_objects_left_alone():
        return _run_rounds(
            strategy, grid, initial, rounds, budget, observe, patient, names or {}, halfway or NothingKept(), enough
        )


@contextmanager
def _old_objects_left_alone() -> Iterator[None]:
    """Keep the garbage collector to new objects.

    Each round makes thousands, and it would search all of torch each time, too.
    """
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
    halfway: Halfway,
    enough: Callable[[], bool],
) -> Finished:
    done = _begun(strategy, initial, halfway.found())

    def snapshot() -> Mapping[str, Any]:
        if not isinstance(strategy, Resumable):
            raise Opaque(f"expected a strategy that can go on, got a {type(strategy).__name__}")
        return {"rounds": done.snapshot(), "strategy": strategy.snapshot()}

    for number in range(done.rounds + 1, rounds + 1):
        if enough():
            break
        may_fail = patient and (done.changed or number < rounds)
        account = _Account()
        charge_unseen(halfway, number, budget, done.unseen)
        try:
            new_arrays = _round(
                strategy, grid, number, done.arrays, budget, may_fail, account, names, partial(halfway.begin, number)
            )
            if new_arrays is None:  # the budget is spent
                break
            done.changed = done.changed or new_arrays is not done.arrays
            done.arrays = new_arrays
        except Refused as error:
            done.refused[number] = str(error)

        # Those of its last step, too, which it takes when it aggregates.
        if isinstance(strategy, Screens):
            account.rejected += strategy.set_aside
        if account.rejected:
            done.rejected[number] = account.rejected
        if account.doubted:
            done.doubted[number] = account.doubted

        questions = strategy.configure_evaluate(number, done.arrays, ConfigRecord(), grid)
        strategy.aggregate_evaluate(number, grid.send_and_receive(questions))
        done.rounds = number
        observe(number, done.arrays)
        halfway.end(number, snapshot)

    _check_not_all_refused(done, names)
    return done


def _begun(strategy: Strategy, initial: ArrayRecord, state: Mapping[str, Any] | None) -> Finished:
    """Return the rounds that are finished before the first one here: none, or those of an interrupted training."""
    if state is None:
        return Finished(initial)
    with taken_up():
        if isinstance(strategy, Resumable):
            strategy.restore(state["strategy"], initial)
        return Finished.from_snapshot(state["rounds"], initial)


@contextmanager
def taken_up() -> Iterator[None]:
    """Go on from a state that was kept; one that fedsim did not write so is the fault of its file.

    Raises:
        Mistake: The state lacks something, or holds something else.
    """
    try:
        yield
    except (Mistake, RunFailed):
        raise
    except Exception as error:
        raise Mistake(
            f"the state that was kept of this training is not what fedsim writes: {said_by(error)}; to begin the "
            "training anew, delete its files .under-way-0 and .under-way-1 in checkpoints"
        ) from error


def _check_not_all_refused(done: Finished, names: Mapping[int, str]) -> None:
    if done.refused and len(done.refused) == done.rounds:
        last = max(done.refused)
        reasons = _reasons(done.rejected.get(last, []), names)
        raise RunFailed(f"every round was refused; round {last}: {done.refused[last]}\n{reasons}")


@dataclass
class _Account:
    """The irregularities of a round, kept also where the round is refused: see ``Finished``.

    Attributes:
        rejected: The replies that were set aside.
        doubted: {node: why it was charged as planned}.
    """

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
    begin: Callable[[Sequence[int]], None],
) -> ArrayRecord | None:
    """Run one round: return the new model, or None if the budget does not allow a round.

    Replies that are set aside and reports that can't be go into the account. ``begin`` is told who is asked, before
    they are.

    Raises:
        Mistake: Under privacy, a site is asked twice.
        RunFailed: Not one usable model came back, and the round may not fail.
        Refused: The strategy does not go on with this round.
    """
    messages = list(strategy.configure_train(number, arrays, ConfigRecord(), grid))
    asked = [message.metadata.dst_node_id for message in messages]
    if budget and len(set(asked)) != len(asked):
        raise Mistake(
            f"round {number}: expected a strategy that asks each site once under privacy, got one that "
            f"asks {len(asked)} times {len(set(asked))} sites"
        )
    if budget and not budget.allows(asked):
        return None
    begin(asked)
    answers, foreign = match(messages, grid.send_and_receive(messages), names)
    account.rejected += foreign

    # Every node that was asked is charged once, whatever came back.
    if budget:
        for node, answer in zip(asked, answers, strict=True):
            doubt = budget.charge(number, node, answer)
            if doubt:
                account.doubted[node] = doubt

    replies = [answer for answer in answers if answer is not None]
    if isinstance(strategy, Screens):
        usable = strategy.screen(replies, asked)
    else:
        usable, rejected = screen(replies, arrays, asked)
        account.rejected += rejected
        noise_is_enough = isinstance(budget, CentralBudget)  # noise alone is a release, too
        if not usable and asked and not may_fail and not noise_is_enough:
            reasons = _reasons(account.rejected, names)
            raise RunFailed(f"round {number}: no site sent a usable model\n{reasons}")

    aggregated, _ = strategy.aggregate_train(number, usable)
    return arrays if aggregated is None else aggregated


def _reasons(rejected: Iterable[Rejected], names: Mapping[int, str]) -> str:
    """Write why replies were set aside: a line for each reason."""
    nodes_by_reason: dict[str, list[int]] = {}
    for rejection in rejected:
        nodes_by_reason.setdefault(rejection.reason, []).append(rejection.node)
    lines = [f"  {_few(nodes, names)}: {reason}" for reason, nodes in nodes_by_reason.items()]
    return "\n".join(lines)


def _few(nodes: list[int], names: Mapping[int, str]) -> str:
    """Write the first of some nodes, and how many more there are."""
    first = names.get(nodes[0], f"node {nodes[0]}")
    if len(nodes) == 1:
        return first
    return f"{first} and {len(nodes) - 1} more"
