"""Read arrays out of an .npz file that a stranger may have made.

An .npz is a zip of .npy files, and 2 MB of zip can open to gigabytes. The sizes that it states are
checked before any of it is opened, and no more is opened than it stated.
"""

import io
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fedsim.mistakes import Mistake
from fedsim.scenario.reading import open_ordinary

LARGEST = 2**29
"""Bytes of a file, and of the arrays in it. The largest of MedMNIST's files of 28 x 28 has 186 MB."""

_PIECE = 2**20  # bytes that are opened at a time
_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def read_npz(path: Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Read arrays by their names; other arrays in the file are not opened.

    Raises:
        OSError: There is no such file, or it may not be read.
        Mistake: It is no ordinary file, or it or the arrays are too large.
        KeyError: It lacks an array; the first argument is the array's name.
        ValueError: It is no .npz of plain arrays.
    """
    with open_ordinary(path, LARGEST) as opened:
        try:
            with zipfile.ZipFile(opened) as archive:
                members = _members(archive, names, path)
                return {name: _array(name, _content(archive, members[name])) for name in names}
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
            # A RuntimeError is an archive with a password.
            raise ValueError(str(error)) from None


def _members(archive: zipfile.ZipFile, names: Sequence[str], path: Path) -> dict[str, zipfile.ZipInfo]:
    """Find the parts of an archive that hold some arrays, and check the sizes that it states of them."""
    there = {member.filename: member for member in archive.infolist()}
    members = {}
    for name in names:
        if f"{name}.npy" not in there:
            raise KeyError(name)
        members[name] = there[f"{name}.npy"]

        # Of other methods the library opens more than it was asked for.
        if members[name].compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ValueError(f"{name} is not compressed as NumPy does it")

    size = sum(member.file_size for member in members.values())
    if size > LARGEST:
        raise Mistake(f"{path}: expected arrays of at most {LARGEST:,} bytes, got {size:,}")
    return members


def _content(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
    """Open a part of an archive, piece by piece, up to the size that it stated."""
    content = bytearray()
    with archive.open(member) as opened:
        while piece := opened.read(min(_PIECE, member.file_size + 1 - len(content))):
            content += piece
            if len(content) > member.file_size:
                raise ValueError(f"{member.filename} is larger than it says")
    return bytes(content)


def _array(name: str, content: bytes) -> np.ndarray:
    """Read the array that a .npy file holds.

    Raises:
        ValueError: It is none of plain numbers, or has not as many as its head says.
    """
    file = io.BytesIO(content)
    version = np.lib.format.read_magic(file)
    if version not in _HEADERS:
        raise ValueError(f"{name} is an array of version {version}")
    shape, in_columns, kind = _HEADERS[version](file)
    if kind.hasobject:
        raise ValueError(f"{name} holds objects, not numbers")

    # NumPy would make room for what the head says, however much that is.
    numbers = memoryview(content)[file.tell() :]
    stated = kind.itemsize
    for length in shape:
        stated *= length
    if min(shape, default=0) < 0 or stated != len(numbers):
        raise ValueError(f"{name} says that it is {kind} {shape}, and has {len(numbers):,} bytes")
    values = np.frombuffer(numbers, kind)
    return values.reshape(shape, order="F" if in_columns else "C")
