"""What is told of a training to those who watch it: its rounds as they end, or all of them afterwards."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from fedsim.outcomes import outcome_of
from fedsim.planning.noise import promised
from fedsim.privacy.ledger import Entry, Ledger
from fedsim.privacy.so_far import SpentSoFar, round_by_round
from fedsim.privacy.units import released_in
from fedsim.results.evaluation import HEADLINE, POOLED
from fedsim.scenario.kinds import Kind
from fedsim.scenario.schema import Scenario
from fedsim.tracking.contract import Ended, Round, Training

Columns = Mapping[str, Sequence[float]]
"""The validation metrics after each round: {column: its values}."""

_PLACES = {HEADLINE: "test", POOLED: "test pooled"}


class Teller:
    """Tells of the rounds of one training, from the first on, also where it goes on after an interruption.

    Args:
        scenario: The experiment.
        training: The training.
        kind: The kind of its task.
        watch: Called with each round.
    """

    def __init__(self, scenario: Scenario, training: Training, kind: Kind, watch: Callable[[Round], None]) -> None:
        self._scenario = scenario
        self._training = training
        self._kind: Kind = kind
        self._watch = watch
        self._told = 0

    def tell(self, number: int, curve: Columns, ledger: Ledger | None) -> None:
        """Tell of a round that is over; first of those before it that were run before an interruption.

        Args:
            number: The round.
            curve: The validation metrics so far.
            ledger: The ledger; None without privacy.
        """
        if self._told < number - 1:
            entries = ledger.entries if ledger else None
            for earlier in rounds_of(self._scenario, self._training, self._kind, curve, entries, number - 1):
                self._watch(earlier)
        spent = SpentSoFar.of(ledger) if ledger else None
        self._watch(_round(self._scenario, self._training, self._kind, number, curve, spent, before=False))
        self._told = number


def rounds_of(
    scenario: Scenario,
    training: Training,
    kind: Kind,
    curve: Columns,
    entries: Sequence[Entry] | None,
    rounds: int,
) -> Iterator[Round]:
    """Yield the first rounds of a training that has run them before.

    Args:
        scenario: The experiment.
        training: The training.
        kind: The kind of its task.
        curve: The validation metrics after each round.
        entries: The entries of its ledger; None without privacy.
        rounds: How many rounds.
    """
    spent = None
    if entries is not None:
        privacy = scenario.privacy
        empty = Ledger(promised(privacy)[1], privacy.relation, trainings=privacy.tuning.trainings)
        spent = round_by_round(empty, entries, rounds)
    for number in range(1, rounds + 1):
        so_far = next(spent) if spent else None
        yield _round(scenario, training, kind, number, curve, so_far, before=True)


def told_afterwards(
    scenario: Scenario, training: Training, kind: Kind, values: Mapping[str, Any]
) -> tuple[Iterator[Round], Ended]:
    """Return the rounds and the end of a training from what was kept of it when it was finished.

    Args:
        scenario: The experiment.
        training: The training.
        kind: The kind of its task.
        values: Its checkpoint.
    """
    rows = values["curve"]
    curve = {column: [row[column] for row in rows] for column in (rows[0] if rows else ())}
    ledger = values["ledger"]
    entries = None
    if ledger is not None:
        # Whom an entry charges is of no matter here: a name stands for the same party in all of them.
        entries = [Entry(entry["site"], entry["round"], released_in(entry)) for entry in ledger["entries"]]

    run = max([*curve.get("round", ()), *(entry.round for entry in entries or ())], default=0)
    rounds = rounds_of(scenario, training, kind, curve, entries, run)
    return rounds, Ended(
        figures=_test_figures(values["scores"], kind),
        rounds=run,
        epsilon=max(ledger["epsilon"].values(), default=0.0) if ledger is not None else None,
        notes=tuple(values["notes"]),
    )


def _test_figures(scores: Sequence[Mapping[str, Any]], kind: Kind) -> dict[str, float]:
    """Return the figures on test rows, inside sites and pooled; those that can't be computed are left out."""
    figures = {}
    for row in scores:
        if row["site"] not in _PLACES:
            continue
        for metric in outcome_of(kind).metrics:
            value = row.get(metric.name)
            if value is not None:
                figures[f"{_PLACES[row['site']]}/{metric.name}"] = float(value)
    return figures


def _round(
    scenario: Scenario,
    training: Training,
    kind: Kind,
    number: int,
    curve: Columns,
    spent: SpentSoFar | None,
    before: bool,
) -> Round:
    figures = {}
    time = None
    if number in curve.get("round", ()):
        place = list(curve["round"]).index(number)
        for metric in outcome_of(kind).metrics:
            value = curve[metric.name][place]
            if value is not None:
                figures[metric.name] = float(value)
        time = float(curve["time"][place]) if "time" in curve else None
    return Round(
        arm=training.arm,
        private=training.private,
        seed=training.seed,
        round=number,
        rounds=scenario.training.rounds,
        figures=figures,
        time=time,
        spent=spent,
        before=before,
    )
