"""Write the files of a tournament: a page, pictures, CSV and JSON; each file whole or not at all."""

import base64
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from fedsim import figures
from fedsim.experiments.tournament import Played
from fedsim.experiments.tournament_charts import pictures
from fedsim.experiments.tournament_findings import column_meanings, winners
from fedsim.privacy.accounting import HOPELESS
from fedsim.privacy.tiers import caution
from fedsim.privacy.units import unit_of
from fedsim.report.pages import PAGES
from fedsim.report.statement import listed
from fedsim.results.multiple_comparisons import FEWEST_SEEDS
from fedsim.results.run_directory import write_bytes
from fedsim.results.seeds import MOST_SEEDS, WORTH_TELLING


def write(
    folder: Path,
    played: Played,
    ranked: pd.DataFrame,
    pairs: pd.DataFrame,
    axes: Sequence[str],
    metric: str,
    seeds: int,
    command: str,
) -> None:
    """Write ``ranks``, ``pairs``, ``scores`` and ``curves.csv``, ``tournament.json``, the PNG and ``tournament.html``.

    Args:
        folder: Where they go.
        played: What a tournament gave.
        ranked: As ``ranking.rank`` returns it.
        pairs: As ``ranking.pairs`` returns it.
        axes: The axes of the grid.
        metric: The name of the metric.
        seeds: How many there were.
        command: The command that makes all of this anew.
    """
    folder.mkdir(parents=True, exist_ok=True)

    tables = {"ranks": ranked, "pairs": pairs, "scores": played.scores, "curves": played.curves}
    for name, table in tables.items():
        write_bytes(folder / f"{name}.csv", table.to_csv(index=False).encode())

    document = as_document(ranked, played, metric)
    text = json.dumps(document, indent=2, allow_nan=False)
    write_bytes(folder / "tournament.json", f"{text}\n".encode())

    drawn = pictures(ranked, axes, metric)
    for name, picture in drawn.items():
        write_bytes(folder / f"{name.replace('.', '-')}.png", picture)

    page = _page(played, ranked, axes, metric, seeds, command, drawn)
    write_bytes(folder / "tournament.html", page.encode())


def _page(
    played: Played,
    ranked: pd.DataFrame,
    axes: Sequence[str],
    metric: str,
    seeds: int,
    command: str,
    drawn: Mapping[str, bytes],
) -> str:
    """Return ``tournament.html``; arguments as of ``write``, and the pictures by name."""
    shown = _shown(ranked, axes)
    heads, rows = _cells(ranked, shown, metric)
    return PAGES.get_template("tournament.html.j2").render(
        version=version("fedsim-flower"),
        command=command,
        title=_title(ranked),
        summary=_summary(ranked, axes, seeds),
        winners=list(winners(ranked, axes, metric, seeds)),
        refused=list(_refused(played, axes)),
        lines=[*_alike(ranked, axes), *_about_groups(ranked, axes, seeds), *_about_epsilon(played)],
        metric=metric,
        pictures={name: base64.b64encode(picture).decode() for name, picture in drawn.items()},
        heads=heads,
        columns=list(column_meanings(heads, metric, seeds)),
        texts=len(shown),
        rows=list(zip(_starts(ranked, shown), rows, strict=True)),
    )


def _title(ranked: pd.DataFrame) -> str:
    """Return the title of the page: the strategies, and the scenarios they compete on."""
    strategies = listed(list(dict.fromkeys(ranked["strategy"])))
    scenarios = listed(list(dict.fromkeys(ranked["scenario"])))
    return f"{strategies} on {scenarios}"


def _summary(ranked: pd.DataFrame, axes: Sequence[str], seeds: int) -> str:
    """Return how much was compared, in a line."""
    strategies = ranked["strategy"].nunique()
    parts = [f"{strategies} strategies" if strategies > 1 else "1 strategy"]
    for name in axes:
        values = list(dict.fromkeys(ranked[name]))
        if name != "strategy" and len(values) > 1:
            parts.append(f"{name}: {', '.join(values)}")
    parts.append(f"{seeds} seeds" if seeds > 1 else "1 seed")
    return " · ".join(parts)


