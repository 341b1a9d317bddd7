"""Sites that send given updates under masks, and a server that aggregates them: no training."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message
from flwr.clientapp import ClientApp

from fedsim.engines.serial import execute
from fedsim.flower.adapter import Adapter
from fedsim.flower.grid import FIRST_NODE, InProcessGrid, node_of
from fedsim.flower.records import STAGES
from fedsim.flower.secure.server import SecureAdapter
from fedsim.flower.secure.site import advertise, check_ready, mask, share, unmask
from fedsim.scenario.schema import SecureAggregation
from strategies.fedavg import FedAvg

Change = Callable[[int, Message], Message | None]
SETTINGS = SecureAggregation(on=True, threshold=0.6)


class Sites(InProcessGrid):
    """A grid of sites, and a tap on what they send.

    Args:
        updates: What each sends, (params,).
        change: From a step's number and a site's honest reply to what arrives in its place, or None if nothing does.
    """

    def __init__(
        self,
        updates: Sequence[np.ndarray],
        change: Change = lambda step, reply: reply,
        weights: Sequence[float] | None = None,
        settings: SecureAggregation = SETTINGS,
    ) -> None:
        self.updates, self.change, self.settings = updates, change, settings
        self.weights = weights or [1.0 + site for site in range(len(updates))]
        self.seen: list[tuple[int, Message]] = []
        super().__init__(execute(self._app()), len(updates), {"secure-aggregation": True})

    def send_and_receive(self, messages, *, timeout=None):
        messages = list(messages)
        step = STAGES.index(messages[0].metadata.message_type) if messages else -1
        replies = [self.change(step, reply) for reply in super().send_and_receive(messages)]
        self.seen += [(step, reply) for reply in replies if reply is not None]
        return [reply for reply in replies if reply is not None]

    def _app(self) -> ClientApp:
        app = ClientApp()

        @app.query("keys")
        def keys(message: Message, context: Context) -> Message:
            return advertise(message, context, self.settings)

        @app.query("shares")
        def shares(message: Message, context: Context) -> Message:
            return share(message, context)

        @app.train()
        def train(message: Message, context: Context) -> Message:
            check_ready(message, context)
            site = context.node_id - FIRST_NODE
            content = mask(message, context, self.settings, self.updates[site], self.weights[site])
            return Message(content, reply_to=message)

        @app.query("unmask")
        def unmasking(message: Message, context: Context) -> Message:
            return unmask(message, context)

        return app


def model_of(grid: Sites) -> ArrayRecord:
    return ArrayRecord({"model": Array(np.full(len(grid.updates[0]), 0.5, np.float32))})


def server_of(grid: Sites, fixed_denominator: bool = False) -> SecureAdapter:
    weights = {node_of(site): weight for site, weight in enumerate(grid.weights)}
    return SecureAdapter(Adapter(FedAvg(), weights, fixed_denominator), grid.settings)


def a_round(grid: Sites, server: SecureAdapter | None = None, number: int = 1) -> np.ndarray:
    """Run one round; return the new model."""
    server = server or server_of(grid)
    messages = list(server.configure_train(number, model_of(grid), ConfigRecord(), grid))
    replies = grid.send_and_receive(messages)
    usable = server.screen(replies, [message.metadata.dst_node_id for message in messages])
    arrays, _ = server.aggregate_train(number, usable)
    assert arrays is not None
    return arrays["model"].numpy()


def random_updates(sites: int = 5, params: int = 40) -> list[np.ndarray]:
    return [np.random.default_rng(site).normal(size=params) for site in range(sites)]


def mean(updates: Sequence[np.ndarray], weights: Sequence[float], of: Sequence[int]) -> np.ndarray:
    """Return the model plus the weighted mean of some sites' updates."""
    total = sum(weights[site] for site in of)
    return 0.5 + sum(weights[site] * updates[site] for site in of) / total  # type: ignore[return-value]


def gone(at: Mapping[int, Sequence[int]]) -> Change:
    """Let sites be gone from a step on: {step: sites}."""

    def change(step: int, reply: Message) -> Message | None:
        site = reply.metadata.src_node_id - FIRST_NODE
        return None if any(site in sites and step >= first for first, sites in at.items()) else reply

    return change
