"""The federation: every site with its rows, split into training, validation and test rows."""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial

import numpy as np
import torch
from torch import Tensor

from fedsim import catalog
from fedsim.losses import Kind
from fedsim.mistakes import Mistake
from fedsim.partition import PARTITIONS
from fedsim.randomness import stream
from fedsim.scenario import Scenario, Split
from fedsim.task import Make, Rows, Task

POOLED = "(pooled)"  # stands for all sites together, so that none may have this name
_KEPT = 2**29  # bytes of made-up rows that are kept


@dataclass(frozen=True)
class Examples:
    """Rows of one site: inputs float32 (rows, ...), target float32 or int64 (rows,)."""

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
    """All sites of a scenario under one seed; the same for all arms and strategies. Made-up sites appear on demand."""

    sites: Sequence[Site]

    @cached_property
    def names(self) -> Sequence[str]:
        """The sites' names, sorted."""
        return self.sites.names if isinstance(self.sites, _MadeSites) else [site.name for site in self.sites]

    def pooled(self) -> Site:
        """Return the imaginary institution that holds everybody's rows: the centralized arm."""
        parts = {part: [getattr(site, part) for site in self.sites] for part in ("train", "validation", "test")}
        return Site(number=0, name="pooled", **{part: _concatenate(examples) for part, examples in parts.items()})


class _MadeSites(Sequence[Site]):
    """Sites whose rows are made when they are asked for; those asked for last are kept."""

    def __init__(self, sites: int, make: Callable[[int, str], Site]) -> None:
        width = len(str(sites - 1))
        self.names = [f"site-{number:0{width}}" for number in range(sites)]
        self._make, self._kept, self._room = make, OrderedDict[int, Site](), 0

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, number: int) -> Site:  # type: ignore[override]
        if number not in self._kept:
            self._kept[number] = self._make(range(len(self))[number], self.names[number])
            self._room = self._room or max(1, _KEPT // _bytes(self._kept[number]))
            if len(self._kept) > self._room:
                self._kept.popitem(last=False)
        self._kept.move_to_end(number)
        return self._kept[number]


def _bytes(site: Site) -> int:
    parts = (site.train, site.validation, site.test)
    return sum(tensor.nbytes for part in parts for tensor in (part.inputs, part.target))


def federate(scenario: Scenario, seed: int, device: str = "cpu") -> Federation:
    """Load the scenario's task and split it into sites; repeated calls return the same object.

    Raises:
        Mistake: The partition is not for this task, or a site has no row to train on.
    """
    partition, split = scenario.partition, scenario.split
    return _federate(scenario.task, partition.by, partition.sites, split.validation, split.test, seed, device)


@lru_cache(maxsize=16)
def _federate(
    task: str, by: str, sites: int | None, validation: float, test: float, seed: int, device: str
) -> Federation:
    found: Task = catalog.load("tasks", task)
    split = Split(validation=validation, test=test)
    if by == "made":
        if found.make is None:
            raise Mistake(f"partition.by: expected 'natural' with task {task}, which has sites of its own, got 'made'")
        made = partial(_made_site, task, found.kind, found.make, split, seed, device)
        return Federation(_MadeSites(sites or 1, made))
    if found.load is None:
        raise Mistake(f"partition: expected by = 'made' and a number of sites with task {task}, got {by!r}")
    rows = _load(task)
    members = enumerate(sorted(PARTITIONS[by](rows).items()))
    return Federation(tuple(
        _site(number, name, rows.inputs[own], rows.target[own], split, seed, device)
        for number, (name, own) in members
    ))  # fmt: skip


def _made_site(task: str, kind: Kind, make: Make, split: Split, seed: int, device: str, number: int, name: str) -> Site:
    inputs, target = make(number)
    _check(task, kind, inputs, target)
    return _site(number, name, inputs, target, split, seed, device)


def _site(number: int, name: str, inputs: np.ndarray, target: np.ndarray, split: Split, seed: int, device: str) -> Site:
    parts = split_rows(target, split.validation, split.test, seed, name)
    if not len(parts["train"]):
        raise Mistake(f"site {name}: expected at least one row to train on, got {len(target)} rows in all")
    examples = {part: _examples(inputs[chosen], target[chosen], device) for part, chosen in parts.items()}
    return Site(number=number, name=name, **examples)


@lru_cache(maxsize=4)
def _load(task: str) -> Rows:
    found: Task = catalog.load("tasks", task)
    if found.load is None:
        raise Mistake(f"task {task}: expected a task with rows of its own")
    rows = found.load()
    if len(rows.site) != len(rows.inputs):
        raise Mistake(f"task {task}: expected as many targets and sites as inputs from what it loads")
    if (rows.site == POOLED).any():
        raise Mistake(f"task {task}: expected sites with names other than {POOLED} from what it loads")
    _check(task, found.kind, rows.inputs, rows.target)
    return rows


def _check(task: str, kind: Kind, inputs: np.ndarray, target: np.ndarray) -> None:
    whole = target.dtype == np.int64 and (target >= 0).all() if kind == "classes" else np.isin(target, (0, 1)).all()
    problems = {
        "as many targets as inputs": len(target) != len(inputs),
        "float32 inputs": inputs.dtype != np.float32,
        "a float32 target": kind == "binary" and target.dtype != np.float32,
        "finite inputs": not np.isfinite(inputs).all(),
        "a target of 0 or 1" if kind == "binary" else "a target of class numbers, int64 from 0 on": not whole,
        "rows": len(inputs) == 0,
    }
    for expected, wrong in problems.items():
        if wrong:
            raise Mistake(f"task {task}: expected {expected} from what it loads")


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


def _examples(inputs: np.ndarray, target: np.ndarray, device: str) -> Examples:
    return Examples(torch.from_numpy(inputs).to(device), torch.from_numpy(target).to(device))


def _concatenate(parts: list[Examples]) -> Examples:
    return Examples(torch.cat([part.inputs for part in parts]), torch.cat([part.target for part in parts]))
