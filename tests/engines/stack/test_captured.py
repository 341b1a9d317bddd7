"""Steps that a GPU repeats as one graph, repeated on a CPU from a tape: the same numbers as one operation at a time."""

import logging
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from unittest import mock

import numpy as np
import pytest
import torch
from torch import nn

from fedsim import devices
from fedsim.engines.stack import captured, train
from fedsim.engines.stack.captured import usual_width
from fedsim.engines.stack.train import stacked_model, train_together
from fedsim.training.losses import binary
from fedsim.training.work import Noise, Plan, Work
from tests import on_gpu
from tests.engines.stack import test_any_layer
from tests.engines.stack.test_train import MODELS, together, works
from tests.on_gpu import as_on_a_gpu
from tests.works import examples, streams

CPU = torch.device("cpu")
PRIVATE = Noise(0.5, 1.0)
each_way = pytest.mark.parametrize("noise", [None, PRIVATE], ids=["plain", "private"])


@pytest.fixture(autouse=True)
def on_a_gpu() -> Iterator[None]:
    with as_on_a_gpu():
        yield


@pytest.fixture
def counted(on_a_gpu: None) -> Iterator[Counter[str]]:
    """Count how many steps were captured, and how many were replayed."""
    count: Counter[str] = Counter()

    def capture(work: Callable[[], None], device: torch.device) -> Callable[[], None]:
        count["captured"] += 1
        replay = on_gpu.captured(work, device)

        def replayed() -> None:
            count["replayed"] += 1
            replay()

        return replayed

    # Not by monkeypatch, which is undone after the fixture whose function this one replaces.
    with mock.patch.object(devices, "captured", capture):
        yield count


