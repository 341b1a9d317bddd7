"""Read a table from a CSV or Parquet file, with errors by row and column, and notes on repairs.

Rows are counted as an editor counts lines: the header of a CSV file is row 1. A row of a Parquet
file has its number.
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
        frame: Numbers, or text without blanks around it. A value that a Parquet file lacks is
            missing, a value that a CSV file lacks is empty text.
        rows: Each row's number in the file, int64 (rows,).
        repairs: Notes on parts that were read otherwise than they stand in the file.
    """

    name: str
    frame: pd.DataFrame
    rows: np.ndarray
    repairs: tuple[str, ...]


def digest(path: Path) -> str:
    """Compute the SHA-256 of a file in hex."""
    return hashlib.sha256(_bytes(path)).hexdigest()


def read_table(path: Path) -> Table:
    """Read a CSV file, also gzipped, or a Parquet file.

    Raises:
        Mistake: The file is neither; the message names the file and, if possible, row and column.
    """
    content = _bytes(path)
    if content.startswith(b"PAR1"):
        return _parquet(path.name, content)

    if content.startswith(b"\x1f\x8b"):
        content = _unzipped(path.name, content)
    for start, kind in _FOREIGN.items():
        if content.startswith(start):
            expected = "CSV (UTF-8) or Parquet"
            raise Mistake(f"{path.name}: expected {expected}, got {kind}; save the table as CSV")
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
        first_line = str(error).partition("\n")[0]
        raise Mistake(f"{name}: expected a Parquet file, got {first_line}") from None

    _check_names(name, [str(column) for column in frame.columns])
    columns = {str(column): _plain(frame[column]) for column in frame.columns}
    if not len(frame):
        raise Mistake(f"{name}: expected rows, there are none")
    row_numbers = np.arange(1, len(frame) + 1)
    return Table(name, pd.DataFrame(columns), row_numbers, repairs=())


def _plain(values: pd.Series) -> pd.Series:
    """Convert numbers to floats and all else to text; missing values stay missing."""
    if pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values):
        return values.astype("float64").reset_index(drop=True)
    text = values.astype("string").str.strip().astype(object)
    return text.where(values.notna(), None).reset_index(drop=True)


def _csv(name: str, content: bytes) -> Table:
    repairs = []
    if content.startswith(_BOM):
        repairs.append("a byte order mark was skipped")
    text = _decoded(name, content.removeprefix(_BOM))
    _check_no_zero_byte(name, text)

    line_ends = set(re.findall(r"\r\n|\r|\n", text))
    if len(line_ends) > 1:
        repairs.append("line ends of several kinds were read as line ends")

    # The delimiter is the character that occurs most often in the header.
    header = re.split(r"[\r\n]", text.lstrip(), maxsplit=1)[0]
    delimiter = max(_DELIMITERS, key=header.count)
    if delimiter != ",":
        repairs.append(f"columns are parted by {delimiter!r}, not by commas")

    names, fields, row_numbers = _fields(name, text, delimiter)
    columns = {}
    for column, values in zip(names, fields, strict=True):
        columns[column] = pd.Series(values, dtype=object).str.strip()
    return Table(name, pd.DataFrame(columns), np.array(row_numbers, np.int64), tuple(repairs))


def _decoded(name: str, content: bytes) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        row = content[: error.start].count(b"\n") + 1
        got = f"the byte 0x{content[error.start]:02x}"
        hint = "save the file as UTF-8"
        raise Mistake(f"{name}, row {row}: expected UTF-8, got {got}; {hint}") from None


def _check_no_zero_byte(name: str, text: str) -> None:
    before, zero_byte, _ = text.partition("\0")
    if zero_byte:
        row = before.count("\n") + 1
        raise Mistake(f"{name}, row {row}: expected text, got a zero byte")


def _fields(name: str, text: str, delimiter: str) -> tuple[list[str], list[list[str]], list[int]]:
    """Parse CSV.

    Returns:
        The columns' names, the fields of each column, and the line in which each row begins.
    """
    csv.field_size_limit(2**31 - 1)  # ``_check_row`` sets a limit and names the column
    records = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    names: list[str] = []
    fields: list[list[str]] = []
    row_numbers: list[int] = []
    next_row = 1  # the line in which the record that is read next begins
    try:
        for values in records:
            row = next_row
            next_row = records.line_num + 1  # a quoted field may span several lines

            is_empty = not any(value.strip() for value in values)
            if is_empty:
                continue
            if not names:
                names = [value.strip() for value in values]
                _check_names(name, names)
                fields = [[] for _ in names]
                continue

            _check_row(name, row, names, values)
            row_numbers.append(row)
            for column, value in zip(fields, values, strict=True):
                column.append(value)
    except csv.Error as error:
        raise Mistake(f"{name}, row {next_row}: expected CSV, got {error}") from None

    if not row_numbers:
        got = "a header and no row" if names else "an empty file"
        raise Mistake(f"{name}: expected a header and rows, got {got}")
    return names, fields, row_numbers


def _check_row(name: str, row: int, names: list[str], values: list[str]) -> None:
    """Check that a row has as many fields as the header, and none that is too long."""
    if len(values) != len(names):
        expected = f"{len(names)} fields as in the header"
        raise Mistake(f"{name}, row {row}: expected {expected}, got {len(values)}")
    for column, value in zip(names, values, strict=True):
        if len(value) > LONGEST:
            raise Mistake(
                f"{name}, row {row}, column {column}: "
                f"expected at most {LONGEST} characters, got {len(value)}; "
                "is there a quotation mark that is not closed?"
            )


def _check_names(name: str, names: list[str]) -> None:
    """Check that every column has a name of its own."""
    for number, column in enumerate(names, start=1):
        if not column:
            expected = "a name for each column"
            raise Mistake(f"{name}, row 1: expected {expected}, column {number} has none")
    repeated = [column for column, count in Counter(names).items() if count > 1]
    if repeated:
        got = f"{', '.join(repeated)} several times"
        raise Mistake(f"{name}, row 1: expected each column once, got {got}")
