"""From a strategy that is pure math to a Flower Strategy."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from math import isclose
from typing import Any, Protocol, cast

import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy as FlowerStrategy
from torch import Tensor

from fedsim.flower.object_state import put_back, state_of
from fedsim.flower.records import (
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
from fedsim.mistakes import Mistake
from fedsim.of_sites import total
from fedsim.privacy.central import CentralNoise
from fedsim.strategy.arrivals import Arrivals
from fedsim.strategy.contract import Buffered, Strategy, aggregate
from fedsim.strategy.local_rule import State


class Adapter(FlowerStrategy):
    """A Flower Strategy that asks all sites, or some, and aggregates with a strategy of ours.

    Args:
        math: The strategy.
        weights: {node: public weight}. Without it the replies' ``num-examples`` count, as in Flower's strategies.
        fixed_denominator: Divide by the weight of all asked sites, also when some did not answer. Required under
            privacy: who answered must not change what one record can do. Needs ``weights``.
        schedule: From the number of a round, from 1 on, to the nodes that are asked in it, ascending; without it all.
        state: The strategy's first state, of one that has a ``first_state``.
        arrivals: In place of the schedule for a strategy that is ``Buffered``, when sites answer; site k is the node
            with the k-th smallest number. A site is sent the model it began with when its answer is due: what it
            trains is the same as if it had been sent it then.
        noise: Where the server adds the noise: the strategy is handed one update, the noisy mean, of weight 1. Then
            ``weights`` and ``fixed_denominator`` have no say: its own public weights count.
        own_participation: Leave a strategy's ``participation`` as it was built. Else, where weights are public, a field
            of that name is set in each round to the share of all sites' weight that the round's sites have together:
            ``participation * weights[k]`` is then site k's share of all weight, whoever else was asked.
        in_round: From the number of a round to ``math`` with what changes from round to round, such as the sites'
            learning rate; without it nothing does.

    Raises:
        ValueError: A fixed denominator without weights, or a ``Buffered`` strategy without arrivals.
        TypeError: The strategy has no base class.
    """

    def __init__(
        self,
        math: Strategy,
        weights: Mapping[int, float] | None = None,
        fixed_denominator: bool = False,
        schedule: Callable[[int], Sequence[int]] | None = None,
        state: State | None = None,
        arrivals: Arrivals | None = None,
        noise: CentralNoise | None = None,
        own_participation: bool = False,
        in_round: Callable[[int], Strategy] | None = None,
    ) -> None:
        if not isinstance(math, Strategy):
            name = type(math).__name__
            raise TypeError(f"expected a strategy with a base class, got {name}; write class {name}(Strategy), with "
                            "from fedsim.strategy import Strategy")  # fmt: skip
        if fixed_denominator and weights is None:
            raise ValueError("expected public weights beside fixed_denominator, got none")
        if isinstance(math, Buffered) and arrivals is None:
            raise ValueError(f"strategy {type(math).__name__}: expected arrivals beside it, such as "
                             "Arrivals(seed=0, sites=4, k=2, concurrency=4, spread=1.0), got none")  # fmt: skip
        self.math = math
        self.weights = weights
        self.fixed_denominator = fixed_denominator
        self.schedule = schedule
        self.arrivals = arrivals
        self.asked: Sequence[int] = []
        self.state: State = state or {}
        self.noise = noise
        self._of_round = in_round
        self._everybody = _weight_of_all(weights, noise)
        self._sets_participation = not own_participation and "participation" in _fields(math)
        self.sent = ArrayRecord()
        self._models: dict[int, ArrayRecord] = {}  # {version: model}, the newest and those that sites still work with
        self._older: dict[int, tuple[int, ArrayRecord]] = {}  # {asked node: (staleness, model)} if not the newest

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Send each of the round's sites the global model, or the one it began with.

        Messages with one model hold one RecordDict, as in Flower's strategies.
        """
        self.sent = arrays
        self._older = {}
        self.asked = self.schedule(server_round) if self.schedule else sorted(grid.get_node_ids())
        if self.arrivals:
            self._let_arrive(self.arrivals, server_round, arrays)

        # Sites that began with one model are sent one content.
        told = self.told()
        contents = {}  # {staleness: what is sent}
        for staleness, model in {0: arrays, **dict(self._older.values())}.items():
            contents[staleness] = RecordDict({ARRAYS: model, CONFIG: ConfigRecord({**config, ROUND: server_round})})
            if told:
                contents[staleness][TOLD] = from_state(told)
        return [
            Message(contents[self._staleness(node)], dst_node_id=node, message_type=MessageType.TRAIN)
            for node in self.asked
        ]

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Aggregate the models that came back; no metric of a site is aggregated."""
        usable = [reply for reply in replies if reply.has_content()]
        usable.sort(key=lambda reply: reply.metadata.src_node_id)
        if not usable and self.noise is None:
            return None, None

        sent = flatten(self.sent)
        vectors = [self._update(reply, sent) for reply in usable]
        updates = stacked(vectors) if vectors else sent.new_empty(0, len(sent))  # (sites, params)
        if self.noise is None:
            shares, weight = self._shares(usable)
        else:
            # The strategy is handed the noisy mean in place of the updates.
            nodes = [reply.metadata.src_node_id for reply in usable]
            mean = self.noise.release(server_round, self.asked, sent, updates, nodes)
            updates = (sent + mean)[None]
            shares = torch.ones(1, device=sent.device)
            weight = self.noise.sites.expected(server_round)[1]
        reports = {name: self._reported(name, usable) for name in self.math.reports}
        return self.aggregate(server_round, updates, shares, weight, reports), None

    def aggregate(
        self,
        server_round: int,
        updates: Tensor,
        shares: Tensor,
        weight: float,
        reports: Mapping[str, Tensor] | None = None,
    ) -> ArrayRecord:
        """Return the new model.

        Args:
            server_round: The round.
            updates: The models that came back, (sites, params).
            shares: Each one's share of the round, (sites,).
            weight: The weight that a share of 1 stands for, in the unit of the sites' weights.
            reports: What each site reported, {name: (sites,)}.
        """
        sent = flatten(self.sent)
        strategy = self._in_round(server_round, weight)
        try:
            center, self.state = aggregate(strategy, sent, updates, shares, self.state, reports or {})
        except ValueError as error:  # a condition on the data that the strategy checks
            raise Mistake(f"strategy {type(self.math).__name__}, round {server_round}: {error}") from error

        if not isinstance(center, torch.Tensor) or center.shape != sent.shape or not center.isfinite().all():
            got = f"{tuple(center.shape)}" if isinstance(center, torch.Tensor) else type(center).__name__
            raise Mistake(
                f"strategy {type(self.math).__name__}: expected a finite vector {tuple(sent.shape)}, got {got}"
            )
        return unflatten(center, like=self.sent)

    def told(self) -> State:
        """Return what the sites are told beside the model."""
        return {name: self.state[name] for name in self.math.tells if name in self.state}

    def snapshot(self) -> dict[str, Any]:
        """Return what later rounds depend on: the state, and the models that sites still work with.

        Raises:
            Opaque: The strategy remembers something itself that can't be written down.
        """
        return {
            "state": dict(self.state),
            "models": {version: flatten(model) for version, model in self._models.items()},
            "strategy": state_of(self.math),
        }

    def restore(self, state: Mapping[str, Any], like: ArrayRecord) -> None:
        """Go on from what ``snapshot`` returned; models are like another one."""
        self.state = state["state"]
        self._models = {version: unflatten(vector, like) for version, vector in state["models"].items()}
        put_back(self.math, state["strategy"])

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

    def _in_round(self, server_round: int, weight: float) -> Strategy:
        """Return the strategy of a round, with the share of all weight that the round has.

        What a server sums up over the sites, such as SCAFFOLD's c, needs each site's share of all weight. The shares of
        a round are of the weight of its own sites, which differs from round to round if weights are unequal.
        """
        strategy = self._of_round(server_round) if self._of_round else self.math
        if self._everybody is None or not self._sets_participation:
            return strategy
        share = min(1.0, weight / self._everybody)
        built = cast(_Participating, self.math).participation  # it has such a field, see _fields
        if share <= 0 or isclose(share, built, rel_tol=1e-9):  # the same, up to how sums are rounded
            return strategy
        return replace(strategy, participation=share)  # type: ignore[type-var]  a dataclass, see _fields

    def _let_arrive(self, arrivals: Arrivals, server_round: int, arrays: ArrayRecord) -> None:
        """Ask those whose answers are due, and look up the models they began with."""
        if len(self.asked) != arrivals.sites:
            raise Mistake(f"strategy {type(self.math).__name__}: expected the {arrivals.sites} sites of its arrivals, "
                          f"got {len(self.asked)} nodes")  # fmt: skip
        nodes = self.asked
        flush = arrivals.flush(server_round)
        self._models[server_round - 1] = arrays
        self.asked = [nodes[site] for site in flush.begun]
        self._older = {
            nodes[site]: (flush.staleness(site), self._models[version])
            for site, version in flush.begun.items()
            if version < server_round - 1
        }
        self._models = {version: model for version, model in self._models.items() if version in flush.in_use}

    def _staleness(self, node: int) -> int:
        """Return how many rounds ago the model that a node was sent was the newest."""
        return self._older[node][0] if node in self._older else 0

    def _update(self, reply: Message, sent: torch.Tensor) -> torch.Tensor:
        """Return the model that came, (params,); from a site that is not in step, its change to the newest model."""
        model = flatten(reply.content[ARRAYS])  # type: ignore[arg-type]
        node = reply.metadata.src_node_id
        if node not in self._older:
            return model
        _, begun = self._older[node]
        return sent + (model - flatten(begun))

    def _reported(self, name: str, replies: list[Message]) -> torch.Tensor:
        """Return what each reply says of something, (sites,)."""
        if name == "staleness":
            known = [float(self._staleness(reply.metadata.src_node_id)) for reply in replies]
            return torch.tensor(known, device=flatten(self.sent).device)
        missing = [reply.metadata.src_node_id for reply in replies if REPORTED[name] not in reply.content[METRICS]]
        if missing:
            raise Mistake(
                f"strategy {type(self.math).__name__}: expected {REPORTED[name]!r} in every reply, "
                f"got none from {len(missing)} of {len(replies)} sites"
            )
        values = [float(reply.content[METRICS][REPORTED[name]]) for reply in replies]  # type: ignore[arg-type]
        return torch.tensor(values, device=flatten(self.sent).device)

    def _shares(self, replies: list[Message]) -> tuple[torch.Tensor, float]:
        """Return each reply's share of the round, (sites,), and the weight that a share of 1 stands for."""
        if self.weights is None:
            received = [float(reply.content[METRICS][WEIGHT]) for reply in replies]  # type: ignore[arg-type]
            of_round = sum(received)
        else:
            received = [self.weights[reply.metadata.src_node_id] for reply in replies]
            of_round = sum(self.weights[node] for node in self.asked) if self.fixed_denominator else sum(received)
        return torch.tensor([weight / of_round for weight in received], device=flatten(self.sent).device), of_round


class _Participating(Protocol):
    """A strategy with a field that the adapter fills in anew in each round."""

    participation: float


def _weight_of_all(weights: Mapping[int, float] | None, noise: CentralNoise | None) -> float | None:
    """Return the public weight of all sites together; None where weights come with the replies."""
    if noise is not None:
        return total(noise.sites.weights)
    return total(weights) if weights is not None else None


def _fields(strategy: object) -> set[str]:
    """Return the names of a strategy's hyperparameters; of one that is no dataclass none, since it can't be changed."""
    return {field.name for field in fields(strategy) if field.init} if is_dataclass(strategy) else set()
