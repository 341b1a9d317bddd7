"""Secure aggregation: a server learns the sum of the sites' vectors and nothing about any one of them.

Bonawitz, Ivanov, Kreuter, Marcedone, McMahan, Patel, Ramage, Segal, Seth 2017, "Practical secure aggregation for
privacy-preserving machine learning", https://doi.org/10.1145/3133956.3133982, Figure 4 without signatures. Every two
sites agree on a mask that one adds and the other subtracts; every site adds one more mask of its own. Both are shared
out beforehand, so that the masks of sites that drop out can be taken off: of a site that answered its own mask, of one
that did not its masks with the others, never both. X25519, HKDF-SHA256, ChaCha20 and ChaCha20-Poly1305 are those of the
``cryptography`` package; sums are modulo 2^64 and exact.

Threat model. Sites and server follow the protocol but look at all they see ("semi-honest"); up to ``threshold - 1``
sites may pool what they know with the server. The server passes the sites' public keys on as they are: one that swaps
them for its own reads everything, since nothing is signed. A site may send any vector; it can't be screened. What the
sum itself gives away is not hidden: where all other sites collude, it is the vector. That is what noise is for; the two
go together.

One ``Party`` and one round: keys are fresh, and masks are never used twice. They must be: to take the masks of a site
that dropped out off the sum, its key is put together, and with it all masks that the key ever made.
"""

import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

import numpy as np
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from fedsim.privacy.shamir import combine, split

SHARE = 66  # bytes of a share
SEALED = 2 * SHARE + 16  # bytes of two, encrypted


class Refused(Exception):
    """A party does not go on, since going on could give a vector away."""


@dataclass(frozen=True)
class Terms:
    """What all parties of a round know.

    Attributes:
        round: Its number; it goes into every key.
        sites: How many sites are asked; each has a number >= 1 of its own.
        threshold: How many must answer. More than half, so that a server can't have both kinds of shares of a site
            from two halves of the sites.
    """

    round: int
    sites: int
    threshold: int

    def __post_init__(self) -> None:
        if not self.sites / 2 < self.threshold <= self.sites or self.sites < 3:
            raise ValueError(
                f"expected at least 3 sites and a threshold above half of them, got {self.sites} and {self.threshold}"
            )


@dataclass(frozen=True)
class Keys:
    """A site's public keys: for what is sent to it, and for masks."""

    channel: bytes
    mask: bytes


@dataclass(frozen=True)
class Unmasking:
    """One site's shares: of the own masks of sites that answered, and of the keys of those that did not."""

    own_masks: Mapping[int, bytes]
    keys: Mapping[int, bytes]


@dataclass(frozen=True)
class Secrets:
    """What a site keeps to itself from one step of a round to the next.

    Attributes:
        channel: Its private key for what is sent to it, 32 bytes.
        mask: Its private key for masks, 32 bytes.
        own_mask: The key of its own mask, 32 bytes.
        done: How many steps it has taken.
        keys: All sites' public keys.
        shares: {site: shares of its own mask and of its key, which this site holds}.
    """

    channel: bytes
    mask: bytes
    own_mask: bytes
    done: int = 0
    keys: Mapping[int, Keys] = field(default_factory=dict)
    shares: Mapping[int, tuple[bytes, bytes]] = field(default_factory=dict)


