"""Make a task of the user's own table, with an account of every row."""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fedsim.data.own_table import cleaning
from fedsim.data.own_table.cleaning import Cells
from fedsim.data.own_table.features import Features, features_of
from fedsim.data.own_table.file_bytes import digest, is_pattern, site_of
from fedsim.data.own_table.frames import held_table, is_frame
from fedsim.data.own_table.images.classes import declared_beside_images, declared_in_folder
from fedsim.data.own_table.images.files import Pictures, read_pictures
from fedsim.data.own_table.images.files import digest_of as digest_of_images
from fedsim.data.own_table.images.folder import Listing, in_columns, named_by
from fedsim.data.own_table.ranges import (
    FITTED,
    Declared,
    MissingRanges,
    check_all_there,
    check_no_more,
    declared_for,
    listed_levels,
    options_of,
)
from fedsim.data.own_table.reading import Table, read_table
from fedsim.data.own_table.roles import check_roles, roles_of
from fedsim.data.own_table.target import Target, needs_entry, target_of
from fedsim.data.tables import Number, encode
from fedsim.data.task import Rows, Task
from fedsim.mistakes import Mistake
from fedsim.scenario.schema import Data

_MOST_FAULTS = 30  # columns whose faults are told at once
ALL_ROWS = "all rows"  # the site of a table without a column of sites


@dataclass(frozen=True)
class Intake:
    """An account of a file's rows: ``rows_in`` is ``rows_used`` plus all rows that were left out.

    Attributes:
        file: The file's name.
        rows_in: The number of rows in the file.
        rows_used: The number of rows that make up the sites.
        left_out: The rows that were not used, with the reason.
        notes: Notes on all that was repaired, cut, inferred or left aside.
        ranges_fitted: Whether ranges were taken from the rows, which no privacy covers.
    """

    file: str
    rows_in: int
    rows_used: int
    left_out: tuple[cleaning.LeftOut, ...]
    notes: tuple[str, ...]
    ranges_fitted: bool

    def as_json(self) -> dict[str, Any]:
        """Return the account as values for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Prepared:
    """A table of the user's own, ready to be used."""

    task: Task
    intake: Intake


def settled(data: Data) -> Data:
    """Complete the section so that it means the same later and elsewhere.

    It gets the whole path, the file's digest and all ranges.

    Raises:
        Mistake: The file is not there.
    """
    if data.path is None:
        return data

    path = Path(data.path)
    if is_frame(path):
        held_table(data.sha256)  # it has a digest, and is there
        fixed = data
    else:
        path = path.absolute()
        if not is_pattern(path) and not path.exists():
            raise Mistake(f"data.path: expected a file, there is none at {data.path}")
        fixed = data.model_copy(update={"path": str(path), "sha256": data.sha256 or data_digest(data)})
    if data.target is None:
        return fixed  # the ranges are the task's own, or there are none

    declared = declared_for(path, data.ranges, data.undeclared)
    if not declared.entries:
        return fixed
    undeclared = FITTED if declared.fits_rest else None
    changes = {"ranges": dict(declared.entries), "undeclared": undeclared}
    return fixed.model_copy(update=changes)


def check_digest(data: Data) -> None:
    """Check that the file is the same as when the run was begun.

    Raises:
        Mistake: It has changed.
    """
    if is_frame(data.path):
        held_table(data.sha256)  # it is found by its digest
        return
    if data.path and data.sha256 and data_digest(data) != data.sha256:
        expected = f"{data.path} as it was when the run was begun"
        raise Mistake(f"data.path: expected {expected}, it has changed since; begin a new run")


def data_digest(data: Data) -> str:
    """Compute the SHA-256, in hex, of the file or files that a scenario learns from.

    Of images it is that of their names in the folder and their contents, wherever the folder is.
    """
    path = Path(data.path or "")
    if data.layout:
        return digest_of_images(Listing(path).files())
    if not data.image:
        return digest(path)

    table = read_table(path)
    check_roles(table.name, list(table.columns), data)
    there = cleaning.cells_of(table, data.image).rows_missing()
    named, _ = named_by(table.kept(~there), data.image, path.parent)
    distinct = {image.name: image for image in named if image.path and image.path.is_file()}
    of_images = digest_of_images([distinct[name] for name in sorted(distinct)])
    return hashlib.sha256(f"{digest(path)}  {of_images}".encode()).hexdigest()


