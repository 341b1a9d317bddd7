"""Files as people make them: an error that names file, row and column, or a stated repair; no row is lost."""

import gzip
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsim.data.own_table.prepared import Intake, Prepared, prepare
from fedsim.data.own_table.reading import LONGEST, read_table
from fedsim.mistakes import Mistake
from fedsim.scenario.schema import Data

HEADER = "hospital,age,sex,ill\n"
ROWS = "north,50,f,0\nnorth,60,m,1\nsouth,41,m,0\nsouth,72,f,1\n"
RANGES = {"age": [0, 120, "years"], "sex": ["f", "m"]}
GOOD = HEADER + ROWS


@pytest.fixture
def load(tmp_path: Path) -> Callable[..., Prepared]:
    def load(content: bytes | str, name: str = "patients.csv", **changes: object) -> Prepared:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        asked = {"path": str(path), "target": "ill", "site": "hospital", "ranges": RANGES, **changes}
        return prepare(Data.model_validate(asked))

    return load


def accounted(intake: Intake) -> bool:
    return intake.rows_in == intake.rows_used + sum(one.rows for one in intake.left_out)


def test_a_good_table_needs_no_repair(load: Callable[..., Prepared]):
    found = load(GOOD)
    assert found.intake.as_json() == {
        "file": "patients.csv", "rows_in": 4, "rows_used": 4, "left_out": (), "ranges_fitted": False,
        "notes": ("ill was taken for a yes or no, by its values",),
    }  # fmt: skip
    rows = found.task.rows()
    assert rows.site.tolist() == ["north", "north", "south", "south"]
    assert rows.target.tolist() == [0, 1, 0, 1]
    # Age in [-1, 1] and a flag for missing, then female and male.
    np.testing.assert_allclose(rows.inputs[0], [2 * 50 / 120 - 1, 0, 1, 0], rtol=1e-6)


ERRORS = {
    "ragged, short": (HEADER + "north,50\n" + ROWS, r"patients.csv, row 2: expected 4 fields as in the header, got 2"),
    "ragged, long": (GOOD + "north,50,f,0,9\n", r"row 6: expected 4 fields as in the header, got 5"),
    "wrong type": (GOOD + "north,old,f,0\n", r"row 6, column age: expected a finite number as in most rows, got 'old'"),
    "decimal comma and point": (GOOD + 'north,"50,5",f,0\nnorth,50.5,f,0\n',
        r"row 6, column age: .* got '50,5'; numbers have a point"),
    "infinite": (GOOD + "north,inf,f,0\n", r"row 6, column age: expected a finite number as in most rows, got 'inf'"),
    "negative infinite": (GOOD + "north,-Infinity,f,0\n", r"row 6, column age: expected a finite number as in"),
    "unknown category": (GOOD + "north,50,x,0\n", r"row 6, column sex: expected one of f, m, got 'x'"),
    "strange outcome": (GOOD + "north,50,f,2\n", r"patients.csv: expected a public range.*\n.*numbers: ill"),
    "one class only": (HEADER + "north,50,f,1\nsouth,60,m,1\n",
        r"column ill: expected two values or more, all 2 rows have '1'"),
    "no outcome at all": (HEADER + "north,50,f,\nsouth,60,m,NA\n", r"expected rows with ill, none of the 2 has all"),
    "a million characters": (GOOD + f"north,50,{'f' * 10**6},0\n",
        rf"row 6, column sex: expected at most {LONGEST} characters, got 1000000"),
    "a quotation mark left open": (GOOD + 'north,50,"f,0\n' + ROWS,
        r"row 6: expected CSV, got unexpected end of data"),
    "text behind a quotation mark": (GOOD + 'north,50,"f"x,0\n', r"row 6: expected CSV, got"),
    "duplicate column": ("hospital,age,age,ill\n" + ROWS, r"row 1: expected each column once, got age several times"),
    "column without a name": ("hospital,,sex,ill\n" + ROWS,
        r"row 1: expected a name for each column, column 2 has none"),
    "empty file": ("", r"patients.csv: expected a header and rows, got an empty file"),
    "blank lines only": ("\n\n  \n", r"patients.csv: expected a header and rows, got an empty file"),
    "header only": (HEADER, r"patients.csv: expected a header and rows, got a header and no row"),
    "Latin-1": (GOOD.encode() + "Zürich,50,f,0\n".encode("latin-1"), r"row 6: expected UTF-8, got the byte 0xfc"),
    "UTF-16": (GOOD.encode("utf-16"), r"expected CSV \(UTF-8\) or Parquet, got text in UTF-16; save the table as CSV"),
    "Excel": (b"PK\x03\x04" + bytes(50), r"got an Excel workbook or another zip archive; save the table as CSV"),
    "old Excel": (b"\xd0\xcf\x11\xe0" + bytes(50), r"got an old Excel workbook"),
    "a zero byte": (GOOD + "north,50,f\0,0\n", r"row 6: expected text, got a zero byte"),
    "half a gzip file": (gzip.compress(GOOD.encode() * 99)[:40], r"expected a whole gzip file"),
    "half a Parquet file": (b"PAR1" + bytes(20), r"expected a Parquet file, got"),
}  # fmt: skip


@pytest.mark.parametrize("name", ERRORS)
def test_what_is_wrong_is_named_by_its_place(load: Callable[..., Prepared], name: str):
    content, message = ERRORS[name]
    with pytest.raises(Mistake, match=message):
        load(content)


