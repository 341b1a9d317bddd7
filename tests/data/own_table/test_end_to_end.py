"""A table nobody has seen goes from one command to a report, and the report says what it does not cover."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fedsim import load, run
from fedsim.cli import commands as cli
from fedsim.experiments.experiment import execute, resume
from fedsim.mistakes import Mistake
from fedsim.report.statement import statement
from fedsim.scenario.files import OWN_TRAINING, read, read_own

pytestmark = pytest.mark.usefixtures("charts_undrawn")

SMALL = ["--set", "training.rounds=2", "--seeds", "2"]
STAGES = np.array(["one", "two", "three"])
PRIVATE = ["--set", "privacy.unit=record", "--set", "privacy.epsilon=4", "--set", "privacy.delta=1e-4"]
TARGETS = {
    "ill": ("binary", ["auc", "accuracy", "log_loss"]),
    "stage": ("classes", ["accuracy", "log_loss", "auc"]),
    "days": ("number", ["r2", "rmse"]),
}
RANGES = 'age = [0, 120, "years"]\nsex = ["f", "m"]\n'


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a table for each kind of outcome, with more ill and longer stays among the old."""
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    age = random.integers(20, 90, 120)
    outcomes = {
        "ill": (age + random.normal(0, 15, 120) > 55).astype(int),
        "stage": np.array(["one", "two", "three"])[
            np.clip((age - 20 + random.normal(0, 9, 120)) // 24, 0, 2).astype(int)
        ],
        "days": (age / 4 + random.normal(0, 2, 120)).round(2),
    }
    for target, values in outcomes.items():
        rows = zip(random.choice(["north", "south"], 120), age, random.choice(["f", "m"], 120), values, strict=True)
        text = f"clinic,age,sex,{target}\n" + "".join(f"{','.join(map(str, row))}\n" for row in rows)
        (tmp_path / f"{target}.csv").write_text(text)
    (tmp_path / "ill.ranges.toml").write_text(RANGES)
    (tmp_path / "stage.ranges.toml").write_text(RANGES + 'stage = ["one", "two", "three"]\n')
    (tmp_path / "days.ranges.toml").write_text(RANGES + 'days = [0, 60, "days"]\n')
    return tmp_path


@pytest.fixture
def fedsim(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, str, str]]:
    def call(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["fedsim", *words])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        return int(stop.value.code or 0), *capsys.readouterr()

    return call


@pytest.mark.whole
@pytest.mark.parametrize("target", TARGETS)
def test_one_command_makes_a_report(folder: Path, fedsim, target: str):
    kind, metrics = TARGETS[target]
    code, out, err = fedsim(
        "run", "--data", f"{target}.csv", "--target", target, "--site", "clinic", *SMALL, *PRIVATE, "--json"
    )
    assert (code, err) == (0, "")
    document = json.loads(out)
    assert document["kind"] == kind
    assert list(dict.fromkeys(arm["metric"] for arm in document["arms"])) == metrics
    assert document["data"]["rows_in"] == document["data"]["rows_used"] == 120
    page = (Path(document["run_dir"]) / "report.html").read_text()
    assert f"Rows of {target}.csv" in page
    said = {
        "ill": "The AUC inside sites says how often",
        "stage": "Without a model, always naming the most common class has an accuracy of",
        "days": "R² inside sites is the share of",
    }
    assert said[target] in page
    assert "Without a model, always" in page
    assert ("Can the probabilities be believed?" in page) == (target != "days")
    assert ("Which mistakes does it make?" in page) == (target != "days")
    assert "What does the model weigh?" in page
    assert "age" in set(load(document["run_dir"]).measured.coefficients["input"])
    assert str(folder) not in page  # a report is handed on: no path of this machine
    for metric in document["arms"]:
        assert metric["mean"] is not None
    finished = load(document["run_dir"])
    assert not finished.ledger["ranges_fitted"]
    assert "Preprocessing" not in dict(statement(finished))
    assert fedsim("show", document["run_dir"])[0] == 0


@pytest.mark.whole
def test_a_column_of_times_splits_by_time_and_the_report_says_what_the_intervals_are(folder: Path, fedsim):
    words = ("--data", "days.csv", "--target", "days", "--site", "clinic", "--set", "data.time=age")
    code, _, _ = fedsim("run", *words, "--set", "training.rounds=2", "--seeds", "2", "--out", "run")
    assert code == 0
    finished = load("run")
    assert finished.overlap == 0.0 < finished.scenario.split.overlap
    rows = finished.sites[finished.sites["site"] == "north"]
    assert rows.groupby("arm")["mean"].nunique().eq(1).all()  # the same test rows under both seeds
    page = Path("run/report.html").read_text()
    assert "Each site's latest rows are its test rows, under every seed" in page.replace("&#39;", "'")
    assert "at each site, by time: the latest rows are for testing" in page


@pytest.mark.whole
def test_fitted_ranges_are_not_covered_and_every_page_says_so(folder: Path, fedsim):
    (folder / "ill.ranges.toml").unlink()  # its entries would hold, and no range would be fitted
    code, out, _ = fedsim(
        "run", "--data", "ill.csv", "--target", "ill", "--site", "clinic", "--ranges", "from-data", *SMALL, *PRIVATE,
        "--out", "run",
    )  # fmt: skip
    assert code == 0
    assert "Ranges were taken from the data: no guarantee covers them." in out
    finished = load("run")
    assert finished.ledger["ranges_fitted"]
    told = dict(statement(finished))
    assert told["Preprocessing"].startswith("Not covered.")
    assert "does not cover preprocessing" in told["Warning"]
    page = Path("run/report.html").read_text()
    assert "but not for preprocessing: ranges were taken from the records" in page
    assert "The guarantee does not cover preprocessing" in page


