"""Every kind of outcome trains on both engines, privately and plainly, and its run is read back and reported on."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import r2_score, roc_auc_score
from torch import nn

from fedsim import outcomes
from fedsim.data.inputs import Input
from fedsim.data.task import Given, Rows, Task
from fedsim.experiments.experiment import execute
from fedsim.mistakes import Mistake
from fedsim.outcomes import declare, names, outcome_of
from fedsim.outcomes.measure import score, score_inside
from fedsim.outcomes.own import OwnKind, OwnMetric
from fedsim.results.run_directory import INSIDE, load
from fedsim.scenario import catalog
from fedsim.scenario.files import read
from tests.runs import unsealed

ROWS = 90
RANDOM = np.random.default_rng(0)
INPUTS = RANDOM.normal(size=(ROWS, 6)).astype(np.float32)
SIGNAL = INPUTS @ RANDOM.normal(size=(6, 3))
SITES = np.array(["a", "b", "c"])[np.arange(ROWS) % 3]
WORDS = RANDOM.integers(0, 9, (ROWS, 5))
VIEWS = np.stack([INPUTS, INPUTS + 0.1, -INPUTS, INPUTS[::-1]], 1).astype(np.float32)


def near(target: np.ndarray, predicted: np.ndarray) -> float:
    return float((np.abs(target - predicted[:, 0]) < 0.3).mean())


def far(target: np.ndarray, predicted: np.ndarray) -> float:
    return float(np.abs(target - predicted[:, 0]).mean())


def thirds() -> OwnKind:
    def losses(outputs: torch.Tensor, target: torch.Tensor, /) -> torch.Tensor:
        return (outputs[:, 0] - target).abs()

    metrics = [OwnMetric("near", near, "share within 0.3", low=0, high=1), OwnMetric("far", far, better="lower", low=0)]
    return OwnKind("thirds", losses, metrics, in_words="a number in thirds")


class Tokens(nn.Module):
    def __init__(self, *_: int) -> None:
        super().__init__()
        self.words = nn.Embedding(9, 8)
        self.scores = nn.Linear(8, 9)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.scores(self.words(inputs))


class Both(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(9, 4)
        self.scores = nn.Linear(10, 1)

    def forward(self, words: torch.Tensor, table: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        assert (words.dtype, mask.dtype) == (torch.int64, torch.bool)
        said = (self.words(words) * mask[:, :, None]).sum(1)
        return self.scores(torch.cat([said, table], 1))


def task(load: Callable[[], Rows | Given], model: Callable[..., nn.Module], **more) -> Task:
    return Task("A task", "its outcome", "made up", (), model, load, **more)


def _linear(outputs: int) -> Callable[..., nn.Module]:
    return lambda inputs: nn.Linear(inputs, outputs)


SCALED = np.tanh(SIGNAL / 3).astype(np.float32)
NEXT = np.where(np.arange(5) == 4, -1, WORDS * 2 % 9)
NAMED = (Input("words", (5,), whole=9), Input("table", (6,)), Input("mask", (5,), mask=True))
TASKS: dict[str, Callable[[], Task]] = {
    "multi-label": lambda: task(lambda: Rows(INPUTS, (SIGNAL > 0).astype(np.float32), SITES), _linear(3),
                                kind="multi-label"),
    "numbers": lambda: task(lambda: Rows(INPUTS, SCALED, SITES), _linear(3), kind="numbers"),
    "next-token": lambda: task(lambda: Rows(WORDS, NEXT, SITES), Tokens, kind="next-token"),
    "reconstruction": lambda: task(lambda: Given(INPUTS, None, SITES), _linear(6), kind="reconstruction"),
    "contrastive": lambda: task(lambda: Given(VIEWS, None, SITES), lambda *shape: nn.Linear(shape[-1], 4),
                                kind="contrastive"),
    "thirds": lambda: task(lambda: Rows(INPUTS, SCALED[:, 0], SITES), _linear(1), own=thirds()),
    "by name": lambda: task(
        lambda: Given({"words": WORDS, "table": INPUTS, "mask": WORDS > 2}, (SIGNAL[:, 0] > 0).astype(np.float32),
                      SITES),
        Both, inputs=NAMED,
    ),
}  # fmt: skip


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Return a function that puts a task in the place of the hospitals'."""
    load_named = catalog.load

    def put(name: str) -> None:
        made = TASKS[name]()
        monkeypatch.setattr(catalog, "load", lambda kind, what: made if kind == "tasks" else load_named(kind, what))

    return put


