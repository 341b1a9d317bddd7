"""The page of a story for those who decide, its figures as JSON, and its pictures."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from fedsim import figures
from fedsim.audits.bounds import CONFIDENCE
from fedsim.audits.finding import EPSILON, QUESTIONS, Finding, lower_bounds
from fedsim.audits.story import charts
from fedsim.audits.story.levels import Level, Story
from fedsim.report.pages import PAGES
from fedsim.results.comparison import HERE
from fedsim.results.run_directory import write_bytes, write_json

TableRow = tuple[str, str, list[str]]
"""A name, a hint how to read it, and a cell for each level."""


def write(story: Story, folder: Path) -> list[Path]:
    """Write ``story.html``, ``story.json`` and the pictures into a folder; return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "story.json", story.values)
    written = [folder / "story.html", folder / "story.json"]

    # Sections of the page: (what a picture shows, the picture as text).
    sections = []
    drawn: dict[str, bytes] = {}
    for name, of_levels in charts.pictures_of(story.levels).items():
        drawn[name] = charts.draw(of_levels)
        first = next(iter(of_levels.values()))
        sections.append((first, _as_text(drawn[name])))
    epsilons = charts.epsilons(story.levels)
    if epsilons:
        drawn["epsilon"] = epsilons
    for name, picture in drawn.items():
        path = folder / f"{name}.png"
        write_bytes(path, picture)
        written.append(path)

    page = PAGES.get_template("story.html.j2").render(
        told=story,
        answers=list(answers(story)),
        groups=groups(story),
        sections=sections,
        epsilons=_as_text(epsilons) if epsilons else "",
        confidence=figures.share(CONFIDENCE),
        run=story.levels[0].run,
    )
    write_bytes(folder / "story.html", page.encode())
    return written


def table(story: Story) -> Table:
    """Lay out the figures for a terminal of 80 columns: a column for each level."""
    laid_out = Table(
        title=escape(story.scenario.title),
        title_justify="left",
        title_style="bold",
        box=SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
    )
    laid_out.add_column("")
    for level in story.levels:
        laid_out.add_column(level.title, justify="right")
    for title, rows in groups(story):
        if rows:
            laid_out.add_section()
            laid_out.add_row(f"[bold]{escape(title)}[/bold]", *("" for _ in story.levels))
        for name, _, cells in rows:
            laid_out.add_row(escape(name), *map(escape, cells))
    return laid_out


def lines(story: Story) -> Iterator[str]:
    """Yield the lines below the table on a terminal."""
    yield "In brackets: a 95 % interval, members found at 1 % false alarms, the median error."
    yield _verdict(story)


def answers(story: Story) -> Iterator[tuple[str, str]]:
    """Yield the questions of a privacy officer with the answers that the figures give."""
    run = story.levels[0].run
    metric = run.metrics[0]
    reached = []
    for level in story.levels:
        mean = level.mean(metric)["mean"]
        figure = figures.UNKNOWN if mean is None else figures.figure(mean)
        reached.append(f"{figure} with {level.title}")
    yield "How good is the model?", f"By {metric.label} {run.headline_place}: {'; '.join(reached)}."

    yield from _answers_of_attacks(story.levels)
    yield "Does the promise hold?", _verdict(story)
    yield (
        "What is not promised?",
        "What is true of a site as a whole, such as how common an outcome is there: noise for single records does not "
        "hide it, and the last rows of the table show how well it is read off.",
    )


def _answers_of_attacks(levels: Sequence[Level]) -> Iterator[tuple[str, str]]:
    """Yield each question that attacks answer, with the first answer of each level."""
    by_question: dict[str, dict[str, str]] = {}
    words = {}
    for level in levels:
        for finding in level.audit.findings:
            answer = finding.answer
            if answer:
                words.setdefault(answer.question, answer)
                figures = by_question.setdefault(answer.question, {})
                figures.setdefault(level.title, answer.figure)
    for question, figures in by_question.items():
        listed = "; ".join(f"{figure} with {title}" for title, figure in figures.items())
        tail = f" {words[question].tail}" if words[question].tail else ""
        yield question, f"{words[question].lead}: {listed}.{tail}"


