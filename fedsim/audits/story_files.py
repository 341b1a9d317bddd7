"""What a story leaves: one page for those who decide, the figures as JSON, and the pictures."""

from __future__ import annotations

import base64
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from fedsim.audits import story_charts
from fedsim.audits.bounds import CONFIDENCE, ceiling
from fedsim.audits.inversion import Inversion
from fedsim.audits.membership import Membership
from fedsim.audits.story import Level, Story
from fedsim.audits.target import property_in_words
from fedsim.data.loading import task_of
from fedsim.report.pages import PAGES
from fedsim.results.comparison import HERE
from fedsim.results.run_directory import write_bytes, write_json

_DASH = "–"
Row = tuple[str, str, list[str]]  # what it is, how to read it, and a cell for each level


def write(told: Story, folder: Path) -> list[Path]:
    """Write ``story.html``, ``story.json`` and the pictures into a folder; return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "story.json", told.values)
    drawn = {
        "membership": story_charts.membership(told.levels),
        "epsilon": story_charts.epsilons(told.levels),
        "records": story_charts.records(told.levels, task_of(told.scenario).columns),
    }
    pictures = {name: picture for name, picture in drawn.items() if picture}
    for name, picture in pictures.items():
        write_bytes(folder / f"{name}.png", picture)
    page = PAGES.get_template("story.html.j2").render(
        told=told,
        answers=list(answers(told)),
        groups=groups(told),
        pictures={name: base64.b64encode(picture or b"").decode() for name, picture in drawn.items()},
        confidence=f"{CONFIDENCE:.0%}",
        run=told.levels[0].run,
    )
    write_bytes(folder / "story.html", page.encode())
    return [folder / name for name in ("story.html", "story.json", *(f"{name}.png" for name in pictures))]


def table(told: Story) -> Table:
    """Return the figures for a terminal of 80 columns: a column for each level."""
    found = Table(title=escape(told.scenario.title), title_justify="left", title_style="bold", box=SIMPLE_HEAD,
                  pad_edge=False, collapse_padding=True)  # fmt: skip
    found.add_column("")
    for level in told.levels:
        found.add_column(level.title, justify="right")
    for title, rows in groups(told):
        if rows:
            found.add_section()
            found.add_row(f"[bold]{escape(title)}[/bold]", *("" for _ in told.levels))
        for name, _, cells in rows:
            found.add_row(escape(name), *map(escape, cells))
    return found


def lines(told: Story) -> Iterator[str]:
    """Yield what a terminal shows below the table."""
    yield "In brackets: a 95 % interval, members found at 1 % false alarms, the median error."
    yield _verdict(told)


def answers(told: Story) -> Iterator[tuple[str, str]]:
    """Yield what an officer asks, and the answer that the figures give."""
    metric = told.levels[0].run.metrics[0]
    reached = "; ".join(f"{_figure(level.mean(metric)['mean'])} with {level.title}" for level in told.levels)
    yield "How good is the model?", f"By {metric.label} {told.levels[0].run.headline_place}: {reached}."
    found = [(level, one) for level in told.levels if (one := _lira(level))]
    if found:
        said = "; ".join(f"{one.tpr:.1%} with {level.title}" for level, one in found)
        yield (
            "Can one tell who was in the data?",
            f"Of those who were, the attack finds, while it accuses one in a hundred others wrongly: {said}. "
            "Guessing finds 1.0%.",
        )
    rebuilt = [(level, next(iter(own.values()))) for level in told.levels if (own := _rebuilt(level))]
    if rebuilt:
        said = "; ".join(f"{one.found:.0%} of the records with {level.title}" for level, one in rebuilt)
        yield "Can a record be rebuilt?", f"From the update of a site that trained on it alone: {said}."
    yield "Does the promise hold?", _verdict(told)
    yield (
        "What is not promised?",
        "What is true of a site as a whole, such as how common an outcome is there: noise for single records does not "
        "hide it, and the last rows of the table show how well it is read off.",
    )


def groups(told: Story) -> list[tuple[str, list[Row]]]:
    """Return the rows of the table, in groups: a cell for each level."""
    levels = told.levels
    return [
        ("The model", _model_rows(levels)),
        ("Who was in the data", _membership_rows(levels)),
        ("Records rebuilt from what a site sends", _inversion_rows(levels)),
        ("Epsilon: claimed, proven, estimated", _epsilon_rows(levels)),
        ("What sites are like", _site_rows(told)),
    ]


def _model_rows(levels: Sequence[Level]) -> list[Row]:
    rows: list[Row] = []
    for number, metric in enumerate(levels[0].run.metrics):
        means = [level.numbers.of("mean", level.private, "federated", metric.name) for level in levels]
        cells = [f"{mean.value()}{f' ({mean.below()})' if mean.below() else ''}" for mean in means]
        hint = (
            f"{levels[0].run.headline_place}; {metric.better} is better; 95 % interval over "
            f"{levels[0].run.scenario.seeds} seeds, {levels[0].run.asked}"
            if not number
            else ""
        )
        rows.append((f"{metric.label[0].upper()}{metric.label[1:]}", hint, cells))
    changes = [level.numbers.cost(here=True) if level.private else None for level in levels]
    cells = [
        f"{one.value(signed=True)}{f' ({one.below(signed=True)})' if one.bounds() else ''}" if one else _DASH
        for one in changes
    ]
    label = levels[0].run.metrics[0].label
    return [
        *rows,
        ("What noise changes", f"in {label} {HERE}, paired by seed, beside the same training without noise", cells),
    ]


def _membership_rows(levels: Sequence[Level]) -> list[Row]:
    attacks = [level.audit.membership.get(level.kind, {}) for level in levels]

    def cells(name: str) -> list[str]:
        return [f"{own[name].auc:.3f} ({own[name].tpr:.1%})" if name in own else _DASH for own in attacks]

    most = [
        f"{ceiling(claim.epsilon, claim.delta):.3f}" if (claim := level.audit.claim) else "1.000" if not level.private
        else _DASH for level in levels
    ]  # fmt: skip
    hint = "AUC, where 0.5 is guessing, and in brackets the members found at 1 % false alarms"
    return [
        ("With shadow models, LiRA", hint, cells("lira")),
        ("With shadow models, RMIA", "", cells("rmia")),
        ("By the loss alone", "", cells("loss")),
        ("The most any attack can reach", "AUC, by the epsilon claimed", most),
    ]


def _inversion_rows(levels: Sequence[Level]) -> list[Row]:
    names = {
        "analytic": ("Solved for, one record alone", "share rebuilt, and in brackets the median error; 1 is as far off "
                     "as saying nothing"),
        "dlg": ("Searched for, DLG", ""),
        "idlg": ("Searched for, iDLG", ""),
        "round": ("From a usual round", "the best guess against the record nearest to it"),
    }  # fmt: skip
    rows: list[Row] = []
    for name, (title, hint) in names.items():
        found = [_rebuilt(level).get(name) for level in levels]
        if any(found):
            cells = [f"{one.found:.0%} of {one.records} ({_error(one.error)})" if one else _DASH for one in found]
            rows.append((title, hint, cells))
    return rows


def _epsilon_rows(levels: Sequence[Level]) -> list[Row]:
    audits = [level.audit for level in levels]
    nothing = ["no guarantee" if not level.private else "nothing released" for level in levels]
    claims = [f"{one.claim.epsilon:.2f}" if one.claim else none for one, none in zip(audits, nothing, strict=True)]
    proven = [f"at least {one.bound:.2f}" if one.claim else _DASH for one in audits]
    paired = [f"about {one.paired.estimate:.2f}" if one.paired else _DASH for one in audits]
    final = [f"about {one.one_shot.estimate:.2f}" if one.one_shot else _DASH for one in audits]
    verdicts = [("REFUTED" if one.broken else "stands") if one.claim else _DASH for one in audits]
    deltas = {f"{one.claim.delta:g}" for one in audits if one.claim}
    return [
        ("Claimed", f"for one record of one site, at delta {' or '.join(sorted(deltas))}" if deltas else "", claims),
        ("Proven by attacks", f"the largest of four lower bounds, each of {CONFIDENCE:.0%} confidence", proven),
        ("Estimated, a canary in or out", "no bound: may be above or below the truth", paired),
        ("Estimated, final model only", "one training with random canaries; no bound", final),
        ("The claim", "", verdicts),
    ]


def _site_rows(told: Story) -> list[Row]:
    rows: list[Row] = []
    sources = [level.audit.sources.get(level.kind) for level in told.levels]
    if any(sources):
        guessing = next(one for one in sources if one).guessing
        cells = [f"{one.right:.1%}" if one else _DASH for one in sources]
        rows.append(("At which site is a record?", f"named rightly; guessing reaches {guessing:.1%}", cells))
    properties = [level.audit.properties.get(level.kind) for level in told.levels]
    if any(properties):
        blind = next(one for one in properties if one).blind
        cells = [f"off by {one.error:.3f}" if one else _DASH for one in properties]
        words = property_in_words(task_of(told.scenario).kind)
        rows.append(("What is a site like?", f"{words}; guessing is off by {blind:.3f}", cells))
    return rows


def _verdict(told: Story) -> str:
    claimed = [level for level in told.levels if level.audit.claim]
    if not claimed:
        return "Nothing is promised at any of these levels."
    if told.broken:
        said = "; ".join(
            f"at {level.title} attacks prove at least {level.audit.bound:.2f}" for level in told.broken
        )  # fmt: skip
        return f"No: {said}. Do not rely on it."
    said = "; ".join(f"{level.audit.bound:.2f} where {_up(level)} is claimed" for level in claimed)
    return f"No attack proved more than is claimed: at least {said}. That proves the claim not wrong, not right."


def _up(level: Level) -> str:
    claim = level.audit.claim
    return f"{math.ceil(100 * claim.epsilon - 1e-9) / 100:.2f}" if claim else _DASH


def _lira(level: Level) -> Membership | None:
    return level.audit.membership.get(level.kind, {}).get("lira")


def _rebuilt(level: Level) -> Mapping[str, Inversion]:
    return level.audit.inversion.get(level.kind, {})


def _figure(value: float | None) -> str:
    return _DASH if value is None else f"{value:.3f}"


def _error(value: float) -> str:
    return "< 0.001" if value < 1e-3 else f"{value:.2g}"