def as_document(ranked: pd.DataFrame, played: Played, metric: str) -> dict[str, Any]:
    """Return the document that ``--json`` prints."""
    rows = [json.loads(table.to_json(orient="records")) for table in (ranked, played.refused)]
    return {"metric": metric, "ranks": rows[0], "refused": rows[1]}


def table(ranked: pd.DataFrame, axes: Sequence[str], metric: str) -> Table:
    """Return the ranks for a terminal: a section for each field of the grid."""
    shown = _shown(ranked, axes)
    heads, rows = _cells(ranked, shown, metric)
    printed = Table(box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for number, name in enumerate(heads):
        if number < len(shown):
            printed.add_column(escape(name), overflow="fold")
        else:
            printed.add_column(escape(name), justify="right", no_wrap=True, overflow="fold")

    for number, (first, row) in enumerate(zip(_starts(ranked, shown), rows, strict=True)):
        if first and number:
            printed.add_section()
        printed.add_row(*map(escape, row))
    return printed


def lines(played: Played, ranked: pd.DataFrame, axes: Sequence[str], metric: str, seeds: int) -> Iterator[str]:
    """Yield the lines that a terminal shows below the table: who wins, what was compared, and what could not be run."""
    yield from winners(ranked, axes, metric, seeds)
    yield from _alike(ranked, axes)
    yield from _about_groups(ranked, axes, seeds)
    yield from _about_epsilon(played)
    yield from _refused(played, axes)


def _alike(ranked: pd.DataFrame, axes: Sequence[str]) -> Iterator[str]:
    """Yield the values that are the same in all rows."""
    alike = [f"{name} {ranked[name].iloc[0]}" for name in axes if name != "strategy" and ranked[name].nunique() == 1]
    if alike:
        yield f"All: {', '.join(alike)}."


def _about_epsilon(played: Played) -> Iterator[str]:
    """Yield what the epsilons of the table cover, and what they do not."""
    yield f"Epsilon is that of one training{_for_whom(played)}; choosing a strategy by these figures is not charged."
    for released in played.released:
        weak = caution(released.epsilon)
        delta = figures.setting(released.delta)
        yield (
            f"No one epsilon covers choosing among these rows: the {released.trainings} private trainings on the "
            f"records of {released.scenario} come to epsilon {_spent(released.epsilon)} together for one "
            f"{released.protected} (privacy.unit {' and '.join(released.units)}; composition, delta "
            f"{delta}){f'; {weak}' if weak else ''}. Rows without privacy are covered by nothing."
        )


def _spent(epsilon: float) -> str:
    """Write an epsilon; where none can be computed, it says above which."""
    if math.isinf(epsilon):
        return f"above {figures.setting(HOPELESS)}"
    return figures.epsilon(epsilon)


def _refused(played: Played, axes: Sequence[str]) -> Iterator[str]:
    """Yield the cells that have no figures, each with the reason."""
    for row in played.refused.to_dict("records"):
        place = ", ".join(str(row[name]) for name in axes if row[name] != "none")
        yield f"No figures: {place}: {row['reason']}"


def _about_groups(ranked: pd.DataFrame, axes: Sequence[str], seeds: int) -> Iterator[str]:
    """Yield what a group is, and of what the intervals speak."""
    if seeds < FEWEST_SEEDS:
        which = "of one seed" if seeds == 1 else f"means over {seeds} seeds"
        yield (
            f"Test figures inside sites, {which}. It takes {FEWEST_SEEDS} seeds to tell strategies apart, and for "
            "small differences many more: so all are in one group, which does not show that they are equal."
        )
        return
    yield (
        f"Test figures inside sites, means over {seeds} seeds. {_order(ranked)} Group 1 is the first strategy and all "
        "that are not told to be lower; group 2 is the first that is left and all that are not told to be lower than "
        "that one, and so on. Two "
        "strategies are told apart where the interval of their paired difference leaves out 0. The intervals of all "
        "pairs in a field hold together with 95 % confidence (Bonferroni). Being "
        "in one group does not show that strategies are equal."
    )
    yield from _about_seeds(ranked)
    same_rows = ranked["overlap"] == 0
    if same_rows.any():
        where = "All seeds" if same_rows.all() else f"All seeds of {', '.join(ranked['scenario'][same_rows].unique())}"
        yield (
            f"{where} have the same rows, since these are split by time: a seed draws new initial weights, batches and "
            "noise. A difference says what training again on these rows would give. On later rows another strategy may "
            "be the best."
        )
    if not same_rows.all():
        where = "Each seed" if not same_rows.any() else "Each seed of the others"
        yield f"{where} tests other rows: a difference speaks of other records like these."
    # Seeds that all give the same, where nothing in a training is drawn, are no evidence.
    steady = ranked["difference"].notna() & ranked["verdict"].isna()
    for row in ranked[steady].to_dict("records"):
        place = ", ".join(str(row[name]) for name in axes if row[name] != "none")
        difference = figures.figure(row["difference"], signed=True)
        yield (
            f"No verdict: {place}: the difference to the best is {difference} and does not vary over the "
            "seeds, or fewer than three have both figures, so that chance cannot be judged."
        )


def _order(ranked: pd.DataFrame) -> str:
    """Say by what strategies are put in order."""
    if ranked["validation"].notna().all():
        return "Strategies are in the order of their validation figures, so that no test row chooses the first."
    return (
        "Strategies are in the order of their test figures, since there are validation figures of some or none only: "
        "the first was found by looking at test rows, so its own figure may be too high."
    )


def _about_seeds(ranked: pd.DataFrame) -> Iterator[str]:
    """Yield how many seeds it would take to tell a small difference apart, by the widest spread in the table."""
    needed = ranked["seeds_needed"].dropna()
    if needed.empty:
        return
    most = needed.max()
    difference = figures.setting(WORTH_TELLING)
    if math.isinf(most):
        yield (
            f"A difference of {difference} to the first could not be told apart by any number of seeds up to "
            f"{MOST_SEEDS}, by the widest spread seen here: that takes more records."
        )
        return
    yield (
        f"To tell a difference of {difference} to the first apart, four times out of five, it would take about "
        f"{most:.0f} seeds, by the widest spread seen here."
    )


def _for_whom(played: Played) -> str:
    """Return for whom the epsilon of one training is: alike in all scenarios, or in each; nothing without privacy."""
    whom = {}
    for released in played.released:
        protected = dict.fromkeys(f"one {unit_of(unit).promise.protected}" for unit in released.units)
        whom[released.scenario] = " or ".join(protected)

    if len(set(whom.values())) < 2:
        return "".join(f", for {text}" for text in set(whom.values()))
    return "".join(f", for {text} in {name}" for name, text in whom.items())


def _shown(ranked: pd.DataFrame, axes: Sequence[str]) -> list[str]:
    """Return the axes that are columns of the table: those with several values, the strategy last."""
    return [*(name for name in axes if name != "strategy" and ranked[name].nunique() > 1), "strategy"]


def _starts(ranked: pd.DataFrame, shown: Sequence[str]) -> list[bool]:
    """Return for each row whether a field of the grid starts with it."""
    varied = list(shown[:-1])
    if not varied:
        return [number == 0 for number in range(len(ranked))]
    fields = ranked[varied].astype(str).agg(" ".join, axis=1)
    return (fields != fields.shift()).tolist()


def _cells(ranked: pd.DataFrame, shown: Sequence[str], metric: str) -> tuple[list[str], list[list[str]]]:
    """Return the heads of the table and its rows: an axis that varies, then the figures."""
    reaching = [name for name in ("rounds", "time") if name in ranked]
    heads = [*shown, "group", metric, "vs. first", "worst", "spread", "MB", *reaching]
    rows = []
    for row in ranked.to_dict("records"):
        cells = [str(row[name]) for name in shown]
        cells.append(str(row["group"]))
        cells.append(figures.margin(row["mean"], row["low"], row["high"]))
        difference = (row["difference"], row["difference_low"], row["difference_high"])
        cells.append(figures.margin(*difference, signed=True))
        cells.append(figures.figure(row["worst"]))
        cells.append(figures.figure(row["spread"]))
        cells.append(f"{row['megabytes']:.3g}")
        for name in reaching:
            reached = row[name]
            cells.append(figures.UNKNOWN if pd.isna(reached) else figures.setting(round(reached, 2)))
        rows.append(cells)
    return heads, rows
