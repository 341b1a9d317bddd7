"""Gather for the report which features drive the models of a run."""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from fedsim.figures import figure
from fedsim.report import charts
from fedsim.report.explanations.chart import features, top_features
from fedsim.results.evaluation import INSIDE
from fedsim.results.explained.table import FILE, GRADIENTS, PERMUTATION, read
from fedsim.results.run_directory import Run

LIMITS = (
    "This says what a model looks at, and nothing of causes: a feature that stands for another one gets its "
    "importance, and two that say the same share it."
)
NOT_COVERED = (
    "These figures are computed from exact test rows, without noise: no epsilon covers them, of models with privacy as "
    "little as of others."
)


@dataclass(frozen=True)
class Section:
    """What the report says of features.

    Attributes:
        arm: The arm that is drawn.
        chart: The picture, as SVG.
        arms: For each arm and privacy: (marker as SVG, label, lines); a line is a feature with its importance by
            permutation, the spread over seeds, and by integrated gradients.
        units: The units of both.
        limits: What the figures are not.
        not_covered: That no epsilon covers them; empty in a run without privacy.
        file: The file with all figures.
    """

    arm: str
    chart: str
    arms: Sequence[tuple[str, str, Sequence[tuple[str, str, str, str]]]]
    units: tuple[str, str]
    limits: str
    not_covered: str
    file: str


def section_of(run: Run) -> Section | None:
    """Return what is known of the features of a run; None where it was not explained.

    Raises:
        Mistake: The file with the figures holds something else.
    """
    table = read(run.path)
    if table is None or table.empty:
        return None
    of_all = table[table["site"] == INSIDE]
    arm = first_arm(table)
    arms = []
    for name in charts.ARMS:
        for private in charts.PRIVACY:
            own = of_all[(of_all["arm"] == name) & (of_all["private"] == private)]
            if len(own):
                arms.append((charts.key(name, private), f"{name}, {charts.PRIVACY[private]}", _lines(own)))
    return Section(
        arm=arm,
        chart=features(table, arm),
        arms=arms,
        units=(_unit(of_all, PERMUTATION), _unit(of_all, GRADIENTS)),
        limits=LIMITS,
        not_covered=NOT_COVERED if run.ledger["trainings"] else "",
        file=FILE,
    )


def first_arm(table: pd.DataFrame) -> str:
    """Return the arm that is drawn: the federated one, if it was explained."""
    return next(name for name in charts.ARMS if (table["arm"] == name).any())


def _unit(of_all: pd.DataFrame, method: str) -> str:
    units = of_all.loc[of_all["method"] == method, "unit"]
    return str(units.iloc[0]) if len(units) else ""


def _lines(own: pd.DataFrame) -> list[tuple[str, str, str, str]]:
    by_place = {(row["method"], row["feature"]): row for row in own.to_dict("records")}
    lines = []
    for name in top_features(own):
        shuffled = by_place[PERMUTATION, name]
        added = by_place.get((GRADIENTS, name))
        lines.append(
            (
                name,
                figure(float(shuffled["importance"]), signed=True),
                figure(float(shuffled["spread"])),
                figure(float(added["importance"])) if added is not None else figure(float("nan")),
            )
        )
    return lines
