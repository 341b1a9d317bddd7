"""``fedsim look``: a page of a table before training, and a private one that may be handed on."""

import json
import re
import subprocess
import sys
from fractions import Fraction
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fedsim.privacy import looks
from tests.cli.conftest import Ran

RANGES = """
age = [0, 100, "years"]
sex = ["female", "male"]
ill = { levels = [0, 1] }
hospital = ["north", "south", "empty"]
"""
SECRET = "Zq7secret"


class Counts(HTMLParser):
    """The tables of counts on a page: {column: {label: {group of sites: count}}}."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tables: dict[str, dict[str, dict[str, str]]] = {}
        self._rows: list[list[str]] | None = None
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list) -> None:
        if tag == "table" and ("class", "counts") in attrs:
            self._rows = []
        elif self._rows is not None and tag == "tr":
            self._rows.append([])
        elif self._rows and tag in ("th", "td"):
            self._rows[-1].append("")

    def handle_data(self, data: str) -> None:
        if self._rows and self._rows[-1]:
            self._rows[-1][-1] += data.strip()

    def handle_endtag(self, tag: str) -> None:
        if tag == "table" and self._rows is not None:
            head, *body = self._rows
            self.tables[head[0]] = {row[0]: dict(zip(head[1:], row[1:], strict=True)) for row in body}
            self._rows = None


def table(rows: int = 60) -> str:
    lines = ["patient,hospital,age,sex,ill"]
    for number in range(rows):
        site = "north" if number % 3 else "south"
        age = "" if number % 10 == 0 else str(20 + number)
        lines.append(f"{SECRET}{number},{site},{age},{'female' if number % 4 else 'male'},{int(number % 5 == 0)}")
    return "\n".join(lines) + "\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "t.csv").write_text(table())
    return tmp_path


def page_of(folder: Path, name: str = "t.csv.look.html") -> str:
    return (folder / name).read_text("utf-8")


def private(fedsim, *words: str, epsilon: str = "1") -> Ran:
    return fedsim("look", "t.csv", "--site", "hospital", "--target", "ill", "--epsilon", epsilon, *words)


# Without privacy


def test_a_page_has_the_right_counts(fedsim, folder: Path):
    ran = fedsim("look", "t.csv", "--site", "hospital", "--target", "ill")
    assert (ran.code, ran.err) == (0, "")
    assert "no privacy covers them" in ran.out
    assert "60 rows in the file, 60 that can be used, 2 sites, 5 columns" in ran.out
    assert "page: t.csv.look.html" in ran.out
    page = page_of(folder)
    tables = Counts(page).tables
    assert tables["ill"] == {
        "0": {"all sites": "48", "north": "32", "south": "16"},
        "1": {"all sites": "12", "north": "8", "south": "4"},
    }
    assert tables["sex"]["male"] == {"all sites": "15", "north": "10", "south": "5"}
    assert tables["age"]["missing"] == {"all sites": "6", "north": "4", "south": "2"}
    for counts in tables["ill"], tables["sex"], tables["age"]:
        assert [sum(int(row[site]) for row in counts.values()) for site in ("all sites", "north", "south")] == [
            60,
            40,
            20,
        ]
    assert page.index("no privacy covers them") < page.index("<dl")
    assert "north</span><b>40 (67%)" in page
    assert re.search(r"age</th><td class=\"number\">6 \(10%\)", page)
    assert "Not drawn" in page
    assert "patient" in page
    assert "http" not in re.sub(r"xmlns=\S+", "", page)


def test_rows_that_are_left_out_are_told_with_their_reason(fedsim, folder: Path):
    (folder / "t.csv").write_text(table() + "x,,50,male,1\nx,north,50,male,\n")
    assert fedsim("look", "t.csv", "--site", "hospital", "--target", "ill").code == 0
    page = page_of(folder)
    assert "62 in the file; 60 can be used, 2 are left out" in page
    assert re.search(r"no outcome \(ill\)</th><td class=\"number\">1</td><td class=\"number\">63", page)
    assert re.search(r"no site \(hospital\)</th><td class=\"number\">1</td><td class=\"number\">62", page)


def test_neither_outcome_nor_site_is_needed(fedsim, folder: Path):
    assert fedsim("look", "t.csv").code == 0
    tables = Counts(page_of(folder)).tables
    assert tables["ill"] == {"0": {"all rows": "48"}, "1": {"all rows": "12"}}
    assert tables["hospital"] == {"north": {"all rows": "40"}, "south": {"all rows": "20"}}


def test_a_table_with_faults_gives_a_page_that_says_them(fedsim, folder: Path):
    (folder / "t.csv").write_text(table() + "x,north,old,male,1\nx,north,<b>,male,1\n")
    ran = fedsim("look", "t.csv", "--site", "hospital", "--target", "ill", "--ranges", "from-data")
    assert ran.code == 0
    assert "To mend: t.csv, row 62, column age: expected a finite number" in ran.out
    page = page_of(folder)
    assert "To mend before a training" in page
    assert "row 62, column age" in page
    assert "&lt;b&gt;" in page
    assert "<b>," not in page


def test_columns_that_lack_a_range_are_named_and_no_file_is_written_for_them(fedsim, folder: Path):
    (folder / "t.ranges.toml").write_text("age = [0, 100]\n")
    ran = fedsim("look", "t.csv", "--site", "hospital", "--target", "ill", "--json")
    document = json.loads(ran.out)
    assert document["to_declare"] == ["patient", "sex"]
    assert document["rows_by_site"] == {"north": 40, "south": 20}
    assert sorted(path.name for path in folder.iterdir()) == ["t.csv", "t.csv.look.html", "t.ranges.toml"]


@pytest.mark.whole
def test_many_columns_and_many_sites_stay_readable(fedsim, folder: Path):
    names = [f"c{number}" for number in range(150)]
    lines = [",".join(["hospital", *names])]
    for row in range(400):
        lines.append(",".join([f"h{min(row % 40, 3 * (row % 13)):02}", *(str((row * k) % 97) for k in range(150))]))
    (folder / "t.csv").write_text("\n".join(lines) + "\n")
    assert fedsim("look", "t.csv", "--site", "hospital").code == 0
    page = page_of(folder)
    tables = Counts(page).tables
    assert len([name for name in tables if name in names]) == 60
    assert "or beyond the first 60" in page
    assert "78 more" in page
    heads = list(next(iter(tables["c1"].values())))
    assert len(heads) == 14
    assert re.fullmatch(r"other \d+ sites", heads[-1])
    for counts in tables["c1"], tables["c59"]:
        total = {head: sum(int(row[head]) for row in counts.values()) for head in heads}
        assert total["all sites"] == 400
        assert sum(total.values()) == 800


def test_odd_tables_give_a_page(fedsim, folder: Path):
    """One row, values that are all missing, all the same, far away, or nearly all different."""
    for name, text in {
        "one": "a,b\n1,x\n",
        "empty": "a,b\n,\n1,\n2,\n",
        "same": "a,b\n5,x\n5,x\n5,x\n",
        "far": "a,b\n"
        + "".join(f"{n % 7}.5,{n}x\n" for n in range(90))
        + "".join(f"{n}.5,x\n" for n in range(90))
        + "1e9,x\n",
        "dates": "a,b\n" + "".join(f"2020-01-{1 + n % 28:02},x\n" for n in range(90)),
    }.items():
        (folder / "t.csv").write_text(text)
        ran = fedsim("look", "t.csv")
        assert ran.code == 0, (name, ran.err)
        counts = Counts(page_of(folder)).tables["a"]
        rows = len(text.splitlines()) - 1 - (name == "empty")  # a row without any value is none
        assert sum(int(row["all rows"]) for row in counts.values()) == rows, name


def test_a_folder_of_images_is_looked_at_as_a_table_of_its_files(fedsim, folder: Path):
    for site, ill, healthy in (("north", 2, 3), ("south", 1, 4)):
        for name, count in (("ill", ill), ("healthy", healthy)):
            (folder / "scans" / site / name).mkdir(parents=True)
            for number in range(count):
                Image.new("L", (8, 8), 20 * number).save(folder / "scans" / site / name / f"{number}.png")
    assert fedsim("look", "scans").code == 0
    page = (folder / "scans.look.html").read_text()
    assert Counts(page).tables["class"] == {
        "ill": {"all sites": "3", "north": "2", "south": "1"},
        "healthy": {"all sites": "7", "north": "3", "south": "4"},
    }
    assert "2, with 5 rows each" in page
    assert "classes were found in the names of the folders: healthy, ill; ill is positive" in page

    refused = fedsim("look", "scans", "--target", "ill", "--epsilon", "1")
    assert refused.code == 2
    for option in ("--target", "--epsilon"):
        assert f"{option}: expected none beside scans, a folder of images" in refused.err


def test_what_is_not_a_page_of_ours_is_left_as_it_is(fedsim, folder: Path):
    (folder / "mine.html").write_text("<html>mine</html>")
    for place in ("mine.html", "t.csv"):
        before = (folder / place).read_text()
        ran = fedsim("look", "t.csv", "--out", place)
        assert ran.code == 2
        assert "expected a new file or a page of fedsim" in ran.err
        assert (folder / place).read_text() == before
    assert fedsim("look", "t.csv", "--out", "none/x.html").code == 2
    assert "page: x.html" in fedsim("look", "t.csv", "--page", "x.html").out
    assert "page, written anew: x.html" in fedsim("look", "t.csv", "--page", "x.html").out


@pytest.mark.whole
@pytest.mark.parametrize("words", [(), ("--epsilon", "1", "--site", "hospital")])
def test_it_does_not_import_torch(words: tuple[str, ...], folder: Path):
    (folder / "t.ranges.toml").write_text(RANGES)
    code = (
        "import sys\nfrom fedsim.cli.commands import app\n"
        f"sys.argv = ['fedsim', 'look', 't.csv', *{words!r}]\n"
        "try:\n    app()\nexcept SystemExit as stop:\n    assert not stop.code, stop\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=folder, capture_output=True)


# With privacy


@pytest.fixture
def declared(folder: Path) -> Path:
    (folder / "t.ranges.toml").write_text(RANGES)
    return folder


def test_noisy_counts_are_near_the_right_ones_at_a_large_epsilon(fedsim, declared: Path):
    """At epsilon 100 over three columns, a count is off by one with a probability below 1e-14."""
    ran = private(fedsim, "--bins", "4", epsilon="100")
    assert (ran.code, ran.err) == (0, "")
    tables = Counts(page_of(declared, "t.csv.private-look.html")).tables
    heads = ["all sites", "north", "south", "empty", "other sites or none"]
    assert [tables["ill"]["1"][head] for head in heads] == ["12", "8", "4", "0", "0"]
    assert [tables["sex"]["other values"][head] for head in heads] == ["0"] * 5
    assert list(tables["age"]) == ["0 to 25", "25 to 50", "50 to 75", "75 to 100", "missing or unreadable"]
    assert [tables["age"]["missing or unreadable"][head] for head in heads] == ["6", "4", "2", "0", "0"]


def test_no_count_is_written_without_noise(fedsim, declared: Path):
    """At epsilon 0.3 over three columns, a count keeps its value with a probability of 5 %; half of them never do."""
    assert private(fedsim, "--bins", "4", epsilon="100").code == 0
    exact = Counts(page_of(declared, "t.csv.private-look.html")).tables
    assert private(fedsim, "--bins", "4", epsilon="0.3").code == 0
    noisy = Counts(page_of(declared, "t.csv.private-look.html")).tables
    for column in ("ill", "age", "sex"):
        pairs = [
            (counts[site], noisy[column][label][site])
            for label, counts in exact[column].items()
            for site in ("north", "south", "empty", "other sites or none")
        ]
        assert len(pairs) >= 16
        assert sum(before == after for before, after in pairs) < 0.7 * len(pairs)


def test_nothing_of_the_rows_is_said_but_by_noisy_counts(fedsim, declared: Path):
    """A marker in columns without an entry, in another site, in wrong values and in lines that can't be read."""
    odd = f'x,{SECRET}site,50,male,1\nx,north,{SECRET}age,{SECRET}sex,{SECRET}ill\n{SECRET},y\n"{SECRET}\n'
    (declared / "t.csv").write_text(table() + odd)
    ran = private(fedsim)
    assert ran.code == 0
    said = ran.out + ran.err
    for path in declared.iterdir():
        if path.name not in ("t.csv", "t.ranges.toml"):
            said += path.read_text("utf-8")
    assert SECRET not in said
    assert "patient" in said  # it says that this column was not looked at


