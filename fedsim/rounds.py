"""The server's round loop: drives a Flower Strategy's public methods over a Grid."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from flwr.app import ArrayRecord, ConfigRecord, Message
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from fedsim.mistakes import RunFailed
from fedsim.privacy.ledger import Ledger, Mechanism
from fedsim.records import MECHANISM, to_mechanism
from fedsim.screening import Rejected, screen


@dataclass(frozen=True)
class Budget:
    """What the sites may spend.

    Attributes:
        ledger: Where every release is written down.
        epsilon: The most any site may spend.
        planned: {node: (site, what it does to its rows in one round)}.
    """

    ledger: Ledger
    epsilon: float
    planned: Mapping[int, tuple[str, Mechanism]]

    def allows(self, rounds: int) -> bool:
        """Whether every site may take part in so many more rounds."""
        return all(
            self.ledger.epsilon(site, replace(mechanism, steps=rounds * mechanism.steps)) <= self.epsilon
            for site, mechanism in self.planned.values()
        )

    def allows_next(self, rounds_left: int) -> bool:
        """Whether the next round may be run. Asks first for all that are left: epsilon grows, and is costly."""
        return self.allows(rounds_left) or self.allows(1)

    def charge(self, round_number: int, reply: Message) -> None:
        """Write down what a reply released: what the site says it did, or the plan if it doesn't say properly.

        That includes a site that failed: whether it does may depend on its rows.
        """
        site, planned = self.planned[reply.metadata.src_node_id]
        try:
            did = to_mechanism(reply.content.config_records[MECHANISM])  # an error reply has no content: ValueError
        except (KeyError, TypeError, ValueError):
            did = planned
        self.ledger.charge(site, round_number, did)


@dataclass(frozen=True)
class Finished:
    """What came out of the rounds: the global model, {round: replies set aside}, and how many rounds were run."""

    arrays: ArrayRecord
    rejected: Mapping[int, list[Rejected]]
    rounds: int


def run_rounds(
    strategy: Strategy,
    grid: Grid,
    initial: ArrayRecord,
    rounds: int,
    budget: Budget | None,
    observe: Callable[[int, ArrayRecord], None],
) -> Finished:
    """Run rounds until they are over or the next one would exceed the budget; then nothing is sent any more.

    Args:
        strategy: Any Flower Strategy.
        grid: Where the sites are.
        initial: The model to start from.
        rounds: The most rounds to run.
        budget: What may be spent, under privacy.
        observe: Called after each round with its number and the new global model.

    Raises:
        RunFailed: Not one usable model came back in a round; the message has the sites' reasons.
    """
    arrays, rejected, done = initial, {}, 0
    for number in range(1, rounds + 1):
        if budget and not budget.allows_next(rounds - done):
            break
        messages = list(strategy.configure_train(number, arrays, ConfigRecord(), grid))
        replies = list(grid.send_and_receive(messages))
        if budget:
            for reply in replies:
                budget.charge(number, reply)
        asked = [message.metadata.dst_node_id for message in messages]
        usable, rejected[number] = screen(replies, arrays, asked)
        if not usable:
            raise RunFailed(f"round {number}: no site sent a usable model\n{_reasons(rejected[number])}")
        aggregated, _ = strategy.aggregate_train(number, usable)
        arrays = arrays if aggregated is None else aggregated
        evaluations = grid.send_and_receive(strategy.configure_evaluate(number, arrays, ConfigRecord(), grid))
        strategy.aggregate_evaluate(number, evaluations)
        observe(number, arrays)
        done = number
    return Finished(arrays, rejected, done)


def _reasons(rejected: Iterable[Rejected]) -> str:
    return "\n".join(f"  node {one.node}: {one.reason}" for one in rejected)
