"""A private look: one line of the file more or less changes one count of each histogram by one, and nothing else."""

import gzip
import random
from pathlib import Path

import numpy as np
import pytest

from fedsim.data.own_table.looking.private_look import OTHER_SITES, Plan, counted, plan_of
from fedsim.mistakes import Mistake
from fedsim.scenario.schema import Data

RANGES = """
age = [0, 120, "years"]
weight = { low = 0, high = 200, unit = "kg", written = "1.234,5", missing = [999, "unknown"] }
dose = { low = 0.1, high = 1000, scale = "log" }
sex = { levels = ["female", "male"], read_as = { m = "male" } }
stage = { levels = [1, 2, 3] }
visit = { from = "2015-01-01", to = "2025-01-01" }
seen = { from = "2015-01-01", to = "2025-01-01", written = "31.12.2020" }
ill = [0, 1]
note = "leave out"
"""
HEADER = "patient;hospital;age;weight;dose;sex;stage;visit;seen;ill;note"
NAMES = HEADER.split(";")
USUAL = {
    "patient": "P1", "hospital": "north", "age": "61", "weight": "70,5", "dose": "12", "sex": "female", "stage": "2",
    "visit": "2020-02-01", "seen": "01.02.2020", "ill": "1", "note": "fine",
}  # fmt: skip
ODD_VALUES = (
    *("", "NA", "-", "unknown", "999", "9999", "-5", "1e400", "nan", "inf", "130,8", "1.234", "1,234", "85,163"),
    *("70 kg", "70,5 kg", "$5", "45%", "1 234", "0x10", "61 years", "61,0", "Female", "FEMALE ", "m", "divers", "2.0"),
    *("two", "2020-13-01", "31.12.2019", "12/31/2019", "2019-12-31", "2019-12-31T10:00", "1900-01-01", "0", "true"),
    *("Total", "South", "NORTH", "east", "x" * 500, "\u200bnorth", "north\u00a0", "١٢", '"', '""', "é", "\x00", "\t"),
)
ODD_LINES = (
    *(b"", b"   ", b";;;;;;;;;;", b"one field", b'"not closed;north;61', b'P;north;"61;70;1;f;1;x;x;1;y'),
    b"\xff\xfe;north",
    *(b";".join([b"x"] * 30), b"P;north;61;70;12;male;2;2020-02-01;01.02.2020;1;fine;;;"),
    b"a\rb;north;1;1;1;1;1;1;1;1;1",
    *(b"Total;;61;70,5;12;female;2;;;1;", b"sep=,", HEADER.encode()),
    *(b'"a ""b"" c";north;5;5;5;male;1;;;0;', b"\xef\xbb\xbfP"),
    b"P;north;" + b"9" * 5_000_000,
)  # fmt: skip


def line(**values: str) -> bytes:
    return ";".join({**USUAL, **values}[name] for name in NAMES).encode()


def mutated(seed: int, count: int) -> list[bytes]:
    """Return lines in which some values are odd."""
    rng = random.Random(seed)
    lines = []
    for _ in range(count):
        odd = rng.sample(NAMES, rng.choice([1, 1, 2, 5]))
        lines.append(line(**{name: rng.choice(ODD_VALUES) for name in odd}))
    return lines


def planned(
    folder: Path, lines: list[bytes], *, header: str = HEADER, end: bytes = b"\n", sites: str = "north,south"
) -> Plan:
    folder.mkdir(exist_ok=True)
    (folder / "t.csv").write_bytes(end.join([header.encode(), *lines, b""]))
    (folder / "t.ranges.toml").write_text(RANGES)
    data = Data(path=str(folder / "t.csv"), target="ill", site="hospital", time="visit")
    return plan_of(data, sites.split(","), 8)


def counts(folder: Path, lines: list[bytes], **more: str | bytes) -> dict[str, np.ndarray]:
    plan = planned(folder, lines, **more)  # type: ignore[arg-type]
    return dict(zip([column.name for column in plan.columns], counted(plan), strict=True))


