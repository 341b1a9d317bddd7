"""Build a federation: all sites, with their rows split for training, validation and testing."""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from fedsim.data.loading import check_examples, rows_of, task_of
from fedsim.data.partition import Sites, divide, skewed
from fedsim.data.persons import labels_of_persons, numbered, numbers_of, without_later
from fedsim.data.recent import Recent
from fedsim.data.scale import Scale, learned_scale, learns_scale, public_scale
from fedsim.data.task import INSIDE, POOLED, TOGETHER, Make, Rows, Task
from fedsim.data.wrong_labels import check_sites, mislabel
from fedsim.mistakes import Mistake
from fedsim.of_sites import MadeNames
from fedsim.outcomes import outcome_of
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
    """The rows of one site.

    Attributes:
        inputs: Float32 (rows, ...).
        target: Float32 or int64 (rows,).
        person: The number of each row's person at this site, int64 (rows,), 0 to persons - 1, each of which has a
            row; None where nothing is known of persons. Some rows of a site may lack numbers in between.
    """

    inputs: Tensor
    target: Tensor
    person: Tensor | None = None

    def __len__(self) -> int:
        return len(self.target)

    @property
    def persons(self) -> int | None:
        """How many persons the rows are of; None where that is not known."""
        if self.person is None:
            return None
        return int(self.person.max()) + 1 if len(self.person) else 0

    def some(self, numbers: Tensor) -> "Examples":
        """Return some of the rows, by their numbers or by whether each is among them, with persons numbered anew."""
        if self.person is None:
            return Examples(self.inputs[numbers], self.target[numbers])
        return Examples(self.inputs[numbers], self.target[numbers], renumbered(self.person[numbers]))


def renumbered(person: Tensor) -> Tensor:
    """Number persons anew from 0 on, in the order in which they first appear, int64 (rows,)."""
    return torch.from_numpy(numbered(person.cpu().numpy())).to(person.device)


@dataclass(frozen=True)
class Site:
    """An institution with its rows.

    Attributes:
        number: Its place in the sorted list of names, and Flower's partition-id.
        name: Its name.
        train: Rows to learn from.
        validation: Rows to choose by.
        test: Rows to report on.
        groups: {protected attribute: its value for each test row, str (rows,)}; no site sends them
            or learns from them.
        scale: The scale by which all rows were standardized; None where they were not.
    """

    number: int
    name: str
    train: Examples
    validation: Examples
    test: Examples
    groups: Mapping[str, np.ndarray] = field(default_factory=dict)
    scale: Scale | None = None


@dataclass(frozen=True)
class Federation:
    """All sites of a scenario under one seed.

    A federation is the same for all arms and strategies, but for a learned scale: in the local arm
    each site has its own. Made-up sites appear on demand.

    Attributes:
        sites: The sites.
        scale: The scale that they share; None if they have none, or each its own.
    """

    sites: Sequence[Site]
    scale: Scale | None = None

    @cached_property
    def names(self) -> Sequence[str]:
        """The sites' names, sorted."""
        if isinstance(self.sites, _MadeSites | _SomeSites):
            return self.sites.names  # without making their rows
        return [site.name for site in self.sites]

    def some(self, numbers: Sequence[int]) -> "Federation":
        """Return the federation of some of the sites, by number."""
        return Federation(_SomeSites(self.sites, [self.names[number] for number in numbers], numbers), self.scale)

    def pooled(self, numbers: Sequence[int]) -> Site:
        """Pool the rows of some sites, by number, into one site: the centralized arm."""
        sites = [self.sites[number] for number in numbers]
        return Site(
            number=0,
            name="pooled",
            train=concatenated([site.train for site in sites]),
            validation=concatenated([site.validation for site in sites]),
            test=concatenated([site.test for site in sites]),
            scale=self.scale,
        )


class _MakeSite(Protocol):
    """A function that makes a site from its number and name."""

    def __call__(self, number: int, name: str) -> Site: ...


