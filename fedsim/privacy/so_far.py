"""What a training has spent so far, round by round: epsilon as a series, computed only where somebody asks for it.

The accountant takes about a second for a number, so that it is not asked for every site after every round: a site that
released the same as another, or less of it, cannot be the costliest.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from fedsim.privacy.accounting import Neighbours, composed, epsilon
from fedsim.privacy.ledger import Entry, Ledger, Spent


@dataclass(frozen=True)
class SpentSoFar:
    """What the costliest sites of a training have released so far.

    Attributes:
        delta: The delta that epsilon is for.
        neighbours: The relation.
        trainings: Of how many such trainings together epsilon is.
        largest: What was released by those sites of which none released less than another.
    """

    delta: float
    neighbours: Neighbours
    trainings: int
    largest: frozenset[Spent]

    @classmethod
    def of(cls, ledger: Ledger) -> "SpentSoFar":
        """Return what stands in a ledger now."""
        largest = frozenset(_largest(ledger.all_spent()))
        return cls(ledger.delta, ledger.neighbours, ledger.trainings, largest)

    @property
    def epsilon(self) -> float:
        """The largest epsilon of a site, by the accountant of the ledger; 0 before anything was released."""
        values = []
        for spent in self.largest:
            of_all_trainings = composed(spent, times=self.trainings)
            values.append(epsilon(of_all_trainings, self.delta, self.neighbours))
        return max(values, default=0.0)


def round_by_round(empty: Ledger, entries: Sequence[Entry], rounds: int) -> Iterator[SpentSoFar]:
    """Yield what had been spent after each of some rounds, from the first on.

    Args:
        empty: A ledger without entries, which they are written into.
        entries: The entries of a training.
        rounds: How many rounds.
    """
    by_round: dict[int, list[Entry]] = {}
    for entry in entries:
        by_round.setdefault(entry.round, []).append(entry)
    for number in range(1, rounds + 1):
        for entry in by_round.get(number, []):
            empty.charge(entry.site, number, entry.mechanism)
        yield SpentSoFar.of(empty)


def _largest(spent: Iterable[Spent]) -> list[Spent]:
    """Return those of which none is less than another."""
    different = set(spent)
    return [one for one in different if not any(one != other and _is_less(one, other) for other in different)]


def _is_less(one: Spent, other: Spent) -> bool:
    """Whether a site released the same kinds of things as another, and none of them more often."""
    steps = {(segment.sampling_rate, segment.noise_multiplier): segment.steps for segment in other}
    return all(segment.steps <= steps.get((segment.sampling_rate, segment.noise_multiplier), 0) for segment in one)