def one_by_one(stack: list[Work]) -> torch.Tensor:
    """Train a stack of a model of its own, without any graph."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(captured, "_OFTEN", 10**9)
        return together(stack)


def close(found: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@each_way
@pytest.mark.parametrize("model", MODELS)
def test_captured_steps_give_what_single_operations_give(model: str, noise: Noise | None, counted: Counter[str]):
    """With the noise of every step: it is drawn anew and outside of the graph."""
    expected = one_by_one(works(model, noise=noise))
    close(together(works(model, noise=noise)), expected)

    # Rows whose terms nearly cancel are asked for, which no graph can do.
    waits = noise is not None and model == "linear with ghost norms"
    assert counted["captured"] == (0 if waits else 1)
    assert counted["replayed"] == (0 if waits else 20 - captured._OFTEN + 1)  # one more to compare


@each_way
def test_later_trainings_of_a_model_use_the_graph_from_their_first_step(noise: Noise | None, counted: Counter[str]):
    of_all_rounds = []
    for seed in range(3):
        one = works("mlp", noise=noise)
        for site, work in enumerate(one):
            one[site] = replace(work, streams=streams(seed, "federated", f"site{site}", 1), start=work.start + seed)
        of_all_rounds.append(one)

    expected = [one_by_one([work.again() for work in one]) for one in of_all_rounds]
    model = MODELS["mlp"]()
    for one, found in zip(of_all_rounds, expected, strict=True):
        close(together([replace(work, model=model) for work in one]), found)
    assert counted["captured"] == 1
    assert counted["replayed"] == 60 - captured._OFTEN + 1


def test_results_of_a_training_stay_what_they_are_when_the_next_one_uses_the_same_memory():
    stack = works("mlp")
    found = together(stack)
    before = found.clone()
    together([replace(work, start=work.start + 1) for work in stack])
    assert torch.equal(found, before)


@each_way
def test_a_step_with_a_longer_batch_goes_one_operation_at_a_time(
    noise: Noise | None, counted: Counter[str], monkeypatch: pytest.MonkeyPatch
):
    """Such steps come in between, one and several in turn, and the graph stands for none of them."""
    stack = works("mlp", noise=noise, steps=120)
    expected = one_by_one(stack)
    monkeypatch.setattr(train, "_LANES", 1)
    monkeypatch.setattr(train, "usual_width", lambda *_: 10)
    monkeypatch.setattr(captured, "_OFTEN", 2)
    close(together(works("mlp", noise=noise, steps=120)), expected)
    assert 0 < counted["replayed"] < 115
    assert counted["captured"] > 1


def test_a_step_of_another_kind_does_not_use_the_graph():
    """A clip or a loss is no tensor: a graph has the one that it was captured with."""
    stack = works("mlp", noise=PRIVATE)
    for noise in (PRIVATE, Noise(0.01, 1.0), None):
        changed = [replace(work.again(), plan=replace(work.plan, noise=noise)) for work in stack]
        close(together(changed), one_by_one(with_a_model_of_its_own(changed)))


def with_a_model_of_its_own(stack: list[Work]) -> list[Work]:
    model = MODELS["mlp"]()
    return [replace(work.again(), model=model) for work in stack]


def test_a_graph_does_not_outlive_the_tensors_that_it_writes_into():
    """The model is bound to another stack in between, as by steps that draw persons."""
    stack = works("mlp", noise=PRIVATE)
    expected = one_by_one(with_a_model_of_its_own(stack))
    together(stack)
    stacked_model(stack[0].model, CPU).bind(torch.zeros(len(stack), len(stack[0].start)))
    close(together([work.again() for work in stack]), expected)


def test_a_graph_of_few_sites_is_not_used_for_many():
    stack = works("mlp", noise=PRIVATE)
    for some in (stack, stack[:2], stack):
        again = [work.again() for work in some]
        close(together(again), one_by_one(with_a_model_of_its_own(again)))


@pytest.mark.parametrize("model", ["mlp", "conv", "pooling"])
def test_a_row_that_is_not_finite_counts_as_zero_in_captured_steps(model: str, counted: Counter[str]):
    """B9, M8: it joins some steps and not others, and a graph masks whoever is spoiled in the step that it repeats."""
    without, spoiled = (works(model, noise=PRIVATE) for _ in range(2))
    rows = spoiled[2].examples
    rows.inputs[4:7] = float("nan")
    without[2].examples.inputs[4:7] = 0.0
    expected = with_rows_of_no_gradient(without, slice(4, 7))
    close(together(spoiled), expected)
    assert counted["replayed"]


def with_rows_of_no_gradient(stack: list[Work], rows: slice) -> torch.Tensor:
    """Train one by one, where some rows of the third site have a share of zero."""
    with pytest.MonkeyPatch.context() as patched:
        whole = train.Pool.of

        def of(works: list[Work], shares: torch.Tensor) -> train.Pool:
            pool = whole(works, shares)
            before = sum(len(work.examples) for work in works[:2])
            pool.share[before + rows.start : before + rows.stop] = 0.0
            return pool

        patched.setattr(train.Pool, "of", of)
        return one_by_one(stack)


def test_a_model_that_was_half_bound_is_bound_anew(monkeypatch: pytest.MonkeyPatch):
    """M6: else its layers read another stack, and its gradients are whatever is in that memory."""
    stack = works("mlp", noise=PRIVATE)
    expected = one_by_one(with_a_model_of_its_own(stack))
    together(stack)
    stacked = stacked_model(stack[0].model, CPU)
    stacked.bind(torch.zeros(len(stack), len(stack[0].start)))
    with monkeypatch.context() as patched:
        patched.setattr(type(stacked.layers[0]), "bind", interrupted)
        with pytest.raises(KeyboardInterrupt):
            together([work.again() for work in stack])
    close(together([work.again() for work in stack]), expected)


def interrupted(*_: object) -> None:
    raise KeyboardInterrupt


class Asks(nn.Module):
    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return inputs * (2.0 if float(inputs.abs().max()) > 1e9 else 1.0)


class Copies(nn.Module):
    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return inputs * torch.tensor([2.0] * inputs.shape[1], device=inputs.device)


class Changes(nn.Module):
    """Does something else in every call, which a graph would not."""

    calls = 0

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        Changes.calls += 1
        return inputs * Changes.calls


@pytest.mark.parametrize(("kind", "cause"), [
    (Asks, "it asks for numbers, or brings some, by _local_scalar_dense"),
    (Copies, "it asks for numbers, or brings some, by lift_fresh"),
    (Changes, "it gave other gradients"),
])  # fmt: skip
@each_way
def test_a_step_that_can_not_be_captured_is_computed_as_ever_and_that_is_said(
    kind: type[nn.Module], cause: str, noise: Noise | None, caplog: pytest.LogCaptureFixture, counted: Counter[str],
    monkeypatch: pytest.MonkeyPatch,
):  # fmt: skip
    monkeypatch.setattr(captured, "_told", set())
    stack = works("mlp", noise=noise)
    model = nn.Sequential(kind(), nn.Linear(16, 1))
    start = torch.zeros(17)
    stack = [replace(work, model=model, start=start) for work in stack]
    Changes.calls = 0
    expected = one_by_one([work.again() for work in stack])
    model = nn.Sequential(kind(), nn.Linear(16, 1))
    Changes.calls = 0
    with caplog.at_level(logging.WARNING):
        found = together([replace(work.again(), model=model) for work in stack])

    if kind is not Changes:
        close(found, expected)
    assert counted["captured"] == (1 if kind is Changes else 0)  # else it is known before
    assert [cause in record.message for record in caplog.records] == [True]


class Keeps(nn.Module):
    """Has the rows of the step that it was captured in, as a module that keeps what it saw first."""

    seen: torch.Tensor | None = None

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        if Keeps.seen is None or Keeps.seen.shape != inputs.shape:
            Keeps.seen = inputs.clone()
        return inputs * 0.5 + Keeps.seen * 0.0


class Remembers(nn.Module):
    """Computes a number of each new batch, and takes the one that it has where a batch comes again."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: torch.Tensor | None = None
        self.size = torch.ones(())

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        if inputs is not self.seen:
            self.seen = inputs
            self.size = inputs.abs().max()
        return inputs / self.size


