"""What ``fedsim show`` says of tasks and scenarios, and draws of their sites."""

import tomllib
from importlib.metadata import EntryPoint
from pathlib import Path

import numpy as np
import pytest
import tomli_w
from torch import nn

from fedsim.cli.cards import card
from fedsim.cli.pictures import draw
from fedsim.data import loading
from fedsim.data.contents import Contents, contents_of
from fedsim.data.loading import task_of
from fedsim.data.tables import Levels, Number, encode
from fedsim.data.task import Rows, Task
from fedsim.mistakes import Mistake
from fedsim.outcomes.kinds.number import QUANTILES
from fedsim.scenario import catalog
from fedsim.scenario.files import parse, read

PNG = b"\x89PNG\r\n\x1a\n"
COLUMNS = (Number("age", 0, 100, "years", missing=True), Levels("sex", ("f", "m"), missing=True), Number("dose", 0, 1))


def falls(sites: int = 160) -> Task:
    import pandas as pd

    random, count = np.random.default_rng(0), 10 * sites
    frame = pd.DataFrame({"age": random.uniform(0, 100, count), "sex": random.choice(["f", "m"], count), "dose": 0.5})
    frame.loc[::4, "age"] = None
    frame.loc[::8, "sex"] = None
    target = random.uniform(-1, 1, count).astype(np.float32)
    site = np.array([f"ward {number % sites:03}" for number in range(count)])
    groups = {"sex": frame["sex"].fillna("unknown").to_numpy(dtype=str)}
    return Task(
        title="Falls in wards",
        outcome="falls in a year",
        source="made up",
        columns=COLUMNS,
        model=lambda inputs: nn.Linear(inputs, 1),
        load=lambda: Rows(encode(frame, COLUMNS), target, site, groups=groups),
        kind="number",
        range=Number("falls", 0, 40, "falls"),
        licence="CC0",
    )


FALLS, NOT_A_TASK = falls(), object()


@pytest.fixture(autouse=True)
def entry_points(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let another package bring two tasks, one of which is none and one of whose names is taken."""
    found = [
        EntryPoint("clinic/falls", "tests.cli.test_cards:FALLS", "fedsim.tasks"),
        EntryPoint("clinic/none", "tests.cli.test_cards:NOT_A_TASK", "fedsim.tasks"),
        EntryPoint("hospital/heart", "tests.cli.test_cards:FALLS", "fedsim.tasks"),
    ]
    monkeypatch.setattr(catalog, "_entries", lambda: catalog._not_taken(found))


def test_a_task_of_another_package_is_listed_and_run_by_its_name():
    assert "clinic/falls" in catalog.titles("tasks")
    assert loading.named("clinic/falls") is FALLS
    assert loading.named("hospital/heart") is not FALLS
    with pytest.raises(
        Mistake, match=r"task clinic/none: expected a fedsim.data.task.Task at its entry point, got object"
    ):
        card("clinic/none")


def test_a_tasks_card_has_rows_sites_missing_values_groups_range_and_licence():
    found = card("clinic/falls")
    for words in (
        "licence: CC0", "range:   0 to 40 falls", "0 to 100 years, 25% missing", "one of f, m, 12% missing",
        "160 sites, 1600 rows; 10 to 10 at a site", "ward 000      10 rows, mean", "and 120 more; --json lists all",
    ):  # fmt: skip
        assert words in found.text
    assert "dose  0 to 1\n" in found.text
    assert len(found.values["sites"]) == 160
    assert sum(found.values["groups"]["sex"].values()) == 1600
    assert found.values["sites"]["ward 007"]["mean"] == pytest.approx(
        20 * (FALLS.rows().target[7::160].mean() + 1), rel=1e-4
    )


def test_counts_are_those_of_a_naive_count():
    scenario = parse({"name": "x", "title": "t", "task": "hospital/heart"})
    found, rows = contents_of(scenario), loading.rows_of(scenario)
    assert found is not None
    for place, site in enumerate(found.sites):
        own = rows.target[rows.site == site]
        assert found.counts[place].tolist() == [(own == 0).sum(), (own == 1).sum()]
        assert found.sites[site]["rows"] == len(own)
    falls = contents_of(parse({"name": "x", "title": "t", "task": "clinic/falls"}))
    assert falls is not None
    assert falls.counts.shape == (160, QUANTILES)
    assert falls.counts.sum(axis=0).tolist() == [160] * QUANTILES


@pytest.mark.whole
@pytest.mark.parametrize(("sites", "labels"), [(1, 2), (4, 2), (30, 10), (160, 10), (1000, 3)])
def test_a_picture_is_a_png_of_bounded_size(tmp_path: Path, sites: int, labels: int):
    counts = np.random.default_rng(0).integers(0, 9, (sites, labels)) + 1
    contents = Contents({f"$ite {n}": {} for n in range(sites)}, [f"class {n}" for n in range(labels)], counts, {}, {})
    path = tmp_path / "card.png"
    draw(path, "A title with a $ and a _", contents)
    content = path.read_bytes()
    assert content.startswith(PNG)
    width, height = (int.from_bytes(content[at : at + 4], "big") for at in (16, 20))
    assert width < 1500
    assert height < 2200


def test_what_has_no_rows_has_no_picture():
    assert card("synthetic/tabular").contents is None
    assert card("fedavg").contents is None
    assert card("hospital-heart").contents is not None


def test_a_scenarios_picture_is_titled_by_its_partition(tmp_path: Path):
    path = tmp_path / "branches.toml"
    path.write_text(
        'title = "Branches"\ntask = "hospital/heart"\npartition = {by = "dirichlet", sites = 5, alpha = 0.5}\n'
    )
    found = card(str(path))
    assert found.title == "Branches\npartition: dirichlet, sites 5, alpha 0.5"
    assert list(found.values["sites"]) == [f"site-0{number}" for number in range(5)]


@pytest.mark.whole
@pytest.mark.parametrize("name", catalog.titles("scenarios"))
def test_the_card_of_a_scenario_fits_a_terminal_and_says_the_same(name: str):
    """80 columns; what a scenario is about is folded, not cut: as TOML it is what it was."""
    text = card(name).text
    assert max(map(len, text.splitlines())) <= 80
    scenario = read(name)
    threshold = {"evaluation": {"threshold": 0.5}} if task_of(scenario).kind == "binary" else {}
    assert tomllib.loads(text.partition("\n# sites of ")[0]) == scenario.values() | threshold


def test_what_a_scenario_is_about_may_have_quotes_and_long_words(tmp_path: Path):
    about = 'It says "no" and C:\\temp, ' + 'word """ ' * 30 + "x" * 100 + "\n\n  indented\n"
    path = tmp_path / "odd.toml"
    path.write_text(tomli_w.dumps(read("hospital-heart").values() | {"about": about, "name": "odd"}))
    text = card(str(path)).text
    assert tomllib.loads(text.partition("\n# sites of ")[0])["about"] == about


@pytest.mark.parametrize(
    ("name", "changes", "shown"),
    [
        ("hospital-heart", [], 0.5),
        ("hospital-heart", ["evaluation.threshold=0.2"], 0.2),
        ("bank-volatility", [], None),
    ],
)
def test_the_card_shows_the_threshold_of_a_binary_outcome(
    tmp_path: Path, name: str, changes: list, shown: float | None
):
    path = tmp_path / "shown.toml"
    path.write_text(tomli_w.dumps(read(name, changes).values()))
    assert card(str(path)).values.get("evaluation", {}).get("threshold") == shown
