"""Between torch and Flower's records."""

from collections.abc import Mapping
from dataclasses import asdict

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord
from torch import Tensor, nn

from fedsim.privacy.ledger import Mechanism

ARRAYS, CONFIG, METRICS, MECHANISM = "arrays", "config", "metrics", "mechanism"
WEIGHT, ROUND = "num-examples", "server-round"  # Flower's own words, so that its strategies understand our replies


def to_arrays(parameters: Mapping[str, Tensor]) -> ArrayRecord:
    """Encode named parameters."""
    return ArrayRecord({name: Array(value.detach().cpu().numpy()) for name, value in parameters.items()})


def to_parameters(arrays: ArrayRecord, device: str = "cpu") -> dict[str, Tensor]:
    """Decode named parameters."""
    return {name: torch.from_numpy(array.numpy()).to(device) for name, array in arrays.items()}


def load_into(model: nn.Module, arrays: ArrayRecord) -> None:
    """Set a model's parameters."""
    with torch.no_grad():
        for name, value in to_parameters(arrays).items():
            model.get_parameter(name).copy_(value)


def flatten(arrays: ArrayRecord) -> Tensor:
    """Return all parameters as one vector, (params,)."""
    return torch.cat([value.reshape(-1) for value in to_parameters(arrays).values()])


def unflatten(vector: Tensor, like: ArrayRecord) -> ArrayRecord:
    """Return a vector as parameters with the names, shapes and types of another record."""
    values, start = {}, 0
    for name, array in like.items():
        size = int(np.prod(array.shape))
        part = vector[start : start + size].reshape(tuple(array.shape)).cpu().numpy()
        values[name] = Array(np.ascontiguousarray(part, dtype=array.dtype))
        start += size
    return ArrayRecord(values)


def from_mechanism(mechanism: Mechanism) -> ConfigRecord:
    """Encode what a site did to its rows."""
    return ConfigRecord(asdict(mechanism))


def to_mechanism(record: ConfigRecord) -> Mechanism:
    """Decode what a site did to its rows.

    Raises:
        TypeError: It lacks a value, or has another one too many.
    """
    return Mechanism(**{str(key): value for key, value in record.items()})  # pyright: ignore[reportArgumentType]