class _MadeSites(Sequence[Site]):
    """Sites whose rows are made when they are asked for; the sites used last are kept."""

    def __init__(self, count: int, make: _MakeSite) -> None:
        self.names = MadeNames(count)
        self._make = make
        self._kept = OrderedDict[int, Site]()  # by number; the site used last stands last
        self._room = 0  # how many sites may be kept; 0 until the first site shows its size

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, number: int) -> Site:  # type: ignore[override]
        if number not in self._kept:
            place = range(len(self))[number]  # counts from the end where the number is negative
            site = self._make(place, self.names[number])
            self._kept[number] = site

            if not self._room:
                self._room = max(1, _KEPT // _bytes(site))
            if len(self._kept) > self._room:
                self._kept.popitem(last=False)  # the site that was not used for longest

        self._kept.move_to_end(number)
        return self._kept[number]


class _SomeSites(Sequence[Site]):
    """Some of the sites of a federation, each asked for when it is needed."""

    def __init__(self, sites: Sequence[Site], names: Sequence[str], numbers: Sequence[int]) -> None:
        self.names = names
        self._sites = sites
        self._numbers = numbers

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, place: int) -> Site:  # type: ignore[override]
        return self._sites[self._numbers[place]]


def _bytes(site: Site) -> int:
    """Return the size of a site's rows in memory."""
    size = 0
    for part in (site.train, site.validation, site.test):
        size += part.inputs.nbytes + part.target.nbytes
    return size


_federations = Recent[tuple[Any, ...], Federation](size=16)
_divisions = Recent[tuple[Any, ...], Sites](size=4)


def federate(
    scenario: Scenario,
    seed: int,
    device: str = "cpu",
    alone: bool = False,
) -> Federation:
    """Load the scenario's task and split it into sites; repeated calls return the same object.

    Args:
        scenario: The scenario.
        seed: The seed of the split.
        device: The device that holds the rows.
        alone: Whether each site learns its scale from its own rows, as in the local arm.

    Raises:
        Mistake: The partition is not for this task, sites have no row to train on, or a fault is
            at no site.
    """
    learns = learns_scale(scenario)
    alone = alone and learns
    key = (*_division_key(scenario), scenario.split, scenario.faults, seed, device, learns, alone)
    return _federations.get(key, lambda: _federate(scenario, seed, device, alone))


def own_site(
    scenario: Scenario,
    task: Task,
    number: int,
    name: str,
    rows: Rows,
    seed: int,
    device: str,
) -> Site:
    """Split the rows of one site that is alone with them, and scale them as is public.

    Under privacy all of them are for training. Nobody is given figures on the others there, and a split looks at all
    rows, so that one row more could move others.

    Args:
        scenario: The scenario.
        task: Its task.
        number: The number of the site.
        name: Its name.
        rows: Its rows.
        seed: The seed of the split.
        device: The device that holds the rows.

    Raises:
        Mistake: There is no row to train on, where nothing is private.
    """
    if scenario.private:
        person = numbers_of(rows)
        nothing = _examples(rows.inputs[:0], rows.target[:0], None if person is None else person[:0], device)
        site = Site(number, name, _examples(rows.inputs, rows.target, person, device), nothing, nothing)
    else:
        its_rows = _SiteRows(rows.inputs, rows.target, rows.time, rows.groups, numbers_of(rows))
        split = _Splitter(scenario, task, seed, device).split(number, name, its_rows)
        if split is None:
            raise Mistake(_too_small({name: len(rows.target)}))
        site = split
    public = public_scale(task.columns, task.range, rows.inputs.shape[1])
    return _scaled([site], public).sites[0] if public else site


def sites_of(scenario: Scenario) -> Sites:
    """Divide a scenario's rows among its sites; the division is the same under every seed.

    Raises:
        Mistake: The partition can't be made of the scenario's rows.
    """
    task = task_of(scenario)
    return _divisions.get(
        _division_key(scenario),
        lambda: divide(rows_of(scenario), task.kind, scenario.partition, task.columns),
    )


def _division_key(scenario: Scenario) -> tuple[Any, ...]:
    """Return all values that decide which rows are at which site."""
    return task_of(scenario), scenario.data, scenario.partition


