"""A pandas frame is read as its Parquet file would be, and held in memory under the digest of its contents."""

import datetime as dt
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fedsim.data.own_table.frames import digest_of, held, held_table, table_of
from fedsim.data.own_table.reading import read_table
from fedsim.mistakes import Mistake

COLUMNS = {
    "int64": pd.Series([1234567, 1234568, 2**53 + 1, -5]),
    "uint64": pd.Series([0, 1, 2**64 - 1, 3], dtype="uint64"),
    "int8": pd.Series([1, 2, -3, 4], dtype="int8"),
    "float64": pd.Series([1.0, np.nan, 0.1, -2e-300]),
    "float32": pd.Series([1.5, 2.5, np.nan, 3.25], dtype="float32"),
    "bool": pd.Series([True, False, True, True]),
    "boolean": pd.Series([True, None, False, True], dtype="boolean"),
    "Int64": pd.Series([2**60 + 1, None, 3, 4], dtype="Int64"),
    "Float64": pd.Series([1.5, None, 2.0, 3.0], dtype="Float64"),
    "object text": pd.Series(["a", None, " b ", "Ünï"], dtype=object),
    "string": pd.Series(["a", pd.NA, "b", "a"], dtype="string"),
    "category": pd.Categorical(["x", None, "y", "x"], categories=["unused", "y", "x"]),
    "category of numbers": pd.Categorical([3, 1, 3, 2]),
    "datetime": pd.Series(pd.to_datetime(["2020-01-31", None, "2021-12-01", "2020-02-29"])),
    "datetime in a zone": pd.Series(pd.to_datetime(["2020-01-31", "2020-02-01"] * 2).tz_localize("Europe/Berlin")),
    "date": pd.Series([dt.date(2020, 1, 31), None, dt.date(2021, 1, 1), dt.date(2021, 1, 1)]),
    "decimal": pd.Series([Decimal("1.50"), None, Decimal("-2.25"), Decimal("3.00")]),
    "odd blanks": pd.Series(["a b", "a\u200bb", "c", "c"]),
}


@pytest.mark.parametrize("kind", COLUMNS)
def test_a_column_is_read_as_from_its_parquet_file(tmp_path: Path, kind: str):
    frame = pd.DataFrame({"x": COLUMNS[kind], "y": [1, 2, 3, 4]})
    before = frame.copy(deep=True)
    table = table_of(frame)
    pd.testing.assert_frame_equal(frame, before)

    frame.to_parquet(tmp_path / "frame.parquet")
    stored = read_table(tmp_path / "frame.parquet")
    assert texts(table, "x") == texts(stored, "x")
    assert table.repairs == stored.repairs
    assert digest_of(table) == digest_of(stored)


def texts(table, column: str) -> list[str | None]:
    values = table.columns[column]
    return [None if code < 0 else values.texts[code] for code in values.codes]


INDEXES = {
    "that counts rows": (pd.RangeIndex(4), ["x"]),
    "with a name": (pd.Index([7, 8, 8, 9], name="ward"), ["x", "ward"]),
    "of several levels": (pd.MultiIndex.from_product([["a", "b"], [1, 2]], names=["h", "n"]), ["x", "h", "n"]),
    "without a name, of row numbers": (pd.Index([5, 3, 2, 9]), ["x"]),
    "without a name, of values": (pd.Index(["a", "a", "b", "b"]), ["x", "__index_level_0__"]),
}


@pytest.mark.parametrize("name", INDEXES)
def test_an_index_becomes_columns_as_in_parquet(tmp_path: Path, name: str):
    index, expected = INDEXES[name]
    frame = pd.DataFrame({"x": [1, 2, 3, 4]}, index=index)
    frame.to_parquet(tmp_path / "frame.parquet")
    stored = read_table(tmp_path / "frame.parquet")
    table = table_of(frame)
    assert list(table.columns) == list(stored.columns) == expected
    assert all(texts(table, column) == texts(stored, column) for column in expected)


def test_values_of_several_types_are_read_as_from_a_csv_file(tmp_path: Path):
    mixed = [1, "a", None, 2.5, True, dt.date(2020, 1, 1), Decimal("1.50"), np.int64(7), pd.NA, 2**70]
    frame = pd.DataFrame({"x": pd.Series(mixed, dtype=object), "y": range(len(mixed))})
    frame.to_csv(tmp_path / "frame.csv", index=False)
    stored = texts(read_table(tmp_path / "frame.csv"), "x")
    assert [text or "" for text in texts(table_of(frame), "x")] == stored


