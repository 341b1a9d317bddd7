"""Find the images of a folder ``site/class/*.png``, or those that a column of paths names."""

import os
import unicodedata
from collections.abc import Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath

import numpy as np
import pyarrow as pa

from fedsim.data.own_table.images.files import ImageFaults, Named
from fedsim.data.own_table.reading import Table
from fedsim.data.own_table.values import Values, of_chunks
from fedsim.figures import listed
from fedsim.mistakes import Mistake
from fedsim.scenario.schema import Data

PATH = "path"
SITE = "site"
CLASS = "class"
ENDINGS = (".png", ".jpg", ".jpeg")
_IGNORED = ("thumbs.db", "desktop.ini", "__macosx")  # what systems leave in folders
_LAYOUT = "FOLDER/site/class/image.png"
_HINT = (
    "put them into one folder for each site, or list them in a CSV with columns of paths, sites and outcomes, and "
    "name these as data.image, data.site and data.target"
)
_MOST_SHOWN = 3


class Listing:
    """The images of a folder, which is looked through when the listing is made.

    Attributes:
        names: Their paths from the folder, sorted: ``north/ill/7.png``.
        faults: All that is wrong with the folder's layout.
        notes: Notes on what was passed over.
    """

    def __init__(self, folder: Path) -> None:
        """Look through a folder.

        Raises:
            Mistake: There is none, or no file in it.
        """
        if not folder.is_dir():
            got = "a file" if folder.exists() else "nothing"
            raise Mistake(f"data.path: expected a folder of images, got {got} at {folder}")
        self.folder = folder
        self.names: list[str] = []
        self.faults = ImageFaults()
        self.notes: list[str] = []
        self._ignored: list[str] = []
        self._empty: list[str] = []
        self._sites: list[str] = []
        self._direct: list[str] = []  # folders with images, where folders of classes are expected
        self._walk(folder, ())
        self._finish()

    @property
    def sites(self) -> list[str]:
        """The site of each image."""
        return [name.split("/")[0] for name in self.names]

    @property
    def classes(self) -> list[str]:
        """The class of each image."""
        return [name.split("/")[1] for name in self.names]

    def files(self) -> list[Named]:
        """Return the files of the images."""
        return [Named(name, self.folder / name) for name in self.names]

    def table(self) -> Table:
        """Return the images as a table with columns of paths, sites and classes; rows count from 1.

        Raises:
            Mistake: There are none, and all that is wrong with the folder's layout.
        """
        if not self.names:
            raise Mistake("\n".join(self.faults.lines()))
        columns = {PATH: _column(self.names), SITE: _column(self.sites), CLASS: _column(self.classes)}
        rows = np.arange(1, len(self.names) + 1)
        return Table(self.folder.name, columns, rows, repairs=tuple(self.notes))

    def _walk(self, folder: Path, parts: tuple[str, ...]) -> None:
        """Look through a folder that is ``len(parts)`` levels below the first."""
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError as error:
            self.faults.add(f"expected a folder that can be read, got {error.strerror}", "/".join(parts))
            return
        found = 0
        for entry in entries:
            name = "/".join((*parts, entry.name))
            if entry.name.startswith(".") or entry.name.lower() in _IGNORED:
                self._ignored.append(name)
            elif not _is_utf8(entry.name):
                self.faults.add("expected names in UTF-8", ascii(name))
            elif entry.is_symlink():
                self.faults.add("expected files and folders themselves, got links; copy what they lead to", name)
            elif entry.is_dir():
                found += self._enter(Path(entry.path), (*parts, entry.name), name)
            else:
                found += self._take(entry, parts, name)
        if not found and parts:
            self._empty.append("/".join(parts))

    def _enter(self, folder: Path, parts: tuple[str, ...], name: str) -> int:
        if len(parts) > 2:
            self.faults.add(f"expected images as {_LAYOUT}, got folders below those of classes", name)
            return 1
        if len(parts) == 1:
            self._sites.append(name)
        before = len(self.names)
        self._walk(folder, parts)
        return len(self.names) - before

    def _take(self, entry: os.DirEntry[str], parts: tuple[str, ...], name: str) -> int:
        if not entry.is_file():
            self.faults.add("expected ordinary files, got devices or pipes", name)
        elif not entry.name.lower().endswith(ENDINGS):
            self.faults.add("expected files that end in .png, .jpg or .jpeg, got others", name)
        elif len(parts) == 1:
            self._direct.append(name)
        elif not parts:
            self.faults.add(f"expected images as {_LAYOUT}, got images in no folder of a site", name)
        else:
            self.names.append(name)
        return 1

    def _finish(self) -> None:
        if self._direct:
            fault = f"expected images as {_LAYOUT}, got images in no folder of a class"
            if not self.names:
                fault = f"expected images as {_LAYOUT}, got folders of one level only; {_HINT}"
            for name in self._direct:
                self.faults.add(fault, name)

        sites_with_images = {*self.sites, *(name.split("/")[0] for name in self._direct)}
        for site in self._sites:
            if site not in sites_with_images:
                self.faults.add("expected images of each site, got folders of sites without any", site)
        if not self.names and not self.faults.names:
            raise Mistake(f"{self.folder}: expected images as {_LAYOUT}, got none; {_HINT}")

        if self._ignored:
            self.notes.append(f"hidden files and those of the system were passed over: {_listed(self._ignored)}")
        empty = [name for name in self._empty if "/" in name]
        if empty:
            self.notes.append(f"folders of classes without an image: {_listed(empty)}")
        self.notes.extend(self._lacking())

    def _lacking(self) -> list[str]:
        """Note the classes that sites lack."""
        pairs = set(zip(self.sites, self.classes, strict=True))
        lacking = []
        for site in sorted(set(self.sites)):
            for name in sorted(set(self.classes)):
                if (site, name) not in pairs:
                    lacking.append(f"{name} at {site}")
        return [f"classes of which a site has no image: {_listed(lacking)}"] if lacking else []


