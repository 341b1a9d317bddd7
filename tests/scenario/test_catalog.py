import subprocess
import sys
from pathlib import Path

import pytest

import clients
import scenarios
import strategies
from fedsim.data.task import Task
from fedsim.mistakes import Mistake
from fedsim.scenario import catalog

FOLDERS = {"scenarios": scenarios, "strategies": strategies, "tasks": clients}


@pytest.mark.parametrize("name", catalog.titles("tasks"))
def test_a_task_is_what_its_listing_says(name: str):
    task = catalog.load("tasks", name)
    assert isinstance(task, Task)
    assert task.title == catalog.titles("tasks")[name]


def test_every_task_is_listed():
    """The listing reads the source text; importing must find no task more and none less."""
    found = set()
    for path in Path(clients.__file__).parent.glob("*.py"):
        if path.stem not in ("__init__", "app"):
            module = __import__(f"clients.{path.stem}", fromlist=["*"])
            found |= {f"{path.stem}/{k.replace('_', '-')}" for k, v in vars(module).items() if isinstance(v, Task)}
    assert found == set(catalog.titles("tasks"))


@pytest.mark.parametrize("name", catalog.titles("strategies"))
def test_a_strategy_file_holds_a_class_of_its_name(name: str):
    assert catalog.load("strategies", name).__name__.lower() == name.replace("_", "")


@pytest.mark.parametrize("kind", catalog.KINDS)
def test_everything_has_a_title(kind: str):
    titles = catalog.titles(kind)
    assert titles
    assert all(titles.values())


def test_an_unknown_name_gets_the_nearest():
    with pytest.raises(Mistake, match=r"name of a strategy, got 'fedavgg'; did you mean 'fedavg'\?"):
        catalog.load("strategies", "fedavgg")


@pytest.mark.parametrize("name", ["../fedavg", "fedavg/../../x", "os", "", "__init__", "app/app"])
def test_a_name_never_leads_outside_the_catalog(name: str):
    for kind in catalog.KINDS:
        with pytest.raises(Mistake):
            catalog.load(kind, name)


def test_listing_imports_nothing_heavy():
    code = (
        "import sys; from fedsim.scenario import catalog; [catalog.titles(kind) for kind in catalog.KINDS];"
        "import fedsim.cli.commands;"
        "print([m for m in ('torch', 'pandas', 'flwr', 'numpy', 'pydantic') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Put a folder in the place of all packages."""
    monkeypatch.setattr(catalog, "_folder", lambda kind: tmp_path)
    return tmp_path


def test_a_file_that_can_not_be_read_does_not_hide_the_others(folder: Path):
    (folder / "good.py").write_text('"""Good: a title."""\nheart: Task = Task(title="Heart")\n')
    (folder / "bad.py").write_text("def (:\n")
    (folder / "fine.toml").write_text('title = "Fine"')
    (folder / "broken.toml").write_text("title = ")
    (folder / "nameless.toml").write_text("x = 1")
    assert catalog.titles("strategies")["good"] == "Good: a title"
    assert catalog.titles("strategies")["bad"].startswith("(can't be read: ")
    assert catalog.titles("tasks") == {"good/heart": "Heart"}
    assert catalog.titles("scenarios")["fine"] == "Fine"
    assert catalog.titles("scenarios")["broken"].startswith("(can't be read: ")
    assert catalog.titles("scenarios")["nameless"].startswith("(can't be read: ")


@pytest.mark.parametrize(
    "text", ["class Badd: ...", "def bad(): ...", "class Bad: ...", "from torch import median as bad"]
)
def test_a_strategy_file_without_its_dataclass_is_explained(tmp_path: Path, text: str):
    import importlib.util

    path = tmp_path / "bad.py"
    path.write_text(text)
    spec = importlib.util.spec_from_file_location("bad", path)
    module = importlib.util.module_from_spec(spec)  # type: ignore[arg-type]
    spec.loader.exec_module(module)  # type: ignore[union-attr]
    with pytest.raises(Mistake, match=r"bad.py: expected a class Bad with a method aggregate, got none"):
        catalog._class_in(module, "bad", ("aggregate", "aggregate_train"))
