"""Write a file whole or not at all, and open those of a directory that may be a stranger's."""

import os
from contextlib import suppress
from io import FileIO
from pathlib import Path

_TEMPORARY = ".tmp"


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file whole or not at all: it is written under a temporary name and renamed.

    Raises:
        OSError: It can't be written; the error names the file.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}{_TEMPORARY}")
    try:
        temporary.unlink(missing_ok=True)  # a stranger's link, which must not be followed
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        _sync(path.parent)
    except OSError as error:
        error.filename = str(path)  # a full disk has no name of its own
        raise
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def _sync(folder: Path) -> None:
    """Write a folder's names to the disk: else a new one may be lost when the power fails."""
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files of processes that were killed while they wrote."""
    for path in folder.glob(f".*{_TEMPORARY}"):
        path.unlink(missing_ok=True)


def open_own(path: Path, more_flags: int = 0) -> FileIO:
    """Open a file without a buffer, made if it is not there; a link is not followed, a pipe not waited for.

    Args:
        path: The file.
        more_flags: Flags of ``os.open``, such as ``os.O_APPEND``.

    Raises:
        OSError: It can't be written, or is a link or a folder.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    return FileIO(os.open(path, flags | more_flags, 0o666), "r+")
