"""The site's side of secure aggregation.

Its secrets stay in Flower's state of the node, and are thrown away at the end.

A site takes part in a round once: asked again under the same or an earlier number, it refuses.
Otherwise a server could have the same update twice, in sums over other sites, and subtract.
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

# Records in the node's state.
_OWN = "secure-own"
_KEYS = "secure-keys"
_HELD = "secure-shares"

_STEPS_BEFORE_TRAINING = 2  # keys and shares


def terms_of(settings: SecureAggregation, number: int, sites: int) -> Terms:
    """Compute the terms of a round in which so many sites are asked.

    Raises:
        ValueError: They are fewer than three.
    """
    return Terms(number, sites, settings.threshold_of(sites))


def grid_of(settings: SecureAggregation) -> FixedPoint:
    """Return the grid on which numbers are written down."""
    return FixedPoint(settings.bits, settings.range)


def advertise(message: Message, context: Context, settings: SecureAggregation) -> Message:
    """Draw the round's secrets; answer with the public keys.

    Raises:
        Refused: The site has taken part in this round, or in a later one.
    """
    number = _round_of(message)
    sites = int(message.content[CONFIG][SITES])  # type: ignore[arg-type]
    last = last_round(context)
    if last is not None and number <= last:
        raise Refused(f"expected a round after {last}, got {number}: no site takes part in one twice")
    party = Party(context.node_id, terms_of(settings, number, sites), urandom)
    keys = party.advertise()
    _keep(context, party)
    return Message(RecordDict({KEYS: from_keys({context.node_id: keys})}), reply_to=message)


def share(message: Message, context: Context) -> Message:
    """Answer with shares of this site's secrets for each other site."""
    party = _party(message, context)
    # The step counts as taken even if it fails: it can't be asked for a second time.
    try:
        shares = party.share(to_keys(message.content))
    finally:
        _keep(context, party)
    return Message(RecordDict({SHARES: from_bytes(shares)}), reply_to=message)


def check_ready(message: Message, context: Context) -> None:
    """Make sure, before training, that the others' shares came along.

    Raises:
        Refused: The steps before were not taken in this round.
        ValueError: The message has no shares.
    """
    if _party(message, context).secrets.done != _STEPS_BEFORE_TRAINING:
        raise Refused("expected to be asked for keys and shares before training, and to train once")
    to_shares(message.content)


def asked_in(message: Message, context: Context) -> int:
    """Return the number of sites that were asked in the round that a message is about.

    Raises:
        Refused: This site is in no round, or in another.
    """
    return _party(message, context).terms.sites


def mask(
    message: Message,
    context: Context,
    settings: SecureAggregation,
    update: np.ndarray,
    weight: float,
) -> RecordDict:
    """Mask a trained site's answer: weight x update and the weight, on the grid and under masks.

    Args:
        message: The message that asked it to train.
        context: The context of the node.
        settings: The scenario's secure aggregation.
        update: The change of the model by training, (params,).
        weight: The site's weight in the mean.

    Raises:
        OutOfRange: A value is not finite or beyond ``settings.range``.
        Refused: The protocol does not go on.
    """
    values = grid_of(settings).encode(update, weight)
    return masked(message, context, values)


def masked(message: Message, context: Context, values: np.ndarray) -> RecordDict:
    """Mask a vector, uint64, for the server."""
    party = _party(message, context)
    try:
        vector = party.mask(values, to_shares(message.content))
    finally:
        _keep(context, party)
    return RecordDict({MASKED: from_masked(vector)})


def unmask(message: Message, context: Context) -> Message:
    """Answer with this site's shares of the masks on the sum; then forget the round's secrets."""
    party = _party(message, context)
    # Also where it fails: nobody may ask for other shares of the same secrets afterwards.
    try:
        shares = party.unmask(to_sites(message.content, ANSWERED))
    finally:
        remember_round(context, party.terms.round)
        for name in (_KEYS, _HELD):
            context.state.pop(name, None)
    return Message(from_unmasking(shares), reply_to=message)


def last_round(context: Context) -> int | None:
    """Return the number of the last round that a node took part in; None if there was none."""
    own = context.state.get(_OWN)
    return int(own["round"]) if isinstance(own, ConfigRecord) else None  # type: ignore[arg-type]


def remember_round(context: Context, number: int) -> None:
    """Put the number of a round that is over into the node's state, in place of its secrets."""
    context.state[_OWN] = ConfigRecord({"round": number})


def _round_of(message: Message) -> int:
    """Return the number of the round that a message is about."""
    return int(message.content[CONFIG][ROUND])  # type: ignore[arg-type]


def _keep(context: Context, party: Party) -> None:
    """Put the party, with all that its next step needs, into the node's state."""
    terms = party.terms
    secrets = party.secrets
    context.state[_OWN] = ConfigRecord(
        {
            "round": terms.round,
            "sites": terms.sites,
            "threshold": terms.threshold,
            "done": secrets.done,
            "channel": secrets.channel,
            "mask": secrets.mask,
            "own-mask": secrets.own_mask,
        }
    )
    context.state[_KEYS] = from_keys(secrets.keys)

    # Two shares of each site: of its own mask, and of the key of its masks with others.
    held = {site: of_own_mask + of_key for site, (of_own_mask, of_key) in secrets.shares.items()}
    context.state[_HELD] = from_bytes(held)


def _party(message: Message, context: Context) -> Party:
    """Read the party that this site is in the round that a message is about.

    Raises:
        Refused: This site is in no round, or in another.
    """
    own = context.state.get(_OWN)
    if not isinstance(own, ConfigRecord) or "done" not in own or own["round"] != _round_of(message):
        raise Refused("expected to be asked for keys first, in every round")

    terms = Terms(own["round"], own["sites"], own["threshold"])  # type: ignore[arg-type]
    held = to_bytes(context.state, _HELD, 2 * SHARE)
    secrets = Secrets(
        channel=own["channel"],  # type: ignore[arg-type]
        mask=own["mask"],  # type: ignore[arg-type]
        own_mask=own["own-mask"],  # type: ignore[arg-type]
        done=own["done"],  # type: ignore[arg-type]
        keys=_all_keys(context),
        shares={site: (both[:SHARE], both[SHARE:]) for site, both in held.items()},
    )
    return Party(context.node_id, terms, urandom, secrets)


def _all_keys(context: Context) -> dict[int, Keys]:
    """Return the public keys of all sites of the round, as the server passed them on."""
    return to_keys(RecordDict({KEYS: context.state[_KEYS]}))
