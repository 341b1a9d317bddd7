from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsim.mistakes import Mistake
from fedsim.scenario import catalog
from fedsim.scenario.files import parse, read

GOOD = """\
title = "t"
task = "hospital/heart"

[training]
rounds = 3

[privacy]
unit = "record"
epsilon = 1.0
delta = 1e-4
"""


def write(folder: Path, text: str) -> str:
    path = folder / "mine.toml"
    path.write_text(text, encoding="utf-8")
    return str(path)


@pytest.mark.parametrize("name", catalog.titles("scenarios"))
def test_every_scenario_that_comes_along_is_valid(name: str):
    assert read(name).name == name


def test_a_file_is_named_after_itself_and_filled_with_defaults(tmp_path: Path):
    scenario = read(write(tmp_path, GOOD))
    assert scenario.name == "mine"
    assert scenario.training.rounds == 3
    assert scenario.all_seeds == [0, 1, 2, 3, 4]


def test_all_mistakes_are_listed_at_once_with_line_and_nearest_name(tmp_path: Path):
    text = GOOD.replace("rounds = 3", "ronds = 3").replace("epsilon = 1.0", "epsilon = -1").replace("heart", "hart")
    path = write(tmp_path, text)
    with pytest.raises(Mistake) as caught:
        read(path)
    lines = str(caught.value).splitlines()
    assert f"training.ronds: unknown key; did you mean 'rounds'? ({path}:5)" in lines
    assert f"privacy.epsilon: expected a number > 0, got -1 ({path}:9)" in lines
    assert any(line.startswith("task: expected the name of a task, got 'hospital/hart'") for line in lines)
    assert len(lines) == 3


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("privacy.epsilon=-1", r"privacy.epsilon: expected a number > 0, got -1 \(--set privacy.epsilon=-1\)"),
        ("privacy.epsilon=nan", "privacy.epsilon: expected a finite number, got nan"),
        ("privacy.delta=1", "privacy.delta: expected a number < 1, got 1"),
        ("privacy.unit=recrd", "'local', 'none', 'person' or 'record', got 'recrd'; did you mean 'record'"),
        ("training.sampling_rate=1.5", "expected a number <= 1, got 1.5"),
        ("training.rounds=2.5", "training.rounds: expected a whole number, got 2.5"),
        ("training.rounds=true", "training.rounds: expected a whole number, got true"),
        ("training.optimizer.lr=0", "training.optimizer.lr: expected a number > 0, got 0"),
        ("training.expected_batch.a=0", "training.expected_batch.a: expected a number > 0, got 0"),
        ("split.test=0.9", "expected validation [+] test < 1"),
        ("name=../x", "name: expected lower-case letters"),
        ("title.x=1", "title is a value, not a section"),
        ("rounds", "--set: expected key=value"),
        ("a b=1", "--set: expected key=value"),
        ("engine=rray", "expected the name of an engine, got 'rray'"),
    ],
)
def test_a_bad_override_is_named(override: str, message: str):
    with pytest.raises(Mistake, match=message):
        read("hospital-heart", [override])


def test_overrides_reach_every_level():
    changed = read("hospital-heart", ["privacy.epsilon=2", "training.optimizer.lr=0.1", 'arms=["local"]', "title=Mine"])
    assert changed.privacy.epsilon == 2
    assert changed.training.optimizer.lr == 0.1
    assert changed.arms == ["local"]
    assert changed.title == "Mine"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("title = ", "expected TOML"),
        (GOOD + "\nepsilon = 2\nepsilon = 3", "expected TOML"),
        (GOOD.replace("delta = 1e-4", ""), "privacy: expected delta beside unit = 'record'"),
        ("", "title: expected a value, it is required"),
        ("x = " + "[" * 10_000, "expected TOML"),
        (
            GOOD + "[strategy]\nclass = 'os:system'",
            "expected flwr.serverapp.strategy:CLASS and no name beside it, got .os:system.",
        ),
    ],
)
def test_a_bad_file_is_explained(tmp_path: Path, text: str, message: str):
    with pytest.raises(Mistake, match=message):
        scenario = read(write(tmp_path, text))
        from fedsim.experiments.arms import strategy_of

        strategy_of(scenario)


def test_wrong_encoding_and_directories_are_mistakes(tmp_path: Path):
    (tmp_path / "latin.toml").write_bytes("title = 'é'".encode("latin-1"))
    for name in (str(tmp_path / "latin.toml"), str(tmp_path), str(tmp_path / "none.toml"), "a/b", "\0"):
        with pytest.raises(Mistake):
            read(name)


keys = st.sampled_from(
    ["title", "task", "seed", "seeds", "arms", "split", "training", "privacy", "strategy", "x", "engine"]
)
leaves = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5))
values = st.recursive(leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3))


@given(st.dictionaries(keys, values, max_size=6))
def test_no_values_whatever_end_in_a_traceback(changes: dict):
    """Whatever a file holds, it is a scenario or a Mistake."""
    base = {"name": "x", "title": "t", "task": "hospital/heart"}
    try:
        parse(base | changes)
    except Mistake as mistake:
        assert str(mistake)


@pytest.mark.parametrize(("file", "name"), [("My Study.toml", "my-study"), ("Étude.toml", "tude"), ("a.b.toml", "a-b")])
def test_any_file_name_makes_a_name(tmp_path: Path, file: str, name: str):
    (tmp_path / file).write_bytes(b"\xef\xbb\xbf" + GOOD.encode())  # with a BOM, as some editors write
    assert read(tmp_path / file).name == name


def test_a_folder_does_not_shadow_a_scenario(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "hospital-heart").mkdir()
    monkeypatch.chdir(tmp_path)
    assert read("hospital-heart").task == "hospital/heart"


@pytest.mark.parametrize(
    "override",
    ['arms=["local","local"]', "privacy.epsilon=1e300", "privacy.noise_multiplier=1e300", "seed=99999999999999999999",
     "training.rounds=1000000000000", "privacy.delta=1e-15"],
)  # fmt: skip
def test_what_would_fail_late_fails_at_once(override: str):
    with pytest.raises(Mistake, match="expected"):
        read("hospital-heart", [override])
