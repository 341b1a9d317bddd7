"""A Strategy class of Flower's, or of somebody else, in fedsim's round loop: run as it is, with guards around it."""

import random
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.app.exception import AppExitException
from flwr.server.strategy import Strategy as OlderStrategy
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy as FlowerStrategy

from fedsim.figures import as_written
from fedsim.flower.object_state import put_back, state_of
from fedsim.flower.older_interface import Legacy, attribute
from fedsim.flower.records import flatten, unflatten
from fedsim.mistakes import Mistake, said_by, text_of
from fedsim.randomness import torch_seed


class Hosted(FlowerStrategy):
    """Hands every call on.

    Its choices among sites come from the global ``random``, which is seeded by the round's name for them and put back.
    Arrays that come back in another type, such as float64, are turned to the type that was sent. No site is asked to
    evaluate: metrics of a site would be a release without noise, and the simulator measures with its own eyes.
    """

    def __init__(self, strategy: FlowerStrategy | OlderStrategy, seed: int, sites: int) -> None:
        if isinstance(strategy, OlderStrategy):
            inner = Legacy(strategy)
            least = inner.min_available_nodes
        else:
            inner = strategy
            least = max(attribute(inner, "min_available_nodes"), attribute(inner, "min_train_nodes"))
        if least > sites:  # it would wait for them for ever
            raise Mistake(f"strategy.min_available_nodes: expected at most the {sites} sites there are, got {least}")
        _check_fractions(strategy)

        self.inner = inner
        self.name = type(strategy).__name__
        self._seed = seed
        self._sent = ArrayRecord()
        self.asked: list[int] = []

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Let it choose sites and say what they are sent."""
        self._sent = arrays
        with self._named(server_round), _seeded(torch_seed(self._seed, "sites", "flower", server_round)):
            messages = list(self.inner.configure_train(server_round, arrays.copy(), config, grid))
        self.asked = [message.metadata.dst_node_id for message in messages]
        return messages

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Let it aggregate; what it gives must be a model like the one that was sent, with finite numbers."""
        with self._named(server_round), _seeded(torch_seed(self._seed, "aggregate", "flower", server_round)):
            arrays, _ = self.inner.aggregate_train(server_round, replies)
        if arrays is None:
            return None, None
        got = {key: tuple(array.shape) for key, array in arrays.items()}
        sent = {key: tuple(array.shape) for key, array in self._sent.items()}
        if got != sent:
            raise Mistake(f"strategy {self.name}: expected a model of {sent}, got {got}")
        found = flatten(arrays)
        if not found.isfinite().all():
            raise Mistake(f"strategy {self.name}, round {server_round}: expected finite numbers, got NaN or Inf")
        return unflatten(found, like=self._sent), None

    @contextmanager
    def _named(self, server_round: int) -> Iterator[None]:
        """Turn whatever the strategy raises into a line that names it, the round and, of no foreseen error, the place.

        Raises:
            Mistake: It raised something.
        """
        try:
            yield
        except Mistake:
            raise
        except (Exception, SystemExit) as error:
            what = text_of(error)
            if not isinstance(error, AppExitException | ValueError):
                what = said_by(error)
            raise Mistake(f"strategy {self.name}, round {server_round}: {what}") from error

    def snapshot(self) -> dict[str, Any]:
        """Return what the strategy remembers.

        Raises:
            Opaque: That can't be written down.
        """
        return state_of(self.inner)

    def restore(self, state: Mapping[str, Any], like: ArrayRecord) -> None:
        """Go on from what ``snapshot`` returned."""
        put_back(self.inner, state)

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


def _check_fractions(strategy: FlowerStrategy | OlderStrategy) -> None:
    """Make sure that a strategy asks for no more sites than there are: it would wait for them for ever.

    Raises:
        Mistake: It does.
    """
    for name in ("fraction_train", "fraction_fit"):
        fraction = vars(strategy).get(name, 1.0)
        if not isinstance(fraction, int | float) or not 0 <= fraction <= 1:
            raise Mistake(f"strategy.{name}: expected a number from 0 to 1, got {as_written(fraction)}")


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed the global generators that Flower's strategies draw from, and put them back."""
    before = random.getstate()
    before_numpy = np.random.get_state()  # noqa: NPY002
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002
    try:
        yield
    finally:
        random.setstate(before)
        np.random.set_state(before_numpy)  # noqa: NPY002
