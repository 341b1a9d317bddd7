"""What lies in a folder of runs: runs, deployments, sweeps, tuned comparisons, tournaments and audits.

The folder may hold directories of strangers. No link is followed, and what a page can open is found here, by name: a
request chooses among these names and never becomes a path.
"""

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fedsim.mistakes import Mistake

Kind = Literal["run", "deployment", "sweep", "tune", "tournament", "audit"]

LARGEST_SERVED = 2**27
"""Bytes of a file that is handed out."""

MOST_FOLDERS = 2000
_DEEPEST = 3
_KNOWN_BY: dict[str, Kind] = {
    "deployment.json": "deployment",
    "training.json": "deployment",
    "scenario.toml": "run",
    "manifest.json": "run",
    "sweep.html": "sweep",
    "tune.html": "tune",
    "tournament.html": "tournament",
    "story.html": "audit",
}
"""{file: the kind of folder that it stands for}; the first one counts."""

_PAGES = {
    "run": ("report.html", "statement.html", "comparison.html"),
    "deployment": ("report.html", "statement.html"),
    "sweep": ("sweep.html",),
    "tune": ("tune.html",),
    "tournament": ("tournament.html",),
    "audit": ("story.html",),
}
_ENDINGS = {
    ".html": "text/html; charset=utf-8",
    ".json": "text/plain; charset=utf-8",
    ".toml": "text/plain; charset=utf-8",
    ".csv": "text/plain; charset=utf-8",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".parquet": "application/octet-stream",
}
"""{ending of a file that is handed out: as what}. Models and checkpoints are not among them."""


@dataclass(frozen=True)
class Folder:
    """A folder that has something to show.

    Attributes:
        name: Its path below the folder of runs, with slashes.
        path: Where it is.
        kind: What is in it.
        files: The names of the files that can be opened.
    """

    name: str
    path: Path
    kind: Kind
    files: tuple[str, ...]

    @property
    def pages(self) -> tuple[str, ...]:
        """The pages that it has, the most important one first."""
        return tuple(name for name in _PAGES[self.kind] if name in self.files)

    @property
    def others(self) -> tuple[str, ...]:
        """The files that are no pages."""
        return tuple(name for name in self.files if name not in self.pages)


def check_place(root: Path) -> None:
    """Make sure that there is a folder of runs.

    Raises:
        Mistake: There is none, or it is a single run.
    """
    if not root.exists():
        raise Mistake(f"{root}: expected a folder of runs, there is none; fedsim run makes one")
    if not root.is_dir():
        raise Mistake(f"{root}: expected a folder of runs, got a file")
    kind = kind_of([path.name for path in root.iterdir()])
    if kind is not None:
        parent = root.resolve().parent
        raise Mistake(f"{root}: expected a folder of runs, got a single {kind}; the folder it lies in: {parent}")


def kind_of(names: list[str]) -> Kind | None:
    """Return what a folder with these files is; None if it is nothing that fedsim knows."""
    return next((kind for name, kind in _KNOWN_BY.items() if name in names), None)


def found(root: Path) -> dict[str, Folder]:
    """Return {name: folder} of all that lies below a folder of runs, at most MOST_FOLDERS."""
    folders: dict[str, Folder] = {}
    for folder in _below(root, "", _DEEPEST):
        if len(folders) == MOST_FOLDERS:
            break
        folders[folder.name] = folder
    return folders


def _below(place: Path, start: str, depth: int) -> Iterator[Folder]:
    for entry in _entries(place):
        if not entry.is_dir(follow_symlinks=False):
            continue
        path = place / entry.name
        files = [inner.name for inner in _entries(path) if inner.is_file(follow_symlinks=False)]
        kind = kind_of(files)
        if kind is not None:
            shown = sorted(name for name in files if os.path.splitext(name)[1] in _ENDINGS)  # noqa: PTH122
            yield Folder(f"{start}{entry.name}", path, kind, tuple(shown))
        elif depth > 1:
            yield from _below(path, f"{start}{entry.name}/", depth - 1)


def _entries(place: Path) -> list[os.DirEntry[str]]:
    """Return what is in a folder by name; hidden files are left out, and names that are no text."""
    try:
        with os.scandir(place) as scanned:
            entries = sorted(scanned, key=lambda entry: entry.name)
    except OSError:
        return []
    return [entry for entry in entries if not entry.name.startswith(".") and entry.name.isprintable()]


def link_in(folder: Folder) -> str | None:
    """Return the name of a link in a folder; None if there is none."""
    with os.scandir(folder.path) as entries:
        return next((entry.name for entry in entries if entry.is_symlink()), None)


def content_of(root: Path, folder: Folder, name: str) -> tuple[bytes, str] | None:
    """Return a file's bytes and its type; None if it can't be handed out.

    Each folder on the way is opened from the one above it, without following a link that took its place meanwhile.
    """
    if name not in folder.files:
        return None
    opened: list[int] = []
    try:
        opened.append(os.open(root, os.O_RDONLY | os.O_DIRECTORY))
        for part in folder.name.split("/"):
            opened.append(os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=opened[-1]))
        opened.append(os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=opened[-1]))
        facts = os.fstat(opened[-1])
        if not stat.S_ISREG(facts.st_mode) or facts.st_size > LARGEST_SERVED:
            return None
        with os.fdopen(opened.pop(), "rb") as file:
            content = file.read(LARGEST_SERVED + 1)
    except OSError:
        return None
    finally:
        for one in opened:
            os.close(one)
    if len(content) > LARGEST_SERVED:
        return None
    return content, _ENDINGS[os.path.splitext(name)[1]]  # noqa: PTH122
