"""Read a table from a CSV or Parquet file, with errors by row and column, and notes on repairs.

Rows are counted as an editor counts lines: the header of a CSV file is row 1. A row of a Parquet
file has its number.
"""

import csv
import io
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from fedsim.data.own_table.file_bytes import (
    MOST_BYTES,
    Text,
    digest,
    files_of,
    is_parquet,
    is_pattern,
    opened,
    text_of,
)
from fedsim.data.own_table.values import Values, changed, compute, joined, of_chunks
from fedsim.mistakes import Mistake

__all__ = [
    "LONGEST",
    "MOST_CELLS",
    "Table",
    "check_size",
    "clean",
    "digest",
    "encoded",
    "files_of",
    "is_pattern",
    "read_table",
    "repaired",
]

LONGEST = 10_000  # characters of a field
MOST_CELLS = 10**8  # rows times columns
_DELIMITERS = ",;\t|"
_CHUNK = 20_000  # rows that are converted at once
SEPARATOR_LINE = re.compile(r'"?sep=([,;|\t])"?[ ]*(\r\n|\n|\r)')  # a spreadsheet's first line
_HEAD = 2**20  # characters in which the header ends
_NAMELESS = re.compile(r"|Unnamed: \d+|__index_level_\d+__")  # as files and pandas write it


@dataclass(frozen=True)
class Table:
    """A table as it stands in a file.

    Attributes:
        name: The file's name.
        columns: {name of a column: its values}. A value that a Parquet file lacks has no code, a
            value that a CSV file lacks is empty text.
        rows: Each row's number in the file, int64 (rows,).
        repairs: Notes on parts that were read otherwise than they stand in the file.
        delimiter: The character between the fields; empty for a Parquet file.
        files: The names of the files, if the table stands in several: each is a site.
        file_codes: The number of each row's file, int32 (rows,); empty for one file.
    """

    name: str
    columns: Mapping[str, Values]
    rows: np.ndarray
    repairs: tuple[str, ...]
    delimiter: str = ""
    files: tuple[str, ...] = ()
    file_codes: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int32))

    def place(self, row: int) -> str:
        """Name the file and the number in it of a row."""
        name = self.files[self.file_codes[row]] if self.files else self.name
        return f"{name}, row {self.rows[row]}"

    def kept(self, keep: np.ndarray) -> "Table":
        """Keep some rows, bool (rows,)."""
        columns = {name: values.kept(keep) for name, values in self.columns.items()}
        codes = self.file_codes[keep] if self.files else self.file_codes
        return replace(self, columns=columns, rows=self.rows[keep], file_codes=codes)


def read_table(path: Path) -> Table:
    """Read a CSV file, also gzipped, or a Parquet file; or several, as ``sites/*.csv`` names them.

    Raises:
        Mistake: A file is neither, or files have other columns than the first; the message names
            the file and, if possible, row and column.
    """
    if not is_pattern(path):
        return _one_table(path)
    return _joined(path.name, [_one_table(file) for file in files_of(path)])


def _joined(name: str, tables: Sequence[Table]) -> Table:
    """Put the rows of several files under one another."""
    first = tables[0]
    expected = set(first.columns)
    faults = []
    for table in tables:
        lacking = sorted(expected - set(table.columns))
        more = sorted(set(table.columns) - expected)
        got = []
        if lacking:
            got.append(f"{', '.join(lacking)} is lacking")
        if more:
            got.append(f"{', '.join(more)} is there, too")
        if got:
            faults.append(f"{table.name}: expected the columns of {first.name}, {' and '.join(got)}")
    if faults:
        raise Mistake("\n".join(faults))

    columns = {}
    for column in first.columns:
        columns[column] = joined([table.columns[column] for table in tables])
    delimiters = {table.delimiter for table in tables}
    repairs = [f"{table.name}: {repair}" for table in tables for repair in table.repairs]
    sizes = [len(table.rows) for table in tables]
    check_size(name, sum(sizes), len(columns))
    return Table(
        name=name,
        columns=columns,
        rows=np.concatenate([table.rows for table in tables]),
        repairs=tuple(repairs),
        delimiter=delimiters.pop() if len(delimiters) == 1 else "",
        files=tuple(table.name for table in tables),
        file_codes=np.repeat(np.arange(len(tables), dtype=np.int32), sizes),
    )


