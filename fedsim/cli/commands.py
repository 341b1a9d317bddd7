"""The command line: ``fedsim run``, ``resume``, ``compare``, ``audit``, ``list``, ``show``, ``check`` and so on.

Only what a command needs is imported, inside it: ``fedsim --help`` and ``fedsim list`` must not wait for torch.
"""

import contextlib
import io
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fedsim.cli.terminal import arms_table, as_document, checks_table, closing_lines, groups_table, sites_table
from fedsim.mistakes import Interrupted, Mistake, RunFailed
from fedsim.scenario import catalog

if TYPE_CHECKING:
    from fedsim.audits.target import Effort
    from fedsim.results.run_directory import Run

app = typer.Typer(
    help="Simulate federated learning: hospitals, banks and schools train together, with differential privacy.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
_FAILURE, _USAGE, _INTERRUPTED, _TERMINATED = 1, 2, 130, 143
_SINGULAR = ("scenario", "task", "strategy", "attack", "engine", "run")

JsonFlag = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")]
StrategyOption = Annotated[
    str | None, typer.Option(help="In place of the scenario's: a name, a file of your own, or package.module:Class.")
]
RunDirectory = Annotated[Path | None, typer.Argument(help="A run directory; the newest under runs/ if left out.")]


def main() -> None:
    """Run the command line. What is not a bug ends in one line for each mistake, without a traceback."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(_TERMINATED))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        app()
    except Mistake as mistake:
        _fail(str(mistake), _USAGE)
    except RunFailed as failure:
        _fail(str(failure), _FAILURE)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader left, e.g. `| head`
        sys.exit(_FAILURE)
    except OSError as error:
        _fail(f"{error.filename or 'system'}: {error.strerror or error}", _FAILURE)


@app.command()
def run(
    scenario: Annotated[
        str | None, typer.Argument(help="A scenario's name (see `fedsim list`) or a .toml file; none with --data.")
    ] = None,
    changes: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a value: privacy.epsilon=2.")
    ] = None,
    strategy: StrategyOption = None,
    seeds: Annotated[int | None, typer.Option(help="How many seeds.")] = None,
    seed: Annotated[int | None, typer.Option(help="The first seed.")] = None,
    out: Annotated[Path | None, typer.Option(help="The run directory to make [runs/SCENARIO-DATE].")] = None,
    data: Annotated[
        Path | None, typer.Option(help="A table of your own, CSV or Parquet, in place of a task.", metavar="FILE")
    ] = None,
    target: Annotated[str | None, typer.Option(help="Its column with the outcome.", metavar="COLUMN")] = None,
    site: Annotated[str | None, typer.Option(help="Its column with each row's site.", metavar="COLUMN")] = None,
    ranges: Annotated[
        str | None, typer.Option(help="Its public ranges: a TOML file [FILE.ranges.toml] or from-data.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Run a scenario, or your own table: federated against centralized against local-only."""
    from fedsim.scenario.files import read, read_own, with_strategy

    options = {"data.path": data, "data.target": target, "data.site": site, "data.ranges": ranges}
    options |= {"seed": seed, "seeds": seeds}
    given = [f"{key}={_quoted(value)}" for key, value in options.items() if value is not None]
    overrides = [*([with_strategy(strategy)] if strategy else []), *(changes or []), *given]
    if scenario is None and data is None:
        raise Mistake("run: expected a scenario (see fedsim list scenarios) or --data FILE --target COLUMN")
    chosen = read_own(overrides) if scenario is None else read(scenario, overrides)
    from fedsim.experiments.experiment import execute

    with _progress() as progress:
        finished = execute(chosen, out, progress)
    _print_run(finished, as_json)


def _quoted(value: Any) -> str:  # noqa: ANN401  a number, a path or a word
    """Return a value as ``--set`` takes it: text that looks like a number stays text."""
    return str(value) if isinstance(value, int) else json.dumps(str(value), ensure_ascii=False)


@app.command()
def resume(
    run_dir: Annotated[Path, typer.Argument(help="The directory of an interrupted run.")],
    strategy: Annotated[
        str | None, typer.Option(help="The code the run was begun with, if its strategy is code.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Go on with an interrupted run; what was finished is not run again."""
    if strategy:
        catalog.allow(strategy)
    from fedsim.experiments import experiment

    with _progress() as progress:
        finished = experiment.resume(run_dir, progress)
    _print_run(finished, as_json)


@app.command()
def compare(
    scenarios: Annotated[list[str], typer.Argument(help="Scenarios' names, or .toml files.")],
    strategy: Annotated[
        str, typer.Option(help="Strategies, e.g. fedavg,krum:f=2,my_strategy.py; by default the scenario's alone.")
    ] = "fedavg",
    attack: Annotated[
        str, typer.Option(help="Attacks, e.g. none,sign-flip:factor=4, by a fifth of the sites; own: the scenario's.")
    ] = "own",
    epsilon: Annotated[
        str, typer.Option(help="Privacy budgets, e.g. none,8,2, of the scenario's unit or of records.")
    ] = "none",
    seeds: Annotated[int, typer.Option(help="How many seeds.", min=1)] = 5,
    vary: Annotated[
        list[str] | None, typer.Option(metavar="KEY=V1,V2", help="Cross with any value: attack.share=0.1,0.3.")
    ] = None,
    changes: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a value for all.")
    ] = None,
    metric: Annotated[
        str | None, typer.Option(help="Rank by this, e.g. accuracy; by default the task's first.")
    ] = None,
    target: Annotated[
        float | None, typer.Option(help="Count the rounds, and the time, to this validation value.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Where the files go.")] = Path("runs/tournament"),
    kept: Annotated[Path, typer.Option("--cache", help="Where trainings are kept.")] = Path("runs/cache"),
    as_json: JsonFlag = False,
) -> None:
    """Run a tournament of strategies; what has run before is not run again."""
    from fedsim.experiments import ranking, tournament, tournament_files

    grid = tournament.cells(
        tournament.Axes(
            scenarios=scenarios,
            strategies=strategy.split(","),
            attacks=attack.split(","),
            epsilons=epsilon.split(","),
            varied=vary or [],
            changes=changes or [],
            seeds=seeds,
        )
    )
    with _progress() as progress:
        played = tournament.play(grid, kept, progress)
    if played.costs.empty:  # a training that failed at a later seed leaves scores, but does not compete
        raise Mistake("\n".join(dict.fromkeys(played.refused["reason"])))
    axes, metric = ranking.axes_of(played.scores), ranking.metric_of(grid[0].scenario, metric)
    overlaps = ranking.overlaps_of(grid)
    ranked = ranking.rank(played, metric, overlaps, target)
    pairs = ranking.pairs(played, metric, overlaps)
    tournament_files.write(out, played, ranked, pairs, axes, metric, seeds)
    if as_json:
        _print_json({"out": str(out), **tournament_files.as_document(ranked, played, metric)})
        return
    console = _console()
    console.print(tournament_files.table(ranked, axes, metric))
    for line in (*tournament_files.lines(played, ranked, axes, seeds), f"page: {out / 'tournament.html'}"):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


@app.command("list")
def list_names(
    kind: Annotated[str | None, typer.Argument(help=f"One of {', '.join(catalog.KINDS)}; all if left out.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """List scenarios, tasks, strategies or engines."""
    if kind is not None and kind not in catalog.KINDS:
        raise Mistake(f"list: expected one of {', '.join(catalog.KINDS)}, got {kind!r}")
    found = {name: catalog.titles(name) for name in ([kind] if kind else catalog.KINDS)}
    if as_json:
        lists = {key: [{"name": n, "title": t} for n, t in titles.items()] for key, titles in found.items()}
        _print_json(lists[kind] if kind else lists)
        return
    for key, titles in found.items():
        table = Table(title=None if kind else key, title_justify="left", show_header=False, box=None, pad_edge=False)
        for name, title in titles.items():
            table.add_row(escape(name), escape(title))
        _console().print(table)


@app.command()
def show(
    words: Annotated[
        list[str], typer.Argument(metavar="[KIND] NAME", help="A scenario, task, strategy, engine or run directory.")
    ],
    out: Annotated[Path | None, typer.Option(help="Draw the sites of a scenario or task into this PNG file.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Show what a scenario asks for, what a task holds, what a strategy does, or what a run gave."""
    what = words[-1]
    if len(words) > 2 or (len(words) == 2 and words[0] not in _SINGULAR):
        raise Mistake(f"show: expected [{'|'.join(_SINGULAR)}] NAME, got {' '.join(words)}")
    if (Path(what) / "scenario.toml").is_file():
        from fedsim.results.run_directory import load

        _print_run(load(what), as_json)
        return
    from fedsim.cli import cards

    card = cards.card(what)
    if out:
        if card.contents is None:
            raise Mistake(f"--out: expected a scenario or task whose sites have rows to draw, got {what}")
        from fedsim.cli.pictures import draw

        draw(out, card.title, card.contents)
    if as_json:
        _print_json(card.values | ({"picture": str(out)} if out else {}))
    else:
        text = f"{card.text}\n\npicture: {out}" if out else card.text
        _console().print(text, markup=False, highlight=False, soft_wrap=True)


@app.command()
def check(
    strategy: Annotated[str, typer.Argument(help="A strategy's name, a file of your own, or package.module:Class.")],
    changes: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Set a hyperparameter: f=2.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Try a strategy on made-up updates and say what holds; exit code 1 if it breaks what every strategy must keep."""
    if catalog.is_code(strategy):
        catalog.allow(strategy)
    from fedsim.strategy.contract_check import examine
    from fedsim.strategy.make import made_of

    found = examine(made_of(strategy, changes or []))
    broken = [one for one in found if one.required and not one.holds]
    if as_json:
        _print_json({"strategy": strategy, "passes": not broken, "checks": [asdict(one) for one in found]})
    else:
        _console(80).print(checks_table(strategy, found))  # sentences wrap
    if broken:
        raise typer.Exit(_FAILURE)


@app.command()
def report(run_dir: RunDirectory = None, as_json: JsonFlag = False) -> None:
    """Write the report of a finished run anew."""
    from fedsim.results.run_directory import load, newest

    finished = load(run_dir or newest())
    from fedsim.report.page import write

    path = write(finished)
    if as_json:
        _print_json({"run_dir": str(finished.path), "report": str(path)})
    else:
        _console().print(f"report: {path}", markup=False, highlight=False, soft_wrap=True)


@app.command()
def groups(
    run_dir: RunDirectory = None,
    arm: Annotated[str | None, typer.Option(help="Which arm; by default the federated one.")] = None,
    rate: Annotated[str | None, typer.Option(help="Which rate, e.g. selection_rate; by default the first.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Show how each protected group and site is treated, and what privacy changes; --json has every arm and rate."""
    from fedsim.results.groups import FEW, RATES
    from fedsim.results.run_directory import load, newest

    finished = load(run_dir or newest())
    arms, rates = finished.scenario.arms, [one.name for one in RATES[finished.kind]]
    arm, rate = arm or ("federated" if "federated" in arms else arms[0]), rate or rates[0]
    for option, value, known in (("arm", arm, arms), ("rate", rate, rates)):
        if value not in known:
            raise Mistake(f"--{option}: expected one of {', '.join(known)}, got {value!r}")
    if as_json:
        tables = {"groups": finished.harm, "widths": finished.widths}
        rows = {name: json.loads(table.to_json(orient="records")) for name, table in tables.items()}
        _print_json({"run_dir": str(finished.path), **rows})
        return
    console = _console()
    console.print(groups_table(finished, arm, rate))
    for line in (
        f"Means over seeds of test rows; ± half a 95 % interval {finished.asked}, paired by seed. To others: less "
        "everyone else's. By privacy: its interval speaks of these records.",
        f"Of: the rows of a seed that the rate is taken of; few: fewer than {FEW} in some seed.",
    ):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


@app.command()
def privacy(
    q: Annotated[float, typer.Option("--q", help="The probability that a row joins a step, in (0, 1].")],
    steps: Annotated[int, typer.Option(help="How many steps, over all rounds.")],
    delta: Annotated[float, typer.Option(help="The delta that is promised beside epsilon, from 1e-12 to below 1.")],
    sigma: Annotated[float | None, typer.Option(help="The noise multiplier: asks for epsilon.")] = None,
    epsilon: Annotated[float | None, typer.Option(help="The epsilon to keep: asks for the least noise.")] = None,
    neighbours: Annotated[str, typer.Option(help="add-or-remove-one or replace-one.")] = "add-or-remove-one",
    runs: Annotated[int, typer.Option(help="How many such trainings on the same records, all together.")] = 1,
    as_json: JsonFlag = False,
) -> None:
    """Compute epsilon for a noise, or the noise for an epsilon, of DP-SGD with Poisson sampling."""
    from fedsim.privacy.calculator import answer

    found = answer(q, steps, delta, sigma, epsilon, neighbours, runs)  # pyright: ignore[reportArgumentType]  it checks that
    if as_json:
        _print_json(found.values)
    else:
        _console().print(found.text, markup=False, highlight=False, soft_wrap=True)


@app.command()
def audit(
    what: Annotated[str, typer.Argument(help="A run directory, a scenario's name or a .toml file.")],
    epsilon: Annotated[
        str | None, typer.Option(help="Train and attack at several levels, e.g. none,8,1, and write one report.")
    ] = None,
    changes: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a value of a scenario.")
    ] = None,
    trials: Annotated[int, typer.Option(min=20, help="Trainings with a canary, and as many without.")] = 2000,
    shadows: Annotated[int, typer.Option(min=4, help="Shadow models, an even number.")] = 64,
    out: Annotated[
        Path | None, typer.Option(help="Where to write [the run directory, runs/audit-NAME or runs/story-NAME-DATE].")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Attack what a run or scenario trains; fails if an attack proves more than is claimed."""
    from fedsim.audits.target import Effort

    effort, is_run = Effort(trials=trials, shadows=shadows + shadows % 2), (Path(what) / "scenario.toml").is_file()
    for option in [name for name, given in (("--set", changes), ("--epsilon", epsilon)) if is_run and given]:
        raise Mistake(f"audit: expected {option} with a scenario only, a run is what it is")
    if epsilon is not None:
        _tell_story(what, changes or [], epsilon, effort, out, as_json)
        return
    from fedsim.audits import audit as audits
    from fedsim.audits import audit_files, claims
    from fedsim.results.run_directory import load
    from fedsim.scenario.files import read

    if is_run:
        finished = load(what)
        scenario, claim, folder = finished.scenario, claims.claim_in(finished), Path(what)
    else:
        scenario = read(what, changes or [])
        claim, folder = claims.claim_of(scenario), Path("runs") / f"audit-{scenario.name}"
    found = audits.audit(scenario, claim, effort)
    written = audit_files.write(found, out or folder)
    if as_json:
        _print_json({**found.values, "files": [str(path) for path in written]})
    else:
        for line in [*audit_files.lines(found), *(f"written: {path}" for path in written)]:
            _console().print(line, markup=False, highlight=False, soft_wrap=True)
    if found.broken:
        raise RunFailed(f"audit: epsilon is at least {found.bound:.3g}, claimed was {found.claim.epsilon:.3g}")  # type: ignore[union-attr]


def _tell_story(
    what: str, changes: list[str], epsilon: str, effort: "Effort", out: Path | None, as_json: bool
) -> None:  # fmt: skip
    """Train and attack a scenario at several privacy levels, and write one report."""
    from fedsim.audits.story import levels as story_levels
    from fedsim.audits.story import page

    levels = story_levels.scenarios(what, changes, epsilon)
    name = next(iter(levels.values())).name
    folder = out or Path("runs") / f"story-{name}-{datetime.now():%Y%m%d-%H%M%S}"
    with _progress() as progress:
        told = story_levels.tell(levels, folder, effort, progress)
    written = page.write(told, folder)
    if as_json:
        _print_json({**told.values, "files": [str(path) for path in written]})
    else:
        _console().print(page.table(told))
        for line in [*page.lines(told), *(f"written: {path}" for path in written)]:
            _console().print(line, markup=False, highlight=False, soft_wrap=True)
    if told.broken:
        raise RunFailed("\n".join(
            f"audit: {level.title}: epsilon is at least {level.audit.bound:.3g}, "
            f"claimed was {level.audit.claim.epsilon:.3g}" for level in told.broken if level.audit.claim
        ))  # fmt: skip


def _print_run(finished: "Run", as_json: bool) -> None:
    if as_json:
        _print_json(as_document(finished))
        return
    console = _console()
    for table in (arms_table(finished), sites_table(finished)):
        console.print(table)
        console.print()
    for line in closing_lines(finished):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _print_json(value: Any) -> None:  # noqa: ANN401  anything JSON can hold
    sys.stdout.write(json.dumps(value, indent=2, allow_nan=False) + "\n")


def _console(width: int = 200) -> Console:
    """Return a console of the terminal's width; where the output is none, of one that does not cut tables."""
    return Console() if sys.stdout.isatty() else Console(width=width)


@contextlib.contextmanager
def _progress() -> Iterator[Callable[[str, int, int], None] | None]:
    """Show a bar on a terminal, nothing elsewhere; say how to go on when interrupted."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description:<32}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    try:
        with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
            task = bar.add_task("starting", total=None)
            yield lambda label, done, total: bar.update(task, description=label, completed=done, total=total)
    except Interrupted as stop:
        _fail(f"interrupted; go on with: fedsim resume {stop.folder}", _INTERRUPTED)
    except KeyboardInterrupt:
        _fail("interrupted", _INTERRUPTED)


def _fail(message: str, code: int) -> NoReturn:
    for line in message.splitlines():
        sys.stderr.write(f"fedsim: {line}\n")
    sys.exit(code)