class Party:
    """One site in one round. Its four methods are called in their order, each once.

    Args:
        number: The site's, >= 1.
        terms: The round's.
        entropy: Returns so many random bytes; the operating system's unless a test needs them again.
        kept: What it had after an earlier step; without it, a site's secrets are drawn.
    """

    def __init__(
        self,
        number: int,
        terms: Terms,
        entropy: Callable[[int], bytes] = os.urandom,
        kept: Secrets | None = None,
    ) -> None:
        kept = kept or Secrets(entropy(32), entropy(32), entropy(32))
        self.number, self.terms, self._entropy = number, terms, entropy
        self._channel = X25519PrivateKey.from_private_bytes(kept.channel)
        self._mask = X25519PrivateKey.from_private_bytes(kept.mask)
        self._own_mask = kept.own_mask
        self._keys, self._shares, self._done = dict(kept.keys), dict(kept.shares), kept.done

    @property
    def secrets(self) -> Secrets:
        """What the next step needs. It is nobody else's business."""
        private = self._channel.private_bytes_raw(), self._mask.private_bytes_raw()
        return Secrets(*private, self._own_mask, self._done, self._keys, self._shares)

    def advertise(self) -> Keys:
        """Return the public keys."""
        self._step(0)
        return Keys(self._channel.public_key().public_bytes_raw(), self._mask.public_key().public_bytes_raw())

    def share(self, keys: Mapping[int, Keys]) -> dict[int, bytes]:
        """Return {other site: shares of this site's secrets, which only that site can read}.

        Args:
            keys: Of all sites that advertised, this one among them.

        Raises:
            Refused: They are too few, or two of them are the same.
        """
        self._step(1)
        public = [key for pair in keys.values() for key in (pair.channel, pair.mask)]
        if self.number not in keys or len(set(public)) < len(public) or len(keys) > self.terms.sites:
            raise Refused("expected distinct keys of the sites that were asked, the own ones among them")
        self._enough(keys)
        self._keys = dict(keys)
        holders, threshold = sorted(keys), self.terms.threshold
        own_masks = split(self._own_mask, holders, threshold, self._entropy)
        secrets = split(self._mask.private_bytes_raw(), holders, threshold, self._entropy)
        self._shares[self.number] = own_masks[self.number], secrets[self.number]
        return {
            other: self._cipher(other, self.number, other).encrypt(bytes(12), own_masks[other] + secrets[other], None)
            for other in holders
            if other != self.number
        }

    def mask(self, values: np.ndarray, shares: Mapping[int, bytes]) -> np.ndarray:
        """Return the vector, uint64 (n,), under all masks.

        Args:
            values: The vector, as ``fixed_point.encode`` makes it.
            shares: {other site: what it sent to this one}. Masks are agreed with these sites.

        Raises:
            Refused: They are too few, or one can't be read.
        """
        self._step(2)
        self._enough([*shares, self.number])
        for other, sent in shares.items():
            try:
                opened = self._cipher(other, other, self.number).decrypt(bytes(12), sent, None)
            except Exception as error:
                raise Refused(f"shares of site {other} that can't be read") from error
            self._shares[other] = opened[:SHARE], opened[SHARE:]
        masked = values + _stream(self._own_mask, len(values))
        for other in shares:
            masked += _pairwise(self._mask, self._keys[other].mask, self.terms, self.number, other, len(values))
        return masked

    def unmask(self, answered: Collection[int]) -> Unmasking:
        """Return this site's shares of what is still on the sum.

        Raises:
            Refused: Too few answered, or sites that took no part are said to have; or this is asked a second time,
                for with two lists a server could take all masks off one vector.
        """
        self._step(3)
        if not set(answered) <= set(self._shares) or self.number not in answered:
            raise Refused("expected sites that took part, this one among them")
        self._enough(answered)
        return Unmasking(
            {site: self._shares[site][0] for site in sorted(answered)},
            {site: self._shares[site][1] for site in sorted(set(self._shares) - set(answered))},
        )

    def _step(self, number: int) -> None:
        if self._done != number:
            raise Refused(f"expected step {self._done} of the protocol, got {number}: each is taken once, in order")
        self._done += 1

    def _enough(self, sites: Collection[int]) -> None:
        if len(set(sites)) < self.terms.threshold:
            raise Refused(f"expected at least {self.terms.threshold} sites, got {len(set(sites))}")

    def _cipher(self, other: int, sender: int, receiver: int) -> ChaCha20Poly1305:
        """Return the cipher of one message; its key is used for that message alone."""
        secret = self._channel.exchange(X25519PublicKey.from_public_bytes(self._keys[other].channel))
        return ChaCha20Poly1305(_derive(secret, f"channel {self.terms.round} {sender} {receiver}"))


def unmasked_sum(
    terms: Terms, keys: Mapping[int, Keys], masked: Mapping[int, np.ndarray], unmaskings: Mapping[int, Unmasking]
) -> np.ndarray:
    """Return the sum of the vectors that came, uint64 (n,): the server's last step.

    Args:
        terms: The round's.
        keys: All public keys.
        masked: {site: its masked vector} of the sites that answered.
        unmaskings: What the sites sent then, from at least ``threshold`` of them.

    Raises:
        Refused: Too few sites sent their shares, or not those of one secret.
    """
    if len(unmaskings) < terms.threshold:
        raise Refused(f"expected shares of at least {terms.threshold} sites, got {len(unmaskings)}")
    total = np.zeros_like(next(iter(masked.values())))
    for vector in masked.values():
        total = total + vector
    first = next(iter(unmaskings.values()))
    for site in first.own_masks:
        total = total - _stream(_together(site, {o: one.own_masks[site] for o, one in unmaskings.items()}), len(total))
    for site in first.keys:
        key = _together(site, {other: one.keys[site] for other, one in unmaskings.items()})
        private = X25519PrivateKey.from_private_bytes(key)
        if private.public_key().public_bytes_raw() != keys[site].mask:
            raise Refused(f"expected shares of site {site}'s key, got others")
        for other in masked:  # what they added for a site that did not answer
            total = total + _pairwise(private, keys[other].mask, terms, site, other, len(total))
    return total


def _together(site: int, shares: Mapping[int, bytes]) -> bytes:
    try:
        return combine(shares)
    except ValueError as error:
        raise Refused(f"shares of site {site}'s secrets: {error}") from error


def _pairwise(own: X25519PrivateKey, public: bytes, terms: Terms, site: int, other: int, size: int) -> np.ndarray:
    """Return the mask of two sites with the sign it has for ``site``: plus for the lower number."""
    secret = own.exchange(X25519PublicKey.from_public_bytes(public))
    low, high = sorted((site, other))
    mask = _stream(_derive(secret, f"mask {terms.round} {low} {high}"), size)
    return mask if site == low else np.uint64(0) - mask


def _derive(secret: bytes, purpose: str) -> bytes:
    return HKDF(SHA256(), 32, None, f"fedsim {purpose}".encode()).derive(secret)


def _stream(key: bytes, size: int) -> np.ndarray:
    """Return the first words of ChaCha20 under a key that is used for nothing else, uint64 (size,)."""
    return np.frombuffer(Cipher(algorithms.ChaCha20(key, bytes(16)), None).encryptor().update(bytes(8 * size)), "<u8")
