"""What an object of somebody else's remembers: its attributes, as values that can be written down and put back.

Flower's strategies keep their moments and past models in attributes. What they call, such as functions and classes, is
the same in another process, and not written down.
"""

import logging
import random
import types
from collections.abc import Mapping
from enum import Enum
from typing import Any

import numpy as np
import torch
from flwr.app import Array, ArrayRecord
from flwr.server.client_manager import ClientManager
from torch import Tensor


class Opaque(TypeError):
    """An object remembers something that can't be written down."""


_SAME_EVERYWHERE = (
    types.FunctionType,
    types.BuiltinFunctionType,
    types.ModuleType,
    type,
    Enum,
    logging.Logger,
    ClientManager,  # it is told of the nodes anew
)
_PLAIN = (bool, int, float, str, Tensor, np.ndarray, np.generic)


def state_of(thing: object) -> dict[str, Any]:
    """Return {attribute: what it holds} of an object, for ``pack``; what is the same everywhere is left out.

    Raises:
        Opaque: An attribute holds something that can't be written down.
    """
    try:
        attributes = vars(thing)
    except TypeError:
        raise Opaque(f"expected an object with attributes, got a {type(thing).__name__}") from None

    state = {}
    for name, value in attributes.items():
        if isinstance(value, _SAME_EVERYWHERE):
            continue
        if isinstance(value, np.random.Generator):
            state[name] = ("generator", _written(value.bit_generator.state))
        elif isinstance(value, random.Random):
            state[name] = ("random", _written(value.getstate()))
        elif isinstance(value, torch.Generator):
            state[name] = ("torch", value.get_state())
        elif _is_object(value):
            state[name] = ("object", state_of(value))
        else:
            state[name] = ("value", _written(value))
    return state


def put_back(thing: object, state: Mapping[str, Any]) -> None:
    """Set the attributes of an object that was made in the same way to what ``state_of`` returned."""
    for name, (kind, written) in state.items():
        if kind == "value":
            object.__setattr__(thing, name, _read(written))  # so a frozen dataclass can be put back, too
            continue

        held = vars(thing)[name]
        if kind == "generator":
            held.bit_generator.state = _read(written)
        elif kind == "random":
            held.setstate(_read(written))
        elif kind == "torch":
            held.set_state(written.cpu())
        else:
            put_back(held, written)


def _is_object(value: object) -> bool:
    return not (value is None or isinstance(value, (*_PLAIN, bytes, ArrayRecord, list, tuple, dict, set, frozenset)))


def _written(value: Any) -> tuple[str, Any]:  # noqa: ANN401  whatever an attribute holds
    """Return a value as (kind, what ``pack`` takes).

    Raises:
        Opaque: It is an object, or holds one.
    """
    if value is None or isinstance(value, _PLAIN):
        return "plain", value
    if isinstance(value, bytes):
        return "bytes", value.hex()
    if isinstance(value, ArrayRecord):
        return "arrays", {name: array.numpy() for name, array in value.items()}
    if isinstance(value, list):
        return "list", [_written(part) for part in value]
    if isinstance(value, tuple):
        return "tuple", [_written(part) for part in value]
    if isinstance(value, dict):
        return "dict", [(_written(key), _written(part)) for key, part in value.items()]
    raise Opaque(f"expected values, got a {type(value).__name__} among them")


def _read(written: tuple[str, Any]) -> Any:  # noqa: ANN401  whatever an attribute holds
    """Return what ``_written`` was given."""
    kind, content = written
    if kind == "bytes":
        return bytes.fromhex(content)
    if kind == "arrays":
        return ArrayRecord({name: Array(array) for name, array in content.items()})
    if kind == "list":
        return [_read(part) for part in content]
    if kind == "tuple":
        return tuple(_read(part) for part in content)
    if kind == "dict":
        return {_read(key): _read(part) for key, part in content}
    return content
