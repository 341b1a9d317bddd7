"""``fedsim audit``: attack what a run or a scenario trains."""

import itertools
import math
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedsim.cli import options
from fedsim.cli.output import print_json, print_lines, print_places, print_table, waiting
from fedsim.figures import epsilon as epsilon_text
from fedsim.figures import proven_epsilon
from fedsim.mistakes import Mistake, RunFailed

if TYPE_CHECKING:
    from fedsim.audits.audit import Audit
    from fedsim.audits.target import Effort

EXAMPLES = (
    "audit",
    "audit hospital-heart --set privacy.epsilon=1",
    "audit hospital-network --epsilon none,8,1",
)


def audit(
    what: Annotated[
        str | None,
        typer.Argument(
            metavar="[RUN_DIR|SCENARIO]",
            help="A run directory, a scenario's name or a .toml file; by default the newest finished run under runs/.",
            autocompletion=options.scenarios,
        ),
    ] = None,
    epsilon: Annotated[
        str | None,
        typer.Option(
            metavar="NUMBER,...",
            help="Train and attack a scenario at several privacy budgets, e.g. none,8,1, and write one report.",
        ),
    ] = None,
    changes: options.Changes = None,
    task: options.TaskCode = None,
    strategy: options.StrategyCode = None,
    trials: Annotated[int, typer.Option(min=20, help="Trainings with a canary, and as many without.")] = 2000,
    shadows: Annotated[int, typer.Option(min=4, help="Shadow models, an even number.")] = 64,
    real_record: Annotated[
        bool,
        typer.Option(
            "--real-record",
            help="Draw one of your own table's records beside its reconstruction, in place of one that is made up.",
        ),
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="The directory to write into.",
            show_default="the run's, runs/audit-NAME or runs/story-NAME-DATE",
        ),
    ] = None,
    quiet: options.Quiet = False,
    as_json: options.AsJson = False,
) -> None:
    """Attack what a run or scenario trains; fails if an attack proves more than is claimed."""
    if what is None:
        from fedsim.results.run_directory import newest

        what = str(newest())
    is_run = (Path(what) / "scenario.toml").exists()
    if is_run:
        for option, value in (("--set", changes), ("--epsilon", epsilon)):
            if value:
                raise Mistake(f"audit: expected {option} with a scenario only, a run is what it is")
        options.allow_code(task, strategy)
    given: list[str] = []
    if not is_run:
        given = [*options.code_from(task, strategy), *(changes or [])]
    if epsilon is not None:
        _tell_story(what, given, epsilon, (trials, shadows, real_record), out, quiet, as_json)
        return

    with waiting(quiet, as_json) as progress:
        from fedsim.audits import audit as audits
        from fedsim.audits import audit_files, claims
        from fedsim.results.run_directory import load
        from fedsim.scenario.files import read

        if is_run:
            finished = load(what)
            scenario = finished.scenario
            claim = claims.claim_in(finished)
            folder = Path(what)
        else:
            scenario = read(what, given)
            claim = claims.claim_of(scenario)
            folder = Path("runs") / f"audit-{scenario.name}"
        attacks = audits.most_runs(claims.place_of(scenario, claim))
        attacks_begun = itertools.count()
        found = audits.audit(
            scenario,
            claim,
            _effort(trials, shadows, real_record),
            tell=lambda attack: progress(f"attack: {attack}", next(attacks_begun), attacks),
        )
    written = audit_files.write(found, out or folder)
    if as_json:
        print_json({**found.values, "files": [str(path) for path in written]})
    else:
        print_lines(audit_files.lines(found))
        _print_written(written)
    if found.broken:
        raise RunFailed(_refuted("audit", found))


def _effort(trials: int, shadows: int, real_record: bool) -> "Effort":
    from fedsim.audits.target import Effort

    return Effort(trials=trials, shadows=shadows + shadows % 2, real_record=real_record)


def _tell_story(
    what: str,
    changes: list[str],
    epsilon: str,
    asked: tuple[int, int, bool],
    out: Path | None,
    quiet: bool,
    as_json: bool,
) -> None:
    """Train and attack a scenario at several privacy levels, and write one report; ``asked`` goes to ``_effort``."""
    with waiting(quiet, as_json) as progress:
        from fedsim.audits.story import levels as story
        from fedsim.audits.story import page

        levels = story.scenarios(what, changes, epsilon)
        name = next(iter(levels.values())).name
        folder = out or Path("runs") / f"story-{name}-{datetime.now():%Y%m%d-%H%M%S}"
        told = story.tell(levels, folder, _effort(*asked), progress)
    written = page.write(told, folder)
    if as_json:
        print_json({**told.values, "files": [str(path) for path in written]})
    else:
        print_table(page.table(told))
        print_lines(page.lines(told))
        _print_written(written)
    if told.broken:
        raise RunFailed("\n".join(_refuted(f"audit: {level.title}", level.audit) for level in told.broken))


def _print_written(files: Iterable[Path]) -> None:
    for path in files:
        print_places({"written": path})


def _refuted(where: str, found: "Audit") -> str:
    """Return the line that says that an attack proved more than was claimed."""
    claimed = found.claim.epsilon if found.claim else math.nan
    return f"{where}: epsilon is at least {proven_epsilon(found.bound)}, claimed was {epsilon_text(claimed)}"
