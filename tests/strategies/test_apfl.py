"""APFL against a naive loop in autograd, and where it is something simpler."""

import numpy as np
import pytest
import torch

from fedsim.data.federation import federate
from fedsim.experiments.arms import GLOBAL
from fedsim.strategy.make import strategy_of
from fedsim.training.losses import binary
from strategies.apfl import APFL, Mixture
from tests.cases import others_whole
from tests.strategy.test_local_rules import BATCH, LR, ROUNDS, SETTING, STEPS, WEIGHTS, same, trained

NAME = "strategy.name=apfl"


def naive(scenario, alpha: float, decay: float) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Return w and each site's mixture after Algorithm 1: v is a leaf, and its gradient is autograd's."""
    sites = federate(scenario(*SETTING), 0).sites
    w, own = torch.zeros(31), {site.name: torch.zeros(31) for site in sites}
    for _ in range(ROUNDS):
        ends = []
        for site in sites:

            def loss(model: torch.Tensor, site=site) -> torch.Tensor:
                outputs = site.train.inputs @ model[:30, None] + model[30]
                return binary(outputs, site.train.target).sum() / BATCH[site.name] + decay / 2 * model.square().sum()

            local, v = w.clone(), own[site.name]
            for _ in range(STEPS):
                x, y = local.clone().requires_grad_(), v.clone().requires_grad_()
                (of_x,) = torch.autograd.grad(loss(x), x)
                (of_y,) = torch.autograd.grad(loss(alpha * y + (1 - alpha) * local), y)
                local, v = local - LR * of_x, v - LR * of_y
            own[site.name] = v
            ends.append(local)
        w = torch.from_numpy(WEIGHTS).float() @ torch.stack(ends)
    return w.numpy(), {name: (alpha * v + (1 - alpha) * w).numpy() for name, v in own.items()}


@pytest.mark.parametrize("engine", ["serial", "cohort"])
@pytest.mark.parametrize(("alpha", "decay"), others_whole([(0.5, 0.0), (0.25, 0.1)], 0.25))
def test_apfl_is_algorithm_1(scenario, alpha: float, decay: float, engine: str):
    """Batches of all rows: there it makes no difference that v's are not w's."""
    setting = [NAME, f"strategy.alpha={alpha}", f"training.optimizer.weight_decay={decay}"]
    w, mixtures = naive(scenario, alpha, decay)
    found = trained(scenario, *setting, engine=engine)
    same(found.pop(GLOBAL), w)
    assert set(found) == set(mixtures)
    for name, mixture in mixtures.items():
        same(found[name], mixture)


def test_with_alpha_1_each_site_trains_alone_like_ditto_without_its_pull(scenario):
    setting = ["training.sampling_rate=0.5"]
    one = trained(scenario, NAME, "strategy.alpha=1", *setting)
    other = trained(scenario, "strategy.name=ditto", "strategy.lambda_=0", *setting)
    for name, model in one.items():
        np.testing.assert_allclose(model, other[name], rtol=1e-4, atol=1e-6)


def test_learning_rate_and_weight_decay_are_the_scenarios(scenario):
    found = strategy_of(scenario(NAME, "training.optimizer.lr=0.3", "training.optimizer.weight_decay=0.01"), 4)
    assert found == APFL(lr=0.3, weight_decay=0.01)


def test_a_site_goes_on_from_its_own_model(scenario):
    """What it kept, and the newest global model, make its mixture: at the end of a round and at the next start."""
    rule, center, kept = Mixture(0.25, 0.5, 0.0), torch.full((3,), 8.0), {"own": torch.full((3,), 4.0)}
    start, _ = rule.begin(center, kept | {"path-0": center, "path-1": center}, ())
    assert torch.equal(start, torch.full((3,), 7.0))
    assert torch.equal(rule.personal(center, kept), start)
