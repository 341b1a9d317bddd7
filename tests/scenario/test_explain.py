"""Messages about wrong values: what was expected, what came, where, and what to type."""

import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import pytest

from fedsim import randomness
from fedsim.mistakes import Mistake
from fedsim.scenario import kinds
from fedsim.scenario.explain import Source, keys, section_of
from fedsim.scenario.files import parse, read, read_own, with_strategy
from fedsim.scenario.schema import Scenario

WRONG = {
    # a value in the place of a section
    "training.optimizer=adam": "expected a section, got 'adam'; type --set training.optimizer.name=adam",
    "partition=dirichlet": "expected a section, got 'dirichlet'; type --set partition.by=dirichlet",
    "privacy=record": "expected a section, got 'record'; type --set privacy.unit=record",
    "strategy=krum": "type --set strategy.name=krum",
    "attack=sign-flip": "type --set attack.name=sign-flip",
    "privacy.tuning=5": "type --set privacy.tuning.runs=5",
    "faults=0.1": "type --set faults.drop_out=0.1",
    "faults.wrong_labels=0.1": "expected a section, got 0.1; type --set faults.wrong_labels.SITE=0.1",
    "privacy.adaptive_clip=true": "it has the keys quantile, rate, bit_noise, e.g. privacy.adaptive_clip.quantile",
    "privacy=8": "expected a section, got 8; it has the keys unit, epsilon",
    "partition={by=dirichlet sites=5}": 'that is no TOML: e.g. { by = "dirichlet", sites = 8, alpha = 0.5 }',
    # a value in the place of a list
    "data.groups=sex": """expected a list, got 'sex'; type --set 'data.groups=["sex"]'""",
    "data.groups=sex,age": """type --set 'data.groups=["sex", "age"]'""",
    "arms=federated": """type --set 'arms=["federated"]'""",
    "attack.sites=hungarian": """type --set 'attack.sites=["hungarian"]'""",
    "arms=[]": "arms: expected at least 1 in the list, got []",
    # a key in the wrong place, or of another tool
    "epsilon=2": "epsilon: unknown key; did you mean 'privacy.epsilon'?",
    "training.epsilon=2": "did you mean 'privacy.epsilon'?",
    "rounds=3": "did you mean 'training.rounds'?",
    "lr=0.1": "did you mean 'training.optimizer.lr'?",
    "training.lr=0.1": "did you mean 'training.optimizer.lr'?",
    "sites=3": "did you mean 'partition.sites' or 'deployment.sites' or 'attack.sites'?",
    "training.batch_size=32": "did you mean 'training.expected_batch'?",
    "training.epochs=2": "did you mean 'training.local_steps'?",
    "training.ronds=2": "did you mean 'rounds'?",
    'training={"a b"=1}': """training."a b": unknown key; there is 'rounds',""",
    # a word of another tool
    "device=gpu": "expected 'auto', 'cpu' or 'cuda', got 'gpu'; did you mean 'cuda'?",
    "privacy.unit=patient": "did you mean 'record'?",
    "privacy.unit=site": "did you mean 'client'?",
    "partition.by=noniid": "did you mean 'dirichlet'?",
    "data.kind=regression": "did you mean 'number'?",
    "privacy.rng=crypto": "did you mean 'secure'?",
    "arms=[fed]": "arms.0: expected 'federated', 'centralized' or 'local', got 'fed'; did you mean 'federated'?",
    "task=heart": "did you mean 'hospital/heart' or",
    # the wrong type
    'privacy.epsilon="8"': "expected a number, got '8'; type --set privacy.epsilon=8",
    "training.rounds=1e3": "expected a whole number, got 1000.0; type --set training.rounds=1000",
    "training.rounds=2.5": "expected a whole number, got 2.5",
    "training.sampling_rate=half": "expected a number, got 'half'",
    "privacy.tuning.charged=yes": "expected true or false, got 'yes'; type --set privacy.tuning.charged=true",
    "secure_aggregation=yes": "expected true, false or a section, got 'yes'",
    "cohort_size=all": "cohort_size: expected 'auto' or a whole number >= 1, got 'all'",
    "about=5": "expected text, got 5",
    "title=": "title: expected text, got ''",
    "training.expected_batch={cleveland=a}": "training.expected_batch.cleveland: expected a number, got 'a'",
    # what is missing beside
    "attack.name=sign-flip": "expected either sites or share beside name: who attacks, e.g. attack.share=0.2",
    "strategy.name=krum:f=2": "e.g. strategy.f=2, or type --strategy krum:f=2",
}


@pytest.mark.parametrize(("change", "message"), WRONG.items())
def test_a_wrong_change_is_explained_in_one_line_with_what_to_type(change: str, message: str):
    with pytest.raises(Mistake) as caught:
        read("hospital-heart", [change])
    said = str(caught.value)
    assert message in said
    assert said.count("\n") == 0
    assert said.endswith(f"(--set {change})")


def mistake_of(scenario: str | Path, changes: Sequence[str] = ()) -> str:
    """Return what is said of a scenario that is wrong."""
    with pytest.raises(Mistake) as caught:
        read(scenario, changes)
    return str(caught.value)


def leaves() -> list[str]:
    return [key for key in keys() if section_of(key.split(".")) is None]


def in_words_of_ours(line: str, change: str) -> bool:
    """Whether a line says of a change its key, what was expected and where, in no word of pydantic's or of Python's."""
    others = (
        r"valid dictionary|instance of|Input should|String should|List should|np\.|constrained|literal\[|"
        r"pydantic|datetime\.|after validation|Traceback|NoneType"
    )
    return (
        not re.search(others, line)
        and re.match(r"[\w. -]+: ", line) is not None
        and ("expected" in line or "unknown key" in line)
        and line.endswith((f"(--set {change})", ")"))
    )


