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


def remove_leftovers(folder: Path, shared: bool = False) -> None:
    """Remove the temporary files of processes that were killed while they wrote.

    Args:
        folder: Where they wrote.
        shared: Whether other processes may be at work in the folder: what they write now stays.
    """
    for path in folder.glob(f".*{_TEMPORARY}"):
        if not shared or not _is_at_work(path.stem.rpartition(".")[2]):
            path.unlink(missing_ok=True)


def _is_at_work(number: str) -> bool:
    """Whether there is a process of a number."""
    if not number.isdecimal():
        return False
    try:
        os.kill(int(number), 0)  # asks only
    except PermissionError:
        return True
    except (ProcessLookupError, OverflowError):
        return False
    return True


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
