"""Random streams derived from names, never from the order of calls.

A stream is a Philox counter generator whose 128-bit key is a hash of (seed, purpose, place). Two different names give
independent streams, the same name gives the same stream in every process and on every engine, and nothing touches
the global generators. torch's CPU generator keeps 32 bits of its seed, too few for a million (site, round) streams.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def stream(seed: int, purpose: str, *place: int | str) -> np.random.Generator:
    """Return the generator of one purpose at one place.

    Args:
        seed: The scenario's seed.
        purpose: What the numbers are for, e.g. ``"noise"`` or ``"batches"``. Purposes never share a stream.
        place: Where they are used, e.g. site name and round. ``1`` and ``"1"`` are different places.
    """
    return np.random.Generator(np.random.Philox(key=int.from_bytes(_digest(seed, purpose, place, 16), "big")))


def torch_seed(seed: int, purpose: str, *place: int | str) -> int:
    """Return a 63-bit seed for code that can only be seeded through ``torch`` (the initial weights of a model)."""
    return int.from_bytes(_digest(seed, purpose, place, 8), "big") >> 1


@contextmanager
def global_seed(seed: int) -> Iterator[None]:
    """Seed torch's global generators for code that can't be given one, and put the CPU's back afterwards."""
    before = torch.get_rng_state()
    torch.default_generator.manual_seed(seed)  # torch.manual_seed takes a millisecond, for a stack trace
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed(seed)
    try:
        yield
    finally:
        torch.set_rng_state(before)


def _digest(seed: int, purpose: str, place: tuple[int | str, ...], size: int) -> bytes:
    return hashlib.blake2b(repr((seed, purpose, *place)).encode(), digest_size=size).digest()