@pytest.mark.whole
def test_missing_ranges_leave_a_template_and_never_write_over_one(folder: Path, fedsim):
    side = folder / "ill.ranges.toml"
    side.unlink()
    words = ("run", "--data", "ill.csv", "--target", "ill", "--site", "clinic", *SMALL)
    code, _, err = fedsim(*words)
    assert code == 2
    assert f"{side.name} was written: fill it in and run again" in err
    template = side.read_text()
    assert 'age = "?"' in template
    side.write_text(template + "# my notes\n")
    code, _, err = fedsim(*words)
    assert code == 2
    assert f"fill in {side.name}, which is there" in err
    assert side.read_text().endswith("# my notes\n")
    side.write_text(RANGES)
    assert fedsim(*words)[0] == 0
    assert not (folder / "runs" / "none").exists()


@pytest.mark.whole
def test_without_a_column_of_sites_a_partition_makes_them(folder: Path, fedsim):
    words = ("run", "--data", "ill.csv", "--target", "ill", "--set", "training.rounds=1", "--seeds", "1")
    code, _, err = fedsim(*words)
    assert code == 2
    assert "data.site: expected the column that names each row's site, on the command line --site COLUMN, or" in err
    assert "another partition, e.g. partition.by=iid and partition.sites=8" in err
    (folder / "ill.ranges.toml").write_text(RANGES + 'clinic = "leave out"\n')
    code, out, err = fedsim(*words, "--set", "partition.by=iid", "--set", "partition.sites=4", "--json")
    assert (code, err) == (0, "")
    assert list(json.loads(out)["arms"][0]["sites"]) == ["site-00", "site-01", "site-02", "site-03"]


@pytest.mark.whole
def test_a_scenario_file_says_where_its_table_is_from_its_own_place(folder: Path, monkeypatch: pytest.MonkeyPatch):
    study = folder / "study.toml"
    study.write_text(
        'title = "Mine"\nseeds = 1\n[data]\npath = "ill.csv"\ntarget = "ill"\nsite = "clinic"\n[training]\nrounds = 1\n'
    )
    (folder / "elsewhere").mkdir()
    monkeypatch.chdir(folder / "elsewhere")
    chosen = read(study)
    assert chosen.training.rounds == 1
    assert chosen.training.optimizer.name == OWN_TRAINING["optimizer"]["name"]
    finished = execute(chosen)
    assert finished.scenario.data.path == str(folder / "ill.csv")


@pytest.mark.whole
def test_a_run_is_about_one_state_of_the_file(folder: Path):
    """The noise has the file's digest in its name: two files that differ by a row share none."""
    given = ["data.path=ill.csv", "data.target=ill", "data.site=clinic", "training.rounds=1", "seeds=1"]
    first = execute(read_own(given), "one").scenario
    path = folder / "ill.csv"
    path.write_text(path.read_text().rsplit("\n", 2)[0] + "\n")
    second = execute(read_own(given), "two").scenario
    assert first.release != second.release
    Path("one/manifest.json").unlink()
    for kept in Path("one/checkpoints").iterdir():
        kept.unlink()
    with pytest.raises(Mistake, match="it has changed since; begin a new run"):
        resume("one")


@pytest.mark.whole
def test_from_python(folder: Path):
    table = run(
        None, "data.path=days.csv", "data.target=days", "data.site=clinic", "training.rounds=1", seeds=2, out="r"
    )
    assert set(table["metric"]) == {"r2", "rmse"}
    assert set(table["arm"]) == {"federated", "centralized", "local"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ("--data", "ill.csv"),
            "data.target: expected the column of ill.csv with the outcome, on the command line --target COLUMN",
        ),
        ((), "run: expected a scenario"),
        (
            ("--data", "none.csv", "--target", "ill", "--site", "clinic"),
            "none.csv: expected a CSV or Parquet file, got No such file",
        ),
        (("hospital-heart", "--data", "ill.csv"), "data.path: task hospital/heart has data of its own"),
        (("hospital-heart", "--target", "ill"), "data.target: expected none beside a task"),
    ],
)
def test_mistakes_on_the_command_line_are_explained(folder: Path, fedsim, words: tuple[str, ...], message: str):
    code, out, err = fedsim("run", *words)
    assert (code, out) == (2, "")
    assert message in err
    assert "Traceback" not in err


def test_a_part_of_the_optimizer_leaves_its_other_usual_parts(tmp_path: Path):
    """A learning rate that is typed changes no other setting: the optimizer stays the usual one of own tables."""
    path = tmp_path / "own.csv"
    path.write_text("outcome,site,age\n1,a,30\n0,b,40\n")
    given = [f"data.path={path}", "data.target=outcome", "data.site=site"]
    usual = read_own(given).training.optimizer
    assert usual.name == "adam"
    changed = read_own([*given, "training.optimizer.lr=0.3"]).training.optimizer
    assert changed == usual.model_copy(update={"lr": 0.3})
    other = read_own([*given, "training.optimizer={name=sgd, lr=0.3}"]).training.optimizer
    assert (other.name, other.weight_decay) == ("sgd", 0.0)
