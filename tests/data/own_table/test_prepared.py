"""A table of one's own becomes a task: kinds, ranges, models; nothing is fitted on rows unless that is asked for."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fedsim.data.own_table.prepared import Prepared, check_digest, prepare, settled
from fedsim.data.own_table.ranges import MissingRanges, side_file
from fedsim.mistakes import Mistake
from fedsim.scenario.schema import Data

COUNT = 40
COLUMNS = {
    "age": [20 + number for number in range(COUNT)],
    "sex": ["f" if number % 3 else "m" for number in range(COUNT)],
    "site": ["north" if number % 2 else "south" for number in range(COUNT)],
    "yes": [number % 2 for number in range(COUNT)],
    "word": ["ill" if number % 4 else "well" for number in range(COUNT)],
    "grade": [number % 3 for number in range(COUNT)],
    "colour": [("red", "green", "blue")[number % 3] for number in range(COUNT)],
    "days": [0.5 * number for number in range(COUNT)],
    "date": [f"2020-01-{1 + number % 28:02}" for number in range(COUNT)],
}
RANGES: dict[str, Any] = {"age": [0, 120, "years"], "sex": ["f", "m"]}


@pytest.fixture
def table(tmp_path: Path) -> Callable[..., Data]:
    def make(target: str, *also: str, **changes: object) -> Data:
        path = tmp_path / "patients.csv"
        names = ["age", "sex", "site", target, *also]
        lines = [names, *zip(*(map(str, COLUMNS[name]) for name in names), strict=True)]
        path.write_text("\n".join(",".join(line) for line in lines))
        return Data.model_validate({"path": str(path), "target": target, "site": "site", "ranges": RANGES, **changes})

    return make


def with_target(name: str, entry: object) -> dict[str, Any]:
    return RANGES | {name: entry}


KINDS = {
    "0 and 1": ("yes", RANGES, "binary", "yes is 1", 1),
    "0 and 1 by name": ("yes", with_target("yes", {"levels": [0, 1]}), "binary", "yes is 1", 1),
    "two words": ("word", with_target("word", ["well", "ill"]), "binary", "word is ill", 1),
    "two words, fitted": ("word", "from-data", "binary", "word is well", 1),
    "few whole numbers": ("grade", with_target("grade", {"levels": [0, 1, 2]}), "classes", "grade: 0, 1, 2", 3),
    "few whole numbers, fitted": ("grade", "from-data", "classes", "grade: 0, 1, 2", 3),
    "words": ("colour", with_target("colour", ["red", "green", "blue", "grey"]), "classes",
              "colour: red, green, blue, grey", 4),
    "a number": ("days", with_target("days", [0, 40, "days"]), "number", "days", 1),
    "a number, fitted": ("days", "from-data", "number", "days", 1),
    "whole numbers as a number": ("grade", with_target("grade", [0, 5]), "number", "grade", 1),
}  # fmt: skip


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("model", ["linear", "mlp"])
def test_kinds_are_found(table: Callable[..., Data], name: str, model: str):
    target, ranges, kind, outcome, outputs = KINDS[name]
    task = prepare(table(target, ranges=ranges, model=model)).task
    assert (task.kind, task.outcome) == (kind, outcome)
    rows = task.rows()
    assert len(rows.target) == COUNT
    assert rows.target.dtype == (np.int64 if kind == "classes" else np.float32)
    assert task.model(rows.inputs.shape[1])(torch.from_numpy(rows.inputs)).shape == (COUNT, outputs)


def test_a_number_is_scaled_by_its_declared_range(table: Callable[..., Data]):
    task = prepare(table("days", ranges=with_target("days", [0, 40, "days"]))).task
    np.testing.assert_allclose(task.rows().target, np.array(COLUMNS["days"]) / 20 - 1, rtol=1e-6)
    assert task.range is not None
    assert task.range.unit == "days"


def test_what_was_declared_decides_and_not_the_rows(table: Callable[..., Data]):
    """Two tables under one declaration have one way of encoding: the rows' least and greatest value don't matter."""
    first = prepare(table("yes")).task.columns
    COLUMNS["age"], kept = [119 - number for number in range(COUNT)], COLUMNS["age"]
    try:
        assert prepare(table("yes", sha256=None)).task.columns == first
    finally:
        COLUMNS["age"] = kept


def test_only_from_data_fits_and_it_says_so(table: Callable[..., Data]):
    fitted, declared = prepare(table("yes", ranges="from-data")), prepare(table("yes"))
    assert fitted.intake.ranges_fitted
    assert not declared.intake.ranges_fitted
    assert "ranges and categories were taken from these rows" in fitted.intake.notes
    assert (fitted.task.columns[0].low, fitted.task.columns[0].high) == (20, 59)  # type: ignore[union-attr]


def test_columns_without_a_range_are_listed_and_a_template_is_made(table: Callable[..., Data]):
    data = table("grade", "colour", ranges=None)
    with pytest.raises(MissingRanges) as missing:
        prepare(data)
    message, template = str(missing.value), missing.value.template
    assert "numbers: age, grade\n" in message
    assert "text: sex, colour\n" in message
    entries = [line for line in template.splitlines() if line and not line.startswith("#")]
    assert [entry.partition(":")[0] for entry in entries] == [
        'age = "?"  # numbers', 'sex = "?"  # text', 'colour = "?"  # text', 'grade = "?"  # numbers'
    ]  # fmt: skip
    assert all("[" in entry for entry in entries)  # an example of what to write
    for measured in ("59", "red", "blue", "north"):  # nothing that was measured on the rows
        assert measured not in template


def test_a_filled_template_beside_the_table_is_enough(table: Callable[..., Data]):
    data = table("grade", "colour", ranges=None)
    side = side_file(Path(data.path or ""))
    side.write_text('age = [0, 120, "years"]\nsex = ["f", "m"]\ncolour = "leave out"\ngrade = {levels = [0, 1, 2]}\n')
    found = prepare(data)
    assert [column.name for column in found.task.columns] == ["age", "sex"]
    assert "columns left out: colour" in found.intake.notes
    side.write_text(side.read_text().replace('"leave out"', '"?"'))
    with pytest.raises(MissingRanges, match=r"patients.ranges.toml lacks\n  text: colour\n"):
        prepare(data)


@pytest.mark.parametrize(
    "entry",
    [[0], [1, 0], [0, 0], [0, "years", 1], "any", 5, True, {}, {"low": 0}, {"low": 0, "high": True}, ["a"], ["a", "a"],
     {"levels": ["a", 1]}, {"low": 0, "high": 1, "levels": [0, 1]}, {"low": 0, "high": 9, "u": "x"}, [0, float("inf")]],
)  # fmt: skip
def test_an_entry_that_declares_nothing_is_explained(table: Callable[..., Data], entry: object):
    with pytest.raises(Mistake, match=r"data.ranges: age: expected a range or levels such as"):
        prepare(table("yes", ranges=RANGES | {"age": entry}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"target": "yess"}, "data.target: expected a column of patients.csv, got 'yess'; did you mean 'yes'?"),
        ({"site": "clinic"}, "data.site: expected a column of patients.csv, got 'clinic'"),
        ({"site": "yes"}, "data: expected a column of its own for outcome and site, got yes, yes"),
        ({"ranges": RANGES | {"aeg": [0, 1]}}, "aeg: there is no such column .* did you mean 'age'?"),
        ({"ranges": "none.toml"}, "data.ranges: expected a table, 'from-data' or a TOML file, got 'none.toml'"),
        ({"ranges": {"age": "leave out", "sex": "leave out"}}, "expected a column to learn from"),
        ({"kind": "number"}, "patients.csv: expected a public range"),
        ({"kind": "classes", "ranges": RANGES | {"yes": [0, 1]}}, "data.kind: expected 'number', as yes is declared"),
        ({"ranges": RANGES | {"yes": "leave out"}}, "yes: expected a range or levels of the outcome"),
        ({"sha256": "0" * 64}, "it has changed since"),
        ({"path": "none.csv"}, "none.csv: expected a CSV or Parquet file"),
    ],
)
def test_mistakes_are_explained(table: Callable[..., Data], changes: dict, message: str):
    with pytest.raises(Mistake, match=message):
        prepare(table("yes").model_copy(update=changes))


def test_dates_and_numbers_are_times(table: Callable[..., Data]):
    dated = prepare(table("yes", "date", time="date"))
    assert dated.task.by_time
    time = dated.task.rows().time
    assert time is not None
    assert time[1] - time[0] == 1
    np.testing.assert_array_equal(prepare(table("yes", "days", time="days")).task.rows().time, COLUMNS["days"])
    with pytest.raises(
        Mistake, match=r"row 2, column colour: expected a number or a date such as 2026-01-31, got 'red'"
    ):
        prepare(table("yes", "colour", time="colour"))


def test_a_settled_section_means_the_same_elsewhere_and_later(table: Callable[..., Data], monkeypatch, tmp_path: Path):
    data = table("yes", ranges=None)
    side_file(Path(data.path or "")).write_text('age = [0, 120]\nsex = ["f", "m"]\n')
    monkeypatch.chdir(tmp_path)
    fixed = settled(data.model_copy(update={"path": "patients.csv"}))
    assert fixed.path == str(tmp_path / "patients.csv")
    side_file(Path(fixed.path)).unlink()
    assert fixed.ranges == {"age": [0, 120], "sex": ["f", "m"]}
    assert isinstance(prepare(fixed), Prepared)
    Path(fixed.path).write_text(Path(fixed.path).read_text().replace("20,m", "21,m"))
    with pytest.raises(Mistake, match="it has changed since; begin a new run"):
        check_digest(fixed)
    with pytest.raises(Mistake, match=r"data.path: expected a file, there is none at none.csv"):
        settled(data.model_copy(update={"path": "none.csv"}))


def test_mostly_numbers_are_not_taken_for_categories(table: Callable[..., Data]):
    data = table("yes", ranges="from-data")
    path = Path(data.path or "")
    path.write_text(path.read_text().replace("25,", "old,"))
    with pytest.raises(Mistake, match=r"row 7, column age: expected a finite number as in most rows, got 'old'"):
        prepare(data)