def settings(engine: str, name: str) -> list[str]:
    seed = 1000 + list(TASKS).index(name)  # a seed of its own, so that no split of another task is taken for its
    return [f"engine={engine}", f"seed={seed}", "seeds=2", "training.rounds=2", "training.expected_batch=8"]


@pytest.mark.whole
@pytest.mark.parametrize("name", TASKS)
def test_a_kind_trains_on_both_engines_alike_and_its_run_is_read_back(name: str, use, tmp_path: Path):
    use(name)
    tables = {}
    for engine in ("serial", "cohort"):
        run = execute(read("hospital-heart", settings(engine, name)), tmp_path / engine)
        figures = [metric.name for metric in run.metrics]
        tables[engine] = run.sites[figures]
        together = run.sites[run.sites["site"] == INSIDE]
        assert together[figures[0]].notna().all()
        assert set(together["private"]) == {True, False}
        read_back = load(run.path)
        assert read_back.metrics == run.metrics
        page = (run.path / "report.html").read_text()
        assert run.metrics[0].label.split(",")[0] in page
    pd.testing.assert_frame_equal(tables["serial"], tables["cohort"], rtol=1e-4, atol=1e-5)


@pytest.mark.whole
def test_the_run_of_a_kind_of_its_own_is_read_without_the_task(use, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    use("thirds")
    run = execute(read("hospital-heart", settings("cohort", "thirds")), tmp_path / "run")
    monkeypatch.setattr(outcomes, "_own", {})
    read_back = load(run.path)
    assert [metric.label for metric in read_back.metrics] == ["share within 0.3", "far"]
    assert not read_back.comparison.empty
    with pytest.raises(Mistake, match="expected the task that brings it, to train or measure anew"):
        outcome_of("thirds").losses(torch.zeros(1, 1), torch.zeros(1))

    monkeypatch.setattr(outcomes, "_own", {})
    manifest = json.loads((run.path / "manifest.json").read_text())
    del manifest["task"]["declared"]
    (run.path / "manifest.json").write_text(json.dumps(manifest))
    unsealed(run.path)
    with pytest.raises(Mistake, match="or a kind that a task brings, got 'thirds'"):
        load(run.path)


def test_a_kind_of_its_own_has_names_that_nothing_else_has():
    one = OwnMetric("near", near)
    with pytest.raises(Mistake, match="'binary': expected a name of its own"):
        declare(OwnKind("binary", lambda outputs, target: outputs, [one]))
    with pytest.raises(Mistake, match="metric 'auc': expected a name that no other metric has: AUC has it"):
        declare(OwnKind("other", lambda outputs, target: outputs, [OwnMetric("auc", near)]))
    with pytest.raises(Mistake, match="expected metrics of which the first is better the higher it is"):
        OwnKind("other", lambda outputs, target: outputs, [OwnMetric("far", far, better="lower")])
    with pytest.raises(Mistake, match="expected a metric that is a mean over rows among them"):
        OwnKind("other", lambda outputs, target: outputs, [OwnMetric("near", near, average="sites")])


def test_an_unknown_kind_is_no_other():
    with pytest.raises(Mistake, match=r"expected 'binary', 'classes', .*, got 'Binary'"):
        task(lambda: Rows(INPUTS, SCALED, SITES), _linear(1), kind="Binary")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"words": WORDS, "table": INPUTS}, "expected the inputs words, table, mask, got words, table"),
        ({"words": WORDS + 1, "table": INPUTS, "mask": WORDS > 2}, "input words: expected numbers from 0 to 8"),
        ({"words": WORDS, "table": INPUTS[:, :5], "mask": WORDS}, r"table: expected .* .6,., got .5,.\n.*mask"),
        ({"words": WORDS, "table": INPUTS[:3], "mask": WORDS > 2}, "expected as many rows of each input, got 3, 90"),
    ],
)  # fmt: skip
def test_inputs_by_name_are_checked_all_at_once(given: dict, message: str):
    made = TASKS["by name"]()
    with pytest.raises(Mistake, match=message):
        made.settled(Given(given, np.zeros(ROWS, np.float32), SITES))


def test_targets_are_given_where_a_kind_has_them_and_only_there():
    with pytest.raises(Mistake, match="expected no targets with kind 'reconstruction'"):
        TASKS["reconstruction"]().settled(Given(INPUTS, SCALED, SITES))
    with pytest.raises(Mistake, match="expected targets with kind 'numbers'"):
        TASKS["numbers"]().settled(Given(INPUTS, None, SITES))
    rows = TASKS["reconstruction"]().settled(Given(INPUTS, None, SITES))
    assert np.array_equal(np.asarray(rows.target), INPUTS)


