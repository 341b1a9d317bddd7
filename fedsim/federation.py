"""The federation: every site with its rows, split into training, validation and test rows."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from fedsim import catalog
from fedsim.mistakes import Mistake
from fedsim.partition import PARTITIONS
from fedsim.randomness import stream
from fedsim.scenario import Scenario
from fedsim.task import Rows

POOLED = "(pooled)"  # stands for all sites together, so that none may have this name


@dataclass(frozen=True)
class Examples:
    """Rows of one site: inputs float32 (rows, ...), target float32 (rows,)."""

    inputs: Tensor
    target: Tensor

    def __len__(self) -> int:
        return len(self.target)


@dataclass(frozen=True)
class Site:
    """One institution. ``number`` is its place in the sorted list of names and Flower's partition-id."""

    number: int
    name: str
    train: Examples
    validation: Examples
    test: Examples


@dataclass(frozen=True)
class Federation:
    """All sites of a scenario under one seed; the same for all arms and strategies."""

    sites: tuple[Site, ...]

    def pooled(self) -> Site:
        """Return the imaginary institution that holds everybody's rows: the centralized arm."""
        parts = {part: [getattr(site, part) for site in self.sites] for part in ("train", "validation", "test")}
        return Site(number=0, name="pooled", **{part: _concatenate(examples) for part, examples in parts.items()})


def federate(scenario: Scenario, seed: int, device: str = "cpu") -> Federation:
    """Load the scenario's task and split it into sites; repeated calls return the same object.

    Raises:
        Mistake: A site has no row to train on.
    """
    split = scenario.split
    return _federate(scenario.task, scenario.partition.by, split.validation, split.test, seed, device)


@lru_cache(maxsize=16)
def _federate(task: str, by: str, validation: float, test: float, seed: int, device: str) -> Federation:
    rows = _load(task)
    sites = []
    for number, (name, members) in enumerate(sorted(PARTITIONS[by](rows).items())):
        parts = split_rows(rows.target[members], validation, test, seed, name)
        if not len(parts["train"]):
            raise Mistake(f"site {name}: expected at least one row to train on, got {len(members)} rows in all")
        examples = {part: _examples(rows, members[chosen], device) for part, chosen in parts.items()}
        sites.append(Site(number=number, name=name, **examples))
    return Federation(tuple(sites))


@lru_cache(maxsize=4)
def _load(task: str) -> Rows:
    rows = catalog.load("tasks", task).load()
    count = len(rows.inputs)
    problems = {
        "as many targets and sites as inputs": len(rows.target) != count or len(rows.site) != count,
        "float32 inputs and target": rows.inputs.dtype != np.float32 or rows.target.dtype != np.float32,
        "finite inputs": not np.isfinite(rows.inputs).all(),
        "a target of 0 or 1": not np.isin(rows.target, (0, 1)).all(),
        f"sites with names other than {POOLED}": bool((rows.site == POOLED).any()),
        "rows": count == 0,
    }
    for expected, wrong in problems.items():
        if wrong:
            raise Mistake(f"task {task}: expected {expected} from its load()")
    return rows


def split_rows(target: np.ndarray, validation: float, test: float, seed: int, site: str) -> dict[str, np.ndarray]:
    """Split one site's rows into disjoint parts, each class in proportion: {part: row numbers, ascending}.

    Each class is put in a random order and laid on a circle; the seed turns the circle by one test block. So the test
    rows of ``floor(1 / test)`` consecutive seeds (the first of them a multiple of that number) are disjoint: the seeds
    are the folds of a cross-validation, and the next seeds start over with a new order.
    """
    folds = int(1 / test + 1e-9)
    repeat, block = divmod(seed, folds)
    order = stream(repeat, "split", site)
    position = np.empty(len(target))  # in [0, 1)
    for label in np.unique(target):
        members = np.flatnonzero(target == label)
        position[order.permutation(members)] = (np.arange(len(members)) + 0.5) / len(members)
    position = (position - block * test) % 1.0
    return {
        "test": np.flatnonzero(position < test),
        "validation": np.flatnonzero((position >= test) & (position < test + validation)),
        "train": np.flatnonzero(position >= test + validation),
    }


def _examples(rows: Rows, chosen: np.ndarray, device: str) -> Examples:
    return Examples(
        inputs=torch.from_numpy(rows.inputs[chosen]).to(device),
        target=torch.from_numpy(rows.target[chosen]).to(device),
    )


def _concatenate(parts: list[Examples]) -> Examples:
    return Examples(torch.cat([part.inputs for part in parts]), torch.cat([part.target for part in parts]))
