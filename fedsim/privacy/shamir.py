"""Secret sharing: any ``threshold`` shares give a secret back, fewer say nothing about it.

Shamir 1979, "How to share a secret", https://doi.org/10.1145/359168.359176: the secret is the
value at 0 of a random polynomial over the integers modulo the prime 2^521 - 1.
"""

from collections.abc import Callable, Mapping

PRIME = 2**521 - 1
_SHARE_BYTES = 66  # of a number below the prime
_SECRET_BYTES = 32
_SPARE_BYTES = 16  # reducing so many more modulo the prime leaves a bias below 2^-128


def split(
    secret: bytes,
    holders: list[int],
    threshold: int,
    entropy: Callable[[int], bytes],
) -> dict[int, bytes]:
    """Split a secret; return {holder: its share, 66 bytes}.

    Args:
        secret: 32 bytes.
        holders: Distinct numbers >= 1.
        threshold: The number of shares that give the secret back.
        entropy: Returns so many random bytes.

    Raises:
        ValueError: The secret, the holders or the threshold is something else.
    """
    distinct = len(set(holders)) == len(holders)
    if len(secret) != _SECRET_BYTES or not distinct or min(holders) < 1:
        raise ValueError("expected a secret of 32 bytes and distinct holders >= 1")
    if not 1 <= threshold <= len(holders):
        raise ValueError(f"expected a threshold from 1 to {len(holders)}, got {threshold}")

    # A polynomial of degree threshold - 1: the secret at 0, and random coefficients above.
    coefficients = [int.from_bytes(secret, "big")]
    for _ in range(threshold - 1):
        random_bytes = entropy(_SHARE_BYTES + _SPARE_BYTES)
        coefficients.append(int.from_bytes(random_bytes, "big") % PRIME)

    shares = {}
    for holder in holders:
        value = _value_at(holder, coefficients)
        shares[holder] = value.to_bytes(_SHARE_BYTES, "big")
    return shares


def combine(shares: Mapping[int, bytes]) -> bytes:
    """Compute the secret from shares, by Lagrange's interpolation at 0.

    Raises:
        ValueError: The shares, or their number, are not those of one secret.
    """
    total = 0
    for holder, share in shares.items():
        # The basis polynomial of this holder at 0: the product of x_j / (x_j - x_i) over the others.
        numerator = 1
        denominator = 1
        for other in shares:
            if other != holder:
                numerator = numerator * other % PRIME
                denominator = denominator * (other - holder) % PRIME
        total += int.from_bytes(share, "big") * numerator * pow(denominator, -1, PRIME)

    # Too few shares, or foreign ones, give a random number below the prime: hardly ever 32 bytes.
    secret = total % PRIME
    if secret >= 2 ** (8 * _SECRET_BYTES):
        raise ValueError("expected enough shares of one secret, got others or too few")
    return secret.to_bytes(_SECRET_BYTES, "big")


def _value_at(point: int, coefficients: list[int]) -> int:
    """Compute a polynomial's value at a point, modulo the prime, by Horner's rule."""
    value = 0
    for coefficient in reversed(coefficients):
        value = (value * point + coefficient) % PRIME
    return value
