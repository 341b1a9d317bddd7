"""The messages of a round of secure aggregation: from values to Flower's records, and back.

Sites go by their node ids, written as text: a ConfigRecord's whole numbers are too small for some of Flower's ids.
"""

from collections.abc import Collection, Mapping

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

from fedsim.privacy.secure_aggregation import SEALED, SHARE, Keys, Unmasking

# Names of records.
KEYS = "keys"
SHARES = "shares"
MASKED = "masked"
ANSWERED = "answered"
OWN_MASKS = "own-masks"

SITES = "sites"  # an entry of a record
_KEY_BYTES = 32


def from_bytes(values: Mapping[int, bytes]) -> ConfigRecord:
    """Encode {site: bytes}."""
    return ConfigRecord({str(site): value for site, value in values.items()})


def to_bytes(
    content: RecordDict,
    name: str,
    size: int,
    sites: Collection[int] | None = None,
) -> dict[int, bytes]:
    """Decode {site: bytes}.

    Args:
        content: The content of a message.
        name: The name of the record.
        size: The length of each value in bytes.
        sites: The sites that must be there, if that is known.

    Raises:
        ValueError: The record is something else.
    """
    record = content.get(name)
    if not isinstance(record, ConfigRecord) or not all(str(key).isdecimal() for key in record):
        raise ValueError(f"expected a ConfigRecord {name!r} of sites, got {type(record).__name__}")

    values = {int(key): value for key, value in record.items()}
    if sites is not None and set(values) != set(sites):
        expected = len(set(sites))
        raise ValueError(f"{name}: expected it for {expected} sites, got it for {len(values)} or for others")
    for value in values.values():
        if not isinstance(value, bytes) or len(value) != size:
            raise ValueError(f"{name}: expected {size} bytes for each site, got {_length_of(value)}")
    return values  # type: ignore[return-value]


def from_keys(keys: Mapping[int, Keys]) -> ConfigRecord:
    """Encode sites' public keys."""
    return from_bytes({site: pair.channel + pair.mask for site, pair in keys.items()})


def to_keys(content: RecordDict, sites: Collection[int] | None = None) -> dict[int, Keys]:
    """Decode sites' public keys.

    Raises:
        ValueError: They are something else.
    """
    pairs = to_bytes(content, KEYS, 2 * _KEY_BYTES, sites)
    keys = {}
    for site, pair in pairs.items():
        keys[site] = Keys(channel=pair[:_KEY_BYTES], mask=pair[_KEY_BYTES:])
    return keys


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
    arrays = [(name, list(record)) for name, record in content.array_records.items()]
    if arrays != [(MASKED, [MASKED])] or content.metric_records:
        raise ValueError(f"expected one ArrayRecord {MASKED!r} and no metrics, got {list(content)}")
    vector = content.array_records[MASKED][MASKED].numpy()
    if vector.dtype != np.uint64 or vector.shape != (size,):
        raise ValueError(f"{MASKED}: expected uint64 ({size},), got {vector.dtype} {vector.shape}")
    return vector


def from_unmasking(shares: Unmasking) -> RecordDict:
    """Encode a site's shares of the masks that are still on the sum."""
    own_masks = from_bytes(shares.own_masks)
    keys = from_bytes(shares.keys)
    return RecordDict({OWN_MASKS: own_masks, KEYS: keys})


def to_unmasking(
    content: RecordDict,
    answered: Collection[int],
    gone: Collection[int],
) -> Unmasking:
    """Decode a site's shares of the masks that are still on the sum.

    Args:
        content: The content of the site's message.
        answered: The sites that sent a vector: their own masks are to come off.
        gone: The sites that dropped out: their masks with the others are to come off.

    Raises:
        ValueError: The content is something else.
    """
    own_masks = to_bytes(content, OWN_MASKS, SHARE, answered)
    keys = to_bytes(content, KEYS, SHARE, gone)
    return Unmasking(own_masks, keys)


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
    if not isinstance(listed, list) or not all(str(site).isdecimal() for site in listed):
        raise ValueError(f"expected a list {name!r} of sites, got {type(listed).__name__}")
    return [int(site) for site in listed]


def _length_of(value: object) -> str:
    """Write the length of bytes, or the type of something else."""
    if isinstance(value, bytes):
        return f"{len(value)}"
    return type(value).__name__
