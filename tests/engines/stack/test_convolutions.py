import pytest
import torch
from torch.nn import functional

from fedsim.engines.stack.convolutions import MaxPool2d


@pytest.mark.parametrize("size", [(2, 2), (3, 2), (1, 4)])
@pytest.mark.parametrize("shape", [(5, 3, 8, 8), (2, 1, 7, 9), (0, 2, 6, 6)])
def test_pooling_is_torchs_bit_for_bit(shape: tuple[int, ...], size: tuple[int, int]):
    """Half of the values are 0, so that many windows have equals: torch gives the gradient to the first."""
    random = torch.Generator().manual_seed(0)
    inputs = torch.randn(shape, generator=random).relu().requires_grad_()
    found, expected = MaxPool2d(size)(inputs), functional.max_pool2d(inputs, size)
    weights = torch.randn(expected.shape, generator=random)
    assert torch.equal(found, expected)
    assert torch.equal(*(torch.autograd.grad((out * weights).sum(), inputs)[0] for out in (found, expected)))


def test_pooling_passes_a_nan_on():
    """A row that is not finite must stay so: it is counted as zero later."""
    inputs = torch.zeros(1, 1, 2, 2)
    inputs[0, 0, 1, 0] = torch.nan
    assert MaxPool2d((2, 2))(inputs).isnan().all()
