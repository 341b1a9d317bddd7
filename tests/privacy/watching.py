"""What is seen of a training from inside: the noise that is drawn, and every message."""

import hashlib
from collections.abc import Iterable
from typing import Any

import pytest
import torch
from flwr.app import ArrayRecord, Message

from fedsim.engines.stack import train as cohort
from fedsim.experiments import arms
from fedsim.flower.grid import InProcessGrid
from fedsim.privacy import central, noise_shares, optimizer, own_update
from fedsim.randomness import Normals


class Watch:
    """Counts and keeps what every noise generator gives: in both engines, at the server, and in what a site adds."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        watch = self
        self.shapes: list[tuple[int, ...]] = []
        self.digests: list[str] = []

        class Watched(Normals):
            def fill(self, out: torch.Tensor) -> None:
                super().fill(out)
                watch.shapes.append(tuple(out.shape))
                watch.digests += [hashlib.sha256(row.numpy().tobytes()).hexdigest() for row in out]

        for module in (cohort, optimizer, central, own_update, noise_shares):
            monkeypatch.setattr(module, "Normals", Watched)


class Messages:
    """Keeps all that a private training's server sends to its sites, and all that they answer, field by field."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        watch = self
        self.sent: list[dict[str, Any]] = []
        self.replies: list[dict[str, Any]] = []

        class Tapped(InProcessGrid):
            def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
                asked = list(messages)
                if "noise-multiplier" not in self._run_config:
                    return list(super().send_and_receive(asked))
                watch.sent += [read(message) for message in asked]  # before an app can change one
                replies = list(super().send_and_receive(asked))
                watch.replies += [read(reply) for reply in replies]
                return replies

        monkeypatch.setattr(arms, "InProcessGrid", Tapped)


def read(message: Message) -> dict[str, Any]:
    """Return all there is in a message but for the time: {place: value}; arrays as (type, shape, encoding, bytes)."""
    about = message.metadata
    found: dict[str, Any] = {
        name: getattr(about, name)
        for name in ("src_node_id", "dst_node_id", "message_type", "message_id", "reply_to_message_id", "group_id")
    }
    if message.has_error():
        return {**found, "error": (message.error.code, message.error.reason)}
    for name, record in message.content.items():
        found[name] = type(record).__name__ if not isinstance(record, ArrayRecord) else "ArrayRecord"
        for key, value in record.items():
            array = isinstance(record, ArrayRecord)
            found[f"{name}/{key}"] = (value.dtype, tuple(value.shape), value.stype, value.data) if array else value
    return found
