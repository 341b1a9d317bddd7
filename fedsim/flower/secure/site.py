"""A site's side of secure aggregation. Its secrets stay in Flower's state of the node, and are thrown away at the end.

A site takes part in a round once: asked again under the same or an earlier number, it refuses. Otherwise a server could
have the same update twice, in sums over other sites, and subtract.
"""

from os import urandom

import numpy as np
from flwr.app import ConfigRecord, Context, Message, RecordDict

from fedsim.flower.records import CONFIG, ROUND
from fedsim.flower.secure.messages import (
    ANSWERED,
    KEYS,
    MASKED,
    SHARES,
    SITES,
    from_bytes,
    from_keys,
    from_masked,
    from_unmasking,
    to_bytes,
    to_keys,
    to_shares,
    to_sites,
)
from fedsim.privacy.fixed_point import FixedPoint
from fedsim.privacy.secure_aggregation import SHARE, Keys, Party, Refused, Secrets, Terms
from fedsim.scenario.schema import SecureAggregation

_OWN, _KEYS, _HELD = "secure-own", "secure-keys", "secure-shares"  # records in the node's state
_TRAINS = 2  # how many steps come before it


def terms_of(settings: SecureAggregation, number: int, sites: int) -> Terms:
    """Return the terms of a round in which so many sites are asked.

    Raises:
        ValueError: They are fewer than three.
    """
    return Terms(number, sites, settings.threshold_of(sites))


def grid_of(settings: SecureAggregation) -> FixedPoint:
    """Return how numbers are written down."""
    return FixedPoint(settings.bits, settings.range)


def advertise(message: Message, context: Context, settings: SecureAggregation) -> Message:
    """Draw the round's secrets; answer with the public keys."""
    number, sites = _round(message), int(message.content[CONFIG][SITES])  # type: ignore[arg-type]
    own = context.state.get(_OWN)
    if isinstance(own, ConfigRecord) and number <= int(own["round"]):  # type: ignore[arg-type]
        raise Refused(f"expected a round after {own['round']}, got {number}: no site takes part in one twice")
    party = Party(context.node_id, terms_of(settings, number, sites), urandom)
    keys = party.advertise()
    _keep(context, party)
    return Message(RecordDict({KEYS: from_keys({context.node_id: keys})}), reply_to=message)


def share(message: Message, context: Context) -> Message:
    """Answer with shares of this site's secrets for each other site."""
    party = _party(message, context)
    try:
        shares = party.share(to_keys(message.content))
    finally:
        _keep(context, party)
    return Message(RecordDict({SHARES: from_bytes(shares)}), reply_to=message)


def check_ready(message: Message, context: Context) -> None:
    """Make sure, before anything is trained, that the others' shares came along.

    Raises:
        Refused: The steps before were not taken in this round.
        ValueError: The message has no shares.
    """
    if _party(message, context).secrets.done != _TRAINS:
        raise Refused("expected to be asked for keys and shares before training, and to train once")
    to_shares(message.content)


def asked_in(message: Message, context: Context) -> int:
    """Return how many sites were asked in the round that a message is about.

    Raises:
        Refused: This site is in none, or in another.
    """
    return _party(message, context).terms.sites


def mask(
    message: Message, context: Context, settings: SecureAggregation, update: np.ndarray, weight: float
) -> RecordDict:
    """Return what a trained site sends: weight x update and the weight, written down and under masks.

    Args:
        message: What it was asked.
        context: The node's.
        settings: The scenario's.
        update: What training changed, (params,).
        weight: The site's in the mean.

    Raises:
        OutOfRange: A value is not finite or beyond ``settings.range``.
        Refused: The protocol does not go on.
    """
    return masked(message, context, grid_of(settings).encode(update, weight))


def masked(message: Message, context: Context, values: np.ndarray) -> RecordDict:
    """Return what a site sends of a vector, uint64."""
    party = _party(message, context)
    try:
        vector = party.mask(values, to_shares(message.content))
    finally:
        _keep(context, party)
    return RecordDict({MASKED: from_masked(vector)})


def unmask(message: Message, context: Context) -> Message:
    """Answer with this site's shares of what is still on the sum; then forget the round's secrets."""
    party = _party(message, context)
    try:
        shares = party.unmask(to_sites(message.content, ANSWERED))
    finally:
        context.state[_OWN] = ConfigRecord({"round": party.terms.round})
        for name in (_KEYS, _HELD):
            context.state.pop(name, None)
    return Message(from_unmasking(shares), reply_to=message)


def _round(message: Message) -> int:
    return int(message.content[CONFIG][ROUND])  # type: ignore[arg-type]


def _keep(context: Context, party: Party) -> None:
    """Put what the next step needs into the node's state."""
    kept, terms = party.secrets, party.terms
    context.state[_OWN] = ConfigRecord({
        "round": terms.round, "sites": terms.sites, "threshold": terms.threshold, "done": kept.done,
        "channel": kept.channel, "mask": kept.mask, "own-mask": kept.own_mask,
    })  # fmt: skip
    context.state[_KEYS] = from_keys(kept.keys)
    context.state[_HELD] = from_bytes({site: own + key for site, (own, key) in kept.shares.items()})


def _party(message: Message, context: Context) -> Party:
    """Return the party this site is in the round that a message is about.

    Raises:
        Refused: It is in none, or in another.
    """
    own = context.state.get(_OWN)
    if not isinstance(own, ConfigRecord) or "done" not in own or own["round"] != _round(message):
        raise Refused("expected to be asked for keys first, in every round")
    values = {name: own[name] for name in ("round", "sites", "threshold")}
    held = to_bytes(context.state, _HELD, 2 * SHARE)
    kept = Secrets(
        channel=own["channel"],  # type: ignore[arg-type]
        mask=own["mask"],  # type: ignore[arg-type]
        own_mask=own["own-mask"],  # type: ignore[arg-type]
        done=own["done"],  # type: ignore[arg-type]
        keys=_all_keys(context),
        shares={site: (both[:SHARE], both[SHARE:]) for site, both in held.items()},
    )
    return Party(context.node_id, Terms(**values), urandom, kept)  # type: ignore[arg-type]


def _all_keys(context: Context) -> dict[int, Keys]:
    return to_keys(RecordDict({KEYS: context.state[_KEYS]}))
