"""The server's side of secure aggregation: a Flower Strategy that sees keys, masked vectors and their sum.

It never holds an update of one site. What it aggregates is the mean of those that answered, as if that were the only
update; so the strategy must be one that uses nothing else (``mean_only``).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

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
    """What the server knows of a round that is under way."""

    grid: Grid
    terms: Terms
    size: int
    asked: Sequence[int]
    keys: Mapping[int, Keys] = field(default_factory=dict)
    sharing: Sequence[int] = ()

    def message(self, node: int, step: int, **records: ConfigRecord) -> Message:
        """Return the message of a step to a site."""
        config = ConfigRecord({ROUND: self.terms.round, SITES: self.terms.sites})
        return Message(RecordDict({CONFIG: config, **records}), dst_node_id=node, message_type=STAGES[step])


class SecureAdapter(FlowerStrategy):
    """A Flower Strategy that lets another one of ours aggregate a sum it alone was told.

    Keys and shares are exchanged when training is configured, the masks are taken off when it is aggregated; so
    Flower's own loop runs it, too.

    Args:
        inner: Chooses the sites and aggregates.
        settings: The scenario's.
        share: Where the sites add noise, from the number of sites asked and of parameters to what each does.

    Attributes:
        set_aside: The replies of the round, of all its steps, that were not usable.
    """

    def __init__(
        self,
        inner: Adapter,
        settings: SecureAggregation,
        share: Callable[[int, int], NoiseShare] | None = None,
    ) -> None:
        self.inner, self.settings, self._share = inner, settings, share
        self.fixed = grid_of(settings)
        self.set_aside: list[Rejected] = []
        self._round: _Round | None = None

    @property
    def asked(self) -> Sequence[int]:
        """The nodes that were asked in this round."""
        return self.inner.asked

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Exchange keys and shares; return what asks the sites that are still there to train.

        Raises:
            Refused: They are too few.
        """
        self.set_aside = []
        messages = list(self.inner.configure_train(server_round, arrays, config, grid))
        asked = [message.metadata.dst_node_id for message in messages]
        if self._share:
            self.fixed = self._share(len(asked), flatten(arrays).numel()).grid
        self._round = now = _Round(
            grid, terms_of(self.settings, server_round, len(asked)), flatten(arrays).numel() + 1, asked
        )
        now.keys = self._exchange_keys(now)
        sealed = self._exchange_shares(now)
        now.sharing = sorted(sealed)
        to_train = [message for message in messages if message.metadata.dst_node_id in sealed]
        return [_with(message, sealed) for message in to_train]

    def screen(self, replies: Iterable[Message], asked: Iterable[int]) -> list[Message]:
        """Return the replies that hold a masked vector; set the others aside."""
        size = self._now().size
        usable, rejected = sort_out(replies, asked, _fault(lambda reply: to_masked(reply.content, size)))
        self.set_aside += rejected
        return usable

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Take the masks off the sum and aggregate it.

        Raises:
            Refused: Too few sites answered, or the sum is not one of what was asked for. Nothing is released.
        """
        now = self._now()
        masked = {
            reply.metadata.src_node_id: to_masked(reply.content, now.size) for reply in replies if reply.has_content()
        }
        self._enough(len(masked), "sent a vector")
        total = unmasked_sum(now.terms, now.keys, masked, self._unmaskings(now, sorted(masked)))
        update, weight = self.fixed.decode(total)
        self._check_weight(weight, masked)
        sent = flatten(self.inner.sent)
        mean = sent + torch.from_numpy(update / weight).to(sent.device)  # (params,), float64 until here
        denominator = self._denominator(weight, now.asked)
        share = sent.new_tensor([weight / denominator])
        return self.inner.aggregate(server_round, mean.to(sent.dtype)[None], share, denominator), None

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

    def _now(self) -> _Round:
        if self._round is None:
            raise RuntimeError("expected a round that was configured")
        return self._round

    def _exchange_keys(self, now: _Round) -> dict[int, Keys]:
        def check(reply: Message) -> None:
            node = reply.metadata.src_node_id
            pair = to_keys(reply.content, [node])[node]
            for key in (pair.channel, pair.mask):  # one of a small group would make all others fail
                X25519PrivateKey.generate().exchange(X25519PublicKey.from_public_bytes(key))

        usable = self._ask(now, [now.message(node, 0) for node in now.asked], check, "sent keys")
        return {node: to_keys(content)[node] for node, content in usable.items()}

    def _exchange_shares(self, now: _Round) -> dict[int, dict[int, bytes]]:
        """Return {site: {other site: what that one sent to it}}."""

        def check(reply: Message) -> None:
            to_shares(reply.content, now.keys.keys() - {reply.metadata.src_node_id})

        keys = from_keys(now.keys)
        usable = self._ask(now, [now.message(node, 1, **{KEYS: keys}) for node in now.keys], check, "sent shares")
        sent = {node: to_shares(content) for node, content in usable.items()}
        return {node: {other: sent[other][node] for other in sent if other != node} for node in sent}

    def _unmaskings(self, now: _Round, answered: Sequence[int]) -> dict[int, Unmasking]:
        gone = [node for node in now.sharing if node not in answered]

        def read(content: RecordDict) -> Unmasking:
            return to_unmasking(content, answered, gone)

        listed = from_sites(answered)
        messages = [now.message(node, 3, **{ANSWERED: listed}) for node in answered]
        usable = self._ask(now, messages, lambda reply: read(reply.content), "sent shares of the masks")
        return {node: read(content) for node, content in usable.items()}

    def _ask(
        self, now: _Round, messages: Sequence[Message], read: Callable[[Message], object], did: str
    ) -> dict[int, RecordDict]:
        """Ask sites; return what came from those that answered well.

        Raises:
            Refused: They are too few.
        """
        asked = [message.metadata.dst_node_id for message in messages]
        answers, foreign = match(messages, now.grid.send_and_receive(messages))
        usable, rejected = sort_out([one for one in answers if one is not None], asked, _fault(read))
        self.set_aside += foreign + rejected
        self._enough(len(usable), did)
        return {reply.metadata.src_node_id: reply.content for reply in usable}

    def _enough(self, count: int, did: str) -> None:
        terms = self._now().terms
        if count < terms.threshold:
            raise Refused(f"{count} of {terms.sites} sites {did}, and {terms.threshold} must; nothing was revealed")

    def _check_weight(self, weight: float, answered: Iterable[int]) -> None:
        """Make sure that the sum is one of what these sites were to send; an arbitrary vector shows in its weight."""
        public = self.inner.weights
        if public is None:
            wrong = not weight > 0
            expected = "a weight > 0"
        else:
            weights = [public[node] for node in answered]
            expected = f"{sum(weights):g}"
            wrong = abs(weight - sum(weights)) > len(weights) * self.fixed.resolution
        if wrong:
            raise Refused(f"the sum has the weight {weight:g}, expected {expected}: a site sent something else")

    def _denominator(self, weight: float, asked: Iterable[int]) -> float:
        weights = self.inner.weights
        return sum(weights[node] for node in asked) if weights and self.inner.fixed_denominator else weight


def _fault(read: Callable[[Message], object]) -> Callable[[Message], str]:
    """Return what says why a reply can't be read, or nothing."""

    def fault(reply: Message) -> str:
        try:
            read(reply)
        except (KeyError, TypeError, ValueError) as error:
            return str(error)
        return ""

    return fault


def _with(message: Message, sealed: Mapping[int, Mapping[int, bytes]]) -> Message:
    """Return a train message with the shares that the others sent to its receiver."""
    node = message.metadata.dst_node_id
    content = RecordDict({**message.content, SHARES: from_bytes(sealed[node])})
    return Message(content, dst_node_id=node, message_type=message.metadata.message_type)