def prepare(data: Data) -> Prepared:
    """Read a table and make it a task.

    Raises:
        MissingRanges: Columns have no public range; the error has a template.
        Mistake: Something in the file is wrong, or not as it was declared: all columns' faults.
    """
    check_digest(data)
    return assembled(data, usable(data))


def assembled(data: Data, used: "Usable") -> Prepared:
    """Make a task of a table that was read; the errors are those of ``prepare``."""
    data = in_columns(data)
    faults = Faults()
    parts = converted(data, used, faults)
    faults.raise_all(used.missing_ranges())
    target = parts.target
    features = parts.features
    pictures = parts.pictures
    assert target is not None  # noqa: S101  without a target there was a fault
    assert parts.site is not None  # noqa: S101

    without_inputs = Rows(
        inputs=np.zeros(0, np.float32),
        target=target.values,
        site=parts.site,
        time=parts.time,
        groups=parts.groups,
        person=parts.person,
    )
    if pictures is None:
        inputs = encode(pd.DataFrame(features.values), features.columns)
        source = f"{used.table.name}, a table of one's own"
    else:
        inputs = None  # they are four times as large as the pixels, and made when they are asked for
        source = f"{used.table.name}, images of one's own"

    def load() -> Rows:
        if pictures is not None:
            return replace(without_inputs, inputs=pictures.inputs)
        return replace(without_inputs, inputs=inputs)

    task = Task(
        title=f"{data.target} in {used.table.name}",
        outcome=target.meaning,
        source=source,
        columns=features.columns,
        model=_model_builder(data.model, target.outputs),
        load=load,
        kind=target.kind,
        range=target.column if isinstance(target.column, Number) else None,
        by_time=data.time is not None,
        classes=target.classes,
    )
    intake = Intake(
        file=used.table.name,
        rows_in=used.rows_in,
        rows_used=len(used.table.rows),
        left_out=used.left_out,
        notes=notes_of(data, used, parts),
        ranges_fitted=used.declared.fits_rest and features.some_fitted,
    )
    return Prepared(task, intake)


def notes_of(data: Data, used: "Usable", parts: "Converted") -> tuple[str, ...]:
    """Return notes on all that was repaired, inferred or left aside, in the order in which they are told."""
    on_images = parts.pictures.notes() if parts.pictures else ()
    on_outcome = parts.target.said if parts.target else ()
    return (
        *_notes_on_place(data),
        *on_images,
        *used.table.repairs,
        *parts.notes_on_sites,
        *used.said,
        *on_outcome,
        *parts.features.notes,
    )


def _notes_on_place(data: Data) -> list[str]:
    if not is_frame(data.path):
        return []
    return ["the table is a pandas frame that was given in Python: no file and no run directory has its rows"]


@dataclass
class Converted:
    """The columns of a table, converted as far as they have no fault.

    Attributes:
        target: The outcome; None if it has a fault, or none was named.
        features: The columns to learn from.
        pictures: The images to learn from; None if there are none, or they have a fault.
        site: The site of each row, str (rows,); None if the column has a fault.
        time: The moment of each row; None if there is no such column, or it has a fault.
        groups: {attribute: the group of each row}.
        notes_on_sites: Notes on sites and groups.
        person: The person of each row, str (rows,); None if there is no such column, or it has a fault.
    """

    target: Target | None
    features: Features
    pictures: Pictures | None
    site: np.ndarray | None
    time: np.ndarray | None
    groups: dict[str, np.ndarray]
    notes_on_sites: list[str]
    person: np.ndarray | None = None


