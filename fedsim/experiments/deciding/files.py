"""Write the files of a sweep or a tuned comparison: a page, a picture, CSV and JSON; each whole or not at all."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from fedsim import figures
from fedsim.experiments.deciding.decided import Decided
from fedsim.mistakes import Mistake
from fedsim.outcomes import metric_named
from fedsim.report.frontier import draw
from fedsim.report.pages import PAGES
from fedsim.results.run_directory import write_bytes

NONE = "none"


def check_place(folder: Path) -> None:
    """Make sure that files can be written into a folder, before anything is trained.

    Raises:
        Mistake: A run is in it, or it is a file.
    """
    if (folder / "scenario.toml").exists() or (folder / "manifest.json").exists():
        raise Mistake(f"--out: {folder}: expected a folder of its own, a run is in it")
    if folder.exists() and not folder.is_dir():
        raise Mistake(f"--out: {folder}: expected a folder, got a file")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Mistake(f"--out: {folder}: expected a folder that can be written, got: {error.strerror}") from None
    if not os.access(folder, os.W_OK):
        raise Mistake(f"--out: {folder}: expected a folder that can be written")


def write(folder: Path, decided: Decided, page: str, more: Sequence[str] = ()) -> None:
    """Write all files into a folder.

    Args:
        folder: Where they go; made where it is missing.
        decided: The findings.
        page: The name of the page, without its ending: ``sweep`` or ``tune``.
        more: The names of other files that stand beside the page.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tables = {
        "points": decided.points,
        "by-epsilon": decided.by_epsilon,
        "by-arm": decided.by_arm,
        "trainings": decided.chosen.trainings,
        "scores": decided.scores,
        "curves": decided.curves,
    }
    for name, table in tables.items():
        write_bytes(folder / f"{name}.csv", table.to_csv(index=False).encode())

    text = json.dumps(as_document(decided), indent=2, allow_nan=False)
    write_bytes(folder / f"{page}.json", f"{text}\n".encode())

    picture = draw(_with_numbers(decided.points), f"test {metric_named(decided.chosen.metric).label}")
    for name, content in picture.files().items():
        write_bytes(folder / name, content)
    rendered = PAGES.get_template("decision.html.j2").render(
        version=version("fedsim-flower"),
        title=decided.title,
        kind="tuned arms" if page == "tune" else "a sweep",
        answers=decided.answers,
        cautions=decided.cautions,
        picture=picture,
        label=metric_named(decided.chosen.metric).label,
        heads=_heads(decided),
        rows=list(_rows(decided)),
        differences=list(_differences(decided)),
        about_privacy=decided.about_privacy,
        how=[*decided.how, *decided.about_seeds],
        command=decided.command,
        tables=[*(f"{name}.csv" for name in tables), *more],
        page=page,
    )
    write_bytes(folder / f"{page}.html", rendered.encode())


def _with_numbers(points: pd.DataFrame) -> pd.DataFrame:
    """Return the points with their epsilons as numbers, and None for no privacy."""
    numbers = [None if text == NONE else float(text) for text in points["epsilon"]]
    return points.assign(epsilon=pd.Series(numbers, index=points.index, dtype=object))


def as_document(decided: Decided) -> dict[str, Any]:
    """Return the document that ``--json`` prints."""
    document: dict[str, Any] = {
        "scenario": decided.scenario,
        "metric": decided.chosen.metric,
        "seeds": decided.seeds,
        "answers": decided.answers,
        "cautions": list(decided.cautions),
    }
    for name in ("points", "by_epsilon", "by_arm"):
        document[name] = _records(getattr(decided, name))
    document["privacy"] = [vars(released) for released in decided.released]
    return document


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows of a table as JSON has them: missing and infinite numbers as null."""
    return json.loads(table.to_json(orient="records"))


def table(decided: Decided) -> Table:
    """Return the points for a terminal."""
    printed = Table(box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for number, name in enumerate(_heads(decided)):
        if number < 2:
            printed.add_column(escape(name), overflow="fold")
        else:
            printed.add_column(escape(name), justify="right", overflow="fold")
    for row in _rows(decided):
        printed.add_row(*map(escape, row))
    return printed


def lines(decided: Decided) -> Iterator[str]:
    """Yield the sentences that a terminal shows below the table."""
    yield from decided.answers
    yield from decided.how
    yield from decided.about_seeds
    yield from decided.about_privacy
    yield from decided.cautions


def _heads(decided: Decided) -> list[str]:
    several = decided.points["epsilon"].nunique() > 1
    heads = ["arm", "epsilon", decided.chosen.metric]
    if several:
        heads.append(f"vs. {_name(decided.by_epsilon['against'].iloc[0])}")
    if len(decided.by_arm):
        heads.append(f"vs. {decided.reference}")
    if decided.chosen.settings:
        heads.append("chosen")
    return heads


def _rows(decided: Decided) -> Iterator[list[str]]:
    """Yield the rows of the table: a row for each arm and epsilon."""
    several = decided.points["epsilon"].nunique() > 1
    for row in decided.points.to_dict("records"):
        cells = [row["arm"], "none" if row["epsilon"] == NONE else row["epsilon"]]
        cells.append(figures.margin(row["mean"], row["low"], row["high"]))
        if several:
            cells.append(_change(decided.by_epsilon, row))
        if len(decided.by_arm):
            cells.append(_change(decided.by_arm, row))
        if decided.chosen.settings:
            cells.append(row["settings"])
        yield cells


def _change(contrasts: pd.DataFrame, point: Mapping[Any, Any]) -> str:
    """Return the difference of one point to that which it is compared with."""
    same = (contrasts["arm"] == point["arm"]) & (contrasts["epsilon"] == point["epsilon"])
    if not same.any():
        return figures.UNKNOWN
    row = contrasts[same].iloc[0]
    return figures.margin(row["difference"], row["low"], row["high"], signed=True)


def _differences(decided: Decided) -> Iterator[list[str]]:
    """Yield a row for each comparison: what with what, the difference, both intervals and their verdicts."""
    for contrasts in (decided.by_epsilon, decided.by_arm):
        for row in contrasts.to_dict("records"):
            by_arm = contrasts is decided.by_arm
            against = row["against"] if by_arm else _name(row["against"])
            yield [
                f"{row['arm']}, {_name(row['epsilon'])}",
                against,
                figures.figure(row["difference"], signed=True),
                figures.bounds(row["here_low"], row["here_high"], signed=True),
                row["here_verdict"] or figures.UNKNOWN,
                figures.bounds(row["low"], row["high"], signed=True),
                row["verdict"] or figures.UNKNOWN,
            ]


def _name(epsilon: str) -> str:
    return "no privacy" if epsilon == NONE else f"epsilon {epsilon}"
