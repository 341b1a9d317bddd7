"""The server's side of secure aggregation: a Flower Strategy that sees keys, masked vectors and their sum.

It never holds an update of one site. It aggregates the mean of the sites that answered, as if that
were the only update; so the strategy must be one that uses nothing else (``mean_only``).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy as FlowerStrategy

from fedsim.flower.adapter import Adapter
from fedsim.flower.records import CONFIG, ROUND, STAGES, flatten
from fedsim.flower.screening import Rejected, match, sort_out
from fedsim.flower.secure.messages import (
    ANSWERED,
    KEYS,
    SHARES,
    SITES,
    from_bytes,
    from_keys,
    from_sites,
    to_keys,
    to_masked,
    to_shares,
    to_unmasking,
)
from fedsim.flower.secure.site import grid_of, terms_of
from fedsim.privacy.noise_shares import NoiseShare
from fedsim.privacy.secure_aggregation import Keys, Refused, Terms, Unmasking, unmasked_sum
from fedsim.scenario.schema import SecureAggregation


@dataclass
class _Round:
    """The server's knowledge of a round that is under way.

    Attributes:
        grid: Flower's grid, which reaches the sites.
        terms: The terms that all parties know.
        size: The length of a masked vector: the parameters, and the weight.
        asked: The nodes that were asked.
        keys: {node: its public keys}, of those that sent some.
        sharing: The nodes that sent shares of their secrets, ascending: those that train.
    """

    grid: Grid
    terms: Terms
    size: int
    asked: Sequence[int]
    keys: Mapping[int, Keys] = field(default_factory=dict)
    sharing: Sequence[int] = ()

    def message(self, node: int, step: int, **records: ConfigRecord) -> Message:
        """Build the message of a step to a site."""
        config = ConfigRecord({ROUND: self.terms.round, SITES: self.terms.sites})
        return Message(RecordDict({CONFIG: config, **records}), dst_node_id=node, message_type=STAGES[step])


class SecureAdapter(FlowerStrategy):
    """A Flower Strategy that unmasks the sum and hands it to another one of ours to aggregate.

    Keys and shares are exchanged when training is configured, the masks are taken off when it is
    aggregated; so Flower's own loop runs it, too.

    Args:
        inner: The strategy that chooses the sites and aggregates.
        settings: The scenario's secure aggregation.
        share: Where the sites add noise: from the number of sites asked to the share of the noise of
            each.

    Attributes:
        fixed: The grid on which numbers are written down.
        set_aside: The replies of the round, of all its steps, that were not usable.
    """

    def __init__(
        self,
        inner: Adapter,
        settings: SecureAggregation,
        share: Callable[[int], NoiseShare] | None = None,
    ) -> None:
        self.inner = inner
        self.settings = settings
        self._share = share
        self.fixed = grid_of(settings)
        self.set_aside: list[Rejected] = []
        self._round: _Round | None = None

    @property
    def asked(self) -> Sequence[int]:
        """The nodes that were asked in this round."""
        return self.inner.asked

    def configure_train(
        self,
        server_round: int,
        arrays: ArrayRecord,
        config: ConfigRecord,
        grid: Grid,
    ) -> Iterable[Message]:
        """Exchange keys and shares; return the messages that ask the sites still there to train.

        Raises:
            Refused: They are too few.
        """
        self.set_aside = []
        messages = list(self.inner.configure_train(server_round, arrays, config, grid))
        asked = [message.metadata.dst_node_id for message in messages]
        params = flatten(arrays).numel()
        if self._share:
            self.fixed = self._share(len(asked)).grid

        terms = terms_of(self.settings, server_round, len(asked))
        now = _Round(grid, terms, size=params + 1, asked=asked)
        self._round = now
        now.keys = self._exchange_keys(now)
        sealed_shares = self._exchange_shares(now)
        now.sharing = sorted(sealed_shares)

        to_train = []
        for message in messages:
            if message.metadata.dst_node_id in sealed_shares:
                to_train.append(_with_shares(message, sealed_shares))
        return to_train

    def screen(self, replies: Iterable[Message], asked: Iterable[int]) -> list[Message]:
        """Return the replies that hold a masked vector; set the others aside."""
        size = self._now().size
        fault = _fault_in(lambda reply: to_masked(reply.content, size))
        usable, rejected = sort_out(replies, asked, fault)
        self.set_aside += rejected
        return usable

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Take the masks off the sum and aggregate it.

        Raises:
            Refused: Too few sites answered, or the sum is not one of the vectors that were asked for.
                Nothing is released.
        """
        now = self._now()
        masked = {}
        for reply in replies:
            if reply.has_content():
                masked[reply.metadata.src_node_id] = to_masked(reply.content, now.size)
        self._enough(len(masked), "sent a vector")

        unmaskings = self._unmaskings(now, sorted(masked))
        total = unmasked_sum(now.terms, now.keys, masked, unmaskings)
        update, weight = self.fixed.decode(total)
        self._check_weight(weight, masked)

        # The strategy is handed one update, the mean, with the weight of all that answered.
        sent = flatten(self.inner.sent)
        mean = sent + torch.from_numpy(update / weight).to(sent.device)  # (params,), float64 until here
        updates = mean.to(sent.dtype)[None]  # (1, params)
        denominator = self._denominator(weight, now.asked)
        share = sent.new_tensor([weight / denominator])
        return self.inner.aggregate(server_round, updates, share, denominator), None

    def snapshot(self) -> dict[str, Any]:
        """Return what later rounds depend on: no secret outlives its round."""
        return self.inner.snapshot()

    def restore(self, state: Mapping[str, Any], like: ArrayRecord) -> None:
        """Go on from what ``snapshot`` returned."""
        self.inner.restore(state, like)

    def configure_evaluate(
        self,
        server_round: int,
        arrays: ArrayRecord,
        config: ConfigRecord,
        grid: Grid,
    ) -> Iterable[Message]:
        """Ask nobody."""
        return []

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """Aggregate nothing."""
        return None

    def summary(self) -> None:
        """Log nothing."""

    def _now(self) -> _Round:
        """Return the round that is under way."""
        if self._round is None:
            raise RuntimeError("expected a round that was configured")
        return self._round

    def _exchange_keys(self, now: _Round) -> dict[int, Keys]:
        """Ask for public keys; return {site: keys} of those that sent them.

        Raises:
            Refused: They are too few.
        """

        def check(reply: Message) -> None:
            node = reply.metadata.src_node_id
            pair = to_keys(reply.content, [node])[node]
            # A key of a small group would make the exchange of every other site fail: try it here.
            for key in (pair.channel, pair.mask):
                X25519PrivateKey.generate().exchange(X25519PublicKey.from_public_bytes(key))

        messages = [now.message(node, 0) for node in now.asked]
        usable = self._ask(now, messages, check, "sent keys")
        return {node: to_keys(content)[node] for node, content in usable.items()}

    def _exchange_shares(self, now: _Round) -> dict[int, dict[int, bytes]]:
        """Hand the keys on and ask for shares; return {site: {other site: its share for this one}}.

        Raises:
            Refused: Too few sites sent shares.
        """

        def check(reply: Message) -> None:
            others = now.keys.keys() - {reply.metadata.src_node_id}
            to_shares(reply.content, others)

        keys = from_keys(now.keys)
        messages = [now.message(node, 1, **{KEYS: keys}) for node in now.keys]
        usable = self._ask(now, messages, check, "sent shares")
        sent = {node: to_shares(content) for node, content in usable.items()}

        received = {}
        for node in sent:
            received[node] = {other: sent[other][node] for other in sent if other != node}
        return received

    def _unmaskings(self, now: _Round, answered: Sequence[int]) -> dict[int, Unmasking]:
        """Ask those that answered for their shares of the masks on the sum.

        Raises:
            Refused: Too few sent them.
        """
        # A site is either here or gone: of no site are both kinds of shares asked for.
        gone = [node for node in now.sharing if node not in answered]

        def read(content: RecordDict) -> Unmasking:
            return to_unmasking(content, answered, gone)

        listed = from_sites(answered)
        messages = [now.message(node, 3, **{ANSWERED: listed}) for node in answered]
        usable = self._ask(now, messages, lambda reply: read(reply.content), "sent shares of the masks")
        return {node: read(content) for node, content in usable.items()}

    def _ask(
        self,
        now: _Round,
        messages: Sequence[Message],
        read: Callable[[Message], object],
        did: str,
    ) -> dict[int, RecordDict]:
        """Ask sites; return {site: its reply} of those whose reply can be read.

        Args:
            now: The round.
            messages: The messages to the sites.
            read: Reads a reply, or raises an error.
            did: The words for sites that answered, such as "sent keys".

        Raises:
            Refused: They are too few.
        """
        asked = [message.metadata.dst_node_id for message in messages]
        answers, foreign = match(messages, now.grid.send_and_receive(messages))
        replies = [answer for answer in answers if answer is not None]
        usable, rejected = sort_out(replies, asked, _fault_in(read))
        self.set_aside += foreign + rejected
        self._enough(len(usable), did)
        return {reply.metadata.src_node_id: reply.content for reply in usable}

    def _enough(self, count: int, did: str) -> None:
        """Make sure that enough sites took a step.

        Raises:
            Refused: They are fewer than the threshold.
        """
        terms = self._now().terms
        if count < terms.threshold:
            raise Refused(f"{count} of {terms.sites} sites {did}, and {terms.threshold} must; nothing was revealed")

    def _check_weight(self, weight: float, answered: Iterable[int]) -> None:
        """Make sure that the sum is one of the vectors that these sites were to send.

        An arbitrary vector shows in the sum's weight.

        Raises:
            Refused: The weight is another.
        """
        public_weights = self.inner.weights
        if public_weights is None:
            is_wrong = not weight > 0
            expected = "a weight > 0"
        else:
            weights = [public_weights[node] for node in answered]
            is_wrong = abs(weight - sum(weights)) > len(weights) * self.fixed.resolution
            expected = f"{sum(weights):g}"
        if is_wrong:
            raise Refused(f"the sum has the weight {weight:g}, expected {expected}: a site sent something else")

    def _denominator(self, weight: float, asked: Iterable[int]) -> float:
        """Return the denominator of the mean: the weight of all that were asked where it is fixed."""
        weights = self.inner.weights
        if weights and self.inner.fixed_denominator:
            return sum(weights[node] for node in asked)
        return weight


def _fault_in(read: Callable[[Message], object]) -> Callable[[Message], str]:
    """Turn a function that reads a reply into one that says why it can't; nothing if it can."""

    def fault(reply: Message) -> str:
        try:
            read(reply)
        except (KeyError, TypeError, ValueError) as error:
            return str(error)
        return ""

    return fault


def _with_shares(message: Message, sealed_shares: Mapping[int, Mapping[int, bytes]]) -> Message:
    """Add to a train message the shares that the others sent to its receiver."""
    node = message.metadata.dst_node_id
    content = RecordDict({**message.content, SHARES: from_bytes(sealed_shares[node])})
    return Message(content, dst_node_id=node, message_type=message.metadata.message_type)