def converted(data: Data, used: "Usable", faults: "Faults") -> Converted:
    """Convert the columns of a table that was read, and collect what is wrong with them."""
    target = None
    if used.outcome:
        with faults.collected():
            target = target_of(used.cells[used.outcome], data.kind, used.declared, data.positive, used.file_mark)
    pictures: Pictures | None = None
    if data.image is None:
        features = features_of(used, faults)
    else:
        features = Features({}, (), _notes_on_others(used), some_fitted=False)
        with faults.collected():
            pictures = _pictures(data, used)
    site = time = person = None
    groups: dict[str, np.ndarray] = {}
    notes_on_sites: list[str] = []
    with faults.collected():
        site, notes_on_sites = _sites(used, data.site)
    with faults.collected():
        time = cleaning.times(used.cells[data.time], used.file_mark) if data.time else None
    with faults.collected():
        person = _persons(used.cells[data.person]) if data.person else None
    for name in data.groups or ():
        with faults.collected():
            merged_cells, note = cleaning.merged(used.cells[name])
            groups[name] = cleaning.groups(merged_cells)
            notes_on_sites.extend([note] if note and note not in features.notes else [])
    return Converted(target, features, pictures, site, time, groups, notes_on_sites, person)


def _pictures(data: Data, used: "Usable") -> Pictures:
    """Read the images of the rows.

    Raises:
        Mistake: All that is wrong with them, or with their folder.
    """
    assert data.image is not None  # noqa: S101  so it was asked
    if used.listing is not None:
        named = used.listing.files()
        image_faults = used.listing.faults
    else:
        named, image_faults = named_by(used.table, data.image, used.path.parent)
    size = None if data.image_size is None else (data.image_size[0], data.image_size[1])
    return read_pictures(named, size, data.channels, image_faults)


def _notes_on_others(used: "Usable") -> list[str]:
    """Note the columns of a table of images that nothing is learned from."""
    others = [name for name in used.cells if name not in used.roles]
    return [f"only the images are learned from; columns left aside: {', '.join(others)}"] if others else []


def _model_builder(name: str, outputs: int) -> Callable[..., Any]:
    """Return a function that builds the model; PyTorch is imported when it is called."""

    def build(*shape: int) -> Any:  # noqa: ANN401  a torch module
        from fedsim.data.own_table.models import model_of

        return model_of(name, outputs)(*shape)

    return build


class Faults:
    """All that is wrong with a table, collected so that it can be said at once."""

    def __init__(self) -> None:
        self._lines: list[str] = []

    @contextmanager
    def collected(self) -> Iterator[None]:
        """Keep a mistake that is raised inside, and go on after it."""
        try:
            yield
        except Mistake as mistake:
            self._lines.append(str(mistake))

    def lines(self) -> list[str]:
        """Return what was collected, a line for each column."""
        lines = list(dict.fromkeys(self._lines))
        if len(lines) > _MOST_FAULTS:
            more = len(lines) - _MOST_FAULTS
            lines = [*lines[:_MOST_FAULTS], f"and {more} more columns with wrong values"]
        return lines

    def raise_all(self, missing: MissingRanges | None = None) -> None:
        """Raise what was collected, with the columns that lack a range.

        Raises:
            MissingRanges: Columns lack a range.
            Mistake: Something else is wrong.
        """
        lines = self.lines()
        if missing is not None:
            message = "\n".join([str(missing), *lines])
            raise MissingRanges(message, missing.path, missing.template)
        if lines:
            raise Mistake("\n".join(lines))


@dataclass(frozen=True)
class Usable:
    """The rows of a table that have an outcome, a site and a time, and their columns.

    Attributes:
        path: The file.
        table: The table without the rows that are left out.
        rows_in: The number of rows in the file.
        left_out: The rows that are left out.
        declared: The declared ranges.
        outcome: The column of the outcome; empty if none was named.
        roles: The columns of outcome, site, time and person.
        cells: {column: its values, with those that are missing}.
        file_mark: The notation of numbers that the file shows.
        outcome_needs_entry: Whether the levels or the range of the outcome must be declared.
        listing: The images of a folder, of which each is a row; None for a table.
        learns_images: Whether images are learned from, and no columns.
        said: Notes on how the rows were found.
    """

    path: Path
    table: Table
    rows_in: int
    left_out: tuple[cleaning.LeftOut, ...]
    declared: Declared
    outcome: str
    roles: tuple[str, ...]
    cells: Mapping[str, Cells]
    file_mark: str
    outcome_needs_entry: bool
    listing: Listing | None = None
    said: tuple[str, ...] = ()
    learns_images: bool = False

    @property
    def features(self) -> list[str]:
        """The columns that are no outcome, site, time or person; none where images are learned from."""
        if self.learns_images:
            return []
        return [name for name in self.cells if name not in self.roles]

    def missing_ranges(self) -> MissingRanges | None:
        """Return the columns without a public range as an error; None if there are none."""
        to_declare = self.features
        if self.outcome_needs_entry:
            to_declare.append(self.outcome)
        try:
            check_all_there(self.path, to_declare, self.kind_in_words, self.declared)
        except MissingRanges as missing:
            return missing
        return None

    def kind_in_words(self, name: str) -> str:
        """Return the kind of a column: numbers, dates or text."""
        try:
            return cleaning.recognized(self.cells[name], self.file_mark).kind
        except Mistake:
            return "text"  # the fault itself is told by the conversion