def test_what_a_graph_kept_of_its_own_step_is_seen_in_the_next_one(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    """In the step that was captured it gives the same gradients, by a number of that step's rows."""
    monkeypatch.setattr(captured, "_told", set())
    model = nn.Sequential(Remembers(), nn.Linear(16, 1))
    together([replace(work, model=model, start=torch.zeros(17)) for work in works("mlp")])
    assert not stacked_model(model, CPU).captured.has_graph
    assert "it gave other gradients" in caplog.text


def test_a_graph_keeps_what_it_reads_alive(counted: Counter[str]):
    """A graph knows addresses only: what is there must not be freed and taken by others."""
    model = nn.Sequential(Keeps(), nn.Linear(16, 1))
    together([replace(work, model=model, start=torch.zeros(17)) for work in works("mlp")])
    graph = stacked_model(model, CPU).captured._graph
    assert graph is not None
    kept = {tensor.untyped_storage().data_ptr() for tensor in graph.given}
    assert Keeps.seen is not None
    for tensor in (Keeps.seen, graph.batch.inputs, graph.batch.share, graph.gradients[0]):
        assert tensor.untyped_storage().data_ptr() in kept


@pytest.mark.parametrize("rate", [1e-6, 0.3], ids=["no rows", "all rows are NaN"])
def test_a_step_without_gradients_shows_nothing_of_a_graph(rate: float, counted: Counter[str]):
    """Whatever a graph computed would come to the same: nothing, or no number at all."""
    stack = works("mlp", noise=PRIVATE if rate < 0.01 else None, rate=rate)
    if rate > 0.01:
        for work in stack:
            work.examples.inputs[:] = float("nan")
    model = nn.Sequential(nn.Linear(16, 1))
    train_together([replace(work, model=model, start=torch.zeros(17)) for work in stack], torch.zeros(5, 17))
    assert counted["captured"] == 1
    assert not stacked_model(model, CPU).captured.has_graph


def test_gradients_are_compared_by_their_own_size(monkeypatch: pytest.MonkeyPatch):
    """With a clip of 1e-5, sums of other rows would agree within any fixed number that suits a clip of 1."""
    monkeypatch.setattr(captured, "_told", set())
    Changes.calls = 0
    model = nn.Sequential(Changes(), nn.Linear(16, 1))
    stack = works("mlp", noise=Noise(1e-5, 1.0))
    together([replace(work, model=model, start=torch.zeros(17)) for work in stack])
    assert not stacked_model(model, CPU).captured.has_graph


def test_a_place_is_for_tensors_of_one_type():
    steps = captured.Captured()
    first = steps.place(torch.ones(3, 4))
    assert steps.place(torch.zeros(3, 4)) is first
    exact = torch.full((3, 4), 1 / 3, dtype=torch.float64)
    assert torch.equal(steps.place(exact), exact)


@pytest.mark.parametrize(("rows", "rate", "steps"), [
    ([40, 100, 250], 0.2, 4000),
    ([1000] * 3, 0.01, 4000),
    ([30], 1.0, 10),
    ([3, 5], 0.001, 1000),
])  # fmt: skip
def test_the_usual_width_is_hardly_ever_exceeded(rows: list[int], rate: float, steps: int):
    width = usual_width(rows, rate, 8)
    assert width % 8 == 0
    drawn = np.random.default_rng(0).binomial(rows, rate, (steps, len(rows))).max(1)
    assert (drawn > width).sum() <= 3
    assert width <= max(8, 2 * rate * max(rows) + 16)


def test_a_tape_repeats_operations_and_not_python():
    """What the tests above rest on: numbers of Python are those of the capture, and nothing is computed by it."""
    state = torch.zeros(2)
    calls = 0

    def work() -> None:
        nonlocal calls
        calls += 1
        state.add_(torch.ones(2) * calls)

    replay = on_gpu.captured(work, CPU)
    assert state.tolist() == [0, 0]
    replay()
    replay()
    assert state.tolist() == [2, 2]
    assert calls == 1


def test_persons_and_dropped_rows_are_not_captured(counted: Counter[str]):
    drops = nn.Sequential(nn.Linear(16, 4), nn.Dropout(0.5), nn.Linear(4, 1))
    start = torch.cat([value.detach().flatten() for value in drops.parameters()])
    stack = [
        Work(drops, start, examples(30, 16, seed=site), Plan(20, 0.3, 9.0, works("mlp")[0].plan.optimizer, None),
             streams(0, "federated", f"site{site}", 1), binary)
        for site in range(3)
    ]  # fmt: skip
    train_together(stack, start.repeat(3, 1))
    assert not counted


@pytest.mark.whole
@each_way
@pytest.mark.parametrize("name", test_any_layer.STACKED)
def test_every_architecture_is_captured_as_it_is_computed(
    name: str, noise: Noise | None, monkeypatch: pytest.MonkeyPatch
):
    stack = test_any_layer.works(test_any_layer.made(name), noise)
    expected = test_any_layer.together([work.again() for work in stack])
    monkeypatch.setattr(captured, "_OFTEN", 1)
    close(test_any_layer.together([work.again() for work in stack]), expected)
