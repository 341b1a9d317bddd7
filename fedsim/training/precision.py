"""Training whose products are computed in bfloat16: the weights, their gradients' sums and the loss stay float32."""

from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn

from fedsim.mistakes import Mistake


def check_precision(precision: str, device: str) -> None:
    """Make sure that a device has the numbers that a scenario asks for.

    Raises:
        Mistake: It has not.
    """
    if precision == "bf16" and device == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise Mistake(
            "training.precision: expected 'float32' on this GPU, which has no bfloat16, got 'bf16'; leave it out, or "
            "use device = 'cpu'"
        )


def check_layers(model: nn.Module, inputs: Tensor) -> None:
    """Make sure that torch's own layers take bfloat16 on this device: an LSTM needs a processor that has it.

    Raises:
        Mistake: A layer does not.
    """
    try:
        with torch.no_grad(), narrowed(True, inputs.device):
            model(inputs)
    except RuntimeError as error:
        said = str(error).partition("\n")[0]
        raise Mistake(
            "training.precision: expected 'float32' with engine = 'serial' for this model on this "
            f"{inputs.device.type}, got 'bf16', which a layer of torch's does not take there ({said}); the engine "
            "cohort has layers of its own"
        ) from None


def narrowed(narrow: bool, device: torch.device) -> AbstractContextManager[object]:
    """Let torch compute products in bfloat16 meanwhile, where that is asked for."""
    return torch.autocast(device.type, torch.bfloat16, enabled=narrow, cache_enabled=False)
