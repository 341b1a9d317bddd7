"""What tests share. Flower's telemetry is off, no answer is kept on disk, and nothing may reach the network."""

import os

os.environ.update(FLWR_TELEMETRY_ENABLED="0", FLWR_DISABLE_UPDATE_CHECK="1", FEDSIM_CACHE="off")

import math
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings
from matplotlib.figure import Figure
from torch import nn
from torch.nn.utils import parameters_to_vector

from fedsim import randomness
from fedsim.data.federation import Examples
from fedsim.experiments import progress
from fedsim.randomness import Words
from fedsim.scenario.files import read
from fedsim.scenario.schema import Scenario
from fedsim.training.losses import RowLosses, binary
from fedsim.training.work import Plan, Streams, Work

torch.set_num_threads(1)
settings.register_profile("shared machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shared machine")


if salt := os.environ.get("FEDSIM_TEST_SALT", "").lstrip("0"):  # other random numbers in every test: see mutants
    _unsalted = randomness._digest
    randomness._digest = lambda seed, purpose, place, size: _unsalted(seed, purpose, (*place, "salt", salt), size)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--part", default="0/1", help="K/N: run every N-th of the selected tests, from the K-th on.")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep a part of the tests that ``-m`` and ``-k`` have selected, spread over all of them."""
    first, parts = map(int, config.getoption("--part").split("/"))
    kept = items[first % parts :: parts]
    left = set(items) - set(kept)
    items[:] = kept
    config.hook.pytest_deselected(items=list(left))


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nothing connect to another machine: only to sockets of this one, where a test opened them."""
    connect = socket.socket.connect

    def refuse(self: socket.socket, address: object) -> None:
        host = address[0] if isinstance(address, tuple) else "127.0.0.1"  # another kind of socket, of this machine
        if host != "127.0.0.1":
            raise AssertionError(f"a test connects to {address}")
        connect(self, address)  # type: ignore[arg-type]

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture(autouse=True)
def _no_lines_of_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the line now and then, which a slow machine would see, out of what tests compare."""
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", math.inf)


@contextmanager
def _undrawn() -> Iterator[None]:
    savefig = Figure.savefig

    def save(figure: Figure, file: Any, **how: Any) -> None:
        if how.get("format") == "svg":
            file.write("<svg ></svg>")
        else:
            savefig(figure, file, **how)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Figure, "savefig", save)
        yield


@pytest.fixture(scope="module")
def charts_undrawn() -> Iterator[None]:
    """Leave the charts of reports empty, which take longer than a small run, where no test looks at them."""
    with _undrawn():
        yield


@pytest.fixture(scope="session")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the directory of a run of one round and one seed without privacy, to be read or copied, never changed."""
    from fedsim.experiments.experiment import execute

    with _undrawn():
        small = read("hospital-heart", ["training.rounds=1", "seeds=1", "privacy.unit=none"])
        return execute(small, tmp_path_factory.mktemp("runs") / "small").path


@pytest.fixture
def scenario() -> Callable[..., Scenario]:
    """Read hospital-heart, made small, with overrides."""

    def make(*overrides: str) -> Scenario:
        return read("hospital-heart", ["training.rounds=2", "seeds=1", "privacy.epsilon=1", *overrides])

    return make


def examples(rows: int, inputs: int = 4, seed: int = 0) -> Examples:
    """Make random rows with both classes."""
    random = np.random.default_rng(seed)
    features = random.normal(size=(rows, inputs)).astype(np.float32)
    target = (random.random(rows) < 0.5).astype(np.float32)
    return Examples(torch.from_numpy(features), torch.from_numpy(target))


def streams(seed: int, arm: str, site: str, number: int, *overrides: str) -> Streams:
    """Return the streams of a variant of hospital-heart."""
    return Streams.of(read("hospital-heart", overrides), seed, arm, site, number)


class Silent(Words):
    """A stream of words that give no noise at all; they are drawn on the CPU for a GPU, too, as secret ones are."""

    def __init__(self) -> None:
        super().__init__(bytes(16), secret=True)

    def draw_into(self, out: memoryview, zeros: bytes) -> None:
        out[: len(zeros)] = np.full(len(zeros) // 4, 0x7FFFFFFF, np.uint32).tobytes()

    def again(self) -> Words:
        return Silent()


def vector(module: nn.Module) -> torch.Tensor:
    return parameters_to_vector(module.parameters()).detach().clone()


def work(model: nn.Module, rows: Examples, todo: Plan, drawn: Streams, losses: RowLosses = binary) -> Work:
    """Return a work that starts from the model's own parameters."""
    return Work(model, vector(model), rows, todo, drawn, losses)
