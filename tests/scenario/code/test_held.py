"""Objects that are given in Python: their names, and who can have them."""

import pytest
from torch import nn

from fedsim.data.given_task import hold_task
from fedsim.data.loading import named
from fedsim.mistakes import Mistake
from fedsim.scenario import catalog
from fedsim.scenario.changes import allow_task, with_task
from fedsim.scenario.code import held
from tests.given import SOURCE, falls, made, written


def test_a_name_has_a_label_and_a_digest():
    name = hold_task(falls)
    label, digest = held.split_digest(name)
    assert (held.label_of(name), label, len(digest)) == ("falls", "python:falls", 16)
    assert held.is_object(name)
    assert catalog.load("tasks", name) is falls
    assert held.split_digest("hospital/heart") == ("hospital/heart", "")
    assert held.label_of("hospital/heart") == "hospital/heart"


def test_two_objects_of_one_label_are_two(monkeypatch):
    monkeypatch.setattr(held, "_held", {})
    one, other = made(), made(model=lambda features: nn.Linear(features, 1, bias=False))
    names = {hold_task(one), hold_task(other)}
    assert {held.label_of(name) for name in names} == {"falls-in-spring"}
    assert len(names) == 2
    assert {id(catalog.load("tasks", name)) for name in names} == {id(one), id(other)}


def test_an_object_that_is_not_here_is_asked_for_and_another_is_told():
    name = hold_task(falls)
    expected = (
        r"task: expected falls with the digest 0{16}.*fedsim\.load\(run_dir, task=falls\).*another falls was given"
    )
    with pytest.raises(Mistake, match=expected):
        held.held("python:falls@" + "0" * 16, "task")
    with pytest.raises(Mistake, match=r"strategy: expected Nobody with the digest 1{16}"):
        catalog.load("strategies", "python:Nobody@" + "1" * 16)
    assert held.held(name, "task").facts["name"] == "tests.given.falls"
    assert held.held(name, "task").facts["file"] == "given.py"


def test_what_another_process_can_not_have_is_refused_before_anything_runs():
    lambdas = hold_task(made(model=lambda features: nn.Linear(features, 1)))
    held.check_elsewhere({"task": hold_task(falls)}, 2)
    held.check_elsewhere({"task": lambdas}, 1)
    held.check_elsewhere({"task": "hospital/heart", "strategy": "fedavg"}, 2)
    with pytest.raises(Mistake, match=r"jobs: expected 1 with task falls-in-spring, .*; put it into a file .*, got 2"):
        held.check_elsewhere({"task": lambdas}, 2)
    assert lambdas not in held.all_sendable()
    assert hold_task(falls) in held.all_sendable()


def test_what_is_defined_in_a_script_is_no_other_processs():
    def model(features: int) -> nn.Module:
        return nn.Linear(features, 1)

    model.__module__, model.__qualname__ = "__main__", "model"
    import __main__

    __main__.model = model
    try:
        assert held.why_not_elsewhere(made(model=model)) == "it is defined in a script or notebook (__main__)"
    finally:
        del __main__.model


def test_a_task_in_a_file_is_loaded_where_the_command_line_named_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    typed = written(tmp_path)
    with pytest.raises(Mistake, match=r"task: my_tasks\.py:falls is code; .*--task my_tasks\.py:falls"):
        catalog.load("tasks", typed)
    change = with_task(typed)
    name = change.removeprefix('task="').removesuffix('"')
    assert (change.typed, held.label_of(name)) == ("--task my_tasks.py:falls", typed)
    task = catalog.load("tasks", name)
    assert task.title == "Falls"
    assert catalog.load("tasks", name) is task


def test_a_file_that_was_changed_is_another_task(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    typed = written(tmp_path, "changing.py")
    before = allow_task(typed)
    text = (tmp_path / "changing.py").read_text()
    (tmp_path / "changing.py").write_text(text.replace('title="Falls"', 'title="Others"'))
    with pytest.raises(Mistake, match=r"expected changing\.py:falls as it was when the run was begun"):
        catalog.load("tasks", before)
    after = allow_task(typed)
    assert after != before
    assert catalog.load("tasks", after).title == "Others"
    with pytest.raises(Mistake, match=r"expected changing\.py:falls as it was.*changed"):
        catalog.load("tasks", before)


def test_the_same_file_elsewhere_is_the_same_task(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = allow_task(written(tmp_path, "moving.py", f"# moves\n{SOURCE}"))
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "moving.py").rename(tmp_path / "elsewhere" / "moving.py")
    monkeypatch.setattr(catalog, "_allowed", set())
    allow_task("elsewhere/moving.py:falls")
    assert catalog.load("tasks", name).title == "Falls"


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("nowhere.py:falls", r"nowhere\.py: expected a Python file, there is none"),
        ("named.py:trips", r"--task named\.py:trips: expected the name of a task in it, got 'trips'; there is 'falls'"),
        ("named.py:load", r"task named\.py:load: expected a fedsim\.data\.task\.Task, got function"),
        ("none.py", r"--task none\.py: expected a file with one task in it, got none"),
        (
            "two.py",
            r"expected a file with one task in it, got 2: falls, trips; name one, as in two\.py:falls",
        ),
        (
            "broken.py:falls",
            r"broken\.py:falls: can't be imported: ZeroDivisionError: .* \(broken\.py:1\)",
        ),
    ],
)
def test_a_wrong_file_or_name_is_told(tmp_path, monkeypatch, typed: str, message: str):
    monkeypatch.chdir(tmp_path)
    written(tmp_path, "named.py")
    (tmp_path / "none.py").write_text("a = 1\n")
    second = "trips = Task(title='t', outcome='o', source='s', columns=(), model=model, load=load)"
    (tmp_path / "two.py").write_text(f"{SOURCE}\n{second}\n")
    (tmp_path / "broken.py").write_text("1 / 0\n")
    with pytest.raises(Mistake, match=message):
        named(allow_task(typed))
