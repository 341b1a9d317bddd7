"""Under which circumstances a run was begun: what its bits depend on beside its scenario.

``begun.json`` in the run directory holds them. A run that goes on under others could end with other bits than it would
have ended with, so it does not, unless it is forced to; then the differences stand in the manifest. For how many cores
stacks are cut stands there as well, and is kept on a machine that has others.
"""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from fedsim.engines.cohort import cores
from fedsim.mistakes import Mistake
from fedsim.results import run_directory as results
from fedsim.scenario import catalog
from fedsim.scenario.schema import Scenario
from fedsim.training.model import best_device

NAME = "begun.json"
_DISTRIBUTIONS = ("fedsim-flower", "torch", "flwr", "opacus", "dp-accounting", "numpy", "pandas")
_CORES = "cores"
_FORCED = "forced"
_MOST_CORES = 2**20


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that decide about results."""
    return {name: version(name) for name in _DISTRIBUTIONS} | {"python": platform.python_version()}


def circumstances(scenario: Scenario) -> dict[str, str]:
    """Return what the bits of a run depend on beside its scenario, each in words."""
    device = best_device(scenario.device)
    found = {f"version of {name}": value for name, value in versions().items()}
    found["code of fedsim"] = catalog.source_digest()
    found["device"] = device if device == "cpu" else torch.cuda.get_device_name()
    found["processor"] = f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"
    found["code of the strategy"] = catalog.source_hash(scenario.strategy.name)
    if catalog.is_own_task(scenario.task):
        found["code of the task"] = catalog.task_hash(scenario.task)
    return found


def own_code(scenario: Scenario) -> dict[str, dict[str, str]]:
    """Return what the user's own code in a run was, {``task`` or ``strategy``: facts}; empty where there is none."""
    found = {}
    for kind, name in (("task", scenario.task), ("strategy", scenario.strategy.name)):
        facts = catalog.facts_of_code(kind, name)
        if facts:
            found[kind] = facts
    return found


def write(folder: Path, scenario: Scenario) -> None:
    """Write down the circumstances of a run that begins."""
    told = {"circumstances": circumstances(scenario), _CORES: cores(), _FORCED: []}
    code = own_code(scenario)
    if code:
        told["own_code"] = code
    results.write_json(folder / NAME, told)


def write_of_parts(folder: Path, parts: Sequence[Path]) -> None:
    """Write down the circumstances that the parts of a merged run were begun under, which have to be the same.

    Args:
        folder: The merged run's directory.
        parts: The directories of its parts.

    Raises:
        Mistake: They differ; each difference has a line.
    """
    first, *others = [_read(part) for part in parts]
    differences = []
    for part, told in zip(parts[1:], others, strict=True):
        for name, before, after in _differences(_all_of(first), _all_of(told)):
            differences.append(f"{part}: {name}: expected {before} as in {parts[0]}, got {after}")
    if differences:
        raise Mistake("\n".join(differences))
    forced = [differences for told in (first, *others) for differences in told[_FORCED]]
    results.write_json(folder / NAME, {"circumstances": first["circumstances"], _CORES: first[_CORES], _FORCED: forced})


def _all_of(told: Mapping[str, Any]) -> dict[str, str]:
    """Return the circumstances with the cores that stacks are cut for, which decide about bits as well."""
    return {**told["circumstances"], "cores that stacks are cut for": str(told[_CORES])}


def _differences(before: Mapping[str, str], after: Mapping[str, str]) -> Iterator[tuple[str, str, str]]:
    """Yield the name and both values of each circumstance that differs."""
    for name in sorted({*before, *after}):
        then, now = before.get(name, "nothing"), after.get(name, "nothing")
        if then != now:
            yield name, _short(then), _short(now)


def check(folder: Path, scenario: Scenario, force: bool) -> None:
    """Make sure that a run goes on under the circumstances that it was begun under.

    Args:
        folder: The run directory.
        scenario: Its scenario.
        force: Whether to go on all the same, and write the differences down.

    Raises:
        Mistake: They differ, and it is not forced; each difference has a line.
    """
    now = circumstances(scenario)
    told = _read(folder)
    differences = []
    for name, before, after in _differences(told["circumstances"], now):
        differences.append(f"{name}: begun with {before}, now {after}")
    if not differences:
        return
    if not force:
        lines = [f"{folder}: {line}" for line in differences]
        hint = "the run would not end as it would have ended; to go on all the same, which is written down: --force"
        raise Mistake("\n".join([*lines, f"{folder}: {hint}"]))
    told[_FORCED].append(differences)
    results.write_json(folder / NAME, told)


def forced(folder: Path) -> list[list[str]]:
    """Return the differences under which a run went on by force, for each time it did."""
    return _read(folder)[_FORCED] if (folder / NAME).exists() else []


def cores_of(folder: Path) -> int:
    """Return for how many cores the stacks of a run are cut: as many as there were when it was begun."""
    return _read(folder)[_CORES]


def _read(folder: Path) -> dict[str, Any]:
    """Return the contents of the file.

    Raises:
        Mistake: It is not what was written.
    """
    path = folder / NAME
    if not path.exists():  # of an earlier version, or killed before it was written
        return {"circumstances": {}, _CORES: cores(), _FORCED: []}
    told = {_CORES: cores()} | results.read_json(path)
    is_count = type(told[_CORES]) is int and 0 < told[_CORES] <= _MOST_CORES
    if not (is_count and _is_words(told.get("circumstances")) and _is_differences(told.get(_FORCED))):
        raise Mistake(f"{path}: expected the circumstances of the run, as fedsim writes them")
    return told


def _is_words(value: object) -> bool:
    return isinstance(value, Mapping) and all(isinstance(text, str) for text in value.values())


def _is_differences(value: object) -> bool:
    """Whether a value is a list of lists of texts."""
    if not isinstance(value, list):
        return False
    return all(isinstance(times, list) and all(isinstance(line, str) for line in times) for times in value)


def git_revision() -> str | None:
    """Return the revision of the checkout fedsim runs from, if it does."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603
    except (OSError, subprocess.CalledProcessError):
        return None
    return found.stdout.strip()


def _short(value: str) -> str:
    """Return a value as messages have it: of a digest its beginning."""
    is_digest = len(value) == 64 and all(character in "0123456789abcdef" for character in value)
    return f"{value[:12]}..." if is_digest else value
