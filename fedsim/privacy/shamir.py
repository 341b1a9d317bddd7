"""Secret sharing: any ``threshold`` shares give a secret back, fewer say nothing about it.

Shamir 1979, "How to share a secret", https://doi.org/10.1145/359168.359176: the secret is the value at 0 of a random
polynomial over the integers modulo the prime 2^521 - 1.
"""

from collections.abc import Callable, Mapping

PRIME = 2**521 - 1
_SIZE, _SECRET = 66, 32  # bytes of a number below the prime, and of a secret


def split(secret: bytes, holders: list[int], threshold: int, entropy: Callable[[int], bytes]) -> dict[int, bytes]:
    """Return {holder: its share, 66 bytes}.

    Args:
        secret: 32 bytes.
        holders: Distinct numbers >= 1.
        threshold: How many shares give the secret back.
        entropy: Returns so many random bytes.
    """
    if len(secret) != _SECRET or len(set(holders)) != len(holders) or min(holders) < 1:
        raise ValueError("expected a secret of 32 bytes and distinct holders >= 1")
    if not 1 <= threshold <= len(holders):
        raise ValueError(f"expected a threshold from 1 to {len(holders)}, got {threshold}")
    drawn = [int.from_bytes(entropy(_SIZE + 16), "big") % PRIME for _ in range(threshold - 1)]  # bias below 2^-128
    polynomial = [int.from_bytes(secret, "big"), *drawn]
    return {holder: _value(polynomial, holder).to_bytes(_SIZE, "big") for holder in holders}


def combine(shares: Mapping[int, bytes]) -> bytes:
    """Return the secret, by Lagrange's interpolation at 0.

    Raises:
        ValueError: The shares, or their number, are not those of one secret.
    """
    total = 0
    for holder, share in shares.items():
        above = below = 1
        for other in shares:
            if other != holder:
                above, below = above * other % PRIME, below * (other - holder) % PRIME
        total += int.from_bytes(share, "big") * above * pow(below, -1, PRIME)
    secret = total % PRIME
    if secret >= 2 ** (8 * _SECRET):
        raise ValueError("expected enough shares of one secret, got others or too few")
    return secret.to_bytes(_SECRET, "big")


def _value(polynomial: list[int], at: int) -> int:
    found = 0
    for coefficient in reversed(polynomial):
        found = (found * at + coefficient) % PRIME
    return found