def _one_table(path: Path) -> Table:
    with opened(path) as file:
        table = _parquet(path.name, file) if is_parquet(file) else _csv(path.name, file)
    return repaired(table)


# Parquet


def _parquet(name: str, file: BinaryIO) -> Table:
    try:
        return _parquet_columns(name, file)
    except (OSError, ValueError, NotImplementedError) as error:  # pyarrow's errors are of these
        if isinstance(error, Mistake):
            raise
        first_line = str(error).partition("\n")[0]
        raise Mistake(f"{name}: expected a Parquet file, got {first_line}") from None


def _parquet_columns(name: str, file: BinaryIO) -> Table:
    # Text stays a dictionary, so that a text that is repeated is held once.
    schema = pq.ParquetFile(file).schema_arrow
    text_columns = [field.name for field in schema if _is_text(field.type)]
    parquet = pq.ParquetFile(file, read_dictionary=text_columns)

    metadata = parquet.metadata
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    check_size(name, metadata.num_rows, len(schema))
    if sum(group.total_byte_size for group in groups) > MOST_BYTES:
        raise Mistake(f"{name}: expected at most {MOST_BYTES:,} bytes unpacked, got more")
    if not metadata.num_rows:
        raise Mistake(f"{name}: expected rows, there are none")

    names = [clean(field.name) for field in schema]
    _check_names(name, names)
    columns = {}
    for clean_name, stored in zip(names, schema, strict=True):
        if pa.types.is_nested(stored.type):
            expected = "numbers, text or dates"
            raise Mistake(f"{name}, column {clean_name}: expected {expected}, got {stored.type}")

        # The pandas part of the metadata is not used: an index is a column as any other.
        chunks = parquet.read([stored.name], use_pandas_metadata=False).column(0).chunks
        columns[clean_name] = of_chunks([encoded(chunk) for chunk in chunks])
    return Table(name, columns, np.arange(1, metadata.num_rows + 1), repairs=())


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def encoded(chunk: pa.Array) -> pa.DictionaryArray:
    """Convert a part of a column to a dictionary of numbers or text."""
    if pa.types.is_dictionary(chunk.type):
        values = _plain(chunk.dictionary)
        return pa.DictionaryArray.from_arrays(chunk.indices.cast(pa.int32()), values)
    encoded = _plain(chunk).dictionary_encode()
    return encoded


def _plain(values: pa.Array) -> pa.Array:
    """Convert values to whole numbers, float64 without NaN, or text without blanks around it."""
    kind = values.type
    if pa.types.is_boolean(kind):
        return compute("if_else", values, pa.scalar("True"), pa.scalar("False"))
    if pa.types.is_integer(kind):
        wide = pa.uint64() if pa.types.is_unsigned_integer(kind) else pa.int64()
        return values.cast(wide)
    if pa.types.is_floating(kind):
        numbers = values.cast(pa.float64())
        return compute("if_else", compute("is_nan", numbers), pa.scalar(None, pa.float64()), numbers)
    return compute("utf8_trim_whitespace", values.cast(pa.string()))


def check_size(name: str, rows: int, columns: int) -> None:
    """Check that a table has at most ``MOST_CELLS`` values.

    Raises:
        Mistake: It has more.
    """
    if rows * columns > MOST_CELLS:
        got = f"{rows:,} rows x {columns:,} columns"
        raise Mistake(f"{name}: expected at most {MOST_CELLS:,} values, got {got}")


# CSV


def _csv(name: str, file: BinaryIO) -> Table:
    text = text_of(name, file)
    try:
        return _csv_columns(name, text)
    finally:
        text.stream.detach()  # the file is closed where it was opened


def _csv_columns(name: str, text: Text) -> Table:
    repairs = []
    if text.has_mark:
        repairs.append("a byte order mark was skipped")
    if text.mixes_line_ends:
        repairs.append("line ends of several kinds were read as line ends")

    # A spreadsheet may name the delimiter in a line before the header.
    head = text.stream.read(_HEAD)
    first_row = 1
    separator_line = SEPARATOR_LINE.match(head)
    if separator_line:
        first_row = 2
        delimiter = separator_line[1]
        start = separator_line.end()
        repairs.append(f"the first line, sep={delimiter}, was read as the delimiter")
    else:
        start = 0
        delimiter = delimiter_of(head)
        if delimiter != ",":
            repairs.append(f"columns are parted by {delimiter!r}, not by commas")

    lines = _lines(head[start:], text.stream)
    parsed = _Records(name, delimiter, first_row).read(lines)
    columns = {}
    for column, chunks in zip(parsed.names, parsed.chunks, strict=True):
        columns[column] = of_chunks(chunks)
    repairs.extend(parsed.repairs)
    return Table(name, columns, parsed.row_numbers, tuple(repairs), delimiter)