@pytest.mark.whole
@pytest.mark.parametrize("seed", range(4))
def test_a_row_changes_one_count_of_each_histogram_by_one(seed: int, tmp_path: Path):
    """Whatever the row is, wherever it stands, and whatever the other rows are: in one notation or in several."""
    rng = random.Random(100 + seed)
    base = mutated(seed, 40) if seed % 2 else [line(weight=f"{70 + number},5") for number in range(25)]
    plan = planned(tmp_path, base)
    without = counted(plan)
    for extra in (*ODD_LINES, *mutated(seed + 50, 120)):
        place = rng.choice([0, len(base), rng.randrange(len(base))])
        with_row = planned(tmp_path, [*base[:place], extra, *base[place:]])
        assert with_row == plan  # what is public does not depend on rows
        is_row = bool(extra.strip(b" ;\t"))
        for before, after in zip(without, counted(with_row), strict=True):
            change = after - before
            assert (change >= 0).all(), extra[:80]
            assert change.sum() == is_row, extra[:80]


def test_what_is_counted_is_what_another_reader_counts(tmp_path: Path):
    rng = random.Random(5)
    lines = []
    expected: dict[tuple[int, str], int] = {}
    ages = np.zeros((3, 9), int)
    sites = ["north", "south", "east"]
    for _ in range(300):
        site = rng.randrange(3)
        age = rng.choice(["", *map(str, range(-3, 125))])
        sex = rng.choice(["female", "male", "Male", "m", "divers", "NA"])
        lines.append(line(hospital=sites[site], age=age, sex=sex))
        ages[site, 8 if not age else min(max(int(age) // 15, 0), 7)] += 1
        expected[site, sex] = expected.get((site, sex), 0) + 1
    found = counts(tmp_path, lines)
    assert np.array_equal(found["age"], ages)
    for site in range(3):
        row = [expected.get((site, sex), 0) for sex in ("female", "male", "Male", "m", "divers", "NA")]
        assert found["sex"][site].tolist() == [row[0], sum(row[1:4]), row[4], row[5]]


@pytest.mark.parametrize(
    ("column", "value", "number"),
    [
        ("age", "0", 0), ("age", "120", 7), ("age", "121", 7), ("age", "-1", 0), ("age", "61 years", 4),
        ("age", "61,0", 8),
        ("age", "6.1e1", 4), ("age", "61 kg", 8), ("age", "1e999", 8), ("age", "None", 8),
        ("weight", "70,5", 2), ("weight", "70.5", 8), ("weight", "1.070,5", 7), ("weight", "70 kg", 2),
        ("weight", "70 lb", 8),
        ("weight", "999", 8), ("weight", "unknown", 8), ("weight", "199,9", 7),
        ("dose", "0.1", 0), ("dose", "1000", 7), ("dose", "10", 4), ("dose", "9.9", 3),
        ("sex", "female", 0), ("sex", "FEMALE", 0), ("sex", "m", 1), ("sex", "divers", 2), ("sex", "", 3),
        ("stage", "2", 1), ("stage", "2.0", 1), ("stage", "4", 3), ("stage", "two", 3), ("stage", "?", 4),
        ("visit", "2015-01-01", 0), ("visit", "2024-12-31", 7), ("visit", "31.12.2024", 8), ("visit", "2030-01-01", 7),
        ("seen", "31.12.2024", 7), ("seen", "2024-12-31", 8), ("seen", "12.31.2024", 8),
        ("ill", "0", 0), ("ill", "1", 1), ("ill", "2", 2), ("ill", "yes", 2), ("ill", "", 3),
    ],
)  # fmt: skip
def test_a_value_has_its_bin_by_itself(column: str, value: str, number: int, tmp_path: Path):
    """Also where all other rows are written in another way."""
    alone = counts(tmp_path / "a", [line(**{column: value})])[column]
    assert alone[0].tolist() == [int(place == number) for place in range(alone.shape[1])]
    others = [line(**{column: odd}) for odd in ("130,8", "1.234,5", "31.12.2019", "divers", "999")] * 5
    before = counts(tmp_path / "b", others)[column]
    after = counts(tmp_path / "b", [*others, line(**{column: value})])[column]
    assert np.array_equal(after - before, alone)


def test_sites_are_those_of_the_list(tmp_path: Path):
    lines = [line(hospital=site) for site in ("north", "NORTH", "west", "", "east", "NA")]
    plan = planned(tmp_path, lines, sites="north,south,empty")
    assert plan.sites.names == ("north", "south", "empty", OTHER_SITES)
    assert counted(plan)[0].sum(axis=1).tolist() == [2, 0, 0, 4]


def test_the_ranges_may_list_the_sites(tmp_path: Path):
    (tmp_path / "t.csv").write_text("hospital,age\nnorth,1\nNorthern,2\nsouth,3\n")
    entry = 'hospital = { levels = ["north", "south"], read_as = { Northern = "north" } }\nage = [0, 9]\n'
    (tmp_path / "t.ranges.toml").write_text(entry)
    plan = plan_of(Data(path=str(tmp_path / "t.csv"), site="hospital"), [], 3)
    assert [column.name for column in plan.columns] == ["age"]
    assert counted(plan)[0].tolist() == [[2, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0]]


def test_files_are_sites_and_without_a_column_of_sites_all_rows_are_one(tmp_path: Path):
    (tmp_path / "north.csv").write_text("age\n1\n")
    (tmp_path / "south.csv").write_text("x;age\n0;1\n0;8\n")
    (tmp_path / "r.toml").write_text("age = [0, 9]\n")
    data = Data(path=str(tmp_path / "*.csv"), ranges=str(tmp_path / "r.toml"))
    assert counted(plan_of(data, ["south", "west"], 3))[0].sum(axis=1).tolist() == [2, 0, 1]
    data = Data(path=str(tmp_path / "south.csv"), ranges=str(tmp_path / "r.toml"))
    plan = plan_of(data, [], 3)
    assert plan.sites.names == ("all rows",)
    assert plan.left_aside == ("x",)
    assert counted(plan)[0].tolist() == [[1, 0, 1, 0]]


@pytest.mark.parametrize("form", ["crlf", "gzip", "bom", "sep"])
def test_ordinary_forms_of_csv_give_the_same_counts(form: str, tmp_path: Path):
    lines = [line(age=str(age)) for age in range(0, 100, 7)]
    expected = counts(tmp_path / "plain", lines)
    folder = tmp_path / form
    plan = planned(folder, lines, end=b"\r\n" if form == "crlf" else b"\n")
    file = folder / "t.csv"
    content = file.read_bytes()
    if form == "gzip":
        file.write_bytes(gzip.compress(content))
    elif form == "bom":
        file.write_bytes(b"\xef\xbb\xbf" + content)
    elif form == "sep":
        file.write_bytes(b"sep=;\n" + content)
    for before, after in zip(expected.values(), counted(plan), strict=True):
        assert np.array_equal(before, after)


def test_columns_without_an_entry_are_not_looked_at(tmp_path: Path):
    plan = planned(tmp_path, [line()])
    assert plan.left_aside == ("patient", "note")
    assert {"patient", "note", "hospital"}.isdisjoint(column.name for column in plan.columns)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ranges": "from-data"}, "--ranges: expected public ranges"),
        ({"target": "patient"}, "expected public levels or a range of the outcome"),
        ({"target": "note"}, "expected public levels or a range of the outcome"),
        ({"site": None}, "--sites: expected --site"),
        ({"sites": ""}, "--sites: expected the public list of sites"),
        ({"sites": "north,North"}, "--sites: expected each site once"),
        ({"site": "clinic"}, "expected each of the columns clinic once in its first line"),
    ],
)
def test_what_is_not_public_is_refused(change: dict, message: str, tmp_path: Path):
    planned(tmp_path, [line()])
    sites = change.pop("sites", "north,south")
    values = {"path": str(tmp_path / "t.csv"), "target": "ill", "site": "hospital", **change}
    with pytest.raises(Mistake, match=message):
        counted(plan_of(Data(**values), [name for name in sites.split(",") if name], 8))


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"\n\n", b"SECRET1;SECRET2\nSECRET3\n", b'"SECRET;\n', b"age\rSECRET\r"),
        *(b"PAR1SECRET", b"\x1f\x8bSECRET", b"SECRET\x00"),
    ],
)  # fmt: skip
def test_an_error_says_nothing_of_the_file(content: bytes, tmp_path: Path):
    """Also where the first line is a row and no header."""
    (tmp_path / "t.csv").write_bytes(content)
    (tmp_path / "t.ranges.toml").write_text("age = [0, 9]\n")
    with pytest.raises(Mistake) as refusal:
        counted(plan_of(Data(path=str(tmp_path / "t.csv")), [], 3))
    assert "SECRET" not in str(refusal.value)
