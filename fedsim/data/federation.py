"""The federation: every site with its rows, split into training, validation and test rows."""

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fedsim.data.loading import INSIDE, POOLED, TOGETHER, check_examples, rows_of, task_of
from fedsim.data.partition import Sites, divide, skewed
from fedsim.data.recent import Recent
from fedsim.data.task import Make, Task
from fedsim.data.wrong_labels import check_sites, mislabel
from fedsim.mistakes import Mistake
from fedsim.randomness import stream
from fedsim.scenario.schema import Scenario

__all__ = [
    "INSIDE",
    "POOLED",
    "TOGETHER",
    "Examples",
    "Federation",
    "Site",
    "federate",
    "split_by_time",
    "split_rows",
]
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
    """One institution.

    Attributes:
        number: Its place in the sorted list of names, and Flower's partition-id.
        name: Its name.
        train: Rows to learn from.
        validation: Rows to choose by.
        test: Rows to report on.
        groups: {protected attribute: its value for each test row, str (rows,)}; no one sends or learns from them.
    """

    number: int
    name: str
    train: Examples
    validation: Examples
    test: Examples
    groups: Mapping[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True)
class Federation:
    """All sites of a scenario under one seed; the same for all arms and strategies. Made-up sites appear on demand."""

    sites: Sequence[Site]

    @cached_property
    def names(self) -> Sequence[str]:
        """The sites' names, sorted."""
        return self.sites.names if isinstance(self.sites, _MadeSites) else [site.name for site in self.sites]

    def pooled(self, numbers: Sequence[int]) -> Site:
        """Return the imaginary institution that holds the rows of some sites, by number: the centralized arm."""
        sites = [self.sites[number] for number in numbers]
        return Site(
            number=0,
            name="pooled",
            train=_concatenate([site.train for site in sites]),
            validation=_concatenate([site.validation for site in sites]),
            test=_concatenate([site.test for site in sites]),
        )


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


_federations = Recent[tuple[Any, ...], Federation](size=16)
_divisions = Recent[tuple[Any, ...], Sites](size=4)


def federate(scenario: Scenario, seed: int, device: str = "cpu") -> Federation:
    """Load the scenario's task and split it into sites; repeated calls return the same object.

    Raises:
        Mistake: The partition is not for this task, a site has no row to train on, or a fault is at no site.
    """
    decides = (*_about_rows(scenario), scenario.split, scenario.faults, seed, device)
    return _federations.get(decides, lambda: _federate(scenario, seed, device))


def _about_rows(scenario: Scenario) -> tuple[Any, ...]:
    """Return all that decides which rows are at which site."""
    return task_of(scenario), scenario.data, scenario.partition


def _federate(scenario: Scenario, seed: int, device: str) -> Federation:
    task, partition = task_of(scenario), scenario.partition
    split = partial(_split, scenario, task, seed, device)
    if (partition.by == "made") != (task.make is not None):
        expected = "another than 'made' with a task that has" if task.make is None else "'made' with a task without"
        raise Mistake(f"partition.by: expected {expected} rows of its own, got {partition.by!r}")
    if task.make is not None:
        made = Federation(_MadeSites(partition.sites or 1, partial(_made, scenario, task, task.make, split)))
        check_sites(scenario.faults, made.names)
        return made
    rows, found = rows_of(scenario), sites_of(scenario)
    check_sites(scenario.faults, list(found))
    return Federation(tuple(
        split(number, name, _Own(
            skewed(rows.inputs[own], partition, number),
            rows.target[own],
            None if rows.time is None else rows.time[own],
            {name: values[own] for name, values in rows.groups.items()},
        ))
        for number, (name, own) in enumerate(found.items())
    ))  # fmt: skip


def sites_of(scenario: Scenario) -> Sites:
    """Return which rows belong to which site of a scenario; the same under every seed.

    Raises:
        Mistake: The partition can't be made of the scenario's rows.
    """
    return _divisions.get(
        _about_rows(scenario), lambda: divide(rows_of(scenario), task_of(scenario).kind, scenario.partition)
    )


@dataclass(frozen=True)
class _Own:
    """The rows of one site, before they are split."""

    inputs: np.ndarray
    target: np.ndarray
    time: np.ndarray | None = None
    groups: Mapping[str, np.ndarray] = field(default_factory=dict)


_Split = Callable[[int, str, _Own], Site]


def _made(scenario: Scenario, task: Task, make: Make, split: _Split, number: int, name: str) -> Site:
    own = _Own(*make(number))
    check_examples(f"task {scenario.task}", task, own.inputs, own.target)
    return split(number, name, own)


def _split(scenario: Scenario, task: Task, seed: int, device: str, number: int, name: str, own: _Own) -> Site:
    shares = scenario.split.validation, scenario.split.test
    if task.by_time and own.time is not None:
        parts = split_by_time(own.time, *shares, task.horizon)
    else:
        labels = own.target if task.kind != "number" else own.target * 0
        parts = split_rows(labels, *shares, seed, name) if _always_trains(labels, *shares) else {"train": []}
    if not len(parts["train"]):
        raise Mistake(
            f"site {name}: expected at least one row to train on under every seed, got {len(own.target)} rows in all; "
            "leave the site out, or join it with others (partition.sites)"
        )
    targets = {part: own.target[chosen] for part, chosen in parts.items()}
    if share := scenario.faults.wrong_labels.get(name):
        targets["train"] = mislabel(targets["train"], task.kind, share, seed, name)
    examples = {part: _examples(own.inputs[chosen], targets[part], device) for part, chosen in parts.items()}
    groups = {attribute: values[parts["test"]] for attribute, values in own.groups.items()}
    return Site(number=number, name=name, groups=groups, **examples)


def split_by_time(time: np.ndarray, validation: float, test: float, horizon: float) -> dict[str, np.ndarray]:
    """Split one site's rows by time: the latest are for testing, those before them for validation.

    Rows of one moment stay together, so that shares are met up to the rows of one moment. Rows whose time is within
    ``horizon`` before the next part begins are in no part: their target looks into it.

    Returns:
        {part: row numbers, ascending}.
    """
    ordered, end = np.sort(time), np.inf
    parts = {}
    for part, share, gap in (("test", test, 0.0), ("validation", validation, horizon), ("train", 1.0, horizon)):
        before, wanted = int(np.searchsorted(ordered, end)), round(share * len(time))
        begin = ordered[max(0, before - wanted)] if wanted and before else end
        parts[part] = np.flatnonzero((time >= begin) & (time < end) & (end - time > gap))
        end = time[parts[part]].min() if len(parts[part]) else end
    return parts


def _always_trains(target: np.ndarray, validation: float, test: float) -> bool:
    """Return whether ``split_rows`` leaves a row to train on under every seed: each puts rows at the same places."""
    sizes = {int(size) for size in np.unique(target, return_counts=True)[1]}
    if max(sizes) * (1 - validation - test) >= 2:
        return True
    places = np.concatenate([(np.arange(size) + 0.5) / size for size in sizes])
    return all(((places - block * test) % 1.0 >= test + validation).any() for block in range(int(1 / test + 1e-9)))


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