def _lines(head: str, rest: io.TextIOWrapper) -> Iterator[str]:
    """Yield the lines of a text of which the head has been read."""
    # The head may end within a line, or between the two characters of a line's end.
    head += rest.readline()
    if head.endswith("\r"):
        head += rest.readline()
    yield from io.StringIO(head, newline="")
    yield from rest


def delimiter_of(head: str) -> str:
    """Find the delimiter: the one that occurs most often in the header, outside quotes."""
    counts = dict.fromkeys(_DELIMITERS, 0)
    is_quoted = False
    has_begun = False
    for character in head:
        if character == '"':
            is_quoted = not is_quoted
        elif is_quoted:
            continue
        elif character in "\r\n":
            if has_begun:
                break
        elif character in counts:
            counts[character] += 1
        has_begun = has_begun or not character.isspace()
    return max(_DELIMITERS, key=lambda delimiter: counts[delimiter])


class _Records:
    """Parse the records of a CSV file: a header, and rows in chunks.

    Attributes:
        names: The columns' names; empty for a column that has none.
        chunks: The fields of each column, in Arrow dictionaries.
        repairs: Notes on what was repaired.
    """

    def __init__(self, name: str, delimiter: str, first_row: int) -> None:
        self.names: list[str] = []
        self.chunks: list[list[pa.Array]] = []
        self.repairs: list[str] = []
        self._name = name
        self._delimiter = delimiter
        self._lines_before = first_row - 1
        self._rows: list[int] = []
        self._ragged: list[tuple[int, int]] = []  # row and number of fields
        self._trimmed = 0  # rows with empty fields after the last column

    @property
    def row_numbers(self) -> np.ndarray:
        """The line in which each row begins, int64 (rows,)."""
        return np.array(self._rows, np.int64)

    def read(self, lines: Iterator[str]) -> "_Records":
        """Read all records.

        Raises:
            Mistake: They are no CSV, or no table.
        """
        csv.field_size_limit(2**31 - 1)  # ``_convert`` sets a limit and names the column
        records = csv.reader(lines, delimiter=self._delimiter, strict=True)
        pending: list[list[str]] = []
        next_row = self._lines_before + 1  # the line in which the next record begins
        try:
            for values in records:
                row = next_row
                next_row = self._lines_before + records.line_num + 1  # quoted fields span lines

                is_empty = not any(values) or not any(value.strip() for value in values)
                if is_empty:
                    continue
                if not self.names:
                    self._begin(values)
                    continue

                if len(values) != len(self.names):
                    fitted = self._fitted(row, values)
                    if fitted is None:
                        continue
                    values = fitted
                self._rows.append(row)
                pending.append(values)
                if len(pending) == _CHUNK:
                    self._convert(pending)
                    pending = []
        except csv.Error as error:
            place = f"{self._name}, row {next_row}"
            raise Mistake(f"{place}: expected CSV, got {error}") from None

        self._finish(pending)
        return self

    def _begin(self, values: list[str]) -> None:
        """Take the names of the columns; empty ones at the end are no columns."""
        self.names = [clean(value) for value in values]
        while len(self.names) > 1 and not self.names[-1]:
            self.names.pop()
        self.chunks = [[] for _ in self.names]

    def _fitted(self, row: int, values: list[str]) -> list[str] | None:
        """Drop empty fields after the last column; None if the row has too many or too few."""
        width = len(self.names)
        if len(values) == width + 1 and not self._rows and self.names[0] and values[-1].strip():
            # R writes the names of rows without a name in the header.
            self.names.insert(0, "")
            self.chunks.insert(0, [])
            return values
        extra = values[width:]
        if len(values) > width and not any(value.strip() for value in extra):
            self._trimmed += 1
            return values[:width]
        self._ragged.append((row, len(values)))
        return None

    def _convert(self, pending: list[list[str]]) -> None:
        check_size(self._name, len(self._rows), len(self.names))
        start = len(self._rows) - len(pending)
        fields_by_column = zip(*pending, strict=True)
        for column, chunks, fields in zip(self.names, self.chunks, fields_by_column, strict=True):
            texts = compute("utf8_trim_whitespace", pa.array(fields, pa.string()))
            encoded = texts.dictionary_encode()

            longest = compute("max", compute("utf8_length", encoded.dictionary)).as_py()
            if longest > LONGEST:
                lengths = [len(field) for field in fields]
                row = self._rows[start + lengths.index(max(lengths))]
                raise Mistake(
                    f"{self._name}, row {row}, column {column}: "
                    f"expected at most {LONGEST} characters, got {longest}; "
                    "is there a quotation mark that is not closed?"
                )
            chunks.append(encoded)

    def _finish(self, pending: list[list[str]]) -> None:
        if self._ragged:
            row, fields = self._ragged[0]
            more = _and_more(len(self._ragged) - 1, "row", "rows")
            expected = f"{len(self.names)} fields as in the header"
            raise Mistake(f"{self._name}, row {row}: expected {expected}, got {fields}{more}")
        if not self._rows:
            got = "a header and no row" if self.names else "an empty file"
            raise Mistake(f"{self._name}: expected a header and rows, got {got}")
        _check_names(self._name, self.names)
        if pending:
            self._convert(pending)
        if self._trimmed:
            rows = "row" if self._trimmed == 1 else "rows"
            self.repairs.append(f"empty fields after the last column: {self._trimmed} {rows}")


