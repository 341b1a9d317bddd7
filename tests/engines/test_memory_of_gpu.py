"""Stacks are cut by a GPU's free memory, and cut again where it runs out all the same."""

import gc
import weakref
from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch
from torch import nn

from fedsim.engines import cohort
from fedsim.engines.stack import train as stacking
from fedsim.engines.stack.train import Cost
from fedsim.mistakes import Mistake
from fedsim.randomness import Words
from fedsim.scenario.schema import Optimizer
from fedsim.training.losses import binary
from fedsim.training.work import Done, Noise, Plan, Streams, Work
from tests.on_gpu import as_on_a_gpu
from tests.works import examples, vector

PLAN = Plan(3, 0.5, 8.0, Optimizer(name="sgd", lr=0.5), Noise(1.0, 1.0))


@pytest.fixture(autouse=True)
def nothing_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cohort, "_fitted", type(cohort._fitted)())


def sites(count: int, rows: int = 12, secret: bool = False) -> list[Work]:
    """Return private works of one small model, with streams of their own."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Linear(4, 1)
    start = vector(net)
    found = []
    for site in range(count):
        streams = Streams(Words.of(0, "batches", site), Words.of(0, "noise", site))
        if secret:
            streams = Streams(Words.unknown(), Words.unknown())
        found.append(Work(net, start, examples(rows, 4, seed=site), PLAN, streams, binary))
    return found


def trained(works: list[Work], monkeypatch: pytest.MonkeyPatch, most: int = 10**9) -> tuple[list[Done], list[int]]:
    """Train works; memory runs out, after all steps but before an answer, in stacks of more than ``most`` sites.

    Returns:
        The results, and the size of each stack that was tried.
    """
    tried = []
    whole = stacking.train_together

    def short_of_memory(some: list[Work], stack: torch.Tensor) -> list[Done]:
        tried.append(len(some))
        done = whole(some, stack)
        if len(some) > most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return done

    with monkeypatch.context() as patched:
        patched.setattr(cohort, "train_together", short_of_memory)
        return cohort.train_all(works), tried


def parameters(found: list[Done]) -> torch.Tensor:
    return torch.stack([done.parameters for done in found])


def test_there_is_one_stack_on_a_gpu_where_a_cpu_makes_several(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(cohort, "_MEMORY", 4000)
    _, on_cpu = trained(sites(40), monkeypatch)
    with as_on_a_gpu():
        _, on_gpu = trained(sites(40), monkeypatch)
    assert len(on_cpu) > 1
    assert on_gpu == [40]


def test_stacks_are_cut_by_the_free_memory(monkeypatch: pytest.MonkeyPatch):
    """Twice as much memory means stacks of twice as many sites, and results are the same but for rounding."""
    sizes = []
    for free in (2**14, 2**15, 2**18):
        with as_on_a_gpu(free):
            found, tried = trained(sites(40), monkeypatch)
            expected = parameters(cohort.train_all(sites(40), 40))
        assert sum(tried) == 40
        sizes.append(tried[0])
        torch.testing.assert_close(parameters(found), expected, rtol=1e-4, atol=1e-6)
    least, middle, most = sizes
    assert 1 <= least < middle < most == 40
    assert middle - 2 * least in (0, 1)


def test_a_cohort_size_of_the_users_is_kept_on_a_gpu(monkeypatch: pytest.MonkeyPatch):
    tried = []
    whole = stacking.train_together
    monkeypatch.setattr(cohort, "train_together", lambda works, stack: tried.append(len(works)) or whole(works, stack))
    with as_on_a_gpu():
        cohort.train_all(sites(7), 3)
    assert tried == [3, 3, 1]


def test_larger_sites_make_smaller_stacks():
    few, many = sites(2, rows=10), sites(2, rows=1000)
    cost = cohort._cost(few[0])
    assert isinstance(cost, Cost)
    with as_on_a_gpu(2**20):
        assert cohort._most_in_free_memory(many, cost) < cohort._most_in_free_memory(few, cost)


@pytest.mark.parametrize("gpu", [True, False], ids=["as on a GPU", "on a CPU"])
@pytest.mark.parametrize("secret", [False, True], ids=["reproducible", "secure"])
def test_the_second_try_has_the_noise_and_the_batches_of_a_training_without_the_fault(
    secret: bool, gpu: bool, monkeypatch: pytest.MonkeyPatch
):
    """M11: no number of a stream goes into a release twice, and none that belongs to it is left out.

    The sites but the first have no rows and release noise alone, so that their results are the same bits.
    """
    with as_on_a_gpu() if gpu else nullcontext():
        works = [*sites(1, 12, secret), *sites(5, 0, secret)[1:]]
        works = [replace(work, model=works[0].model) for work in works]
        expected, once = trained([work.again() for work in works], monkeypatch)
        found, tried = trained(works, monkeypatch, most=1)
    assert len(once) == 1
    assert tried == [5, 3, 2, 1, 1, 1, 2, 1, 1]
    assert torch.equal(parameters(found)[1:], parameters(expected)[1:])
    torch.testing.assert_close(parameters(found), parameters(expected), rtol=1e-4, atol=1e-6)
    assert [done.mechanism for done in found] == [done.mechanism for done in expected]
    assert len({tuple(row.tolist()) for row in parameters(found)}) == 5  # each has noise of its own


def test_what_did_not_fit_is_not_tried_again_in_the_next_round(monkeypatch: pytest.MonkeyPatch):
    works = sites(8)
    with as_on_a_gpu():
        _, first = trained(works, monkeypatch, most=4)
        _, second = trained([work.again() for work in works], monkeypatch, most=4)
    assert (first, second) == ([8, 4, 4], [4, 4])


def test_a_single_site_that_does_not_fit_is_told_what_to_change(monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(Mistake, match=r"expected memory for the training of one site.*lower training\.sampling_rate"):
        trained(sites(3), monkeypatch, most=0)


def test_nothing_else_is_trained_again(monkeypatch: pytest.MonkeyPatch):
    """A Mistake inside a stack is a user's, and goes on as it is."""
    tried = []

    def failing(works: list[Work], stack: torch.Tensor) -> list[Done]:
        tried.append(len(works))
        raise Mistake("privacy: no")

    monkeypatch.setattr(cohort, "train_together", failing)
    with pytest.raises(Mistake, match="privacy: no"):
        cohort.train_all(sites(4))
    assert tried == [4]


def test_the_tensors_of_a_step_are_let_go_before_the_halves_are_trained(monkeypatch: pytest.MonkeyPatch):
    """Else the halves would find the memory taken: by the frames of the error, or by what the layers keep."""
    whole = stacking.train_together
    held: list[weakref.ref[torch.Tensor]] = []
    alive = []

    def failing(works: list[Work], stack: torch.Tensor) -> list[Done]:
        alive.append(sum(tensor() is not None for tensor in held))
        of_frame, of_layer = torch.zeros(5), torch.zeros(5)
        held.extend([weakref.ref(of_frame), weakref.ref(of_layer)])
        done = whole(works, stack)
        layer = stacking.stacked_model(works[0].model, stack.device).layers[0]
        layer.uses.append((of_layer, of_layer))  # as in a step that did not come to its end
        if len(works) > 2:
            raise torch.OutOfMemoryError("out of memory")
        return done

    monkeypatch.setattr(cohort, "train_together", failing)
    gc.disable()  # what lies in a circle of references is not let go in time
    try:
        cohort.train_all(sites(4), 4)
    finally:
        gc.enable()
    assert alive[:2] == [0, 0]
