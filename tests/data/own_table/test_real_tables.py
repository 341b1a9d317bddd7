"""Tables as people have them: each kind of fault is read right, or refused in one line that says what to do."""

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from fedsim.data.own_table.prepared import Prepared, prepare, settled
from fedsim.data.own_table.reading import read_table
from fedsim.mistakes import Mistake
from fedsim.scenario.files import parse
from fedsim.scenario.schema import Data

ROWS = 120
Read = Callable[..., Prepared]


def columns() -> dict[str, list[Any]]:
    """A table of 120 patients at three sites."""
    return {
        "site": [("north", "south", "west")[number % 3] for number in range(ROWS)],
        "age": [20 + number * 7 % 61 for number in range(ROWS)],
        "bp": [100 + number * 13 % 60 + 0.5 for number in range(ROWS)],
        "sex": ["f" if number % 2 else "m" for number in range(ROWS)],
        "ill": [int(number % 5 in (0, 1)) for number in range(ROWS)],
    }


def csv_of(table: dict[str, list[Any]], delimiter: str = ",") -> str:
    def field(value: object) -> str:
        text = str(value)
        return f'"{text}"' if delimiter in text or "\n" in text else text

    lines = [list(table), *zip(*table.values(), strict=True)]
    return "\n".join(delimiter.join(map(field, line)) for line in lines) + "\n"


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """Prepare a table: columns, the content of a CSV file, or a frame that is written as Parquet."""

    def read(table: Any, delimiter: str = ",", side: str = "", **changes: object) -> Prepared:
        path = tmp_path / ("t.parquet" if isinstance(table, pd.DataFrame) else "t.csv")
        if isinstance(table, pd.DataFrame):
            table.to_parquet(path)
        else:
            path.write_text(csv_of(table, delimiter) if isinstance(table, dict) else table)
        if side:
            (tmp_path / "t.ranges.toml").write_text(side)
        given = {"path": str(path), "target": "ill", "site": "site", "ranges": "from-data", **changes}
        prepared = prepare(Data.model_validate({key: value for key, value in given.items() if value is not None}))
        intake = prepared.intake
        assert intake.rows_in == intake.rows_used + sum(part.rows for part in intake.left_out)
        return prepared

    return read


def notes_of(prepared: Prepared) -> str:
    return "\n".join(prepared.intake.notes)


def feature(prepared: Prepared, name: str) -> np.ndarray:
    """The values of a number, in its unit."""
    start = 0
    for column in prepared.task.columns:
        width = column.encode(pd.Series([None], dtype=object if hasattr(column, "levels") else float)).shape[1]
        if column.name == name:
            return column.in_units(prepared.task.rows().inputs[:, start].astype(float))  # type: ignore[union-attr]
        start += width
    raise AssertionError(name)


# 1. Names made of numbers


@pytest.mark.parametrize(
    "names",
    [
        [1234567, 1234568, 1234569],
        [2**53 + 1, 2**53 + 2, 2**53 + 3],
        [2**63 + 1, 2**63 + 3, 2**63 + 5],
        [-1, 0, 1],
        [10.0, 11.0, 1234567.0],
    ],
)
def test_whole_numbers_are_names_with_all_their_digits(read: Read, names: list[float]):
    table = columns()
    frame = pd.DataFrame(table)
    frame["site"] = [names[number % 3] for number in range(ROWS)]
    frame["ward"] = frame["site"]
    prepared = read(frame, groups=["ward"], side='ward = "leave out"')
    expected = {str(int(name)) for name in names}
    assert set(prepared.task.rows().site) == expected
    assert set(prepared.task.rows().groups["ward"]) == expected


