import pytest
import torch

from clients.attacks.min_max import MinMax
from tests.clients.attacks.running import forged, setting


def test_min_max_goes_as_far_as_no_honest_model_is_from_another():
    _, honest = setting()
    point = forged(MinMax())[0]
    limit = torch.cdist(honest, honest).max()
    assert float((honest - point).norm(dim=1).max()) == pytest.approx(float(limit), rel=1e-4)
    assert torch.nn.functional.cosine_similarity(point - honest.mean(0), -honest.std(0, correction=0), dim=0) > 0.999