def test_all_that_is_said_beside_the_noisy_counts_is_the_same_for_other_rows(
    fedsim, declared: Path, monkeypatch: pytest.MonkeyPatch
):
    """With the noisy counts held fast, page, ledger and terminal of tables of one header are equal byte for byte."""
    monkeypatch.setattr(looks, "noisy", lambda counts, planned: np.arange(counts.size).reshape(counts.shape))
    monkeypatch.setattr("secrets.token_hex", lambda size: "0" * 2 * size)

    def told(text: str) -> str:
        (declared / "t.csv").write_text(text)
        ran = private(fedsim)
        assert ran.code == 0
        said = ran.out + ran.err
        for name in ("t.csv.private-look.html", "t.csv.look.ledger.json"):
            said += page_of(declared, name)
            (declared / name).unlink()
        return re.sub(r'"when": "[^"]+"', "", said)

    few = "patient,hospital,age,sex,ill\n" + "9,else,x,y,z\n,,\n"
    assert told(few) == told(table(90)) == told(table(1))


def test_the_ledger_says_what_was_spent_and_no_look_is_forgotten(fedsim, declared: Path):
    assert private(fedsim).code == 0
    ledger = json.loads(page_of(declared, "t.csv.look.ledger.json"))
    assert ledger["epsilon"] == {"each site": 1.0}
    assert [entry["mechanism"]["column"] for entry in ledger["entries"]] == ["ill", "age", "sex"]
    assert {entry["mechanism"]["epsilon"] for entry in ledger["entries"]} == {"1/3"}
    assert {entry["mechanism"]["noise"] for entry in ledger["entries"]} == {"discrete Laplace"}

    ran = private(fedsim, "--page", "share.html", epsilon="0.25")
    assert "This is look 2 at this table. Epsilons add up: 1.25 in all." in ran.out
    for name in ("t.csv.look.ledger.json", "share.ledger.json"):
        ledger = json.loads(page_of(declared, name))
        assert ledger["epsilon_exact"] == "5/4"
        assert sum(Fraction(entry["mechanism"]["epsilon"]) for entry in ledger["entries"]) == Fraction("1.25")
        assert [entry["round"] for entry in ledger["entries"]] == [1] * 3 + [2] * 3
    assert "0.25 by this look; 1.25 by all 2 looks" in page_of(declared, "share.html")

    # What stands beside an earlier page counts, too, if the table's own ledger is gone.
    (declared / "t.csv.look.ledger.json").unlink()
    assert "3.25 in all" in private(fedsim, "--out", "share.html", epsilon="2").out


