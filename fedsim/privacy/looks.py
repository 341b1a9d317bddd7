"""Release noisy histograms of a table, and keep the account of all looks at it.

Unit: one row. Relation: two tables are neighbours if one of them has one row more and they are otherwise equal.
Trusted: whoever holds the table and draws the noise. Not trusted: the readers of what was released.
Mechanism: each row is in one bin of one site in each histogram, so that a row more or less changes one count of a
histogram by one. Every count gets discrete Laplace noise of its own (``fedsim.privacy.discrete_laplace``).
Cost: the epsilons of the histograms of a look add up, and so do those of all looks (delta is 0). The sites of one
histogram share no row, so all of them together cost what one costs.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, ClassVar

import numpy as np

from fedsim.figures import as_written
from fedsim.mistakes import Mistake
from fedsim.privacy.discrete_laplace import Below, draw, system_random

LEAST_EPSILON = Fraction(1, 10_000)
MOST_EPSILON = Fraction(100)
_FINEST = 10**9  # the largest denominator of an epsilon
_EACH_SITE = "each site"  # who is charged, as in a run's ledger


def epsilon_of(text: str) -> Fraction:
    """Read an epsilon, exactly as it is written.

    Raises:
        Mistake: It is no number, or out of range.
    """
    expected = f"a number from {float(LEAST_EPSILON):g} to {float(MOST_EPSILON):g} with at most 9 decimals"
    is_number = re.fullmatch(r"\d{1,4}(\.\d*)?|\.\d+", text, re.ASCII)
    value = Fraction(text) if is_number else Fraction(0)
    if not LEAST_EPSILON <= value <= MOST_EPSILON or value.denominator > _FINEST:
        raise Mistake(f"--epsilon: expected {expected}, got {as_written(text)}")
    return value


@dataclass(frozen=True)
class NoisyHistogram:
    """The release of a histogram of all sites: what is public about it.

    Attributes:
        kind: Its name in files.
        column: The column that was counted.
        sites: The number of sites.
        bins: The number of bins of each site.
        epsilon: Its part of the look's epsilon.
    """

    kind: ClassVar[str] = "noisy-histogram"

    column: str
    sites: int
    bins: int
    epsilon: Fraction

    def as_json(self) -> dict[str, Any]:
        """Return its fields, with what is the same for all."""
        return {
            "column": self.column,
            "sites": self.sites,
            "bins": self.bins,
            "noise": "discrete Laplace",
            "sensitivity": 1,
            "epsilon": str(self.epsilon),
            "rng": "secure",
        }


def shared_out(epsilon: Fraction, shapes: Mapping[str, tuple[int, int]]) -> list[NoisyHistogram]:
    """Share an epsilon out evenly over histograms.

    Args:
        epsilon: What the look costs in all.
        shapes: {column: number of sites and of bins}.
    """
    share = epsilon / len(shapes)
    return [NoisyHistogram(column, sites, bins, share) for column, (sites, bins) in shapes.items()]


def noisy(counts: np.ndarray, planned: NoisyHistogram, below: Below = system_random) -> np.ndarray:
    """Return the counts of a histogram with noise, int64 (sites, bins); they may be below 0.

    Args:
        counts: The number of rows of each site in each bin, (sites, bins).
        planned: The release, which is to be in the account already.
        below: The source of randomness.
    """
    noise = [draw(planned.epsilon, below) for _ in range(counts.size)]
    return counts + np.array(noise, np.int64).reshape(counts.shape)


@dataclass(frozen=True)
class Look:
    """One look at a table.

    Attributes:
        key: A random name, so that a look is counted once.
        when: The moment of it, in UTC.
        histograms: What was released.
    """

    key: str
    when: str
    histograms: tuple[NoisyHistogram, ...]

    @property
    def epsilon(self) -> Fraction:
        """What it cost."""
        return sum((histogram.epsilon for histogram in self.histograms), Fraction(0))


@dataclass(frozen=True)
class Account:
    """All looks at a table, oldest first.

    Attributes:
        table: The name of the table's file.
        looks: The looks.
    """

    table: str
    looks: tuple[Look, ...] = ()

    @property
    def epsilon(self) -> Fraction:
        """What all looks cost a row."""
        return sum((look.epsilon for look in self.looks), Fraction(0))

    def charged(self, look: Look) -> "Account":
        """Return the account with one look more."""
        return replace(self, looks=(*self.looks, look))

    def with_all_of(self, other: "Account") -> "Account":
        """Return an account of the looks of both, each once, in the order of time."""
        looks = {look.key: look for look in (*self.looks, *other.looks)}
        in_order = sorted(looks.values(), key=lambda look: look.when)
        return replace(self, looks=tuple(in_order))

    def as_json(self) -> dict[str, Any]:
        """Return the account as a ledger's file has it."""
        entries = []
        for number, look in enumerate(self.looks, start=1):
            for histogram in look.histograms:
                entries.append(
                    {
                        "site": _EACH_SITE,
                        "round": number,
                        "kind": histogram.kind,
                        "look": look.key,
                        "when": look.when,
                        "mechanism": histogram.as_json(),
                    }
                )
        return {
            "table": self.table,
            "unit": "record",
            "neighbours": "add-or-remove-one",
            "delta": 0,
            "charged": _EACH_SITE,
            "epsilon": {_EACH_SITE: float(self.epsilon)},
            "epsilon_exact": str(self.epsilon),
            "entries": entries,
        }


def account_of(values: Any, place: str) -> Account:  # noqa: ANN401  what a file may hold
    """Read an account from the values of its file. Nothing in it is passed over: it is what was spent.

    Raises:
        Mistake: It is not an account of looks, or does not add up.
    """
    expected = "the ledger of earlier looks as fedsim wrote it"
    try:
        account = Account(str(values["table"]), _looks(values["entries"]))
        is_whole = values == account.as_json()
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        is_whole = False
        account = Account("")
    if not is_whole:
        advice = "put it back as it was; without it what was spent is not known, and nothing is released"
        raise Mistake(f"{place}: expected {expected}, got another or a changed file; {advice}")
    return account


def _looks(entries: Sequence[Mapping[str, Any]]) -> tuple[Look, ...]:
    looks: dict[str, Look] = {}
    for entry in entries:
        mechanism = entry["mechanism"]
        histogram = NoisyHistogram(
            column=mechanism["column"],
            sites=mechanism["sites"],
            bins=mechanism["bins"],
            epsilon=Fraction(mechanism["epsilon"]),
        )
        key = entry["look"]
        earlier = looks.get(key, Look(key, entry["when"], ()))
        looks[key] = replace(earlier, histograms=(*earlier.histograms, histogram))
    return tuple(looks.values())
