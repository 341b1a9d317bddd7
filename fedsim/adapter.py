"""From a strategy that is pure math to a Flower Strategy."""

from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy as FlowerStrategy
from torch import Tensor

from fedsim.mistakes import Mistake
from fedsim.privacy.central import CentralNoise
from fedsim.records import (
    ARRAYS,
    CONFIG,
    METRICS,
    REPORTED,
    ROUND,
    TOLD,
    WEIGHT,
    flatten,
    from_state,
    stacked,
    unflatten,
)
from fedsim.strategy import State, Strategy, reports_of


class Adapter(FlowerStrategy):
    """A Flower Strategy that asks all sites, or some, and aggregates with a strategy of ours.

    Args:
        math: The strategy.
        weights: {node: public weight}. Without it the replies' ``num-examples`` count, as in Flower's strategies.
        fixed_denominator: Divide by the weight of all asked sites, also when some did not answer. Required under
            privacy: who answered must not change what one record can do. Needs ``weights``.
        schedule: From the number of a round, from 1 on, to the nodes that are asked in it, ascending; without it all.
        noise: Where the server adds the noise: the strategy is handed one update, the noisy mean, of weight 1. Then
            ``weights`` and ``fixed_denominator`` have no say: its own public weights count.
    """

    def __init__(
        self,
        math: Strategy,
        weights: Mapping[int, float] | None = None,
        fixed_denominator: bool = False,
        schedule: Callable[[int], Sequence[int]] | None = None,
        noise: CentralNoise | None = None,
    ) -> None:
        if fixed_denominator and weights is None:
            raise ValueError("expected public weights beside fixed_denominator, got none")
        self.math = math
        self.weights = weights
        self.fixed_denominator = fixed_denominator
        self.schedule = schedule
        self.noise = noise
        self.state: State = {}
        self.sent = ArrayRecord()
        self._asked: Sequence[int] = []

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Send the global model to the round's sites; all messages hold one RecordDict, as in Flower's strategies."""
        self.sent = arrays
        self._asked = self.schedule(server_round) if self.schedule else sorted(grid.get_node_ids())
        content = RecordDict({ARRAYS: arrays, CONFIG: ConfigRecord({**config, ROUND: server_round})})
        told = {name: self.state[name] for name in getattr(self.math, "tells", ()) if name in self.state}
        if told:
            content[TOLD] = from_state(told)
        return [Message(content, dst_node_id=node, message_type=MessageType.TRAIN) for node in self._asked]

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Aggregate the models that came back; no metric of a site is aggregated."""
        usable = sorted((r for r in replies if r.has_content()), key=lambda reply: reply.metadata.src_node_id)
        if not usable and self.noise is None:
            return None, None
        sent = flatten(self.sent)
        vectors = [flatten(reply.content[ARRAYS]) for reply in usable]  # type: ignore[arg-type]
        updates = stacked(vectors) if vectors else sent.new_empty(0, len(sent))  # (sites, params)
        if self.noise is None:
            shares = self._shares(usable)
        else:
            nodes = [reply.metadata.src_node_id for reply in usable]
            mean = self.noise.release(server_round, self._asked, sent, updates, nodes)
            updates, shares = (sent + mean)[None], torch.ones(1, device=sent.device)
        reports = {name: self._reported(name, usable) for name in reports_of(self.math)}
        return self.aggregate(server_round, updates, shares, reports), None

    def aggregate(
        self, server_round: int, updates: Tensor, shares: Tensor, reports: Mapping[str, Tensor] | None = None
    ) -> ArrayRecord:
        """Return the new model from updates (sites, params), each one's share of the round and what each reported."""
        sent, more = flatten(self.sent), ((reports,) if reports else ())
        try:
            center, self.state = self.math.aggregate(sent, updates, shares, self.state, *more)
        except ValueError as error:  # a condition on the data that the strategy checks
            raise Mistake(f"strategy {type(self.math).__name__}, round {server_round}: {error}") from error
        if not isinstance(center, torch.Tensor) or center.shape != sent.shape or not center.isfinite().all():
            got = f"{tuple(center.shape)}" if isinstance(center, torch.Tensor) else type(center).__name__
            raise Mistake(
                f"strategy {type(self.math).__name__}: expected a finite vector {tuple(sent.shape)}, got {got}"
            )
        return unflatten(center, like=self.sent)

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Ask nobody: metrics of a site are a release without noise. The simulator measures with its own eyes."""
        return []

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """Aggregate nothing."""
        return None

    def summary(self) -> None:
        """Log nothing; the run directory says what ran."""

    def _reported(self, name: str, replies: list[Message]) -> torch.Tensor:
        """Return what each reply says of something, (sites,)."""
        missing = [reply.metadata.src_node_id for reply in replies if REPORTED[name] not in reply.content[METRICS]]
        if missing:
            raise Mistake(
                f"strategy {type(self.math).__name__}: expected {REPORTED[name]!r} in every reply, "
                f"got none from node {missing[0]}"
            )
        values = [float(reply.content[METRICS][REPORTED[name]]) for reply in replies]  # type: ignore[arg-type]
        return torch.tensor(values, device=flatten(self.sent).device)

    def _shares(self, replies: list[Message]) -> torch.Tensor:
        """Return each reply's share of the round, (sites,)."""
        if self.weights is None:
            received = [float(reply.content[METRICS][WEIGHT]) for reply in replies]  # type: ignore[arg-type]
            total = sum(received)
        else:
            received = [self.weights[reply.metadata.src_node_id] for reply in replies]
            total = sum(self.weights[node] for node in self._asked) if self.fixed_denominator else sum(received)
        return torch.tensor([weight / total for weight in received], device=flatten(self.sent).device)
