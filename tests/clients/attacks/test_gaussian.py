import pytest
import torch

from clients.attacks.gaussian import Gaussian
from fedsim.randomness import stream


def test_gaussian_noise_has_the_standard_deviation_that_is_asked_for():
    center = torch.zeros(20_000)
    found = Gaussian(0.3).forge(center, torch.ones(3, 20_000), 9, stream(0, "attack"))
    assert float(found.std()) == pytest.approx(0.3, rel=0.02)  # 60 000 numbers: 0.3 % is one standard error
    assert not torch.equal(found[0], found[1])