def test_multi_label_and_numbers_are_scikit_learns():
    said = 1 / (1 + np.exp(-SIGNAL - RANDOM.normal(size=SIGNAL.shape)))
    labels = (SIGNAL > 0).astype(np.float32)
    assert score("multi-label", labels, said)["macro_auc"] == pytest.approx(
        roc_auc_score(labels, said, average="macro")
    )
    guessed = SCALED + 0.1 * RANDOM.normal(size=SCALED.shape)
    expected = r2_score(SCALED, guessed, multioutput="uniform_average")
    assert score("numbers", SCALED, guessed)["mean_r2"] == pytest.approx(expected, rel=1e-5)


def test_inside_sites_no_row_is_compared_with_another_sites():
    """Outcomes that only the site explains are no merit inside sites."""
    site = np.repeat([0, 1], 20)
    labels = np.tile(RANDOM.integers(0, 2, (20, 1)), (2, 2)).astype(np.float32)
    labels[site == 1] = 1 - labels[site == 1]
    said = np.tile(RANDOM.random((20, 2)), (2, 1))
    alone = [score("multi-label", labels[site == one], said[site == one])["macro_auc"] for one in (0, 1)]
    assert score_inside("multi-label", labels, said, site)["macro_auc"] == pytest.approx(np.mean(alone))

    shifted = INPUTS[:40] + 100 * site[:, None]
    means = np.stack([shifted[site == one].mean(0) for one in site])
    assert score("reconstruction", shifted, means)["explained"] > 0.99
    assert score_inside("reconstruction", shifted, means, site)["explained"] == pytest.approx(0, abs=1e-5)


@dataclass(frozen=True)
class Case:
    outputs: torch.Tensor
    target: torch.Tensor


def case_of(kind: str) -> Case:
    """Return outputs and targets of 7 rows."""
    random = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(7, *shape, generator=random)

    cases = {
        "binary": Case(normal(1), (normal() > 0).float()),
        "classes": Case(normal(3), torch.arange(7) % 3),
        "number": Case(normal(1), normal().tanh()),
        "multi-label": Case(normal(3), (normal(3) > 0).float()),
        "numbers": Case(normal(3), normal(3).tanh()),
        "next-token": Case(normal(5, 4), torch.tensor([[0, 1, -1, 3, 2]] * 7)),
        "reconstruction": Case(normal(2, 3), normal(6)),
        "contrastive": Case(normal(4, 3), torch.zeros(7)),
        "survival": Case(normal(4), torch.stack([torch.arange(7) % 4 * 1.0, torch.arange(7) % 2 * 1.0], 1)),
    }
    return cases[kind]


@pytest.mark.parametrize("kind", names())
def test_a_rows_loss_and_prediction_depend_on_that_row_alone(kind: str):
    """Otherwise clipping a row's gradient would bound nothing."""
    case = case_of(kind)
    outcome = outcome_of(kind)
    together = outcome.losses(case.outputs, case.target)
    said = outcome.said(case.outputs, case.target)
    assert together.shape == (7,)
    for row in range(7):
        one = slice(row, row + 1)
        torch.testing.assert_close(outcome.losses(case.outputs[one], case.target[one]), together[one])
        np.testing.assert_allclose(outcome.said(case.outputs[one], case.target[one]), said[one], rtol=1e-6)
    assert outcome.losses(case.outputs[:0], case.target[:0]).shape == (0,)
    figures = score(kind, case.target.numpy(), said)
    for metric in outcome.metrics:
        figure = figures[metric.name]
        assert figure is None or metric.low <= figure <= metric.high


def test_positions_that_do_not_count_change_nothing():
    outcome = outcome_of("next-token")
    case = case_of("next-token")
    other = case.outputs.clone()
    other[:, 2] = 50
    torch.testing.assert_close(outcome.losses(case.outputs, case.target), outcome.losses(other, case.target))
    target = case.target.numpy()
    figures = score("next-token", target, outcome.said(case.outputs, case.target))
    assert figures == pytest.approx(score("next-token", target, outcome.said(other, case.target)))
    assert figures["perplexity"] == pytest.approx(np.exp(figures["token_loss"]))


def test_the_loss_of_a_text_is_torchs_for_that_text_alone():
    case = case_of("next-token")
    found = outcome_of("next-token").losses(case.outputs, case.target)
    expected = [nn.functional.cross_entropy(outputs, target, ignore_index=-1) for outputs, target in zip(
        case.outputs, case.target, strict=True)]  # fmt: skip
    torch.testing.assert_close(found, torch.stack(expected))