def in_columns(data: Data) -> Data:
    """Name the columns of the table that a folder's images make; other data as it is."""
    if not data.layout:
        return data
    return data.model_copy(update={"image": PATH, "site": SITE, "target": CLASS})


def named_by(table: Table, column: str, folder: Path) -> tuple[list[Named], ImageFaults]:
    """Find the files that a column of paths names, each for one row.

    Args:
        table: The table, without rows that lack a path.
        column: The column.
        folder: The folder of the table's file, where the paths start.

    Returns:
        The files, and the faults of those that must not be opened: paths that lead out of the
        folder, links, and files that are not there.
    """
    faults = ImageFaults()
    values = table.columns[column]
    by_distinct = []
    for text, row in zip(values.texts, values.first_rows, strict=True):
        name = text.replace("\\", "/")
        fault = _fault_of_path(name, folder)
        if fault:
            faults.add(fault, f"{text!r} (row {table.rows[row]})")
        by_distinct.append(Named(name, None if fault else folder / name))
    return [by_distinct[code] for code in values.codes], faults


def _fault_of_path(name: str, folder: Path) -> str:
    """Return what is wrong with the path of an image; empty if nothing is."""
    path = PurePosixPath(name)
    if path.is_absolute() or PureWindowsPath(name).drive or ".." in path.parts or not path.parts:
        # A table that is handed on must not make its reader open files of their own.
        return "expected paths that start at the folder of the table and stay in it, got others"
    place = folder
    for part in path.parts:
        place = place / part
        try:
            is_link = place.is_symlink()
        except (OSError, ValueError) as error:
            return f"expected the path of an image, got {error.__class__.__name__}"
        if is_link:
            return "expected files and folders themselves, got links; copy what they lead to"
    if not place.exists():
        return "expected the file of an image, there is none"
    return ""


def _column(texts: Sequence[str]) -> Values:
    normal = [unicodedata.normalize("NFC", text) for text in texts]
    return of_chunks([pa.array(normal, pa.string()).dictionary_encode()])


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _listed(names: Sequence[str]) -> str:
    return f"{len(names):,} ({listed(names, _MOST_SHOWN)})"
