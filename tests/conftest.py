"""What tests share. Flower's telemetry is off, no answer is kept on disk, and nothing may reach the network."""

import os

os.environ.update(FLWR_TELEMETRY_ENABLED="0", FLWR_DISABLE_UPDATE_CHECK="1", FEDSIM_CACHE="off")

import gc
import math
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from fedsim.scenario.schema import Scenario


@cache
def _settle() -> None:
    """Set what all tests of this process share; whoever only hands tests out to others imports no library."""
    import torch
    from hypothesis import HealthCheck, settings

    from fedsim import randomness

    torch.set_num_threads(1)
    settings.register_profile("shared machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("shared machine")
    if salt := os.environ.get("FEDSIM_TEST_SALT", "").lstrip("0"):  # other random numbers in every test: see mutants
        unsalted = randomness._digest
        randomness._digest = lambda seed, purpose, place, size: unsalted(seed, purpose, (*place, "salt", salt), size)


def pytest_collectstart() -> None:
    """Settle before the first test is imported; what is made in collecting stays, and is not searched for garbage."""
    gc.disable()
    _settle()


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
    from fedsim.experiments import progress

    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", math.inf)


@contextmanager
def _undrawn() -> Iterator[None]:
    from matplotlib.figure import Figure

    savefig = Figure.savefig

    def save(figure: "Figure", file: Any, **how: Any) -> None:
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
    from fedsim.scenario.files import read

    with _undrawn():
        small = read("hospital-heart", ["training.rounds=1", "seeds=1", "privacy.unit=none"])
        return execute(small, tmp_path_factory.mktemp("runs") / "small").path


@pytest.fixture
def scenario() -> "Callable[..., Scenario]":
    """Read hospital-heart, made small, with overrides."""
    from fedsim.scenario.files import read

    def make(*overrides: str) -> "Scenario":
        return read("hospital-heart", ["training.rounds=2", "seeds=1", "privacy.epsilon=1", *overrides])

    return make


def pytest_collection_finish() -> None:
    """Leave the thousands of collected tests out of each search for garbage from here on."""
    gc.freeze()
    gc.enable()
