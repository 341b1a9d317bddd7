r"""Read a CSV file line by line, each line for itself: what one row says can't change how another is read.

A run reads a table as a whole: a quotation mark that is not closed, a row with too many fields or a byte that is no
text is an error, and a field may go on in the next line. For a private look each of these would let one row change
what is said of others. So here each line that is not blank is one row, and a line that can't be read is a row all
the same, without values. The delimiter and the columns come from the header alone, which is public.
"""

import csv
import gzip
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from fedsim.data.own_table.file_bytes import MOST_BYTES, files_of, is_parquet, is_pattern, opened, site_of
from fedsim.data.own_table.reading import SEPARATOR_LINE, clean, delimiter_of
from fedsim.mistakes import Mistake

_GZIP = b"\x1f\x8b"
_BOM = b"\xef\xbb\xbf"
_LONGEST = 2**22  # bytes of a line that is read


@dataclass(frozen=True)
class Header:
    """The first line of a file, which is public.

    Attributes:
        names: The columns.
        delimiter: The character between fields.
    """

    names: tuple[str, ...]
    delimiter: str


@dataclass(frozen=True)
class Row:
    """A row: the site that its file is for, and its fields; None if they are not those of the header."""

    file_site: str
    fields: list[str] | None


def rows_of(path: Path, needed: Sequence[str]) -> Iterator[Row]:
    """Yield each row of a file, or of all files that match, with the fields of some columns in their order.

    Raises:
        Mistake: A file can't be opened or is no CSV, or its header lacks a column; no row is told of.
    """
    for file in files_of(path) if is_pattern(path) else [path]:
        with opened(file) as stream:
            yield from _rows(file.name, stream, needed)


def header_of(path: Path) -> Header:
    """Read the header of a file, or of the first that matches.

    Raises:
        Mistake: It is none.
    """
    file = files_of(path)[0] if is_pattern(path) else path
    with opened(file) as stream:
        lines = _lines(file.name, stream)
        return _header(file.name, lines)


def _rows(name: str, stream: BinaryIO, needed: Sequence[str]) -> Iterator[Row]:
    lines = _lines(name, stream)
    header = _header(name, lines)
    unclear = [column for column in needed if header.names.count(column) != 1]
    if unclear:
        raise Mistake(f"{name}: expected each of the columns {', '.join(unclear)} once in its first line")

    places = [header.names.index(column) for column in needed]
    file_site = site_of(name)
    for line in lines:
        if line is not None and not line.strip():
            continue
        fields = None if line is None else _fields(line, header)
        if fields is not None and not any(field.strip() for field in fields):
            continue  # separators alone
        chosen = None if fields is None or len(fields) != len(header.names) else [fields[place] for place in places]
        yield Row(file_site, chosen)


def _fields(line: str, header: Header) -> list[str] | None:
    """Part a line into fields, without empty ones after the last column; None if it can't be parted."""
    try:
        fields = next(csv.reader([line], delimiter=header.delimiter, strict=True), [])
    except csv.Error:
        return None
    width = len(header.names)
    if not any(field.strip() for field in fields[width:]):
        return fields[:width]
    return fields


def _header(name: str, lines: Iterator[str | None]) -> Header:
    """Read the header, and before it a spreadsheet's line that names the delimiter."""
    expected = "a header in one line, with the columns' names"
    first = next((line for line in lines if line is None or line.strip()), None)
    if first is None or "\r" in first:
        raise Mistake(f"{name}: expected {expected}, and lines that end in a line feed")

    separator_line = SEPARATOR_LINE.fullmatch(f"{first}\n")
    if separator_line:
        delimiter = separator_line[1]
        first = next((line for line in lines if line is None or line.strip()), None) or ""
    else:
        delimiter = delimiter_of(first)
    try:
        fields = next(csv.reader([first], delimiter=delimiter, strict=True), [])
    except csv.Error:
        raise Mistake(f"{name}: expected {expected}, its quotation marks are not closed") from None
    names = [clean(field) for field in fields]
    while len(names) > 1 and not names[-1]:
        names.pop()
    return Header(tuple(names), delimiter)


def _lines(name: str, stream: BinaryIO) -> Iterator[str | None]:
    """Yield each line without its end; None for one that is too long. Bytes that are no text are replaced.

    Raises:
        Mistake: The file is Parquet, in UTF-16, no whole gzip file, or too large when unpacked.
    """
    if is_parquet(stream):
        got = "a Parquet file, whose types may follow from all of its rows; save the table as CSV"
        raise Mistake(f"{name}: expected CSV for a private look, got {got}")
    is_gzipped = stream.read(2) == _GZIP
    stream.seek(0)
    unpacked = gzip.GzipFile(fileobj=stream) if is_gzipped else stream
    size = 0
    is_first = True
    try:
        while piece := unpacked.readline(_LONGEST):
            size += len(piece)
            is_whole = piece.endswith(b"\n") or len(piece) < _LONGEST
            while not is_whole:
                more = unpacked.readline(_LONGEST)
                size += len(more)
                is_whole = more.endswith(b"\n") or len(more) < _LONGEST
                piece = b""  # a row, but without values
            if size > MOST_BYTES:
                raise Mistake(f"{name}: expected at most {MOST_BYTES:,} bytes of text, got more")
            if is_first:
                piece = piece.removeprefix(_BOM)
                is_first = False
            yield piece.decode("utf-8", errors="replace").rstrip("\r\n") if piece else None
    except (OSError, EOFError, zlib.error):
        if not is_gzipped:
            raise
        raise Mistake(f"{name}: expected a whole gzip file, got a damaged one") from None
