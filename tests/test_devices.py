"""What depends on the device; there is no GPU here, so that torch's own part of a capture is played."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import pytest
import torch

from fedsim import devices

CUDA = torch.device("cuda")


class Graph:
    def replay(self) -> None: ...


def played(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Let captures be torch's but for the GPU; return the list of streams, of which the last one is current."""
    streams = ["the program's"]

    @contextmanager
    def graph(_: Graph, capture_error_mode: str) -> Iterator[None]:
        assert capture_error_mode == "thread_local"
        streams.append("the capture's")
        yield
        streams.pop()  # torch does not get here if the work or the end of the capture fails

    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "graph", graph)
    monkeypatch.setattr(torch.cuda, "device", nullcontext)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: streams[-1])
    monkeypatch.setattr(torch.cuda, "set_stream", streams.append)
    return streams


def test_a_capture_is_done_once_and_gives_what_repeats_it(monkeypatch: pytest.MonkeyPatch):
    streams = played(monkeypatch)
    done = []
    replay = devices.captured(lambda: done.append(streams[-1]), CUDA)
    assert done == ["the capture's"]
    assert replay.__func__ is Graph.replay  # type: ignore[attr-defined]


def test_after_a_capture_that_fails_the_program_goes_on_in_its_own_stream(monkeypatch: pytest.MonkeyPatch):
    streams = played(monkeypatch)

    def asks() -> None:
        raise RuntimeError("operation not permitted when stream is capturing")

    with pytest.raises(RuntimeError, match="not permitted"):
        devices.captured(asks, CUDA)
    assert streams[-1] == "the program's"
