"""A cohort against its sites one by one, which is Opacus, and against vmap of grad with explicit clipping."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call, grad, vmap
from torch.nn import functional

from fedsim import cohort
from fedsim.cohort import train_together
from fedsim.federation import Examples
from fedsim.scenario import Optimizer
from fedsim.training import Noise, Plan, Streams, Work, train
from tests.conftest import examples, streams
from tests.privacy.test_dpsgd import Silent

SIZES = (12, 1, 30, 0, 7)  # unequal, with a site of one row and one of none


class Visits(nn.Module):
    """Cuts each row into pieces, which look like rows to its layer."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.layer, self.size = nn.Linear(size, 1), size

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.layer(inputs.reshape(-1, self.size)).reshape(len(inputs), -1).sum(1, keepdim=True)


class Flat(nn.Module):
    """Turns (rows, features) into what the next layer takes."""

    def __init__(self, *shape: int, integers: bool = False) -> None:
        super().__init__()
        self.shape, self.integers = shape, integers

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        shaped = inputs.reshape(inputs.shape[0], *self.shape)
        return (shaped.abs() * 3).long().clamp(max=9) if self.integers else shaped


MODELS = {
    "linear": lambda: nn.Linear(16, 1),
    "linear without bias": lambda: nn.Linear(16, 1, bias=False),
    "mlp": lambda: nn.Sequential(nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 4), nn.Tanh(), nn.Linear(4, 1)),
    "conv": lambda: nn.Sequential(
        Flat(1, 4, 4), nn.Conv2d(1, 3, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(48, 1)
    ),
    "embedding": lambda: nn.Sequential(Flat(16, integers=True), nn.Embedding(10, 3), nn.Flatten(), nn.Linear(48, 1)),
    "layernorm": lambda: nn.Sequential(nn.Linear(16, 8), nn.LayerNorm(8), nn.ReLU(), nn.Linear(8, 1)),
    "groupnorm": lambda: nn.Sequential(Flat(4, 4), nn.GroupNorm(2, 4), nn.Flatten(), nn.Linear(16, 1)),
    "linear over a sequence": lambda: nn.Sequential(
        Flat(4, 4), nn.Linear(4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(12, 1)
    ),
}
OPTIMIZERS = {
    "sgd": Optimizer(lr=0.5),
    "momentum": Optimizer(lr=0.2, momentum=0.9, weight_decay=0.01),
    "adam": Optimizer(name="adam", lr=0.01),
}


def works(
    model: str, optimizer: str = "sgd", noise: Noise | None = None, steps: int = 20, rate: float = 0.3
) -> list[Work]:
    """Return one work for each size, all from the same weights, with streams of their own."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        start = MODELS[model]()
    return [
        Work(
            copy.deepcopy(start),
            examples(size, 16, seed=site),
            Plan(steps, rate, 3.0 + site, OPTIMIZERS[optimizer], noise),
            streams(0, "federated", f"site{site}", 1),
        )
        for site, size in enumerate(SIZES)
    ]


def weights(work: Work) -> torch.Tensor:
    return torch.cat([value.detach().flatten() for value in work.model.parameters()])


@pytest.mark.parametrize("noise", [None, Noise(clip=0.5, multiplier=1.5)], ids=["plain", "private"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("model", MODELS)
def test_a_stack_is_what_its_sites_are_alone(model: str, optimizer: str, noise: Noise | None):
    """20 steps with the same batches and the same noise: Opacus one by one, and stacked."""
    alone, together = works(model, optimizer, noise), works(model, optimizer, noise)
    expected = [train(work) for work in alone]
    assert train_together(together) == expected
    for one, other in zip(alone, together, strict=True):
        torch.testing.assert_close(weights(other), weights(one), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("model", MODELS)
def test_clipped_sums_are_those_of_vmap_of_vmap_of_grad(model: str):
    """Oracle without Opacus: one noiseless step."""
    clip, lr = 0.4, 0.5
    stack = [
        replace(work, streams=Streams(work.streams.batches, Silent()))  # type: ignore[arg-type]
        for work in works(model, noise=Noise(clip, 1.0), steps=1, rate=1.0)
    ]
    before = [copy.deepcopy(work.model) for work in stack]
    train_together(stack)
    for work, start in zip(stack, before, strict=True):
        named = {name: value.detach() for name, value in start.named_parameters()}

        def loss(parameters, x, y, start=start):
            logits = functional_call(start, parameters, (x[None],))[0, 0]
            return functional.binary_cross_entropy_with_logits(logits, y)

        if len(work.examples):
            rows = vmap(grad(loss), in_dims=(None, 0, 0))(named, work.examples.inputs, work.examples.target)
            norms = sum(value.flatten(1).pow(2).sum(1) for value in rows.values()).sqrt()
            factor = (clip / norms).clamp(max=1)
            sums = {name: torch.einsum("b,b...->...", factor, value) for name, value in rows.items()}
        else:
            sums = {name: torch.zeros_like(value) for name, value in named.items()}
        for name, value in work.model.named_parameters():
            expected = named[name] - lr * sums[name] / work.plan.expected_batch
            torch.testing.assert_close(value.detach(), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("model", ["mlp", "conv"])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1e38])
def test_a_row_that_is_not_finite_does_not_spoil_its_site_nor_another(model: str, bad: float):
    """M8, in the stack: the other sites are bit for bit what they were."""
    clean, spoiled = works(model, noise=Noise(0.5, 1.0), rate=1.0), works(model, noise=Noise(0.5, 1.0), rate=1.0)
    spoiled[2].examples.inputs[4] = bad
    train_together(clean)
    train_together(spoiled)
    assert weights(spoiled[2]).isfinite().all()
    for site in (0, 1, 3, 4):
        torch.testing.assert_close(weights(spoiled[site]), weights(clean[site]))


@pytest.mark.parametrize("model", ["mlp", "conv"])
def test_padding_is_never_trained_on(model: str):
    """A site's result does not depend on how long the others' batches are."""
    for noise in (None, Noise(0.5, 1.0)):
        short, long = works(model, noise=noise)[:2], works(model, noise=noise)
        train_together(short)
        train_together(long)
        for one, other in zip(short, long, strict=False):
            torch.testing.assert_close(weights(other), weights(one), rtol=1e-4, atol=1e-6)


def test_ghost_norms_are_used_where_they_hold_and_nowhere_else():
    row = torch.zeros(1, 16)
    found = {name: cohort._only_linear_once(make(), row) for name, make in MODELS.items()}
    assert {name for name, used in found.items() if used} == {"linear", "linear without bias", "mlp"}
    shared = nn.Linear(16, 16)
    assert not cohort._only_linear_once(nn.Sequential(shared, nn.ReLU(), shared, nn.Linear(16, 1)), row)


def twice() -> nn.Module:
    shared = nn.Linear(16, 16)
    return nn.Sequential(shared, nn.Tanh(), shared, nn.Linear(16, 1))


@pytest.mark.parametrize("model", [twice, lambda: Visits(2)], ids=["a layer used twice", "a row seen in pieces"])
def test_clipping_is_by_the_norm_of_a_rows_whole_gradient(model):
    """Also where a layer meets a row more than once, which Opacus does not bound and serial refuses."""
    start = model()
    plan = Plan(3, 1.0, 8.0, OPTIMIZERS["sgd"], Noise(0.3, 1.0))
    pair = [
        [Work(copy.deepcopy(start), examples(9, 16, seed=s), plan, streams(0, "a", str(s), 1)) for s in (0, 1)]
        for _ in range(2)
    ]
    train_together(pair[0])
    for work in pair[1]:
        _naive_private(work)
    for one, other in zip(*pair, strict=True):
        torch.testing.assert_close(weights(one), weights(other), rtol=1e-4, atol=1e-5)


def _naive_private(work: Work) -> None:
    noise = work.plan.noise
    assert noise is not None
    for _ in range(work.plan.steps):
        work.streams.batches.random(len(work.examples))
        total = [torch.zeros_like(value) for value in work.model.parameters()]
        for x, y in zip(work.examples.inputs, work.examples.target, strict=True):
            loss = functional.binary_cross_entropy_with_logits(work.model(x[None])[0, 0], y)
            row = torch.autograd.grad(loss, [*work.model.parameters()])
            norm = torch.cat([value.flatten() for value in row]).norm()
            total = [t + g * min(1.0, float(noise.clip / norm)) for t, g in zip(total, row, strict=True)]
        with torch.no_grad():
            for value, sum_ in zip(work.model.parameters(), total, strict=True):
                drawn = torch.from_numpy(work.streams.noise.standard_normal(tuple(value.shape), np.float32))
                value -= (
                    work.plan.optimizer.lr * (sum_ + noise.clip * noise.multiplier * drawn) / work.plan.expected_batch
                )


def test_noise_in_the_stack_has_the_claimed_size():
    """Five sites without rows, 200 000 coordinates each: variance within 5 sd, streams differ."""
    stack = []
    for site in range(5):
        model = nn.Linear(200_000, 1, bias=False)
        nn.init.zeros_(model.weight)
        none = Examples(torch.zeros(0, 200_000), torch.zeros(0))
        plan = Plan(1, 1.0, 1.0, Optimizer(lr=1.0), Noise(0.5, 2.0))
        stack.append(Work(model, none, plan, streams(0, "a", str(site), 1)))
    train_together(stack)
    found = torch.stack([work.model.get_parameter("weight").detach()[0] for work in stack])
    assert abs(found.var() - 1) <= 5 * np.sqrt(2 / 1e6)
    assert np.abs(np.corrcoef(found) - np.eye(5)).max() < 0.02
