"""Norms that clip by, and the arithmetic that they hold for."""

from typing import Any

import torch
from torch import Tensor

from fedsim import devices

_NUMBERS_AT_ONCE = 2**18  # torch copies numbers to float64; a CPU is slower where more of them wait outside its cache


def square_norms(values: Tensor) -> Tensor:
    """Compute the squared Euclidean norm of each row in float64.

    In float32 the norm of ten million numbers is too small by a 4000th, and its square may be zero or infinite.

    Args:
        values: Rows of any shape, (rows, ...).

    Returns:
        Float64 (rows,): NaN or infinite where a value is.
    """
    rows = values.flatten(1)
    parts = [rows]
    if rows.numel() > _NUMBERS_AT_ONCE and not devices.is_gpu(rows.device):
        parts = rows.split(max(1, _NUMBERS_AT_ONCE // rows.shape[1]))
    norms = [torch.linalg.vector_norm(part, dim=1, dtype=torch.float64) for part in parts]
    return torch.cat(norms).square()


def largest_square(values: Tensor) -> float:
    """Return the largest squared norm of a row that counts, of values of this type.

    A factor that brings a longer row back to the clip has too few digits.
    """
    return torch.finfo(values.dtype).max


def summed_by(group: Tensor, values: Tensor) -> Tensor:
    """Add up the values of each group, (groups, ...).

    Args:
        group: The group of each row, from 0 on, int64 (rows,).
        values: (rows, ...).
    """
    groups = int(group.max()) + 1 if len(group) else 0
    return values.new_zeros(groups, *values.shape[1:]).index_add_(0, group, values)


def keep_float32_whole() -> None:
    """Switch off TF32 and bfloat16 inside float32 products and convolutions, for this process.

    A clipped sum whose factors are rounded to ten bits can be longer than the clip by a thousandth, which no bound of
    its norm knows of. Torch allows this in cuDNN's convolutions by default, and elsewhere where it was asked to.
    """
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    for products in (*_of(torch.backends.cuda), *_of(torch.backends.cudnn), *_of(torch.backends.mkldnn)):
        products.fp32_precision = "ieee"


def _of(backend: Any) -> list[Any]:  # noqa: ANN401  torch's settings are objects made at run time
    """Return the settings of a backend's kinds of operations, of those that it has."""
    kinds = [getattr(backend, name, None) for name in ("matmul", "conv", "rnn")]
    return [kind for kind in kinds if hasattr(kind, "fp32_precision")]
