"""Mutated tables: no traceback, no row lost, and a reader of another library agrees on what was read."""

import io
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fedsim.data.own_table.prepared import Prepared, prepare
from fedsim.data.task import Rows
from fedsim.mistakes import Mistake
from fedsim.scenario.schema import Data

TABLES = 2000
PARQUET_FILES = 500
MISSING = ["", "NA", "n/a", "-", ".", "None", "#N/A", "<NA>", "?", "null"]
WORDS = ["", "x", "old", "1e400", "-inf", "0x10", "1_000", "1,5", "1.234", "$5", "5 kg", "2020-02-30", "31.12.2020",
         "\u200b", "yes", "Ä", "a" * 300, '"', "'", "#", "=1+1", "\t", "NaN", "1" * 400, "true", " 7 "]  # fmt: skip
BYTES = [b"\0", b"\xff", b"\r", b"\n", b'"', b";", b",", b"\xef\xbb\xbf", b"\xc2\xa0", b"\xe2\x80\x8b", b"\x1a",
         b"9" * 50]  # fmt: skip


def made(random: np.random.Generator) -> pd.DataFrame:
    count = int(random.integers(8, 60))
    return pd.DataFrame(
        {
            "site": random.choice(["north", "south", "west"], count),
            "age": random.integers(18, 95, count),
            "bp": random.normal(130, 15, count).round(1),
            "sex": random.choice(["f", "m"], count),
            "ill": random.integers(0, 2, count),
        }
    ).astype(object)


def mutated(random: np.random.Generator) -> tuple[bytes, str, bool]:
    """A table with mutated cells, lines and bytes: its content, its delimiter, and whether pandas can read it."""
    frame = made(random)
    delimiter = str(random.choice([",", ";", "\t", "|"]))
    for _ in range(int(random.integers(0, 5))):
        row = int(random.integers(len(frame)))
        column = int(random.integers(5))
        pool = MISSING if random.random() < 0.7 else WORDS
        frame.iat[row, column] = pool[int(random.integers(len(pool)))]
    content = frame.to_csv(index=bool(random.random() < 0.1), sep=delimiter, lineterminator="\n").encode()

    if random.random() < 0.15:
        content = content.replace(b"\n", b"\r\n")
    if random.random() < 0.1:
        content = b"\xef\xbb\xbf" + content
    is_whole = True
    if random.random() < 0.3:  # bytes that break it, or do not
        is_whole = False
        for _ in range(int(random.integers(1, 4))):
            place = int(random.integers(len(content)))
            noise = BYTES[int(random.integers(len(BYTES)))]
            content = content[:place] + noise + content[place + int(random.integers(3)) :]
    return content, delimiter, is_whole


def checked(path: Path) -> Prepared | None:
    """Prepare a table; None if it was refused in lines that name it."""
    given = {"path": str(path), "target": "ill", "site": "site", "ranges": "from-data"}
    try:
        prepared = prepare(Data.model_validate(given))
    except Mistake as mistake:
        assert path.name in str(mistake) or "data." in str(mistake)
        assert all(len(line) < 1000 for line in str(mistake).splitlines())
        return None
    intake = prepared.intake
    rows = prepared.task.rows()
    assert intake.rows_in == intake.rows_used + sum(part.rows for part in intake.left_out)
    assert intake.rows_used == len(rows.inputs) == len(rows.target) == len(rows.site)
    assert np.isfinite(rows.inputs).all()
    assert np.isfinite(rows.target).all()
    return prepared