def _and_more(count: int, singular: str, plural: str) -> str:
    if count < 1:
        return ""
    return f" (and {count} more {singular if count == 1 else plural})"


# Repairs of what spreadsheets and other programs leave in a table


def repaired(table: Table) -> Table:
    """Leave out invisible characters, and columns without a name that only number the rows.

    Raises:
        Mistake: A column without a name has values.
    """
    return _without_nameless(_without_invisible(table))


def clean(text: str) -> str:
    """Leave out invisible characters, and write each letter and each blank in one way."""
    if text.isascii():
        return text.strip()
    visible = []
    for character in unicodedata.normalize("NFC", text):
        if unicodedata.category(character) == "Zs":
            visible.append(" ")  # no-break, thin and other blanks
        elif unicodedata.category(character) != "Cf":
            visible.append(character)
    return "".join(visible).strip()


def _without_invisible(table: Table) -> Table:
    """Leave out the invisible characters of all values."""
    columns = dict(table.columns)
    repairs = list(table.repairs)
    for name, values in table.columns.items():
        if not values.is_text or compute("all", compute("string_is_ascii", values.distinct)).as_py() is not False:
            continue
        cleaned = changed(values, clean)
        changes = sum(clean(text) != text for text in values.texts)
        if changes:
            columns[name] = cleaned
            repairs.append(f"{name}: invisible characters or odd blanks in {changes} values")
    return replace(table, columns=columns, repairs=tuple(repairs))


def _without_nameless(table: Table) -> Table:
    """Leave aside columns without a name that are empty or only number the rows.

    Raises:
        Mistake: A column without a name has values.
    """
    columns = dict(table.columns)
    repairs = list(table.repairs)
    for number, (name, values) in enumerate(table.columns.items(), start=1):
        if not _NAMELESS.fullmatch(name):
            continue
        is_empty = not any(values.texts)
        if is_empty:
            repairs.append(f"column {number} has no name and no value: it was left aside")
        elif (number == 1 or name) and len(values.distinct) == len(values):
            repairs.append(f"column {number} has no name and numbers the rows: it was left aside")
        elif name:
            continue  # a name such as Unnamed: 3, and values of a column
        else:
            expected = "a name for each column"
            raise Mistake(f"{table.name}, row 1: expected {expected}, column {number} has none")
        del columns[name]
    if not columns:
        raise Mistake(f"{table.name}: expected columns with names, there are none")
    return replace(table, columns=columns, repairs=tuple(repairs))


def _check_names(name: str, names: Sequence[str]) -> None:
    """Check that every column has a name of its own; one may have none."""
    repeated = [column for column, count in Counter(names).items() if count > 1]
    if "" in repeated:
        numbers = [str(number) for number, column in enumerate(names, start=1) if not column]
        got = f"columns {', '.join(numbers)} have none"
        raise Mistake(f"{name}, row 1: expected a name for each column, {got}")
    if repeated:
        got = f"{', '.join(repeated)} several times"
        raise Mistake(f"{name}, row 1: expected each column once, got {got}")
