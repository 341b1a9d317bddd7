"""The contract of a task, over all there are; and what each of them holds, as clients/data/README.md says."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from fedsim.data.federation import Examples, split_by_time
from fedsim.data.tables import Levels, Number
from fedsim.data.task import Rows, Task
from fedsim.engines.stack.train import check_rules
from fedsim.mistakes import Mistake
from fedsim.outcomes import outcome_of
from fedsim.randomness import global_seed
from fedsim.scenario import catalog
from tests.clients.xrays import write_xrays

XRAYS = Path(__file__).parents[3] / "shared" / "testdata" / "pneumoniamnist.npz"


@dataclass(frozen=True)
class Held:
    """What a task holds: all rows, natural sites, rows of the smallest and largest, mean target in its unit, groups."""

    rows: int
    sites: int
    smallest: int
    largest: int
    mean: float
    groups: frozenset[str] = frozenset()


HELD = {
    "bank/credit": Held(30_000, 1, 30_000, 30_000, 0.2212, frozenset({"sex", "age"})),
    "bank/late-months": Held(30_000, 1, 30_000, 30_000, 0.18421, frozenset({"sex", "age"})),
    "bank/lending": Held(9_857, 50, 16, 1_324, 0.05245),
    "bank/volatility": Held(11_934, 5, 152, 3_226, -4.1963),
    "hospital/breast-cancer": Held(3_668, 2, 686, 2_982, 0.4253, frozenset({"age"})),
    "hospital/exercises": Held(1_833, 10, 116, 220, 2.9711, frozenset({"arm"})),
    "hospital/heart": Held(920, 4, 123, 303, 0.5533, frozenset({"sex", "age"})),
    "hospital/heart-complete": Held(766, 4, 46, 303, 0.5104, frozenset({"sex", "age"})),
    "hospital/heart-network": Held(920, 4, 123, 303, 0.5533, frozenset({"sex", "age"})),
    "hospital/lung-cancer": Held(227, 18, 2, 36, 0.6256, frozenset({"sex", "age"})),
    "hospital/movements": Held(658, 10, 49, 70, 0.0),
    "hospital/xray": Held(30, 1, 30, 30, 0.5),
    "school/achievement": Held(7_185, 160, 14, 67, 12.7479, frozenset({"minority", "sex"})),
    "school/digits": Held(5_000, 1, 5_000, 5_000, 4.5),
    "school/years": Held(24_613, 80, 54, 769, 553.691, frozenset({"ethnicity", "lunch"})),
    "school/progress": Held(6_077, 75, 43, 179, 617.968, frozenset({"sex", "ethnicity", "lunch"})),
    "school/shakespeare": Held(9_396, 10, 761, 1_502, 36.316),
    "school/strokes": Held(5_000, 1, 5_000, 5_000, -0.73736),
    "school/subjects": Held(5_967, 74, 43, 179, 0.22228, frozenset({"sex", "ethnicity", "lunch"})),
}
OUTPUTS = {  # the shape of a row's outputs, where it is more than a number
    "bank/late-months": (4,),
    "hospital/breast-cancer": (10,),
    "hospital/exercises": (7,),
    "hospital/lung-cancer": (6,),
    "hospital/movements": (5, 8),
    "school/digits": (10,),
    "school/shakespeare": (40, 63),
    "school/strokes": (49,),
    "school/subjects": (2,),
}
Loaded = Callable[[str], tuple[Task, Rows]]


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    path = tmp_path_factory.mktemp("xrays") / "small.npz"
    write_xrays(path, train=20, val=4, test=6)

    @cache
    def load(name: str) -> tuple[Task, Rows]:
        task = catalog.load("tasks", name)
        return task, task.rows(path if task.needs_path else None)

    return load


def test_the_table_is_complete():
    assert sorted(HELD) == [name for name in catalog.titles("tasks") if not name.startswith("synthetic/")]


@pytest.mark.parametrize("name", HELD)
def test_rows_sites_and_target_are_as_documented(loaded: Loaded, name: str):
    (task, rows), held = loaded(name), HELD[name]
    names, counts = np.unique(rows.site, return_counts=True)
    assert (len(rows.target), len(names)) == (held.rows, held.sites)
    assert (counts.min(), counts.max()) == (held.smallest, held.largest)
    of_events = rows.target[:, 1] if task.kind == "survival" else rows.target
    mean = of_events.mean(dtype=float)
    assert (task.range.in_units(mean) if task.range else mean) == pytest.approx(held.mean, rel=1e-3)
    assert set(rows.groups) == held.groups


@pytest.mark.parametrize("name", HELD)
def test_what_is_loaded_is_finite_scaled_and_of_one_length(loaded: Loaded, name: str):
    task, rows = loaded(name)
    if task.kind == "next-token":
        assert rows.inputs.dtype == np.int64
        assert np.array_equal(rows.inputs[:, 1:], rows.target[:, :-1])
        assert (rows.inputs.min(), rows.inputs.max()) == (0, OUTPUTS[name][-1] - 1)
    else:
        assert rows.inputs.dtype == np.float32
        assert np.isfinite(rows.inputs).all()
        assert np.abs(rows.inputs).max() <= 1
    if task.kind in ("number", "numbers"):
        assert np.abs(rows.target).max() < 1, "a range that clips targets hides them"
    elif task.kind in ("binary", "multi-label"):
        assert set(np.unique(rows.target)) == {0.0, 1.0}
    elif task.kind == "classes":
        assert set(np.unique(rows.target)) == set(range(len(task.classes) or 10))
    elif task.kind == "reconstruction":
        assert np.array_equal(rows.target, rows.inputs)
    elif task.follow_up is not None:
        assert set(np.unique(rows.target[:, 0])) == set(range(len(task.follow_up.ends) + 1))
    lengths = {len(rows.site), len(rows.inputs), *map(len, rows.groups.values())}
    assert lengths == {len(rows.target)}
    assert (rows.time is not None) == task.by_time


@pytest.mark.parametrize("name", HELD)
def test_each_group_has_some_rows(loaded: Loaded, name: str):
    _, rows = loaded(name)
    for attribute, values in rows.groups.items():
        found, counts = np.unique(values, return_counts=True)
        assert 2 <= len(found) <= 4, attribute
        assert "nan" not in found
        assert counts.min() >= 30, attribute


@pytest.mark.parametrize("name", HELD)
def test_a_task_says_what_it_is_and_who_made_it(loaded: Loaded, name: str):
    task, _ = loaded(name)
    assert task.title
    assert task.outcome
    assert task.licence
    assert len(task.title) <= 100
    assert "README.md" in task.source or task.needs_path


@pytest.mark.parametrize("name", HELD)
def test_columns_are_the_inputs_with_round_public_ranges(loaded: Loaded, name: str):
    """A bound that was measured on rows would have more digits than a person gives to a form, a scale or a limit."""
    task, rows = loaded(name)
    numbers = [column for column in task.columns if isinstance(column, Number)]
    for number in [*numbers, *([task.range] if task.range else [])]:
        assert number.low < number.high
        for bound in (number.low, number.high):
            assert float(f"{bound:.2g}") == bound, number.name
        assert number.unit
    widths = [len(c.levels) if isinstance(c, Levels) else 1 + c.missing for c in task.columns]
    if task.columns:
        assert rows.inputs.shape[-1] == sum(widths)


@pytest.mark.parametrize("name", HELD)
def test_no_range_hides_what_it_should_show(loaded: Loaded, name: str):
    """An input that sits at one bound for nearly all who have it would be a useless range."""
    task, rows = loaded(name)
    place = 0
    for column in task.columns:
        if isinstance(column, Number):
            values = rows.inputs[..., place]
            there = rows.inputs[..., place + 1] == 0 if column.missing else np.ones_like(values, bool)
            for bound in (-1, 1):
                assert (values[there] == bound).mean() < 0.999, column.name
        place += len(column.levels) if isinstance(column, Levels) else 1 + column.missing


@pytest.mark.parametrize("name", HELD)
def test_the_model_gives_what_its_kind_needs_and_can_be_stacked(loaded: Loaded, name: str):
    task, rows = loaded(name)
    with global_seed(0):
        model = task.model(*rows.inputs.shape[1:])
    examples = Examples(torch.from_numpy(rows.inputs[:8]), torch.from_numpy(rows.target[:8]))
    outputs = model(examples.inputs)
    assert outputs.shape == (8, *OUTPUTS.get(name, (1,)))
    assert check_rules(model, outcome_of(task.kind).losses, examples).parameters == sum(
        p.numel() for p in model.parameters()
    )


def test_an_x_ray_task_needs_labels_of_two_classes(tmp_path: Path):
    write_xrays(tmp_path / "three.npz", train=20, val=4, test=6, val_labels=np.full((4, 1), 2))
    with pytest.raises(Mistake, match=r"three.npz: expected labels of 0 and 1, got \[0, 1, 2\]"):
        catalog.load("tasks", "hospital/xray").rows(tmp_path / "three.npz")


@pytest.mark.skipif(not XRAYS.exists(), reason="the file is not part of the project")
def test_the_published_x_rays_can_be_read():
    rows = catalog.load("tasks", "hospital/xray").rows(XRAYS)
    assert rows.inputs.shape == (4_708 + 524 + 624, 1, 28, 28)
    assert rows.target[:4_708].mean() == pytest.approx(0.742, abs=1e-3)
    assert rows.target[-624:].mean() == pytest.approx(0.625, abs=1e-3)


def test_windows_of_a_recording_are_in_the_order_of_time_and_the_last_ones_are_the_test(loaded: Loaded):
    """A window's neighbours look like it, so a split at random would test on what was nearly seen."""
    task, rows = loaded("hospital/exercises")
    assert rows.time is not None
    assert rows.time.min() == 0
    assert rows.time.max() < 1
    parts = split_by_time(rows.time[rows.site == "person-01"], 0.2, 0.5, task.horizon)
    times = {part: rows.time[rows.site == "person-01"][chosen] for part, chosen in parts.items()}
    assert times["train"].max() < times["validation"].min() < times["validation"].max() < times["test"].min()
    for chosen in parts.values():
        assert set(rows.target[rows.site == "person-01"][chosen]) == set(range(7))