@pytest.mark.parametrize(
    "value", ["{}", "[[]]", "-1.5", '"  "', "2020-01-01", "[1,2]", "{x={y=1}}", "99999999999999999999"]
)
def test_whatever_is_wrong_is_said_in_words_of_ours(value: str):
    """No message has a word of pydantic's or of Python's; each names the key, what was expected, what came, where.

    Every key is tried, and all that is wrong is named.
    """
    wrong = []
    for key in keys():
        change = f"{key}={value}"
        try:
            read("hospital-heart", [change])
        except Mistake as mistake:
            wrong += [f"{change}: {line}" for line in str(mistake).splitlines() if not in_words_of_ours(line, change)]
        except Exception as error:
            wrong.append(f"{change}: {error!r}")
    assert wrong == []


@pytest.mark.parametrize("change", [change for change in WRONG if "type --set" in WRONG[change]])
def test_what_a_message_says_to_type_is_of_the_right_form(change: str):
    """What was wrong is right after typing it: nothing more is said of that key's form."""
    said = mistake_of("hospital-heart", [change])
    typed = re.search(r"type --set (?:'(.*?)'|(\S+))", said)
    assert typed
    better = (typed[1] or typed[2]).replace("SITE", "hungarian")
    try:
        read("hospital-heart", [better])
    except Mistake as mistake:
        assert "expected a section" not in str(mistake)
        assert "expected a list" not in str(mistake)
        assert "unknown key" not in str(mistake)


def test_in_a_file_it_says_what_to_write_and_in_which_line(tmp_path: Path):
    path = tmp_path / "mine.toml"
    path.write_text('title = "t"\ntask = "hospital/heart"\narms = "local"\n[training]\noptimizer = "adam"\n')
    said = mistake_of(path)
    assert f"arms: expected a list, got 'local'; write arms = [\"local\"] ({path}:3)" in said
    assert (
        f"training.optimizer: expected a section, got 'adam'; write training.optimizer.name = \"adam\" ({path}:5)"
        in said
    )


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("by = dirichlet", "by = 'dirichlet'"),
        ("by = dirichlet # a comment", 'write by = "dirichlet"'),
        ("charged = True", "write charged = true"),
        ("charged = False", "write charged = false"),
        ("path = my/data.csv", 'write path = "my/data.csv"'),
    ],
)
def test_a_word_without_quotes_is_said_with_its_line(tmp_path: Path, line: str, message: str):
    path = tmp_path / "mine.toml"
    path.write_text(f'title = "t"\n[partition]\n{line}\n')
    said = mistake_of(path)
    assert said.startswith(f"{path}:3: expected TOML, got ")
    assert line in said
    assert message.replace("by = 'dirichlet'", 'write by = "dirichlet"') in said


@pytest.mark.parametrize("name", ["clean.csv", "data/clean.csv.gz", "clean.parquet", "My Table.CSV"])
def test_a_table_in_the_place_of_a_scenario_is_known_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str):
    monkeypatch.chdir(tmp_path)
    Path(name).parent.mkdir(exist_ok=True)
    for write in (lambda: None, lambda: Path(name).write_text("a,b\n1,2\n")):
        write()
        with pytest.raises(Mistake, match=rf"type fedsim run --data {re.escape(name)} --target COLUMN"):
            read(name)


def test_a_run_directory_in_the_place_of_a_scenario_is_known_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    Path("mine").mkdir()
    Path("mine/scenario.toml").write_text("")
    with pytest.raises(Mistake, match=r"got a run directory; its scenario is mine/scenario.toml"):
        read("mine")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["data.path=a.csv"],
         "data.target: expected the column of a.csv with the outcome, on the command line --target COLUMN"),
        (["data.path=a.csv", "data.target=y"], "on the command line --site COLUMN, or another partition"),
        (["training.rounds=3"], "on the command line --data FILE --target COLUMN"),
        (["data.path=a.csv", "data.target=y", "data.site=s", "privacy.unit=record"],
         "expected epsilon and delta beside unit = 'record', e.g. privacy.epsilon=8 and privacy.delta=1e-4"),
    ],
)  # fmt: skip
def test_what_a_table_of_ones_own_lacks_is_said_by_the_name_of_its_option(changes: list[str], message: str):
    with pytest.raises(Mistake) as caught:
        read_own(changes)
    assert message in str(caught.value)


def test_a_message_shows_what_was_typed_and_not_its_long_form():
    with pytest.raises(Mistake, match=r"got 'nix'; there is .*\(--strategy nix\)"):
        read("hospital-heart", [with_strategy("nix")])


def test_all_keys_are_known():
    assert {"title", "training.optimizer.lr", "privacy.adaptive_clip.quantile", "secure_aggregation.on"} <= set(keys())
    assert set(Scenario.model_fields) <= set(keys())
    assert len(leaves()) > 50


def test_without_a_file_the_place_is_still_said():
    assert Source("", "scenario", {}).of("privacy.epsilon") == "scenario"
    with pytest.raises(
        Mistake, match=r"title: expected a value, it is required; write title = \"\.\.\.\" \(scenario\)"
    ):
        parse({"name": "x", "task": "hospital/heart"})


def test_the_kinds_of_random_numbers_are_those_that_there_are():
    assert get_args(kinds.Rng) == get_args(randomness.Random)


def test_reading_a_scenario_imports_no_torch():
    code = (
        "import sys; from fedsim.scenario.files import read; read('hospital-heart', ['privacy.epsilon=2'], '3');"
        "print([m for m in ('torch', 'pandas', 'flwr', 'numpy') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"
