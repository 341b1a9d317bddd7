"""What a stack does on a GPU, done on a CPU: the same numbers, by other ways."""

from collections import Counter
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from fedsim.data.federation import Examples
from fedsim.engines.stack.convolutions import Conv2d
from fedsim.training.work import Noise, Work
from tests.engines.stack.test_train import MODELS, together, works
from tests.on_gpu import ASKS, as_on_a_gpu
from tests.works import Silent

each_way = pytest.mark.parametrize("noise", [None, Noise(0.5, 1.0)], ids=["plain", "private"])


def without_noise(stack: list[Work]) -> list[Work]:
    """Return works whose noise is zero: CPU and GPU draw other numbers."""
    return [replace(work, streams=replace(work.streams, noise=Silent())) for work in stack]


@pytest.mark.whole
@each_way
@pytest.mark.parametrize("model", MODELS)
def test_a_stack_as_on_a_gpu_agrees_with_one_on_a_cpu(model: str, noise: Noise | None):
    expected = together(without_noise(works(model, noise=noise, steps=4)))
    with as_on_a_gpu():
        found = together(without_noise(works(model, noise=noise, steps=4)))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def chunks_of(model: str, free: int | None, monkeypatch: pytest.MonkeyPatch) -> tuple[list[int], torch.Tensor]:
    """Train one private step; return how many rows' positions each call gathered, and what came of it.

    ``free`` is the memory that a GPU has free, None on a CPU.
    """
    gathered = []
    whole = Conv2d.pairs

    def counted(self: Conv2d, rows: slice) -> tuple[torch.Tensor, torch.Tensor]:
        pairs = whole(self, rows)
        gathered.append(len(pairs[0]))
        return pairs

    with monkeypatch.context() as patched, nullcontext() if free is None else as_on_a_gpu(free):
        patched.setattr(Conv2d, "pairs", counted)
        found = together(without_noise(works(model, noise=Noise(0.5, 1.0), steps=1, rate=1.0)))
    return gathered, found


def test_norms_of_convolutions_are_taken_of_as_many_rows_as_there_is_memory_for(monkeypatch: pytest.MonkeyPatch):
    """The same numbers come of one chunk of all rows, of single rows, and of the chunks of a CPU."""
    of_cpu, expected = chunks_of("conv", None, monkeypatch)
    assert max(of_cpu) == Conv2d.rows_at_once
    at_once, found = chunks_of("conv", 2**34, monkeypatch)
    assert at_once == [5 * 32]  # five sites, filled up to the longest of 30 rows, and that to 32
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    one_by_one, found = chunks_of("conv", 1, monkeypatch)
    assert set(one_by_one) == {1}
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


class _Asked(TorchDispatchMode):
    """Counts the operators whose answer the CPU would wait for."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = Counter[str]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.__name__.partition(".")[0]
        if name in ASKS:
            self.asked[name] += 1
        return func(*args, **(kwargs or {}))


@each_way
@pytest.mark.parametrize("model", ["mlp", "conv", "pooling", "groupnorm", "embedding"])
def test_no_step_waits_for_a_gpu(model: str, noise: Noise | None):
    """A private step on a CPU asks whether a row is spoiled, which shows that this test sees who asks."""
    asked = {}
    for way in (nullcontext(), as_on_a_gpu()):
        stack = without_noise(works(model, noise=noise, steps=3, rate=1.0))
        with way, _Asked() as mode:
            together(stack)
        asked[type(way)] = sum(mode.asked.values())
    on_cpu, on_gpu = asked.values()
    assert (on_cpu, on_gpu) == (3 if noise else 0, 0)


@pytest.mark.parametrize("free", [2**34, 2**10], ids=["gradients of rows kept", "not kept"])
@pytest.mark.parametrize("model", ["mlp", "conv"])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_row_that_is_not_finite_counts_as_zero_on_a_gpu_too(model: str, bad: float, free: int):
    """B9, M8: nobody asks whether there is one, and none spoils the release."""
    without, spoiled = (without_noise(works(model, noise=Noise(0.5, 1.0), steps=4, rate=1.0)) for _ in range(2))
    rows = spoiled[2].examples
    rows.inputs[4] = bad
    others = torch.arange(len(rows)) != 4
    without[2] = replace(without[2], examples=Examples(rows.inputs[others], rows.target[others]))
    with as_on_a_gpu(free):
        found, expected = together(spoiled), together(without)
    assert found.isfinite().all()
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
