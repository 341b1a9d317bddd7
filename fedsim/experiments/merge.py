"""Merge runs of one scenario over parts of its seeds, such as the jobs of a cluster's array, into one run."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fedsim.experiments import begun
from fedsim.experiments.arms import jobs
from fedsim.experiments.experiment import end_told, lock, new_folder, write_all
from fedsim.experiments.trainings import train_all
from fedsim.mistakes import Mistake
from fedsim.results import run_directory as results
from fedsim.results.whole_files import write_bytes
from fedsim.scenario.schema import Scenario

_OF_A_PART = ("seed", "seeds", "checkpoints", "limits")
"""Settings in which the parts of a run may differ: they change no figure of a training."""


def merge(parts: Sequence[str | Path], out: str | Path | None = None) -> results.Run:
    """Make one run of several that are alike but for their seeds: the same as if it had been run in one.

    Args:
        parts: The run directories, in any order.
        out: The directory to make; by default ``runs/<scenario>-<date>``.

    Raises:
        Mistake: A part is not finished or a training in it failed; they differ in more than their seeds or in the
            circumstances they were begun under; or the seeds are no row of numbers, each there once.
        CannotGoOn: A file can't be written.
    """
    if len(parts) < 2:
        raise Mistake(f"merge: expected two run directories or more, got {len(parts)}")
    runs = sorted((results.load(part) for part in parts), key=lambda run: run.scenario.seed)
    _check_alike(runs)
    scenario = _of_all_seeds(runs)

    folder = new_folder(scenario.name, out)
    with lock(folder), end_told(folder):
        begun.write_of_parts(folder, [run.path for run in runs])
        (folder / "checkpoints").mkdir()
        for run in runs:
            for job in jobs(run.scenario):
                for kind in ("safetensors", "json"):
                    name = f"checkpoints/{job.key}.{kind}"
                    write_bytes(folder / name, (run.path / name).read_bytes())
        results.write_scenario(folder, scenario)
        finished, failed = train_all(folder, scenario, None)  # all are there, so that none is trained
        times = {
            "started": min(run.manifest["started"] for run in runs),
            "seconds": round(sum(run.manifest["seconds"] for run in runs), 3),
        }
        return write_all(folder, scenario, finished, failed, times)


def _check_alike(runs: Sequence[results.Run]) -> None:
    """Make sure that runs differ in their seeds only, and that all their trainings are there.

    Raises:
        Mistake: They do not, or some are not; each fault has a line.
    """
    faults = []
    first = _settings(runs[0])
    for run in runs:
        own = _settings(run)
        others = [key for key in sorted({*first, *own}) if first.get(key) != own.get(key)]
        if others:
            keys = ", ".join(others)
            faults.append(f"{run.path}: expected the scenario of {runs[0].path} but for the seeds, others are: {keys}")
        if run.failed:
            faults.append(f"{run.path}: expected no training that failed; try it again with: fedsim resume {run.path}")
        for job in jobs(run.scenario):
            if not (run.path / "checkpoints" / f"{job.key}.json").is_file():
                faults.append(f"{run.path}: expected the training {job.key} in checkpoints, it is gone")
    if faults:
        raise Mistake("\n".join(faults))


def _settings(run: results.Run) -> dict[str, Any]:
    return {key: value for key, value in run.scenario.values().items() if key not in _OF_A_PART}


def _of_all_seeds(runs: Sequence[results.Run]) -> Scenario:
    """Return the scenario with the seeds of all runs.

    Raises:
        Mistake: A seed is there twice, or one is missing in between.
    """
    seeds: dict[int, Path] = {}
    faults = []
    for run in runs:
        for seed in run.scenario.all_seeds:
            if seed in seeds:
                faults.append(f"{run.path}: seed {seed}: expected each seed once, {seeds[seed]} has it, too")
            seeds[seed] = run.path
    missing = sorted(set(range(min(seeds), max(seeds) + 1)) - set(seeds))
    if missing:
        named = ", ".join(map(str, missing[:10])) + ("" if len(missing) <= 10 else f" and {len(missing) - 10} more")
        faults.append(f"merge: expected seeds without a gap, from {min(seeds)} to {max(seeds)} there lack: {named}")
    if faults:
        raise Mistake("\n".join(faults))
    return runs[0].scenario.model_copy(update={"seed": min(seeds), "seeds": len(seeds)})
