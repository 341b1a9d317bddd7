"""``fedsim check-data``: a table is read as a run would read it, without PyTorch, and all is said at once."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fedsim.cli.commands import app
from tests.data.own_table.pictures import write_folder

MESSY = (
    "patient;hospital;visit;weight;sex;ill\n"
    + "".join(
        f"P{number};{'north' if number % 2 else 'south'};{1 + number % 28:02}.01.2020;7{number % 10},5;"
        f"{'female' if number % 3 else 'male'};{'yes' if number % 4 else 'no'}\n"
        for number in range(60)
    )
    + "P60;north;01.02.2020;unknown;femal;Yes\n"
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "patients.csv").write_text(MESSY)
    return tmp_path


def call(*words: str) -> tuple[int, dict]:
    result = CliRunner().invoke(app, ["check-data", "patients.csv", "--target", "ill", "--site", "hospital", *words])
    return result.exit_code, json.loads(result.stdout)


def test_every_column_is_surveyed_and_all_that_lacks_is_told_at_once(folder: Path):
    code, document = call("--json")
    kinds = {column["name"]: (column["role"], column["kind"], column["missing"]) for column in document["columns"]}
    assert code == 2
    assert document["rows_in"] == 61
    assert kinds["hospital"] == ("site", "text", 0)
    assert kinds["visit"] == ("feature", "dates", 0)
    assert kinds["weight"][1] == "unclear"
    faults = "\n".join(document["faults"])
    assert "dates: visit" in faults
    assert "patients.ranges.toml was written" in faults
    assert "weight" in (folder / "patients.ranges.toml").read_text()


def test_with_from_data_the_faults_of_values_are_left_and_an_entry_mends_them(folder: Path):
    code, document = call("--json", "--ranges", "from-data")
    assert code == 2
    assert len(document["faults"]) == 1
    assert 'write missing = ["unknown"] in its entry' in document["faults"][0]

    side = 'weight = { missing = ["unknown"] }\nsex = { read_as = { femal = "female" } }\n'
    (folder / "patients.ranges.toml").write_text(side)
    code, document = call("--json", "--ranges", "from-data")
    assert (code, document["faults"]) == (0, [])
    notes = "\n".join(document["notes"])
    for note in ("patient was left aside", "weight: taken for missing: 'unknown' (1)", "visit: read as days since"):
        assert note in notes


@pytest.mark.whole
def test_it_does_not_import_torch(folder: Path):
    """The answer is to come within a second or two."""
    code = (
        "import sys\nfrom fedsim.cli.commands import app\n"
        "sys.argv = 'fedsim check-data patients.csv --target ill --ranges from-data'.split()\n"
        "try:\n    app()\nexcept BaseException:\n    pass\nassert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=folder, capture_output=True)


def test_a_folder_of_images_is_surveyed(tmp_path: Path):
    write_folder(tmp_path / "scans", count=3)
    result = CliRunner().invoke(app, ["check-data", str(tmp_path / "scans"), "--json"])
    document = json.loads(result.stdout)
    assert result.exit_code == 0
    assert document["rows_in"] == 12
    found = {column["role"]: (column["shown"], column["entry"]) for column in document["columns"]}
    assert found["site"] == ("north (6), south (6)", "")
    assert found["outcome"] == ("healthy (6), ill (6)", "found")
    assert "12 images, 12 x 16 pixels (height x width), grey" in document["notes"]

    (tmp_path / "scans" / "north" / "ill" / "0.png").write_bytes(b"none")
    (tmp_path / "scans" / "loose.png").write_bytes(b"none")
    result = CliRunner().invoke(app, ["check-data", str(tmp_path / "scans"), "--json"])
    assert result.exit_code == 2
    assert len(json.loads(result.stdout)["faults"]) == 2

    result = CliRunner().invoke(app, ["check-data", str(tmp_path / "scans")])
    assert "expected PNG or JPEG, got something else: 1 file: north/ill/0.png" in result.stderr


@pytest.mark.whole
def test_a_folder_of_images_is_surveyed_without_pytorch(tmp_path: Path):
    write_folder(tmp_path / "scans", count=1)
    code = (
        "import sys\nfrom fedsim.data.own_table.survey import survey\nfrom fedsim.scenario.files import read_own\n"
        "assert survey(read_own([f'data.path={sys.argv[1]}']).data).fault is None\nassert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "scans")], check=True)
