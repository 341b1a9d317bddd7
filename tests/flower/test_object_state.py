"""What somebody else's strategy keeps in its attributes is written down and put back, or said to be impossible."""

import random
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord

from fedsim.flower.object_state import Opaque, put_back, state_of
from fedsim.flower.packed import pack, unpack


class Inner:
    def __init__(self) -> None:
        self.count = 0


class Keeps:
    def __init__(self) -> None:
        self.numpy = np.random.default_rng(1)
        self.python = random.Random(1)
        self.torch = torch.Generator().manual_seed(1)
        self.inner = Inner()
        self.key = b"\x00\xff"
        self.nothing = None
        self.model = ArrayRecord({"w": Array(np.zeros(3, np.float32))})
        self.told = {("a", 1): [1.5, (2, "b")], 3: {}}

    def draw(self) -> tuple[Any, ...]:
        return (
            self.numpy.standard_normal(3).tolist(),
            self.python.random(),
            torch.rand(3, generator=self.torch).tolist(),
        )


def test_all_that_it_keeps_is_put_back_and_draws_what_it_would_have_drawn():
    first = Keeps()
    first.draw()
    first.inner.count = 7
    first.key = b"other"
    first.model = ArrayRecord({"w": Array(np.arange(3, dtype=np.float32))})
    first.told["new"] = [True, None]  # type: ignore[index]
    state = unpack(pack(state_of(first)))

    second = Keeps()
    put_back(second, state)
    assert second.inner.count == 7
    assert second.key == b"other"
    assert second.nothing is None
    assert second.told == first.told
    assert second.model["w"].numpy().tolist() == [0, 1, 2]
    assert second.draw() == first.draw()


@dataclass(frozen=True)
class Frozen:
    kept: dict[str, int] = field(default_factory=dict)


def test_a_frozen_object_is_put_back():
    second = Frozen()
    put_back(second, state_of(Frozen({"a": 1})))
    assert second == Frozen({"a": 1})


class Slots:
    __slots__ = ("a",)


@pytest.mark.parametrize(
    ("attribute", "message"),
    [
        ({1, 2}, "expected values, got a set among them"),
        ([Inner()], "expected values, got a Inner among them"),
        ({"a": object()}, "expected values, got a object among them"),
        (Slots(), "expected an object with attributes, got a Slots"),
    ],
)
def test_what_cannot_be_written_down_is_named(attribute: object, message: str):
    keeps = Inner()
    keeps.count = attribute  # type: ignore[assignment]
    with pytest.raises(Opaque, match=message):
        state_of(keeps)
