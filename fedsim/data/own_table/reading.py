"""Read a table from a file somebody made: what is wrong is named by file, row and column; what is repaired is said.

Rows are counted as an editor counts lines: the header of a CSV file is row 1. A row of a Parquet file has its number.
"""

import csv
import gzip
import hashlib
import io
import re
import zlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from fedsim.mistakes import Mistake

LONGEST = 10_000  # characters of a field
_DELIMITERS = ",;\t|"
_FOREIGN = {
    b"PK\x03\x04": "an Excel workbook or another zip archive",
    b"\xd0\xcf\x11\xe0": "an old Excel workbook",
    b"\xff\xfe": "text in UTF-16",
    b"\xfe\xff": "text in UTF-16",
    b"%PDF": "a PDF",
}
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Table:
    """A table as it stands in a file.

    Attributes:
        name: The file's name.
        frame: Numbers, or text without blanks around it; what a Parquet file lacks is missing, what a CSV file lacks
            is empty text.
        rows: Each row's number in the file, int64 (rows,).
        repairs: What was read otherwise than it stands there.
    """

    name: str
    frame: pd.DataFrame
    rows: np.ndarray
    repairs: tuple[str, ...]


def digest(path: Path) -> str:
    """Return the SHA-256 of a file in hex."""
    return hashlib.sha256(_bytes(path)).hexdigest()


def read_table(path: Path) -> Table:
    """Read a CSV file, also gzipped, or a Parquet file.

    Raises:
        Mistake: It is not one; the message names the file and, where it can, row and column.
    """
    content = _bytes(path)
    if content.startswith(b"PAR1"):
        return _parquet(path.name, content)
    if content.startswith(b"\x1f\x8b"):
        content = _unzipped(path.name, content)
    for start, kind in _FOREIGN.items():
        if content.startswith(start):
            raise Mistake(f"{path.name}: expected CSV (UTF-8) or Parquet, got {kind}; save the table as CSV")
    return _csv(path.name, content)


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise Mistake(f"{path}: expected a CSV or Parquet file, got {error.strerror}") from None


def _unzipped(name: str, content: bytes) -> bytes:
    try:
        return gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise Mistake(f"{name}: expected a whole gzip file, got {error}") from None


def _parquet(name: str, content: bytes) -> Table:
    try:
        frame = pd.read_parquet(io.BytesIO(content))
    except (OSError, ValueError) as error:  # pyarrow's errors are of these kinds
        raise Mistake(f"{name}: expected a Parquet file, got {str(error).partition(chr(10))[0]}") from None
    _check_names(name, [str(column) for column in frame.columns])
    columns = {str(column): _plain(frame[column]) for column in frame.columns}
    if not len(frame):
        raise Mistake(f"{name}: expected rows, there are none")
    return Table(name, pd.DataFrame(columns), np.arange(1, len(frame) + 1), ())


def _plain(values: pd.Series) -> pd.Series:
    """Return numbers as floats and all else as text; what is missing stays so."""
    if pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values):
        return values.astype("float64").reset_index(drop=True)
    return values.astype("string").str.strip().astype(object).where(values.notna(), None).reset_index(drop=True)


def _csv(name: str, content: bytes) -> Table:
    repairs = ["a byte order mark was skipped"] if content.startswith(_BOM) else []
    text = _decoded(name, content.removeprefix(_BOM))
    if "\0" in text:
        raise Mistake(f"{name}, row {text[: text.index(chr(0))].count(chr(10)) + 1}: expected text, got a zero byte")
    if len(set(re.findall(r"\r\n|\r|\n", text))) > 1:
        repairs.append("line ends of several kinds were read as line ends")
    header = re.split(r"[\r\n]", text.lstrip(), maxsplit=1)[0]
    delimiter = max(_DELIMITERS, key=header.count)
    if delimiter != ",":
        repairs.append(f"columns are parted by {delimiter!r}, not by commas")
    names, fields, rows = _fields(name, text, delimiter)
    columns = {
        column: pd.Series(values, dtype=object).str.strip() for column, values in zip(names, fields, strict=True)
    }
    return Table(name, pd.DataFrame(columns), np.array(rows, np.int64), tuple(repairs))


def _decoded(name: str, content: bytes) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        row = content[: error.start].count(b"\n") + 1
        raise Mistake(
            f"{name}, row {row}: expected UTF-8, got the byte 0x{content[error.start]:02x}; save the file as UTF-8"
        ) from None


def _fields(name: str, text: str, delimiter: str) -> tuple[list[str], list[list[str]], list[int]]:
    """Return the columns' names, the fields of each column, and the line in which each row begins."""
    csv.field_size_limit(2**31 - 1)  # it is checked below, with the column's name
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    names: list[str] = []
    fields: list[list[str]] = []
    rows: list[int] = []
    begin = 1
    try:
        for values in lines:
            begin, row = lines.line_num + 1, begin
            if not any(value.strip() for value in values):
                continue  # an empty line
            if not names:
                names = [value.strip() for value in values]
                _check_names(name, names)
                fields = [[] for _ in names]
                continue
            _check_row(name, row, names, values)
            rows.append(row)
            for column, value in zip(fields, values, strict=True):
                column.append(value)
    except csv.Error as error:
        raise Mistake(f"{name}, row {begin}: expected CSV, got {error}") from None
    if not rows:
        raise Mistake(f"{name}: expected a header and rows, got {'a header and no row' if names else 'an empty file'}")
    return names, fields, rows


def _check_row(name: str, row: int, names: list[str], values: list[str]) -> None:
    if len(values) != len(names):
        raise Mistake(f"{name}, row {row}: expected {len(names)} fields as in the header, got {len(values)}")
    for column, value in zip(names, values, strict=True):
        if len(value) > LONGEST:
            raise Mistake(
                f"{name}, row {row}, column {column}: expected at most {LONGEST} characters, got {len(value)}; "
                "is there a quotation mark that is not closed?"
            )


def _check_names(name: str, names: list[str]) -> None:
    for number, column in enumerate(names, start=1):
        if not column:
            raise Mistake(f"{name}, row 1: expected a name for each column, column {number} has none")
    twice = [column for column, count in Counter(names).items() if count > 1]
    if twice:
        raise Mistake(f"{name}, row 1: expected each column once, got {', '.join(twice)} several times")
