"""Write a file whole or not at all, and open those of a directory that may be a stranger's."""

import os
from pathlib import Path
from typing import BinaryIO


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file whole or not at all: it is written under a temporary name and renamed."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)

    # Without this the new name may be lost when the power fails.
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def open_own(path: Path, *more_flags: int) -> BinaryIO:
    """Open a file for reading and writing, made if it is not there; a link is not followed, a pipe not waited for.

    Args:
        path: The file.
        more_flags: Flags of ``os.open``, such as ``os.O_APPEND``.

    Raises:
        OSError: It can't be written, or is a link or a folder.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    for flag in more_flags:
        flags |= flag
    return os.fdopen(os.open(path, flags, 0o666), "r+b")
