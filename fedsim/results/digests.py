"""Digests of what is written, by which a change is noticed when it is read."""

import hashlib


def sha256(content: bytes) -> str:
    """Compute the SHA-256 of bytes in hex."""
    return hashlib.sha256(content).hexdigest()