def groups(story: Story) -> list[tuple[str, list[TableRow]]]:
    """Build the rows of the table, under the questions that they answer: a cell for each level."""
    findings = [finding for level in story.levels for finding in level.audit.findings]
    asked = {finding.question for finding in findings} | {EPSILON}
    others = sorted(asked.difference(QUESTIONS))
    built = [("The model", _model_rows(story.levels))]
    for question in [*QUESTIONS, *others]:
        rows = _finding_rows(story.levels, question)
        if question == EPSILON:
            rows = _with_claims(story.levels, rows)
        if rows:
            built.append((question, rows))
    return built


def _finding_rows(levels: Sequence[Level], question: str) -> list[TableRow]:
    """Build the rows of the findings that answer a question; where a level has none, its cell is a dash."""
    hints: dict[str, str] = {}
    cells: dict[str, list[str]] = {}
    for place, level in enumerate(levels):
        for row in (row for finding in _answering(level, question) for row in finding.rows):
            hints.setdefault(row.name, row.hint)
            cells.setdefault(row.name, [figures.UNKNOWN] * len(levels))[place] = row.cell
    return [(name, hint, cells[name]) for name, hint in hints.items()]


def _answering(level: Level, question: str) -> list[Finding]:
    return [finding for finding in level.audit.findings if finding.question == question]


def _model_rows(levels: Sequence[Level]) -> list[TableRow]:
    run = levels[0].run
    hint = (
        f"{run.headline_place}; {run.metrics[0].better} is better; 95 % interval over {run.scenario.seeds} seeds, "
        f"{run.asked}"
    )
    rows: list[TableRow] = []
    for metric in run.metrics:
        cells = []
        for level in levels:
            mean = level.numbers.of("mean", level.private, "federated", metric.name)
            interval = f" ({mean.below()})" if mean.below() else ""
            cells.append(f"{mean.value()}{interval}")
        name = f"{metric.label[0].upper()}{metric.label[1:]}"
        rows.append((name, "" if rows else hint, cells))

    cells = []
    for level in levels:
        if not level.private:
            cells.append(figures.UNKNOWN)
            continue
        change = level.numbers.cost(here=True)
        interval = f" ({change.below(signed=True)})" if change.bounds() else ""
        cells.append(f"{change.value(signed=True)}{interval}")
    hint = f"in {run.metrics[0].label} {HERE}, paired by seed, beside the same training without noise"
    return [*rows, ("What noise changes", hint, cells)]


def _with_claims(levels: Sequence[Level], estimates: list[TableRow]) -> list[TableRow]:
    """Put the claims and the bounds above the estimates, and the verdicts below them."""
    claims = []
    proven = []
    verdicts = []
    deltas = set()
    for level in levels:
        claim = level.audit.claim
        if claim is None:
            claims.append("nothing released" if level.private else "no guarantee")
            proven.append(figures.UNKNOWN)
            verdicts.append(figures.UNKNOWN)
            continue
        claims.append(figures.epsilon(claim.epsilon))
        proven.append(f"at least {figures.proven_epsilon(level.audit.bound)}")
        verdicts.append("REFUTED" if level.audit.broken else "stands")
        deltas.add(figures.setting(claim.delta))
    at_delta = f"for one record of one site, at delta {' or '.join(sorted(deltas))}" if deltas else ""
    bounds = max(len(lower_bounds(level.audit.findings)) for level in levels)
    hint = f"the largest of {bounds} lower bounds, each of {figures.share(CONFIDENCE)} confidence" if bounds else ""
    return [
        ("Claimed", at_delta, claims),
        ("Proven by attacks", hint, proven),
        *estimates,
        ("The claim", "", verdicts),
    ]


def _verdict(story: Story) -> str:
    claimed = [level for level in story.levels if level.audit.claim]
    if not claimed:
        return "Nothing is promised at any of these levels."
    if story.broken:
        proven = []
        for level in story.broken:
            bound = figures.proven_epsilon(level.audit.bound)
            proven.append(f"at {level.title} attacks prove at least {bound}")
        return f"No: {'; '.join(proven)}. Do not rely on it."
    proven = []
    for level in claimed:
        bound = figures.proven_epsilon(level.audit.bound)
        proven.append(f"{bound} where {_claimed(level)} is claimed")
    return (
        f"No attack proved more than is claimed: at least {'; '.join(proven)}. "
        "That proves the claim not wrong, not right."
    )


def _claimed(level: Level) -> str:
    """Write the epsilon that a level claims."""
    claim = level.audit.claim
    return figures.UNKNOWN if claim is None else figures.epsilon(claim.epsilon)


def _as_text(picture: bytes) -> str:
    return base64.b64encode(picture).decode()