def _federate(scenario: Scenario, seed: int, device: str, alone: bool) -> Federation:
    task = task_of(scenario)
    _check_partition(scenario, task)
    splitter = _Splitter(scenario, task, seed, device)
    if task.make is not None:
        return _federate_made_rows(scenario, task.make, splitter)
    return _standardized(scenario, task, _federate_given_rows(scenario, splitter), alone)


def _check_partition(scenario: Scenario, task: Task) -> None:
    """Check that sites are made up for a task that makes its rows, and for no other.

    Raises:
        Mistake: They are not.
    """
    by = scenario.partition.by
    if task.make is not None and by != "made":
        expected = "'made' with a task without rows of its own"
        raise Mistake(f"partition.by: expected {expected}, got {by!r}")
    if task.make is None and by == "made":
        expected = "another than 'made' with a task that has rows of its own"
        raise Mistake(f"partition.by: expected {expected}, got {by!r}")


def _federate_made_rows(scenario: Scenario, make: Make, splitter: "_Splitter") -> Federation:
    """Build a federation whose sites make their rows when they are asked for."""
    site_count = scenario.partition.sites or 1
    sites = _MadeSites(site_count, partial(_made, splitter, make))
    check_sites(scenario.faults, sites.names)
    return Federation(sites)


def _federate_given_rows(scenario: Scenario, splitter: "_Splitter") -> Federation:
    """Build a federation from the rows that the task loads."""
    rows = rows_of(scenario)
    person = numbers_of(rows)
    row_numbers_by_site = sites_of(scenario)
    check_sites(scenario.faults, list(row_numbers_by_site))

    sites = []
    too_small = {}
    for number, (name, row_numbers) in enumerate(row_numbers_by_site.items()):
        inputs = rows.inputs[row_numbers]
        site_rows = _SiteRows(
            inputs=skewed(inputs, scenario.partition, number),
            target=rows.target[row_numbers],
            time=None if rows.time is None else rows.time[row_numbers],
            groups={attribute: values[row_numbers] for attribute, values in rows.groups.items()},
            person=None if person is None else person[row_numbers],
        )
        site = splitter.split(number, name, site_rows)
        if site is None:
            too_small[name] = len(row_numbers)
        else:
            sites.append(site)

    if too_small:
        raise Mistake(_too_small(too_small))
    return Federation(tuple(sites))


def _standardized(
    scenario: Scenario,
    task: Task,
    federation: Federation,
    alone: bool,
) -> Federation:
    """Standardize the rows of all sites, if the scenario or its columns ask for that."""
    sites = federation.sites
    if not learns_scale(scenario):
        if sites[0].train.inputs.ndim != 2:
            return federation  # images and sequences aren't encoded from columns
        public = public_scale(task.columns, task.range, sites[0].train.inputs.shape[1])
        return _scaled(sites, public) if public else federation

    if alone:
        own = [_scaled([site], _learned(task, [site])).sites[0] for site in sites]
        return Federation(tuple(own))

    # A site that joins late is not there when the scale is learned.
    there = [site for site in sites if site.name not in scenario.faults.joins_late]
    return _scaled(sites, _learned(task, there or sites))


def _learned(task: Task, sites: Sequence[Site]) -> Scale:
    """Learn the scale of some sites from their training rows."""
    train = [(site.train.inputs, site.train.target) for site in sites]
    return learned_scale(task.columns, task.range, train)


def _scaled(sites: Sequence[Site], scale: Scale) -> Federation:
    """Standardize all rows of some sites."""

    def scaled(part: Examples) -> Examples:
        return replace(part, inputs=scale.inputs(part.inputs), target=scale.target(part.target))

    standardized = []
    for site in sites:
        parts = {part: scaled(getattr(site, part)) for part in ("train", "validation", "test")}
        standardized.append(replace(site, **parts, scale=scale))
    return Federation(tuple(standardized), scale)


@dataclass(frozen=True)
class _SiteRows:
    """The rows of one site before they are split; the fields are those of ``Rows``, but that persons are numbers."""

    inputs: np.ndarray
    target: np.ndarray
    time: np.ndarray | None = None
    groups: Mapping[str, np.ndarray] = field(default_factory=dict)
    person: np.ndarray | None = None


