"""Values and tensors as bytes that can be read back without running any code, with their own SHA-256.

What is packed is a tree: numbers, texts, lists, tuples and dictionaries, with tensors and numpy arrays as leaves. It is
read back with the same types. The bytes are a line with the digest of all that follows, then a safetensors file that
holds the tensors, with the rest as JSON in its note.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

_NOTE = "fedsim"
_LENGTH_OF_HEADER = 8  # bytes ahead of the header of a safetensors file, little-endian
_LENGTH_OF_DIGEST = 64


class Unpackable(TypeError):
    """A value is of a kind that can't be packed."""


def pack(tree: Any) -> bytes:  # noqa: ANN401  any tree of the kinds above
    """Return a tree as bytes.

    Raises:
        Unpackable: Something in it is neither a value nor a container nor a tensor.
    """
    tensors: dict[str, Tensor] = {}
    note = json.dumps(_Packing(tensors).written(tree), allow_nan=False)
    content = save_tensors(tensors, {_NOTE: note})
    return _digest(content) + b"\n" + content


def unpack(content: bytes, device: str = "cpu") -> Any:  # noqa: ANN401  any tree
    """Return the tree that ``pack`` was given, its tensors on a device.

    Raises:
        ValueError: These are not the bytes that were written.
    """
    digest, newline, body = content.partition(b"\n")
    if len(digest) != _LENGTH_OF_DIGEST or not newline or digest != _digest(body):
        raise ValueError("its SHA-256 differs")
    try:
        tensors = load_tensors(body)
        length = int.from_bytes(body[:_LENGTH_OF_HEADER], "little")
        header = json.loads(body[_LENGTH_OF_HEADER : _LENGTH_OF_HEADER + length])
        note = json.loads(header["__metadata__"][_NOTE])
        return _read(note, tensors, device)
    except (KeyError, IndexError, TypeError, RecursionError, SafetensorError) as error:
        raise ValueError(f"it is not what fedsim writes ({error})") from None


def _digest(content: bytes) -> bytes:
    return hashlib.sha256(content).hexdigest().encode()


class _Packing:
    """Writes a tree as JSON; tensors go into a dictionary, one that occurs twice only once.

    Args:
        tensors: Where they go.
    """

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        self._tensors = tensors
        self._names: dict[int, str] = {}  # {id of a tensor: its name}; the tree keeps them alive

    def written(self, value: Any) -> Any:  # noqa: ANN401  any part of a tree
        """Return a part of the tree as JSON: a plain value as it is, all others as [kind, content]."""
        if isinstance(value, np.generic):
            value = value.item()
        if value is None or isinstance(value, bool | int | str):
            return value
        if isinstance(value, float):
            return value if math.isfinite(value) else ["float", repr(value)]
        if isinstance(value, Tensor):
            return ["tensor", self._name_of(value, value)]
        if isinstance(value, np.ndarray):
            return ["array", self._name_of(value, _as_tensor(value))]
        if isinstance(value, list | tuple):
            kind = "tuple" if isinstance(value, tuple) else "list"
            return [kind, [self.written(part) for part in value]]
        if isinstance(value, Mapping):
            return ["dict", [[self.written(key), self.written(part)] for key, part in value.items()]]
        raise Unpackable(f"expected a value, a list, a dictionary or a tensor, got a {type(value).__name__}")

    def _name_of(self, original: Tensor | np.ndarray, tensor: Tensor) -> str:
        if id(original) not in self._names:
            name = str(len(self._names))
            self._names[id(original)] = name
            self._tensors[name] = tensor.detach().cpu().contiguous().clone()
        return self._names[id(original)]


def _as_tensor(array: np.ndarray) -> Tensor:
    try:
        return torch.from_numpy(np.array(array, order="C").reshape(array.shape))  # torch takes no read-only array
    except TypeError as error:
        raise Unpackable(f"expected an array of numbers, got one of {array.dtype}") from error


def _read(written: Any, tensors: Mapping[str, Tensor], device: str) -> Any:  # noqa: ANN401  any part of a tree
    if not isinstance(written, list):
        return written
    kind, content = written
    if kind == "float":
        return float(content)
    if kind == "tensor":
        return tensors[content].to(device)
    if kind == "array":
        return tensors[content].numpy()
    if kind == "dict":
        return {_read(key, tensors, device): _read(part, tensors, device) for key, part in content}
    parts = [_read(part, tensors, device) for part in content]
    return tuple(parts) if kind == "tuple" else parts
