"""Attacks on purpose in Python: what ``fedsim audit`` does as well."""

import itertools
from pathlib import Path

from fedsim.audits import audit as audits
from fedsim.audits import audit_files, claims
from fedsim.audits.audit import Audit
from fedsim.audits.target import Effort
from fedsim.data.task import Task
from fedsim.experiments.given import allow_given_code, given_code
from fedsim.experiments.progress import Progress, told
from fedsim.mistakes import Mistake
from fedsim.results.run_directory import Run, load
from fedsim.scenario.files import read
from fedsim.strategy.contract import Strategy


def audit(
    what: str | Path | Run,
    *changes: str,
    task: Task | str | None = None,
    strategy: Strategy | type | str | None = None,
    trials: int = 2000,
    shadows: int = 64,
    real_record: bool = False,
    out: str | Path | None = None,
    progress: bool | Progress = True,
) -> Audit:
    """Attack what a run or a scenario trains, and hold what the attacks prove against what is claimed.

    Args:
        what: A run, its directory, the name of a scenario, or the path of a TOML file.
        changes: ``"key=value"`` of a scenario; a run is what it is.
        task: A task in place of a scenario's, as in ``fedsim.run``; or the one that a run was begun with.
        strategy: Likewise the strategy.
        trials: Trainings with a canary, and as many without, 20 or more.
        shadows: Shadow models, 4 or more.
        real_record: Whether one of an own table's records is drawn beside its reconstruction.
        out: Where the files of the audit are written; None: nowhere.
        progress: Whether to show progress, or a function, as in ``fedsim.run``.

    Returns:
        The findings. ``broken`` says whether an attack proved more than is claimed, ``bound`` what was proved.

    Raises:
        Mistake: There is no such run or scenario, or a value is wrong.
    """
    faults = []
    for name, value, least in (("trials", trials, 20), ("shadows", shadows, 4)):
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            faults.append(f"{name}: expected a whole number >= {least}, got {value!r}")
    is_run = isinstance(what, Run) or (Path(what) / "scenario.toml").exists()
    if is_run and changes:
        faults.append("audit: expected changes with a scenario only, a run is what it is")
    if faults:
        raise Mistake("\n".join(faults))

    if is_run:
        allow_given_code(task, strategy)
        run = what if isinstance(what, Run) else load(what)
        scenario = run.scenario
        claim = claims.claim_in(run)
    else:
        scenario = read(str(what), [*given_code(task, strategy), *changes])
        claim = claims.claim_of(scenario)
    attacks = audits.most_runs(claims.place_of(scenario, claim))
    begun = itertools.count()
    effort = Effort(trials=trials, shadows=shadows + shadows % 2, real_record=real_record)
    with told(progress) as show:
        found = audits.audit(
            scenario, claim, effort, tell=lambda attack: show(f"attack: {attack}", next(begun), attacks)
        )
    if out is not None:
        audit_files.write(found, Path(out))
    return found