def _made(splitter: "_Splitter", make: Make, number: int, name: str) -> Site:
    """Make the rows of a made-up site, check and split them.

    Raises:
        Mistake: The site has no row to train on under some seed.
    """
    inputs, target = make(number)
    check_examples(f"task {splitter.scenario.task}", splitter.task, inputs, target)
    site = splitter.split(number, name, _SiteRows(inputs, target))
    if site is None:
        raise Mistake(_too_small({name: len(target)}))
    return site


@dataclass(frozen=True)
class _Splitter:
    """Splits each site's rows into training, validation and test rows, under one seed."""

    scenario: Scenario
    task: Task
    seed: int
    device: str

    def split(self, number: int, name: str, rows: _SiteRows) -> Site | None:
        """Split the rows of a site; None if it has no row to train on under some seed."""
        parts = self._parts(name, rows)
        if parts is None:
            return None
        targets = {part: rows.target[chosen] for part, chosen in parts.items()}

        # Only training rows get wrong labels: models are judged by the right ones.
        share = self.scenario.faults.wrong_labels.get(name)
        if share:
            targets["train"] = mislabel(targets["train"], self.task.kind, share, self.seed, name)

        examples = {}
        for part, chosen in parts.items():
            person = None if rows.person is None else rows.person[chosen]
            examples[part] = _examples(rows.inputs[chosen], targets[part], person, self.device)
        groups = {attribute: values[parts["test"]] for attribute, values in rows.groups.items()}
        return Site(number=number, name=name, groups=groups, **examples)

    def _parts(self, name: str, rows: _SiteRows) -> dict[str, np.ndarray] | None:
        """Choose the rows of each part: {part: row numbers, ascending}.

        The result is None if no row is left to train on under some seed.
        """
        validation = self.scenario.split.validation
        test = self.scenario.split.test
        parts = None
        if self.task.by_time and rows.time is not None:
            parts = split_by_time(rows.time, validation, test, self.task.horizon)
            if rows.person is not None:
                parts = without_later(parts, rows.person)
        else:
            # Rows are split class by class; all rows of a kind without classes are in the same one.
            labels = outcome_of(self.task.kind).strata(rows.target)
            of_drawn = labels if rows.person is None else labels_of_persons(labels, numbered(rows.person))
            if _always_trains(of_drawn, validation, test):
                parts = split_rows(labels, validation, test, self.seed, name, rows.person)

        if parts is None or not len(parts["train"]):
            return None
        return parts


def _too_small(rows_by_site: Mapping[str, int]) -> str:
    """Say which sites have too few rows, by {site: its rows}: a line for each number of rows."""
    if len(rows_by_site) == 1:
        name, count = next(iter(rows_by_site.items()))
        return (
            f"site {name}: expected at least one row to train on under every seed, "
            f"got {count} rows in all; "
            "leave the site out, or join it with others (partition.sites)"
        )

    names_by_count: dict[int, list[str]] = {}
    for name, count in rows_by_site.items():
        names_by_count.setdefault(count, []).append(name)

    expected = "expected at least one row to train on at each under every seed"
    lines = [f"{len(rows_by_site)} sites: {expected}, got too few rows in all:"]
    for count, names in sorted(names_by_count.items()):
        lines.append(f"  {count} row{'s' if count != 1 else ''} at {', '.join(names)}")
    lines.append("  leave these sites out, or join them with others (partition.sites)")
    return "\n".join(lines)


