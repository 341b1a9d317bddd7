"""The ways that a GPU takes, taken on a CPU."""

from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

from fedsim import devices


@contextmanager
def as_on_a_gpu(free: int = 2**34) -> Iterator[None]:
    """Take them: one stack by memory, padded batches, grouped convolutions, norms of many rows, noise by Philox.

    Args:
        free: The bytes that such a GPU has free.
    """
    with (
        mock.patch.object(devices, "is_gpu", return_value=True),
        mock.patch.object(devices, "free_bytes", return_value=free),
    ):
        yield
