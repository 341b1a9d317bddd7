"""All that a step needs is on the device of its rows: computed on ``meta``, as if that were a GPU.

A tensor there has a shape and a device, and no numbers. So it refuses whoever asks for a number.
"""

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from fedsim import devices
from fedsim.data.federation import Examples
from fedsim.engines.stack import captured
from fedsim.engines.stack.train import check_rules, train_together
from fedsim.training.work import Noise, Work
from tests.engines.stack import test_any_layer
from tests.engines.stack.test_train import MODELS, OPTIMIZERS, works

META = torch.device("meta")
UNTIED = "tied weights"  # going to meta, torch makes two parameters of one, as it does not on a way to CUDA
each_way = pytest.mark.parametrize("noise", [None, Noise(0.5, 1.0)], ids=["plain", "private"])


@pytest.fixture(autouse=True)
def meta_is_a_gpu() -> Iterator[None]:
    """Steps are captured, too, where nobody can look whether a graph comes to the same."""

    def moved(values: np.ndarray, device: torch.device) -> torch.Tensor:
        return torch.from_numpy(values).to(device)

    with (
        mock.patch.object(devices, "is_gpu", lambda device: device == META),
        mock.patch.object(devices, "free_bytes", return_value=2**34),
        mock.patch.object(devices, "moved", moved),
        mock.patch.object(captured, "_OFTEN", 1),
        mock.patch.object(captured.Captured, "_try", lambda _, graph, batch: setattr(graph, "agreed", 2)),
        mock.patch.object(torch, "autocast", return_value=nullcontext()),  # it knows no meta
    ):
        yield


class OneDevice(TorchDispatchMode):
    """Refuses operations on tensors of several devices; copies, and single numbers of the CPU's, are not among them."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = [value for value in tree_flatten((args, kwargs))[0] if isinstance(value, torch.Tensor) and value.dim()]
        found = {value.device for value in given}
        if len(found) > 1 and "copy" not in func.__name__:
            raise RuntimeError(f"{func.__name__}: expected tensors on one device, got some on {found}")
        return func(*args, **(kwargs or {}))


def train_on_meta(stack: list[Work]) -> None:
    check_rules(stack[0].model, stack[0].losses, stack[0].examples)
    model = stack[0].model.to(META)
    moved = []
    for work in stack:
        rows = Examples(work.examples.inputs.to(META), work.examples.target.to(META))
        moved.append(replace(work, model=model, start=work.start.to(META), examples=rows))

    found = torch.stack([work.start for work in moved])
    with OneDevice():
        results = train_together(moved, found)
    for done in results:
        assert done.parameters.device == META


@each_way
@pytest.mark.parametrize("model", [name for name in MODELS if name != "linear with ghost norms"])
def test_a_step_mixes_no_devices(model: str, noise: Noise | None):
    train_on_meta(works(model, noise=noise, steps=4))


@each_way
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_no_optimizer_mixes_devices(optimizer: str, noise: Noise | None):
    train_on_meta([replace(work, follow=True) for work in works("mlp", optimizer, noise, steps=3)])


@pytest.mark.whole
@each_way
@pytest.mark.parametrize("name", [name for name in test_any_layer.STACKED if name != UNTIED])
def test_no_architecture_mixes_devices(name: str, noise: Noise | None):
    train_on_meta(test_any_layer.works(test_any_layer.made(name), noise))


def test_layers_that_ask_which_rows_cancel_are_seen_to_ask():
    """So this test notices who asks; a private layer over a few positions with large weights does."""
    train_on_meta(works("linear with ghost norms", steps=4))
    with pytest.raises(NotImplementedError, match="nonzero"):
        train_on_meta(works("linear with ghost norms", noise=Noise(0.5, 1.0), steps=4))


def test_an_index_that_is_left_on_the_cpu_is_seen():
    left_there = mock.patch.object(devices, "moved", lambda values, _: torch.from_numpy(values))
    with left_there, pytest.raises(RuntimeError, match="one device"):
        train_on_meta(works("mlp", steps=2))