def agrees(prepared: Prepared, rows: Rows, frame: pd.DataFrame) -> None:
    """Compare what was read with what pandas reads."""
    text = frame.astype(str).apply(lambda column: column.str.strip().str.replace("\u200b", ""))
    assert prepared.intake.rows_in == len(text)
    words = {word.lower() for word in [*MISSING, "nan"]}
    is_lacking = text[["ill", "site"]].apply(lambda column: column.str.lower().isin(words)).any(axis=1)
    used = text[~is_lacking]
    assert prepared.intake.rows_used == len(used)
    assert [site.casefold() for site in rows.site] == [site.casefold() for site in used["site"]]

    start = 0
    for column in prepared.task.columns:
        width = column.encode(pd.Series([None], dtype=object if hasattr(column, "levels") else float)).shape[1]
        expected = pd.to_numeric(used.get(column.name, pd.Series(dtype=str)), errors="coerce").to_numpy()
        plain = bool(len(expected)) and bool((np.isfinite(expected) | used[column.name].str.lower().isin(words)).all())
        if not hasattr(column, "levels") and plain:
            known = np.isfinite(expected)
            values = column.in_units(rows.inputs[known, start].astype(float))  # type: ignore[union-attr]
            np.testing.assert_allclose(values, expected[known], rtol=1e-5, atol=1e-4 * column.scale)  # type: ignore[union-attr]
        start += width


@pytest.mark.whole
def test_mutated_tables_are_read_as_pandas_reads_them_or_refused(tmp_path: Path):
    random = np.random.default_rng(15)
    served = 0
    for number in range(TABLES):
        content, delimiter, is_whole = mutated(random)
        path = tmp_path / f"t{number}.csv"
        path.write_bytes(content)
        prepared = checked(path)
        path.unlink()
        if prepared is None or not is_whole:
            continue
        served += 1
        frame = pd.read_csv(io.BytesIO(content), sep=delimiter, dtype=str, keep_default_na=False, encoding="utf-8-sig")
        agrees(prepared, prepared.task.rows(), frame)
    assert served > TABLES / 4  # the comparison was made often enough to mean something


@pytest.mark.whole
def test_parquet_files_of_all_types_are_read_or_refused(tmp_path: Path):
    random = np.random.default_rng(16)
    types = [pa.int8(), pa.int64(), pa.uint64(), pa.float32(), pa.float64(), pa.string(), pa.large_string(), pa.bool_(),
             pa.date32(), pa.timestamp("ns"), pa.timestamp("us", "UTC"), pa.decimal128(12, 2), pa.binary(),
             pa.duration("s"),
             pa.dictionary(pa.int8(), pa.string()), pa.null(), pa.list_(pa.int64()), pa.time32("s")]  # fmt: skip
    served = 0
    for number in range(PARQUET_FILES):
        table = pa.Table.from_pandas(made(random).infer_objects(), preserve_index=bool(random.random() < 0.2))
        for _ in range(int(random.integers(0, 3))):
            column = int(random.integers(5))
            kind = types[int(random.integers(len(types)))]
            values = [_value(kind, random) for _ in range(len(table))]
            table = table.set_column(column, table.column_names[column], pa.array(values, kind))
        path = tmp_path / f"t{number}.parquet"
        pq.write_table(
            table, path, use_dictionary=bool(random.random() < 0.5), row_group_size=int(random.integers(5, 60))
        )
        content = path.read_bytes()
        is_whole = random.random() < 0.8
        if not is_whole:
            place = int(random.integers(len(content)))
            path.write_bytes(content[:place] + bytes(random.integers(0, 256, 3, dtype=np.uint8)) + content[place + 3 :])
        prepared = checked(path)
        path.unlink()
        if prepared is not None and is_whole:
            served += 1
            assert prepared.intake.rows_in == len(table)
    assert served > PARQUET_FILES / 4


def _value(kind: pa.DataType, random: np.random.Generator) -> object:
    if random.random() < 0.1 or pa.types.is_null(kind):
        return None
    number = int(random.integers(0, 100))
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_dictionary(kind):
        return f"v{number % 4}"
    if pa.types.is_binary(kind):
        return bytes([number, 255 - number])
    if pa.types.is_boolean(kind):
        return number % 2 == 0
    if pa.types.is_list(kind):
        return [number]
    if pa.types.is_decimal(kind):
        return Decimal(number)
    if pa.types.is_floating(kind):
        return [float(number), float("nan"), float("inf"), number + 0.5][number % 4]
    if pa.types.is_integer(kind):
        return number
    storage = pa.int32() if kind.bit_width == 32 else pa.int64()
    return pa.scalar(number, storage).cast(kind)