REPAIRS = {
    "byte order mark": (b"\xef\xbb\xbf" + GOOD.encode(), ["a byte order mark was skipped"]),
    "line ends of several kinds": (
        GOOD.replace("\n", "\r\n", 2),
        ["line ends of several kinds were read as line ends"],
    ),
    "old line ends": (GOOD.replace("\n", "\r"), []),
    "blank lines": (GOOD.replace("\n", "\n\n") + "\n \n", []),
    "semicolons": (GOOD.replace(",", ";"), ["columns are parted by ';', not by commas"]),
    "tabs": (GOOD.replace(",", "\t"), ["columns are parted by '\\t', not by commas"]),
    "blanks around values": (GOOD.replace(",", " , "), []),
    "gzip": (gzip.compress(GOOD.encode()), []),
    "no line end at the end": (GOOD.rstrip("\n"), []),
    "quotation marks": (GOOD.replace("north", '"north"'), []),
}


@pytest.mark.parametrize("name", REPAIRS)
def test_what_can_be_repaired_is_and_is_said(load: Callable[..., Prepared], name: str):
    content, said = REPAIRS[name]
    found, plain = load(content), load(GOOD)
    assert [*found.intake.notes] == [*said, *plain.intake.notes]
    assert accounted(found.intake)
    for part in ("inputs", "target", "site"):
        np.testing.assert_array_equal(getattr(found.task.rows(), part), getattr(plain.task.rows(), part))


def test_rows_without_outcome_or_site_are_left_out_and_counted(load: Callable[..., Prepared]):
    found = load(GOOD + "north,50,f,\nnorth,50,f,NA\n,50,f,1\n,50,f,\n")
    assert [(one.reason, one.rows, one.first) for one in found.intake.left_out] == [
        ("no outcome (ill)", 3, 6), ("no site (hospital)", 1, 8),
    ]  # fmt: skip
    assert (found.intake.rows_in, found.intake.rows_used) == (8, 4)
    assert accounted(found.intake)


def test_rows_are_counted_as_an_editor_counts_lines(load: Callable[..., Prepared]):
    """A quoted field may hold line ends, and blank lines are lines."""
    with pytest.raises(Mistake, match=r"row 9, column age"):
        load(HEADER + 'north,50,"f",0\n"no\nrth",60,m,1\n\n\n' + "south,1,m,0\nsouth,2,f,1\nsouth,old,m,0\n")


def test_missing_values_are_flagged_and_outliers_cut(load: Callable[..., Prepared]):
    found = load(GOOD + "north,?,,0\nnorth,999,NULL,1\nsouth,-4,m,1\n")
    rows = found.task.rows()
    assert rows.inputs[4].tolist() == [0, 1, 0, 0]
    assert rows.inputs[5].tolist() == [1, 0, 0, 0]
    assert "age: 2 outside 0 to 120 cut to it, first in row 7" in found.intake.notes


def test_a_value_that_may_not_be_missing_is_an_error(load: Callable[..., Prepared]):
    ranges = RANGES | {"age": {"low": 0, "high": 120, "missing": False}}
    with pytest.raises(Mistake, match=r"row 6, column age: expected a number, missing = false, got nothing"):
        load(GOOD + "north,,f,0\n", ranges=ranges)
    with pytest.raises(Mistake, match=r"row 6, column sex: expected one of f, m, got nothing"):
        load(GOOD + "north,1,,0\n", ranges=RANGES | {"sex": {"levels": ["f", "m"], "missing": False}})


def test_a_listed_category_is_never_taken_for_missing(load: Callable[..., Prepared]):
    rows = load(HEADER + ROWS.replace(",f,", ",NA,"), ranges=RANGES | {"sex": ["NA", "m"]}).task.rows()
    assert rows.inputs[:, 2:].tolist() == [[1, 0], [0, 1], [0, 1], [1, 0]]


def test_parquet_gives_the_same_rows(load: Callable[..., Prepared]):
    buffer = io.BytesIO()
    frame = pd.read_csv(io.StringIO(GOOD))
    frame["sex"] = frame["sex"].astype("category")
    frame["age"] = frame["age"].astype("Int64")
    frame["ill"] = frame["ill"].astype(bool)
    frame.to_parquet(buffer)
    found = load(buffer.getvalue(), "patients.parquet", ranges=RANGES | {"ill": ["False", "True"]})
    plain = load(GOOD)
    for part in ("inputs", "target", "site"):
        np.testing.assert_array_equal(getattr(found.task.rows(), part), getattr(plain.task.rows(), part))


@pytest.mark.whole
@given(
    st.binary(max_size=300)
    | st.text(max_size=200).map(str.encode)
    | st.text('a,\n\r"; 01x', max_size=80).map(str.encode)
)
def test_whatever_a_file_holds_it_is_a_table_or_a_mistake(tmp_path_factory: pytest.TempPathFactory, content: bytes):
    path = tmp_path_factory.mktemp("any") / "any.csv"
    path.write_bytes(content)
    try:
        table = read_table(path)
    except Mistake as mistake:
        assert "any.csv" in str(mistake)
    else:
        assert len(table.rows) > 0
        assert all(len(values) == len(table.rows) for values in table.columns.values())
