"""Every command in the README and under docs/ works."""

import itertools
import re
import shlex
import sys
import tomllib
from pathlib import Path

import pytest

from clients.hospital import read_heart
from fedsim.cli import commands as cli
from fedsim.scenario import catalog
from fedsim.scenario.files import read
from tests.clients.tiny_bert import write_bert
from tests.data.own_table.pictures import write_folder

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
QUICK = ["--set", "training.rounds=1"]
NOISE = ["--set", "privacy.noise_multiplier=4"]  # saves looking for it
SMALL = {
    "run": [*QUICK, "--seeds", "1"],
    "compare": [*QUICK, "--seeds", "1"],
    "sweep": [*QUICK, "--seeds", "1"],
    "tune": [*QUICK, "--seeds", "1", "--trials", "2"],
    "audit": [*QUICK, "--trials", "40", "--shadows", "4", "--set", "seeds=1"],
}


def blocks(kind: str) -> list[str]:
    return [text for page in PAGES for text in re.findall(rf"```{kind}\n(.*?)```", page.read_text("utf-8"), re.DOTALL)]


def commands() -> list[str]:
    return [line.partition(" #")[0].strip() for text in blocks("sh") for line in text.splitlines() if line.strip()]


def made_small(words: list[str]) -> list[str]:
    """Return the options that make a command quick."""
    more = SMALL.get(words[0], [])
    if not more:
        return []

    # A table of one's own has no privacy unless the command says so; then noise would be asked for in vain.
    is_private = any(word == "--epsilon" or word.startswith("privacy.unit=") for word in words)
    if words[0] in ("sweep", "tune"):
        return more
    if is_private or "--data" in words:
        return [*more, *(NOISE if is_private else [])]
    scenario = words[1] if len(words) > 1 and not words[1].startswith("-") else None
    if scenario is not None and "--task" in words:  # the scenario alone can't be read
        private = scenario.endswith(".toml") and "privacy" in tomllib.loads(Path(scenario).read_text("utf-8"))
        return [*more, *(NOISE if private else [])]
    is_scenario = scenario is not None and (scenario in catalog.titles("scenarios") or scenario.endswith(".toml"))
    return [*more, *(NOISE if is_scenario and read(scenario).private else [])]


def with_settings(words: list[str], more: list[str]) -> list[str]:
    """Return a command with more options; its own settings of the same keys are left out."""
    replaced = {word.partition("=")[0] for option, word in itertools.pairwise(more) if option == "--set"}
    kept: list[str] = []
    for word in words:
        if kept and kept[-1] == "--set" and word.partition("=")[0] in replaced:
            kept.pop()
        else:
            kept.append(word)
    return [*kept, *more]


def write_files(folder: Path) -> None:
    """Write the blocks that begin with the name of a file: ``# my_tasks.py``."""
    for text in (*blocks("toml"), *blocks("python")):
        name = text.partition("\n")[0].removeprefix("# ")
        if name.endswith((".toml", ".py")):
            (folder / name).write_text(text, encoding="utf-8")


def patients() -> str:
    """Return a table as docs/your-data.md has it: the real patients, under other names."""
    frame = read_heart()[["site", "age", "sex", "cp", "chol", "target"]]
    frame["sex"] = frame["sex"].map({0: "female", 1: "male"})
    return frame.set_axis(["hospital", "age", "sex", "stage", "cholesterol", "outcome"], axis=1).to_csv(index=False)


@pytest.mark.whole
def test_all_commands(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """In order, in one folder; runs are made small."""
    monkeypatch.chdir(tmp_path)
    write_files(tmp_path)
    (tmp_path / "patients.csv").write_text(patients(), encoding="utf-8")
    write_folder(tmp_path / "scans", count=20)
    write_bert(tmp_path / "models" / "all-MiniLM-L6-v2")
    ran = 0
    for command in commands():
        program, *words = shlex.split(command)
        assert program in ("fedsim", "make"), command
        if program == "make":
            assert re.search(rf"^{words[0]}:", (ROOT / "Makefile").read_text(), re.MULTILINE), command
            continue
        monkeypatch.setattr(sys, "argv", ["fedsim", *with_settings(words, made_small(words))])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        assert not stop.value.code, f"{command}\n{capsys.readouterr().err}"
        ran += 1
    assert ran >= 8


@pytest.mark.whole
def test_all_python(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)  # as a script has its own folder
    write_files(tmp_path)
    write_bert(tmp_path / "models" / "all-MiniLM-L6-v2")
    assert blocks("python")
    for code in blocks("python"):
        exec(compile(code, "docs", "exec"), {})


def test_every_link_inside_the_repository_leads_somewhere():
    for page in PAGES:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", page.read_text("utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_every_setting_of_a_scenario_is_documented():
    """docs/scenarios.md is complete."""
    from fedsim.scenario.schema import Scenario

    text = (ROOT / "docs" / "scenarios.md").read_text("utf-8")

    def names(model: type, prefix: str = "") -> list[str]:
        found = []
        for name, field in model.model_fields.items():  # type: ignore[attr-defined]
            inner = field.annotation
            nested = isinstance(inner, type) and hasattr(inner, "model_fields")
            found += names(inner, f"{prefix}{name}.") if nested else [prefix + name]
        return found

    missing = [name for name in names(Scenario) if f"`{name}`" not in text]
    assert not missing