@pytest.mark.parametrize("role", ["site", "ward"])
def test_fractions_are_no_names(read: Read, role: str):
    frame = pd.DataFrame(columns())
    frame["ward"] = "a"
    frame[role] = [1.5, 2.0, 3.0] * (ROWS // 3)
    with pytest.raises(Mistake, match=rf"row 1, column {role}: expected names, or whole numbers as names, got '1.5'"):
        read(frame, groups=["ward"], side='ward = "leave out"')


# 4. Missing values


@pytest.mark.parametrize("word", ["-", ".", "None", "#N/A", "<NA>", "NaN", "n/a", "", "?", "NULL", "#DIV/0!", "--"])
@pytest.mark.parametrize("column", ["age", "sex", "ill", "site", "bp"])
def test_one_list_of_words_for_missing_holds_for_every_column(read: Read, word: str, column: str):
    table = columns()
    table[column][7] = word
    prepared = read(table)
    if column in ("ill", "site"):
        role = "outcome" if column == "ill" else "site"
        assert [(part.reason, part.rows, part.first) for part in prepared.intake.left_out] == [
            (f"no {role} ({column})", 1, 9)
        ]
        assert prepared.task.kind == "binary"
    else:
        assert not prepared.intake.left_out
        assert {entry.name: entry.missing for entry in prepared.task.columns}[column]
        if word:
            assert f"{column}: taken for missing: '{word}' (1)" in notes_of(prepared)


@pytest.mark.parametrize("column", ["ill", "sex"])
def test_a_listed_level_is_never_missing(read: Read, column: str):
    table = columns()
    table[column] = [("NA", "SA", "none")[number % 3] for number in range(ROWS)]
    prepared = read(table, side=f'{column} = ["NA", "SA", "none"]')
    assert not prepared.intake.left_out
    if column == "ill":
        assert np.bincount(prepared.task.rows().target).tolist() == [40, 40, 40]


def test_a_site_may_have_the_name_of_a_missing_value(read: Read):
    table = columns()
    table["site"] = [("NA", "SA", "EU")[number % 3] for number in range(ROWS)]
    assert set(read(table, side="site = { missing = [] }").task.rows().site) == {"NA", "SA", "EU"}
    assert set(read(table, side="site = { missing = true }").task.rows().site) == {"SA", "EU"}


@pytest.mark.parametrize(("sentinel", "entry"), [(9999, "[9999]"), (-99, "[-99]"), ("unknown", '["Unknown"]')])
def test_words_and_numbers_for_missing_can_be_declared(read: Read, sentinel: object, entry: str):
    table = columns()
    table["age"][3] = table["age"][8] = sentinel
    with_entry = read(table, side=f"age = {{ missing = {entry} }}")
    age = next(column for column in with_entry.task.columns if column.name == "age")
    assert age.missing
    assert age.high <= 80  # type: ignore[union-attr]
    if isinstance(sentinel, int):
        note = f"age: 2 x {sentinel} stands apart from 20 to 80"
        assert note in notes_of(read(table, side="bp = { missing = true }"))
        declared = read(table, ranges={"age": [0, 120], "bp": [0, 300], "sex": ["f", "m"]})
        assert note in notes_of(declared)


# 5. Ordinary ways to write numbers

NOTATIONS = {
    "decimal comma": (";", lambda value: str(value).replace(".", ",")),
    "decimal comma in quotes": (",", lambda value: str(value).replace(".", ",")),
    "percent": (",", lambda value: f"{value}%"),
    "percent with a blank": (",", lambda value: f"{value} %"),
    "currency": (",", lambda value: f"${value}"),
    "euro behind": (";", lambda value: f"{value} €"),
    "unit": (",", lambda value: f"{value} mmHg"),
    "thousands": (",", lambda value: f"{value * 1000:,.1f}"),
    "currency and thousands": (",", lambda value: f"${value * 1000:,.0f}"),
    "blank as thousands": (",", lambda value: f"{value * 1000:,.1f}".replace(",", " ")),
    "no-break blank": (";", lambda value: f"{value * 1000:,.1f}".replace(",", "\u00a0").replace(".", ",")),
    "thin blank": (",", lambda value: f"{value * 1000:,.1f}".replace(",", "\u202f")),
    "apostrophe": (",", lambda value: f"{value * 1000:,.1f}".replace(",", "'")),
    "point as thousands": (
        ";",
        lambda value: f"{value * 1000:,.1f}".replace(",", "x").replace(".", ",").replace("x", "."),
    ),
    "minus sign of typography": (",", lambda value: f"\u2212{value}"),
    "exponent": (",", lambda value: f"{value / 1000:e}"),
}


@pytest.mark.parametrize("column", ["bp", "ill"])
@pytest.mark.parametrize("name", NOTATIONS)
def test_numbers_are_read_as_they_are_written(read: Read, name: str, column: str):
    delimiter, write = NOTATIONS[name]
    table = columns()
    numbers = np.array(table["bp"])
    table[column] = [write(value) for value in table["bp"]]
    prepared = read(table, delimiter)
    if column == "bp":
        values = feature(prepared, "bp")
    else:
        assert prepared.task.kind == "number"
        assert prepared.task.range is not None
        values = prepared.task.range.in_units(prepared.task.rows().target.astype(float))
    scale = values[0] / numbers[0]
    np.testing.assert_allclose(values, numbers * scale, rtol=1e-4)
    assert round(float(np.log10(abs(scale))), 4) in (0, 3, -3)


def test_a_note_says_how_numbers_were_read(read: Read):
    table = columns()
    table["bp"] = [f"{value} mmHg" for value in table["bp"]]
    table["age"] = [f"{value},5" for value in table["age"]]
    notes = notes_of(read(table))
    assert "bp: numbers of mmHg" in notes
    assert "age: numbers as in 1.234,5" in notes


IN_DOUBT = {
    "thousands or decimals": (";", lambda number: f"{number},{100 + number}", r"written = \"1,234.5\""),
    "two units": (",", lambda number: f"{number} {'kg' if number % 2 else 'lb'}", "with one unit"),
    "percent and plain": (",", lambda number: f"{number}%" if number % 3 else str(number), "with one unit"),
    "day or month": (",", lambda number: f"0{1 + number % 9}/0{1 + number % 7}/20{10 + number % 80}", "31/12/2020"),
    "some dates differ": (
        ",",
        lambda number: f"2020-01-{1 + number % 28:02}" if number > 9 else f"{1 + number}.1.2020",
        "dates that are all written in one way",
    ),
    "an impossible date": (
        ",",
        lambda number: f"2020-02-{1 + number % 28:02}" if number else "2020-02-30",
        "dates that are all written in one way",
    ),
    "limits of detection": (",", lambda number: f"<{number % 3}" if number % 3 == 0 else str(number), "missing ="),
}


@pytest.mark.parametrize("name", IN_DOUBT)
def test_doubt_is_refused_with_a_hint(read: Read, name: str):
    delimiter, write, hint = IN_DOUBT[name]
    table = columns()
    table["bp"] = [write(number) for number in range(ROWS)]
    with pytest.raises(Mistake, match=r"t.csv, row \d+, column bp: expected") as refused:
        read(table, delimiter)
    assert hint.replace("\\", "") in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1


def test_an_entry_decides_what_is_in_doubt(read: Read):
    table = columns()
    table["bp"] = [f"{number},{100 + number}" for number in range(ROWS)]
    as_thousands = read(table, ";", side='bp = { written = "1,234.5" }')
    np.testing.assert_allclose(feature(as_thousands, "bp")[-1], 119219, rtol=1e-4)
    as_decimals = read(table, ";", side='bp = { written = "1.234,5" }')
    np.testing.assert_allclose(feature(as_decimals, "bp")[-1], 119.219, rtol=1e-4)


def test_other_columns_show_the_decimal_mark_of_a_file(read: Read):
    table = columns()
    table["bp"] = [f"{number},{100 + number}" for number in range(ROWS)]
    table["age"] = [f"{value},5" for value in table["age"]]
    np.testing.assert_allclose(feature(read(table, ";"), "bp")[-1], 119.219, rtol=1e-4)
    table["bp"] = [f"{number}.{100 + number}" for number in range(ROWS)]  # 1.101: a thousand, or one?
    with pytest.raises(Mistake, match=r"column bp: expected a notation that is beyond doubt"):
        read(table, ";")


# 6. Dates


@pytest.mark.parametrize(
    "shape", ["%Y-%m-%d", "%d.%m.%Y", "%d/%m/%Y", "%m/%d/%Y", "%Y/%m/%d", "%Y-%m-%d %H:%M:%S", "%d-%m-%Y"]
)
@pytest.mark.parametrize("ranges", ["fitted", "declared"])
def test_dates_are_days(read: Read, shape: str, ranges: str):
    table = columns()
    days = pd.date_range("2020-01-01", periods=ROWS, freq="3D")
    table["bp"] = list(days.strftime(shape))
    side = 'bp = { from = "2010-01-01", to = "2030-12-31" }\n' if ranges == "declared" else ""
    prepared = read(table, side=side)
    first = pd.Timestamp("2010-01-01" if side else "2020-01-01")
    np.testing.assert_allclose(feature(prepared, "bp"), (days - first).days, atol=2e-3)
    unit = next(column for column in prepared.task.columns if column.name == "bp").unit  # type: ignore[union-attr]
    assert unit == f"days since {first.date()}"


def test_a_date_among_numbers_and_a_number_among_dates_are_refused(read: Read):
    table = columns()
    table["bp"] = [f"2020-01-{1 + number % 28:02}" for number in range(ROWS)]
    with pytest.raises(Mistake, match=r"column bp: expected numbers, as its entry declares; dates have \{ from ="):
        read(table, side="bp = [0, 300]")
    with pytest.raises(Mistake, match=r"column age: expected dates, as its entry declares"):
        read(table, side='age = { from = "2010-01-01", to = "2030-12-31" }')


# 7. Labels


@pytest.mark.parametrize(
    "variants", [["yes", "Yes", "YES", "yes\u200b", " yes"], ["TRUE", "True", "true"], ["a  b", "a b", "A\u00a0b"]]
)
def test_labels_that_look_alike_are_one(read: Read, variants: list[str]):
    table = columns()
    table["ill"] = [variants[number % len(variants)] if value else "no" for number, value in enumerate(table["ill"])]
    prepared = read(table, positive=variants[1])
    assert prepared.task.kind == "binary"
    np.testing.assert_array_equal(prepared.task.rows().target, columns()["ill"])
    assert "ill: read" in notes_of(prepared)


@pytest.mark.parametrize(
    ("negative", "positive", "default"),
    [("healthy", "diseased", "healthy"), ("no", "yes", "yes"), ("benign", "malignant", "malignant")],
)
def test_the_positive_class_is_said_and_can_be_chosen(read: Read, negative: str, positive: str, default: str):
    table = columns()
    table["ill"] = [positive if value else negative for value in table["ill"]]
    by_default = read(table)
    assert by_default.task.outcome == f"ill is {default}"
    other = negative if default == positive else positive
    assert f'{default} is positive, {other} is not; data.positive = "{other}"' in notes_of(by_default)

    chosen = read(table, positive=positive.upper())
    assert chosen.task.outcome == f"ill is {positive}"
    np.testing.assert_array_equal(chosen.task.rows().target, columns()["ill"])
    np.testing.assert_array_equal(read(table, positive=negative).task.rows().target, 1 - chosen.task.rows().target)


def test_zero_may_be_positive(read: Read):
    prepared = read(columns(), positive=0)
    np.testing.assert_array_equal(prepared.task.rows().target, 1 - np.array(columns()["ill"]))


@pytest.mark.parametrize(("column", "positive"), [("ill", "perhaps"), ("ill", 2), ("bp", 1)])
def test_a_positive_class_that_is_none_is_an_error(read: Read, column: str, positive: object):
    with pytest.raises(Mistake, match=r"data.positive: expected (one of|no positive value)"):
        read(columns(), target=column, positive=positive)


# 8. [0, 1] as a range


def test_a_range_of_0_to_1_does_not_make_a_yes_or_no_a_number(read: Read):
    entries = {"age": [0, 120], "bp": [0, 300], "sex": ["f", "m"], "ill": [0, 1]}
    prepared = read(columns(), ranges=entries)
    assert prepared.task.kind == "binary"
    assert "ill is declared as [0, 1] and holds only 0 and 1: it was taken for a yes or no" in notes_of(prepared)
    assert read(columns(), ranges=entries, kind="number").task.kind == "number"


# 9. What spreadsheets and pandas write

GOOD = csv_of(columns())
INDEXED = "\n".join([f",{GOOD.splitlines()[0]}", *(f"{n},{line}" for n, line in enumerate(GOOD.splitlines()[1:]))])
SPREADSHEETS = {
    "sep=": ("sep=;\n" + csv_of(columns(), ";"), "the first line, sep=;, was read as the delimiter"),
    "sep= in quotes": ('"sep=;"\r\n' + csv_of(columns(), ";"), "the first line, sep=;, was read"),
    "index": (INDEXED, "column 1 has no name and numbers the rows"),
    "index of another": (INDEXED.replace(",site", "Unnamed: 0,site", 1), "column 1 has no name and numbers the rows"),
    "names of R": (INDEXED[1:], "column 1 has no name and numbers the rows"),
    "empty last columns": ("\n".join(line + ",,," for line in GOOD.splitlines()), "empty fields after the last column"),
    "empty last fields": (GOOD.replace("\n", ",\n").replace(",\n", "\n", 1), "empty fields after the last column"),
    "lines of delimiters": (GOOD + ",,,,\n,,,,\n", "ranges and categories"),
    "total": (GOOD + "Total,6000,12000,,48\n", "ranges and categories"),
}


@pytest.mark.parametrize("name", SPREADSHEETS)
def test_what_spreadsheets_leave_in_a_table_is_repaired_and_said(read: Read, name: str):
    content, note = SPREADSHEETS[name]
    prepared = read(content)
    plain = read(GOOD)
    assert note in notes_of(prepared)
    for part in ("inputs", "target", "site"):
        np.testing.assert_array_equal(getattr(prepared.task.rows(), part), getattr(plain.task.rows(), part))
    if name == "total":
        assert prepared.intake.left_out[0].reason == "a row of totals"


@pytest.mark.parametrize("name", ["Weight (kg, fasting, morning)", "weight\nin kg", "a;b,c,d"])
def test_a_delimiter_inside_quotes_is_none(read: Read, name: str):
    table = {"site" if key == "site" else name if key == "bp" else key: value for key, value in columns().items()}
    for delimiter in (";", ","):
        lines = csv_of(table, delimiter).replace(name, f'"{name}"').replace(f'""{name}""', f'"{name}"')
        assert name in [column.name for column in read(lines).task.columns]


def test_an_index_of_parquet_is_a_column_if_it_has_a_name(read: Read):
    frame = pd.DataFrame(columns())
    assert "age" in [column.name for column in read(frame.set_index("age")).task.columns]
    assert "age" in [column.name for column in read(frame.set_index(["age", "sex"])).task.columns]
    unnamed = frame.copy()
    unnamed.index = pd.Index(range(1000, 1000 + ROWS))
    unnamed = unnamed.sample(frac=1, random_state=0)
    prepared = read(unnamed)
    assert [column.name for column in prepared.task.columns] == ["age", "bp", "sex"]
    assert "no name" in notes_of(prepared)


# 10. Columns that are of no use


@pytest.mark.parametrize("kind", ["names", "keys", "row numbers", "row numbers from 1", "shuffled", "most", "constant"])
def test_from_data_leaves_keys_and_row_numbers_aside(read: Read, kind: str):
    table = columns()
    generator = np.random.default_rng(0)
    table["patient"] = {
        "names": [f"patient {chr(97 + n // 26)}{chr(97 + n % 26)}" for n in range(ROWS)],
        "keys": [f"P-{n:05}" for n in range(ROWS)],
        "row numbers": list(range(ROWS)),
        "row numbers from 1": list(range(1, ROWS + 1)),
        "shuffled": generator.permutation(ROWS).tolist(),
        "most": [f"text {n % 90}" for n in range(ROWS)],
        "constant": ["x"] * ROWS,
    }[kind]
    prepared = read(table)
    assert [column.name for column in prepared.task.columns] == ["age", "bp", "sex"]
    assert "patient was left aside" in notes_of(prepared)


def test_entries_of_the_side_file_hold_with_from_data(read: Read, tmp_path: Path):
    table = columns()
    table["patient"] = [f"name {number}" for number in range(ROWS)]
    side = 'patient = "leave out"\nage = [0, 120, "years"]\n'
    prepared = read(table, side=side)
    assert prepared.intake.ranges_fitted
    assert (prepared.task.columns[0].low, prepared.task.columns[0].high) == (0, 120)  # type: ignore[union-attr]
    assert prepared.task.columns[1].low == min(table["bp"])  # type: ignore[union-attr]

    # A settled section means the same without the side file.
    data = Data.model_validate(
        {"path": str(tmp_path / "t.csv"), "target": "ill", "site": "site", "ranges": "from-data"}
    )
    fixed = settled(data)
    (tmp_path / "t.ranges.toml").unlink()
    assert prepare(fixed).task.columns == prepared.task.columns
    assert prepare(fixed).intake.ranges_fitted


# 12. The name of the noise


def test_the_folder_of_a_table_does_not_change_the_noise(tmp_path: Path):
    releases = []
    for folder, content in (("a", GOOD), ("b", GOOD), ("c", GOOD + "north,50,100,f,1\n")):
        path = tmp_path / folder / "t.csv"
        path.parent.mkdir()
        path.write_text(content)
        data = settled(Data(path=str(path), target="ill", site="site", ranges="from-data"))
        scenario = {"title": "t", "name": "t", "data": data.model_dump(exclude_none=True)}
        releases.append(parse(scenario).release)
    assert releases[0] == releases[1]
    assert releases[0] != releases[2]


# 13. Outcomes that are none

NO_OUTCOMES = {
    "texts": [f"text {number} of many" for number in range(ROWS)],
    "one value in two ways": ["5" if number % 2 else "5.0" for number in range(ROWS)],
    "one value but for case": ["yes" if number % 2 else "YES" for number in range(ROWS)],
    "too large": ["1e300" if number % 2 else "-1e300" for number in range(ROWS)],
    "too large for a double": ["1e999" if number % 2 else "1" for number in range(ROWS)],
    "dates": [f"2020-01-{1 + number % 28:02}" for number in range(ROWS)],
    "nothing": [""] * ROWS,
}


@pytest.mark.parametrize("name", NO_OUTCOMES)
def test_an_outcome_that_is_none_ends_in_a_line_with_the_column(read: Read, name: str):
    table = columns()
    table["ill"] = NO_OUTCOMES[name]
    with pytest.raises(Mistake, match=r"\bill\b") as refused:
        read(table)
    assert len(str(refused.value).splitlines()) == 1
    assert "expected" in str(refused.value)


# 14. All faults at once


def test_all_columns_with_faults_are_told_at_once_with_their_values(read: Read):
    table = columns()
    table["age"][5:8] = ["old", "old", "young"]
    table["bp"][9] = "high"
    table["sex"][11] = "femal"
    with pytest.raises(Mistake) as refused:
        read(table, ranges={"age": [0, 120], "bp": [0, 300], "sex": ["female", "f", "m"]})
    lines = str(refused.value).splitlines()
    assert len(lines) == 3
    assert "t.csv, row 7, column age: expected a finite number as in most rows, got 'old' (2 rows), 'young'" in lines[0]
    assert "row 11, column bp" in lines[1]
    assert "row 13, column sex: expected one of female, f, m, got 'femal'" in lines[2]
    assert 'write read_as = { "femal" = "female" }' in lines[2]


def test_a_text_can_be_read_as_another(read: Read):
    table = columns()
    table["sex"][11] = "femal"
    entry = {"levels": ["f", "m"], "read_as": {"femal": "f"}}
    prepared = read(table, ranges={"age": [0, 120], "bp": [0, 300], "sex": entry})
    plain = read(columns(), ranges={"age": [0, 120], "bp": [0, 300], "sex": ["f", "m"]})
    np.testing.assert_array_equal(prepared.task.rows().inputs, plain.task.rows().inputs)


def test_faults_are_told_beside_columns_without_a_range(read: Read):
    table = columns()
    table["age"][5] = "old"
    with pytest.raises(Mistake, match=r"text: sex") as refused:
        read(table, ranges={"age": [0, 120], "bp": [0, 300]})
    assert "row 7, column age" in str(refused.value)


# 15. Reading has limits


def test_what_unpacks_to_too_much_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("fedsim.data.own_table.file_bytes.MOST_BYTES", 10**6)
    bomb = tmp_path / "bomb.csv.gz"
    bomb.write_bytes(gzip.compress(b"site,ill\n" + b"north,1\n" * 10**6))
    with pytest.raises(Mistake, match=r"bomb.csv.gz: expected at most 1,000,000 bytes of text, got more"):
        read_table(bomb)


def test_too_many_values_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("fedsim.data.own_table.reading.MOST_CELLS", 500)
    (tmp_path / "t.csv").write_text(GOOD)
    pd.DataFrame(columns()).to_parquet(tmp_path / "t.parquet")
    for name in ("t.csv", "t.parquet"):
        with pytest.raises(Mistake, match=r"expected at most 500 values, got 120 rows x 5 columns"):
            read_table(tmp_path / name)


# A file for each site


def site_files(folder: Path) -> None:
    frame = pd.DataFrame(columns())
    for site, rows in frame.groupby("site"):
        rows.drop(columns="site").to_csv(folder / f"{site}.csv", index=False)


def test_a_file_for_each_site_is_one_table(tmp_path: Path, read: Read):
    site_files(tmp_path)
    data = Data(path=str(tmp_path / "*t*.csv"), target="ill", ranges="from-data")
    prepared = prepare(data)
    together = read(columns())
    order = np.argsort(together.task.rows().site, kind="stable")
    for part in ("inputs", "target", "site"):
        expected = getattr(together.task.rows(), part)[order]
        np.testing.assert_array_equal(getattr(prepared.task.rows(), part), expected)

    # Another row in one of the files, or another name, is another table.
    begun = settled(data)
    (tmp_path / "west.csv").rename(tmp_path / "east.csv")
    with pytest.raises(Mistake, match="it has changed since"):
        prepare(begun.model_copy(update={"path": str(tmp_path / "*t*.csv")}))


def test_rows_that_are_left_out_of_several_files_are_told_with_their_file(tmp_path: Path):
    """A row of totals stands at the end of each file, not only of the last."""
    for site, last in {"a": "Total,80", "b": "4,", "c": "Total,79", "d": "5,"}.items():
        lines = [f"{age},{age % 2}" for age in range(20, 60)]
        (tmp_path / f"{site}.csv").write_text("\n".join(["age,ill", *lines, last]) + "\n")
    (tmp_path / "c.csv").write_text((tmp_path / "c.csv").read_text().replace("21,1\n", "21,\n"))
    intake = prepare(Data(path=str(tmp_path / "*.csv"), target="ill", ranges="from-data")).intake
    assert [(part.reason, part.rows, part.first) for part in intake.left_out] == [
        ("a row of totals in 2 files, of which the first is a.csv", 2, 42),
        ("no outcome (ill) in 3 files, of which the first is b.csv", 3, 42),
    ]
    assert intake.rows_in == intake.rows_used + 5

    (tmp_path / "d.csv").write_text((tmp_path / "d.csv").read_text().replace("5,\n", "5,1\n"))
    (tmp_path / "c.csv").write_text((tmp_path / "c.csv").read_text().replace("21,\n", "21,1\n"))
    intake = prepare(Data(path=str(tmp_path / "*.csv"), target="ill", ranges="from-data")).intake
    assert intake.left_out[1].reason == "no outcome (ill) in b.csv"


def test_faults_in_one_of_several_files_name_it(tmp_path: Path):
    site_files(tmp_path)
    path = tmp_path / "south.csv"
    path.write_text(path.read_text() + "old,100,f,1\n")
    with pytest.raises(Mistake, match=r"south.csv, row 42, column age: expected a finite number as in most rows"):
        prepare(Data(path=str(tmp_path / "*.csv"), target="ill", ranges="from-data"))
    path.write_text(path.read_text().replace("age", "years"))
    with pytest.raises(Mistake, match=r"south.csv: expected the columns of north.csv, age is lacking and years is"):
        prepare(Data(path=str(tmp_path / "*.csv"), target="ill", ranges="from-data"))
    with pytest.raises(Mistake, match=r"data.path: expected files, none matches"):
        prepare(Data(path=str(tmp_path / "*.tsv"), target="ill", ranges="from-data"))
