"""Between torch and Flower's records.

Inside one process a model is one vector, (params,), and goes from site to server as it is: a ``Flat`` record looks like
any ArrayRecord to a Flower strategy, but encodes an array only when its bytes are asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, lru_cache
from weakref import WeakKeyDictionary

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Context
from torch import Tensor, nn

from fedsim.privacy.ledger import Release
from fedsim.strategy.trainable import trainable

ARRAYS, CONFIG, METRICS, MECHANISM, TOLD = "arrays", "config", "metrics", "mechanism", "told"
_KEPT = "kept-"  # what a local rule keeps is in the site's state under names that start so
WEIGHT, ROUND = "num-examples", "server-round"  # Flower's own words, so that its strategies understand our replies
STAGES = ("query.keys", "query.shares", "train", "query.unmask")
"""The message types of a round of secure aggregation, in their order."""
REPORTED = {"loss": "train_loss", "cluster": "cluster", "steps": "local-steps"}  # metrics a strategy may ask for


@dataclass(frozen=True)
class Layout:
    """How a vector is divided into named parameters, float32: (name, shape, start, stop) of each."""

    parts: tuple[tuple[str, tuple[int, ...], int, int], ...]

    @classmethod
    def of(cls, model: nn.Module) -> Layout:
        """Return the layout of a model's trainable parameters, in their order; one object for one architecture."""
        if model not in _layouts:
            _layouts[model] = cls.made({name: tuple(value.shape) for name, value in trainable(model).items()})
        return _layouts[model]

    @classmethod
    def made(cls, shapes: Mapping[str, tuple[int, ...]]) -> Layout:
        """Return the layout of {name: shape}."""
        return _layout(tuple(shapes.items()))

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return {name: shape}."""
        return {name: shape for name, shape, _, _ in self.parts}


_layouts: WeakKeyDictionary[nn.Module, Layout] = WeakKeyDictionary()


@lru_cache(maxsize=64)
def _layout(shapes: tuple[tuple[str, tuple[int, ...]], ...]) -> Layout:
    stops = np.cumsum([int(np.prod(shape)) for _, shape in shapes]).tolist()
    return Layout(tuple((*shape, start, stop) for shape, start, stop in zip(shapes, [0, *stops], stops, strict=False)))


class _Part(Array):
    """A part of a vector that looks like an Array; its bytes are made when they are asked for."""

    __qualname__ = "Array"  # what Flower writes ahead of the bytes, to know what to make of them

    def __init__(self, vector: Tensor, shape: tuple[int, ...], start: int, stop: int) -> None:
        self.dtype, self.shape, self.stype = "float32", shape, "numpy.ndarray"
        self._of = (vector, start, stop)

    @cached_property
    def data(self) -> bytes:  # type: ignore[override]
        """The array as Flower encodes it."""
        return Array(self.numpy()).data

    def numpy(self) -> np.ndarray:
        """Return a copy of the values."""
        vector, start, stop = self._of
        return vector[start:stop].cpu().numpy().reshape(self.shape).copy()


class _Parts(MutableMapping[str, Array]):
    """The parts of a vector, made when one is asked for: most models travel as they are."""

    def __init__(self, vector: Tensor, layout: Layout) -> None:
        self._of = (vector, layout)

    @cached_property
    def _made(self) -> dict[str, Array]:
        vector, layout = self._of
        return {name: _Part(vector, shape, start, stop) for name, shape, start, stop in layout.parts}

    def __getitem__(self, key: str) -> Array:
        return self._made[key]

    def __setitem__(self, key: str, value: Array) -> None:
        self._made[key] = value

    def __delitem__(self, key: str) -> None:
        del self._made[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._made)

    def __len__(self) -> int:
        return len(self._made)


class Flat(ArrayRecord):
    """A model as one vector, float32 (params,). Who sets or deletes an array makes it an ordinary ArrayRecord."""

    __qualname__ = "ArrayRecord"

    def __init__(self, vector: Tensor, layout: Layout) -> None:
        super().__init__()
        self.vector: Tensor | None = vector
        self.layout = layout
        self.__dict__["_data"] = _Parts(vector, layout)  # where Flower keeps a record's arrays

    def copy(self) -> ArrayRecord:
        """Return a record that can be changed without changing this one."""
        return super().copy() if self.vector is None else Flat(self.vector, self.layout)

    def __setitem__(self, key: str, value: Array) -> None:
        self.vector = None
        super().__setitem__(key, value)

    def __delitem__(self, key: str) -> None:
        self.vector = None
        super().__delitem__(key)


def vector_in(arrays: ArrayRecord) -> Tensor | None:
    """Return the vector of a Flat record that is still one; None of any other record."""
    return arrays.__dict__.get("vector")


def flatten(arrays: ArrayRecord) -> Tensor:
    """Return all parameters as one vector, (params,)."""
    vector = vector_in(arrays)
    if vector is not None:
        return vector
    return torch.cat([torch.from_numpy(array.numpy()).reshape(-1) for array in arrays.values()])


def unflatten(vector: Tensor, like: ArrayRecord) -> ArrayRecord:
    """Return a vector as parameters with the names, shapes and types of another record."""
    if isinstance(like, Flat) and vector_in(like) is not None:
        return Flat(vector.float(), like.layout)
    values, start = {}, 0
    for name, array in like.items():
        size = int(np.prod(array.shape))
        part = vector[start : start + size].reshape(tuple(array.shape)).cpu().numpy()
        values[name] = Array(np.ascontiguousarray(part, dtype=array.dtype))
        start += size
    return ArrayRecord(values)


def stacked(vectors: Sequence[Tensor]) -> Tensor:
    """Return vectors (params,) as a matrix (vectors, params); no copy where they are rows of one, in this order."""
    base, size, first = vectors[0]._base, len(vectors[0]), int(vectors[0].storage_offset())
    if base is not None and base.dim() == 2 and base.is_contiguous() and base.shape[1] == size:
        places = [(vector._base is base, vector.storage_offset()) for vector in vectors]
        if places == [(True, first + size * number) for number in range(len(vectors))]:
            start = first // size
            return base[start : start + len(vectors)]
    return torch.stack([*vectors])


def from_state(state: Mapping[str, Tensor]) -> ArrayRecord:
    """Encode vectors by name."""
    return ArrayRecord({name: Array(np.ascontiguousarray(value.cpu().numpy())) for name, value in state.items()})


def to_state(record: ArrayRecord) -> dict[str, Tensor]:
    """Decode vectors by name."""
    return {name: torch.from_numpy(array.numpy()) for name, array in record.items()}


def keep(context: Context, kept: Mapping[str, Tensor]) -> None:
    """Put what a local rule keeps into the site's state, in place of what was there."""
    for name in [name for name in context.state if name.startswith(_KEPT)]:
        del context.state[name]
    for name, value in kept.items():
        context.state[_KEPT + name] = Flat(value, Layout.made({name: tuple(value.shape)}))


def kept_in(context: Context) -> dict[str, Tensor]:
    """Return what the site's local rule kept in its last round."""
    kept = [(name, record) for name, record in context.state.items() if name.startswith(_KEPT)]
    return {name.removeprefix(_KEPT): flatten(record) for name, record in kept if isinstance(record, ArrayRecord)}


@lru_cache(maxsize=256)
def _mechanism_record(mechanism: Release) -> ConfigRecord:
    return ConfigRecord(asdict(mechanism))  # type: ignore[call-overload]  every release is a dataclass


def from_mechanism(mechanism: Release) -> ConfigRecord:
    """Encode a release: what a site did to its rows, or to its update."""
    return _mechanism_record(mechanism).copy()


def to_mechanism(record: ConfigRecord, kind: type[Release]) -> Release:
    """Decode a release of a kind.

    Raises:
        TypeError: It lacks a value, or has another one too many.
    """
    return kind(**{str(key): value for key, value in record.items()})
