"""A strategy written for Flower's older interface, ``flwr.server.strategy.Strategy``, as one of today's.

Most strategies that others have published still have it: ``configure_fit`` and ``aggregate_fit`` with a client manager.
Here the clients are stand-ins that only have a node's number; what is sent and what comes back are today's messages.
"""

from collections.abc import Iterable
from typing import NoReturn

from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.common import Code, FitRes, Status, ndarrays_to_parameters, parameters_to_ndarrays
from flwr.server.client_manager import SimpleClientManager
from flwr.server.client_proxy import ClientProxy
from flwr.server.strategy import Strategy as OlderStrategy
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy as FlowerStrategy

from fedsim.figures import as_written
from fedsim.flower.records import ARRAYS, CONFIG, METRICS, ROUND, WEIGHT
from fedsim.mistakes import Mistake


def attribute(strategy: FlowerStrategy | OlderStrategy, name: str) -> int:
    """Return a whole number that most of Flower's strategies hold in an attribute; 0 for one that has none of the name.

    Flower's base classes don't have it: each class that waits for sites holds it in its own instances.

    Raises:
        Mistake: It is no whole number.
    """
    value = vars(strategy).get(name, 0)
    if not isinstance(value, int) or isinstance(value, bool):
        raise Mistake(f"strategy.{name}: expected a whole number, got {as_written(value)}")
    return value


class _StandIn(ClientProxy):
    """A site as the older interface names it; nothing can be asked of it directly."""

    def _refuse(self, *_: object, **__: object) -> NoReturn:
        raise NotImplementedError("sites are asked by messages, not directly")

    get_properties = get_parameters = fit = evaluate = reconnect = _refuse  # type: ignore[assignment]


class Legacy(FlowerStrategy):
    """Hands rounds of training on. A site's number of examples is its public weight, rounded to a whole number."""

    def __init__(self, inner: OlderStrategy) -> None:
        self.inner = inner
        self.min_available_nodes = attribute(inner, "min_available_clients")
        self._manager = SimpleClientManager()

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Let it choose sites, and the models they are sent."""
        for node in sorted(grid.get_node_ids()):
            if str(node) not in self._manager.all():
                self._manager.register(_StandIn(str(node)))
        parameters = ndarrays_to_parameters([array.numpy() for array in arrays.values()])
        messages = []
        for client, order in self.inner.configure_fit(server_round, parameters, self._manager):
            values = parameters_to_ndarrays(order.parameters)
            model = ArrayRecord({name: Array(value) for name, value in zip(arrays, values, strict=True)})
            told = ConfigRecord({**config, **order.config, ROUND: server_round})
            content = RecordDict({ARRAYS: model, CONFIG: told})
            messages.append(Message(content, dst_node_id=int(client.cid), message_type=MessageType.TRAIN))
        return messages

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Let it aggregate."""
        results = []
        names: list[str] = []
        for reply in replies:
            if not reply.has_content():
                continue
            arrays = reply.content.array_records[ARRAYS]
            metrics = reply.content.metric_records[METRICS]
            names = list(arrays)
            others = {key: value for key, value in metrics.items() if isinstance(value, int | float)}
            came = FitRes(
                status=Status(Code.OK, ""),
                parameters=ndarrays_to_parameters([array.numpy() for array in arrays.values()]),
                num_examples=max(1, round(float(metrics[WEIGHT]))),  # type: ignore[arg-type]
                metrics={str(key): value for key, value in others.items()},
            )
            results.append((self._manager.all()[str(reply.metadata.src_node_id)], came))
        parameters, _ = self.inner.aggregate_fit(server_round, results, [])
        if parameters is None:
            return None, None
        values = parameters_to_ndarrays(parameters)
        return ArrayRecord({name: Array(value) for name, value in zip(names, values, strict=True)}), None

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Ask nobody."""
        return []

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """Aggregate nothing."""
        return None

    def summary(self) -> None:
        """Log nothing."""
