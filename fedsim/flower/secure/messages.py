"""What sites and server send each other in a round of secure aggregation, as Flower's records, and back.

Sites go by their node ids, written as text: a ConfigRecord's whole numbers are too small for some of Flower's ids.
"""

from collections.abc import Collection, Mapping

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

from fedsim.privacy.secure_aggregation import SEALED, SHARE, Keys, Unmasking

KEYS, SHARES, MASKED, ANSWERED, OWN_MASKS = "keys", "shares", "masked", "answered", "own-masks"
SITES = "sites"
_KEY = 32  # bytes


def from_bytes(values: Mapping[int, bytes]) -> ConfigRecord:
    """Encode {site: bytes}."""
    return ConfigRecord({str(site): value for site, value in values.items()})


def to_bytes(content: RecordDict, name: str, size: int, sites: Collection[int] | None = None) -> dict[int, bytes]:
    """Decode {site: bytes}.

    Args:
        content: What came.
        name: The record's.
        size: Of each value, bytes.
        sites: Those that must be there, if that is known.

    Raises:
        ValueError: It is something else.
    """
    record = content.get(name)
    if not isinstance(record, ConfigRecord) or not all(str(key).isdecimal() for key in record):
        raise ValueError(f"expected a ConfigRecord {name!r} of sites, got {type(record).__name__}")
    found = {int(key): value for key, value in record.items()}
    if sites is not None and set(found) != set(sites):
        raise ValueError(f"{name}: expected it for {len(set(sites))} sites, got it for {len(found)} or for others")
    for value in found.values():
        if not isinstance(value, bytes) or len(value) != size:
            raise ValueError(f"{name}: expected {size} bytes for each site, got {_said(value)}")
    return found  # type: ignore[return-value]


def from_keys(keys: Mapping[int, Keys]) -> ConfigRecord:
    """Encode sites' public keys."""
    return from_bytes({site: pair.channel + pair.mask for site, pair in keys.items()})


def to_keys(content: RecordDict, sites: Collection[int] | None = None) -> dict[int, Keys]:
    """Decode sites' public keys.

    Raises:
        ValueError: They are something else.
    """
    found = to_bytes(content, KEYS, 2 * _KEY, sites)
    return {site: Keys(both[:_KEY], both[_KEY:]) for site, both in found.items()}


def to_shares(content: RecordDict, sites: Collection[int] | None = None) -> dict[int, bytes]:
    """Decode shares that only one site can read.

    Raises:
        ValueError: They are something else.
    """
    return to_bytes(content, SHARES, SEALED, sites)


def from_masked(vector: np.ndarray) -> ArrayRecord:
    """Encode a masked vector, uint64."""
    return ArrayRecord({MASKED: Array(vector)})


def to_masked(content: RecordDict, size: int) -> np.ndarray:
    """Decode a masked vector, uint64 (size,).

    Raises:
        ValueError: It is something else, or not alone.
    """
    found = [(name, list(record)) for name, record in content.array_records.items()]
    if found != [(MASKED, [MASKED])] or content.metric_records:
        raise ValueError(f"expected one ArrayRecord {MASKED!r} and no metrics, got {list(content)}")
    vector = content.array_records[MASKED][MASKED].numpy()
    if vector.dtype != np.uint64 or vector.shape != (size,):
        raise ValueError(f"{MASKED}: expected uint64 ({size},), got {vector.dtype} {vector.shape}")
    return vector


def from_unmasking(shares: Unmasking) -> RecordDict:
    """Encode what a site tells of masks."""
    return RecordDict({OWN_MASKS: from_bytes(shares.own_masks), KEYS: from_bytes(shares.keys)})


def to_unmasking(content: RecordDict, answered: Collection[int], gone: Collection[int]) -> Unmasking:
    """Decode what a site tells of masks.

    Raises:
        ValueError: It is something else.
    """
    return Unmasking(to_bytes(content, OWN_MASKS, SHARE, answered), to_bytes(content, KEYS, SHARE, gone))


def from_sites(sites: Collection[int]) -> ConfigRecord:
    """Encode a list of sites."""
    return ConfigRecord({SITES: [str(site) for site in sorted(sites)]})


def to_sites(content: RecordDict, name: str) -> list[int]:
    """Decode a list of sites.

    Raises:
        ValueError: It is something else.
    """
    record = content.get(name)
    listed = record.get(SITES) if isinstance(record, ConfigRecord) else None
    if not isinstance(listed, list) or not all(str(one).isdecimal() for one in listed):
        raise ValueError(f"expected a list {name!r} of sites, got {type(listed).__name__}")
    return [int(one) for one in listed]


def _said(value: object) -> str:
    return f"{len(value)}" if isinstance(value, bytes) else type(value).__name__