def test_a_look_is_charged_before_anything_of_it_is_written(fedsim, declared: Path, monkeypatch: pytest.MonkeyPatch):
    def fails(*_: object) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("fedsim.report.private_look.private_page", fails)
    assert private(fedsim).code == 1
    assert not (declared / "t.csv.private-look.html").exists()
    assert json.loads(page_of(declared, "t.csv.look.ledger.json"))["epsilon"] == {"each site": 1.0}


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"entries": []}', "x"])
def test_with_a_damaged_ledger_nothing_is_released(content: str, fedsim, declared: Path):
    (declared / "t.csv.look.ledger.json").write_text(content)
    ran = private(fedsim)
    assert ran.code == 2
    assert ran.err.count("\n") == 1
    assert not (declared / "t.csv.private-look.html").exists()
    assert page_of(declared, "t.csv.look.ledger.json") == content


def test_a_ledger_of_another_table_is_not_written_over(fedsim, declared: Path):
    assert private(fedsim, "--out", "share.html").code == 0
    (declared / "u.csv").write_text(table())
    words = ("--site", "hospital", "--sites", "north", "--epsilon", "1", "--ranges", "t.ranges.toml")
    ran = fedsim("look", "u.csv", *words, "--out", "share.html")
    assert ran.code == 2
    assert "expected the ledger of u.csv, got that of t.csv" in ran.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--epsilon", "0"), "--epsilon: expected a number from"),
        (("--epsilon", "1", "--bins", "0"), "--bins: expected a whole number from 1 to 100, got 0"),
        (("--epsilon", "1", "--ranges", "from-data"), "--ranges: expected public ranges"),
        (("--sites", "a"), "--sites: expected --epsilon beside it"),
        (("--bins", "5"), "--bins: expected --epsilon beside it"),
        (("--epsilon", "1", "--target", "patient"), "expected public levels or a range of the outcome"),
        (("--epsilon", "1", "--out", "t.csv"), "expected a new file or a page of fedsim"),
    ],
)
def test_what_can_not_be_asked_for_is_told_and_nothing_is_spent(words, message: str, fedsim, declared: Path):
    ran = fedsim("look", "t.csv", "--site", "hospital", *words)
    assert ran.code == 2
    assert message in ran.err
    assert SECRET not in ran.err
    assert sorted(path.name for path in declared.iterdir()) == ["t.csv", "t.ranges.toml"]


def test_without_declared_columns_a_private_look_says_what_to_do(fedsim, folder: Path):
    ran = fedsim("look", "t.csv", "--epsilon", "1")
    assert ran.code == 2
    assert "expected columns with public ranges or levels in t.ranges.toml or --ranges" in ran.err
