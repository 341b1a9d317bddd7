"""Two objects that could train differently have different digests; the same code has the same, in any process."""

import subprocess
import sys
import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from fedsim.scenario.code.fingerprint import digest_of
from tests.given import Halved, falls, linear, made, rows


@pytest.mark.whole
def test_the_same_code_has_the_same_digest_in_another_process():
    code = (
        "from tests.given import falls; from fedsim.scenario.code.fingerprint import digest_of; print(digest_of(falls))"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == digest_of(falls)


def test_code_that_is_run_again_has_the_same_digest():
    source = "width = 3\ndef make():\n    return [width, (1, 2), {'a': frozenset({1, 2})}]\n"
    first: dict[str, object] = {}
    again: dict[str, object] = {}
    exec(source, first)
    exec(source, again)
    assert first["make"] is not again["make"]
    assert digest_of(first["make"]) == digest_of(again["make"])


def _with_captured(value: object):
    return lambda features: (value, features)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1, 2),
        (1, 1.0),
        (np.zeros(3), np.ones(3)),
        (torch.zeros(3), torch.ones(3)),
        ({"a": 1}, {"a": 2}),
        ({1, 2}, {1, 3}),
        (nn.ReLU, nn.GELU),
        (nn.Dropout(0.1), nn.Dropout(0.2)),
        (linear, rows),
    ],
)
def test_what_code_captures_is_part_of_its_digest(one: object, other: object):
    assert digest_of(_with_captured(one)) != digest_of(_with_captured(other))
    assert digest_of(_with_captured(one)) == digest_of(_with_captured(one))


def test_a_global_that_a_function_uses_is_part_of_its_digest():
    def named(width: int):
        space = {"width": width}
        exec("def inner():\n    return width\ndef outer():\n    return inner()\n", space)
        return space["outer"]

    assert digest_of(named(3)) == digest_of(named(3))
    assert digest_of(named(3)) != digest_of(named(4))


def test_a_method_and_a_default_of_a_class_are_part_of_its_digest():
    def of(factor: float, body: str) -> type:
        space: dict[str, type] = {}
        exec(f"class Mine:\n    factor = {factor}\n    def aggregate(self, x):\n        return {body}\n", space)
        return space["Mine"]

    assert digest_of(of(0.5, "x")) == digest_of(of(0.5, "x"))
    assert len({digest_of(of(0.5, "x")), digest_of(of(0.6, "x")), digest_of(of(0.5, "x + 1"))}) == 3
    assert digest_of(Halved) == digest_of(Halved)


def test_each_field_of_a_task_is_part_of_its_digest():
    assert digest_of(made()) == digest_of(made())
    changed = [replace(falls, outcome="none"), made(model=lambda features: nn.Linear(features, 1)), falls]
    assert len({digest_of(task) for task in changed}) == 3


def test_what_can_not_be_read_is_told_apart_by_what_it_is():
    first, second = threading.Lock(), threading.Lock()
    assert digest_of(_with_captured(first)) == digest_of(_with_captured(first))
    assert digest_of(_with_captured(first)) != digest_of(_with_captured(second))


def test_a_function_that_calls_itself_has_a_digest():
    def fact(number: int) -> int:
        return 1 if number == 0 else number * fact(number - 1)

    assert len(digest_of(fact)) == 64
