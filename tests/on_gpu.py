"""The ways that a GPU takes, taken on a CPU."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from fedsim import devices
from fedsim.engines.stack.captured import storage_of, tensors_in

ASKS = {"_local_scalar_dense", "nonzero", "is_nonzero", "item", "equal"}  # operators that wait for a GPU
_COPIES = {"lift_fresh", "pin_memory", "_pin_memory"}  # those of numbers that come from the CPU


@contextmanager
def as_on_a_gpu(free: int = 2**34) -> Iterator[None]:
    """Take them: one stack by memory, padded batches, grouped convolutions, norms of many rows, noise by Philox.

    Steps that come again and again are captured on a tape, as a GPU captures them as a graph.

    Args:
        free: The bytes that such a GPU has free.
    """
    with (
        mock.patch.object(devices, "is_gpu", return_value=True),
        mock.patch.object(devices, "free_bytes", return_value=free),
        mock.patch.object(devices, "captured", captured),
    ):
        yield


def captured(work: Callable[[], None], _: torch.device) -> Callable[[], None]:
    """Capture work as CUDA does: its operations and the tensors that they read and write, and nothing else of it.

    Raises:
        RuntimeError: The work asks for a number, or copies some from the CPU; CUDA raises it, too.
    """
    tape = Tape()
    with tape, mock.patch.object(devices, "moved", tape.refuse_to_move):
        work()
    tape.undo()
    return tape.replay


class Tape(TorchDispatchMode):
    """Writes operations down, and repeats them on the very tensors that they had.

    CUDA computes nothing while it captures. Here operations are carried out to know the shapes of what they return, and
    what they wrote into tensors that there were before is undone.
    """

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[tuple[Any, Any, Any, Any]] = []
        self._made: dict[int, Tensor] = {}  # tensors' storages that the work made itself; kept, as a graph's memory is
        self._before: list[tuple[Tensor, Tensor]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func.__name__.partition(".")[0]
        if name in ASKS | _COPIES:
            raise RuntimeError(f"operation not permitted when stream is capturing: {name}")
        for changed in _changed(func, args, kwargs):
            if storage_of(changed) not in self._made:
                self._before.append((changed, changed.clone()))
        returned = func(*args, **kwargs)
        for made in tensors_in(returned):
            if not any(storage_of(made) == storage_of(given) for given in tensors_in((args, kwargs))):
                self._made[storage_of(made)] = made
        self.operations.append((func, args, kwargs, returned))
        return returned

    @staticmethod
    def refuse_to_move(*_: object) -> Tensor:
        raise RuntimeError("operation not permitted when stream is capturing: a copy of what is not pinned")

    def undo(self) -> None:
        """Let tensors that there were before be as they were."""
        for changed, before in reversed(self._before):
            changed.copy_(before)
        self._before = []

    def replay(self) -> None:
        with torch.no_grad():
            for func, args, kwargs, returned in self.operations:
                again = func(*args, **kwargs)
                for old, new in zip(tensors_in(returned), tensors_in(again), strict=True):
                    if storage_of(old) != storage_of(new):
                        old.copy_(new)


def _changed(func: Any, args: Any, kwargs: Any) -> list[Tensor]:
    """Return the tensors that an operation writes into."""
    changed = []
    for place, argument in enumerate(func._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            given = kwargs.get(argument.name, args[place] if place < len(args) else None)
            changed += tensors_in(given)
    return changed