def split_by_time(
    time: np.ndarray,
    validation: float,
    test: float,
    horizon: float,
) -> dict[str, np.ndarray]:
    """Split one site's rows by time: the latest are for testing, those before them for validation.

    Rows of one moment stay together, so that shares are met up to the rows of one moment. Rows
    whose time is within ``horizon`` before the next part begins are in no part: their target looks
    into it.

    Returns:
        {part: row numbers, ascending}.
    """
    ordered = np.sort(time)
    parts = {}
    end = np.inf  # the moment at which the part that was cut off last begins
    for part, share, gap in (
        ("test", test, 0.0),
        ("validation", validation, horizon),
        ("train", 1.0, horizon),
    ):
        # The part takes the latest rows before ``end``, as many as its share of all rows.
        rows_wanted = round(share * len(time))
        rows_before = int(np.searchsorted(ordered, end))
        begin = end
        if rows_wanted and rows_before:
            begin = ordered[max(0, rows_before - rows_wanted)]

        in_part = (time >= begin) & (time < end)  # bool (rows,)
        parts[part] = np.flatnonzero(in_part & (end - time > gap))
        if len(parts[part]):
            end = time[parts[part]].min()
    return parts


def _always_trains(target: np.ndarray, validation: float, test: float) -> bool:
    """Return whether ``split_rows`` leaves a row to train on under every seed.

    Seeds change which row of a class is at which place of the circle, and by how many test blocks
    the circle is turned. The places themselves follow from the sizes of the classes.
    """
    _, counts = np.unique(target, return_counts=True)
    sizes = {int(count) for count in counts}
    if max(sizes) * (1 - validation - test) >= 2:
        return True  # the training part of the circle is longer than the gap between two places

    # Try the turn of each seed until the circle is back where it began.
    places = np.concatenate([(np.arange(size) + 0.5) / size for size in sizes])
    for block in range(int(1 / test + 1e-9)):
        turned = (places - block * test) % 1.0
        if not (turned >= test + validation).any():
            return False
    return True


def split_rows(
    target: np.ndarray,
    validation: float,
    test: float,
    seed: int,
    site: str,
    person: np.ndarray | None = None,
) -> dict[str, np.ndarray]:
    """Split one site's rows into disjoint parts, each class in proportion.

    Where ``person`` tells whose each row is, persons are split in place of rows, each with all rows, by the label that
    ``labels_of_persons`` gives them; shares are then met in persons.

    Each class is put in a random order and laid on a circle; the seed turns the circle by one test
    block. So the test rows of ``floor(1 / test)`` consecutive seeds (the first of them a multiple
    of that number) are disjoint: the seeds are the folds of a cross-validation, and the next seeds
    start over with a new order.

    Returns:
        {part: row numbers, ascending}.
    """
    if person is not None:
        numbers = numbered(person)
        of_persons = split_rows(labels_of_persons(target, numbers), validation, test, seed, site)
        return {part: np.flatnonzero(np.isin(numbers, chosen)) for part, chosen in of_persons.items()}

    folds = int(1 / test + 1e-9)
    repeat, block = divmod(seed, folds)

    # Lay each class on the circle, its rows at even distances and in an order of this repeat.
    order = stream(repeat, "split", site)
    position = np.empty(len(target))  # in [0, 1)
    for label in np.unique(target):
        members = np.flatnonzero(target == label)
        places = (np.arange(len(members)) + 0.5) / len(members)
        position[order.permutation(members)] = places

    # Turn the circle by the test blocks of the seeds before.
    position = (position - block * test) % 1.0
    in_test = position < test
    in_train = position >= test + validation
    return {
        "test": np.flatnonzero(in_test),
        "validation": np.flatnonzero(~in_test & ~in_train),
        "train": np.flatnonzero(in_train),
    }


def _examples(inputs: np.ndarray, target: np.ndarray, person: np.ndarray | None, device: str) -> Examples:
    return Examples(
        inputs=torch.from_numpy(inputs).to(device),
        target=torch.from_numpy(target).to(device),
        person=None if person is None else torch.from_numpy(numbered(person)).to(device),
    )


def concatenated(parts: Sequence[Examples]) -> Examples:
    """Concatenate the rows of several sites, or of parts without a person in common: nobody is in two of them."""
    person = None
    if all(part.person is not None for part in parts):
        numbers = []
        persons = 0
        for part in parts:
            assert part.person is not None  # noqa: S101  see above
            numbers.append(part.person + persons)
            persons += part.persons or 0
        person = torch.cat(numbers)
    return Examples(
        inputs=torch.cat([part.inputs for part in parts]),
        target=torch.cat([part.target for part in parts]),
        person=person,
    )