def usable(data: Data) -> Usable:
    """Read a table, and leave out the rows that are of no use.

    Raises:
        Mistake: It can't be read, or lacks the outcome, the site or the time.
    """
    path = Path(data.path or "")
    listing = Listing(path) if data.layout else None
    if listing is not None:
        table = listing.table()
    elif is_frame(data.path):
        table = held_table(data.sha256)
    else:
        table = read_table(path)
    data = in_columns(data)
    outcome = data.target or ""  # a first look needs none
    roles = roles_of(data)
    check_roles(table.name, list(table.columns), data)

    said: tuple[str, ...] = ()
    if listing is not None:
        declared, said = declared_in_folder(listing, data.classes)
    elif data.image is not None:
        declared = declared_beside_images(data)
    else:
        declared = declared_for(path, data.ranges, data.undeclared)
    check_no_more(path, list(table.columns), declared)

    # A row without a person is not left out but an error: it may be anybody's, and which rows are whose decides what
    # is protected.
    needed = {role: _cells(table, name, declared) for role, name in roles.items() if name and role != "person"}
    keep, left_out = cleaning.without(table, needed)
    used = table.kept(keep)
    if not len(used.rows):
        got = f"none of the {len(table.rows)} has all that is needed"
        lacking = outcome or ", ".join(name for name in roles.values() if name)
        raise Mistake(f"{table.name}: expected rows with {lacking}, {got}")

    cells = {name: _cells(used, name, declared) for name in used.columns}
    return Usable(
        path=path,
        table=used,
        rows_in=len(table.rows),
        left_out=left_out,
        declared=declared,
        outcome=outcome,
        roles=tuple(name for name in roles.values() if name),
        cells=cells,
        file_mark=cleaning.file_mark_of(list(cells.values())),
        outcome_needs_entry=bool(outcome) and needs_entry(cells[outcome], data.kind),
        listing=listing,
        said=said,
        learns_images=data.image is not None,
    )


def _cells(table: Table, name: str, declared: Declared) -> Cells:
    entry = declared.entries.get(name)
    options = options_of(name, entry, declared.place)
    return cleaning.cells_of(table, name, options, listed_levels(entry))


def _sites(used: Usable, name: str | None) -> tuple[np.ndarray, list[str]]:
    """Return the site of each row, str (rows,), and notes on names that were merged."""
    if name is None and used.table.files:
        sites = np.array([site_of(file) for file in used.table.files])
        return sites[used.table.file_codes], []
    if name is None:
        return np.full(len(used.table.rows), ALL_ROWS), []
    merged_cells, note = cleaning.merged(used.cells[name])
    return cleaning.names(merged_cells), [note] if note else []


def _persons(cells: Cells) -> np.ndarray:
    """Return the name of each row's person, str (rows,): as it is written, but for blanks around it.

    Spellings are not merged, as those of sites are: two names that are nearly alike may be two persons.

    Raises:
        Mistake: A row has none, or the column holds numbers that are not whole.
    """
    if cells.rows_missing().any():
        raise cells.nothing("the name or number of each row's person, or a name of its own for a row of which it is "
                            "not known")  # fmt: skip
    return np.char.strip(cleaning.names(cells))