def test_intervals_and_periods_are_categories():
    frame = pd.DataFrame({
        "age": pd.cut(pd.Series([10, 30, np.nan]), [0, 20, 40]),
        "month": pd.Series(pd.period_range("2020-01", periods=3, freq="M")),
        "few": pd.Series(pd.arrays.SparseArray([0, 1, 0])),
    })  # fmt: skip
    table = table_of(frame)
    assert texts(table, "age") == ["(0, 20]", "(20, 40]", None]
    assert texts(table, "month") == ["2020-01", "2020-02", "2020-03"]
    assert texts(table, "few") == ["0", "1", "0"]


GOOD = pd.DataFrame({"x": [1, 2], "y": ["a", "b"]})
WRONG = {
    "a list": ([[1, 2]], ["expected a pandas DataFrame or the path of a file, got list"]),
    "an array": (np.zeros((2, 2)), ["got numpy.ndarray"]),
    "a series": (GOOD["x"], ["got pandas.Series; pass data.to_frame()"]),
    "no row": (GOOD.iloc[:0], ["expected rows, the frame has none and 2 columns"]),
    "nothing": (pd.DataFrame(), ["expected rows", "expected columns, the frame has none"]),
    "names": (
        pd.DataFrame([[1, 2, 3, 4]], columns=["a", 0, "b", "b "]),
        ["expected text as the name of each column, got 0 (int)", "expected each column once, got b several times"],
    ),
    "an index called like a column": (GOOD.set_index(pd.Index(["p", "q"], name="x")), ["got x several times"]),
    "levels of columns": (pd.concat({"a": GOOD}, axis=1), ["got a MultiIndex of 2 levels"]),
    "values": (
        pd.DataFrame(
            {
                "a": [1, 2],
                "b": [None, [1]],
                "c": [1j, 2j],
                "d": [{1}, "x"],
                "e": pd.Series(["\ud800", "x"], dtype=object),
            }
        ),
        [
            "column b: expected numbers, text or dates, got list in row 1",
            "column c: expected numbers, text or dates, got complex128",
            "column d: expected numbers, text or dates, got set in row 0",
            "column e: expected numbers, text or dates, got text with characters that UTF-8 has not",
        ],
    ),
    "no name and no number": (pd.DataFrame({"": [1, 1], "y": [2, 3]}), ["expected a name for each column"]),
}


@pytest.mark.parametrize("name", WRONG)
def test_all_faults_of_a_frame_are_told_at_once(name: str):
    frame, expected = WRONG[name]
    with pytest.raises(Mistake) as caught:
        table_of(frame)
    for part in expected:
        assert part in str(caught.value)
    assert len(str(caught.value).splitlines()) == len(expected)


def test_rows_are_counted_as_iloc_does():
    assert table_of(GOOD.set_index(pd.Index([50, 60]))).place(1) == "(pandas frame), row 1"


def test_the_digest_is_of_the_values():
    frame = pd.DataFrame({"a": [3, 1, 2], "b": ["x", None, "y"], "c": [0.5, 1.5, np.nan]})
    digest = digest_of(table_of(frame))
    others = [frame.astype({"b": "category"}), frame.astype({"b": "string"}), frame.astype({"a": float})]
    assert {digest_of(table_of(other)) for other in others} == {digest}

    changed = [
        frame.iloc[::-1],
        frame.reset_index(drop=True).rename(columns={"a": "A"}),
        frame[["b", "a", "c"]],
        frame.assign(b=["x", "y", None]),
        frame.assign(a=[3, 1, 3]),
        frame.assign(a=["3", "1", "2"]),
        frame.assign(c=[0.5, 1.5000000000000002, np.nan]),
        frame.iloc[:2],
    ]
    digests = [digest_of(table_of(other)) for other in changed]
    assert len({digest, *digests}) == 1 + len(changed)


def test_a_table_is_held_while_runs_use_it():
    table = table_of(GOOD)
    with held(table) as digest:
        with held(table_of(GOOD.copy())) as again:
            assert again == digest
        assert held_table(digest) is table
    with pytest.raises(Mistake, match=r"fedsim\.run\(data=frame"):
        held_table(digest)
    with pytest.raises(Mistake, match="which is in no file"):
        held_table(None)
