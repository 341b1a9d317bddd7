"""Read the bytes of a table's file in pieces: an ordinary file, also gzipped, of a stated size."""

import codecs
import gzip
import hashlib
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from fedsim.mistakes import Mistake
from fedsim.scenario.reading import open_ordinary

MOST_BYTES = 2**31  # of a file, and of what a compressed file holds
_PIECE = 2**20
_GZIP = b"\x1f\x8b"
_FOREIGN = {
    b"PK\x03\x04": "an Excel workbook or another zip archive",
    b"\xd0\xcf\x11\xe0": "an old Excel workbook",
    b"\xff\xfe": "text in UTF-16",
    b"\xfe\xff": "text in UTF-16",
    b"%PDF": "a PDF",
}
_BOM = b"\xef\xbb\xbf"


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """Open a table's file.

    Raises:
        Mistake: It is not there, no ordinary file, or larger than ``MOST_BYTES``.
    """
    try:
        file = open_ordinary(path, MOST_BYTES)
    except OSError as error:
        raise Mistake(f"{path}: expected a CSV or Parquet file, got {error.strerror}") from None
    with file:
        yield file


def digest(path: Path) -> str:
    """Compute the SHA-256 of a file in hex."""
    with opened(path) as file:
        hashed = hashlib.sha256()
        while piece := file.read(_PIECE):
            hashed.update(piece)
        return hashed.hexdigest()


def is_parquet(file: BinaryIO) -> bool:
    """Return whether an opened file begins as a Parquet file does."""
    start = file.read(4)
    file.seek(0)
    return start == b"PAR1"


@dataclass(frozen=True)
class Text:
    """The text of a file, whose bytes have been checked.

    Attributes:
        stream: The text, from its beginning.
        has_mark: Whether the file began with a byte order mark.
        mixes_line_ends: Whether its lines end in several ways.
    """

    stream: io.TextIOWrapper
    has_mark: bool
    mixes_line_ends: bool


def text_of(name: str, file: BinaryIO) -> Text:
    """Check the bytes of an opened text file, and return its text.

    Args:
        name: The name of the file in messages.
        file: The file, also gzipped.

    Raises:
        Mistake: The bytes are not UTF-8, hold a zero byte, or are too many; the message says where.
    """
    is_gzipped = file.read(2) == _GZIP
    file.seek(0)
    unpacked = gzip.GzipFile(fileobj=file) if is_gzipped else file
    try:
        has_mark, mixes_line_ends = _check(name, unpacked)
    except (OSError, EOFError, zlib.error) as error:
        raise Mistake(f"{name}: expected a whole gzip file, got {error}") from None

    unpacked.seek(0)
    stream = io.TextIOWrapper(unpacked, encoding="utf-8-sig", newline="")
    return Text(stream, has_mark, mixes_line_ends)


def _check(name: str, file: BinaryIO | gzip.GzipFile) -> tuple[bool, bool]:
    """Check all bytes of a text, in pieces.

    Returns:
        Whether it begins with a byte order mark, and whether its lines end in several ways.
    """
    decoder = codecs.getincrementaldecoder("utf-8")()
    size = 0
    lines_before = 0  # of the pieces that were read
    carried = b""  # a carriage return at the end of a piece: its line feed may follow
    line_ends = {b"\r\n": 0, b"\n": 0, b"\r": 0}
    has_mark = False

    while piece := file.read(_PIECE):
        if size == 0:
            _check_start(name, piece)
            has_mark = piece.startswith(_BOM)
        size += len(piece)
        if size > MOST_BYTES:
            raise Mistake(f"{name}: expected at most {MOST_BYTES:,} bytes of text, got more")

        zero_byte = piece.find(b"\0")
        if zero_byte >= 0:
            row = lines_before + piece.count(b"\n", 0, zero_byte) + 1
            raise Mistake(f"{name}, row {row}: expected text, got a zero byte")
        _decode(name, decoder, piece, lines_before)
        lines_before += piece.count(b"\n")

        whole = carried + piece
        carried = whole[-1:] if whole.endswith(b"\r") else b""
        _count_line_ends(whole.removesuffix(carried) if carried else whole, line_ends)

    _count_line_ends(carried, line_ends)
    _decode(name, decoder, b"", lines_before, final=True)
    kinds = [end for end, count in line_ends.items() if count]
    return has_mark, len(kinds) > 1


def _check_start(name: str, piece: bytes) -> None:
    for start, kind in _FOREIGN.items():
        if piece.startswith(start):
            expected = "CSV (UTF-8) or Parquet"
            raise Mistake(f"{name}: expected {expected}, got {kind}; save the table as CSV")


def _decode(
    name: str,
    decoder: codecs.IncrementalDecoder,
    piece: bytes,
    lines_before: int,
    *,
    final: bool = False,
) -> None:
    """Check that a piece is UTF-8; the decoder keeps a character that goes on in the next."""
    try:
        decoder.decode(piece, final)
    except UnicodeDecodeError as error:
        row = lines_before + error.object[: error.start].count(b"\n") + 1
        got = f"the byte 0x{error.object[error.start]:02x}"
        hint = "save the file as UTF-8"
        raise Mistake(f"{name}, row {row}: expected UTF-8, got {got}; {hint}") from None


def _count_line_ends(piece: bytes, counts: dict[bytes, int]) -> None:
    both = piece.count(b"\r\n")
    counts[b"\r\n"] += both
    counts[b"\n"] += piece.count(b"\n") - both
    counts[b"\r"] += piece.count(b"\r") - both
