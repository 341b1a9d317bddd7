"""MOON against a naive loop in autograd, and what its term does to the privacy of a row."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from fedsim.data.federation import Examples, federate
from fedsim.engines import cohort, serial
from fedsim.engines.stack.train import check_rules, same_steps
from fedsim.experiments.arms import GLOBAL
from fedsim.outcomes import outcome_of
from fedsim.randomness import global_seed
from fedsim.scenario import catalog
from fedsim.scenario.schema import Optimizer
from fedsim.training.losses import binary
from fedsim.training.model import layers_of, new_model, parts_of
from fedsim.training.representation import ComparedLosses, Revealing, with_term
from fedsim.training.rows_alone import some_rows
from fedsim.training.work import Noise, Plan, Work
from strategies.moon import Contrastive
from tests.cases import others_whole
from tests.strategy.test_local_rules import BATCH, LR, ROUNDS, SETTING, STEPS, WEIGHTS, same, trained
from tests.works import Silent, examples, streams, vector, work

MU, TAU = 2.0, 0.3
MOON = ["strategy.name=moon", f"strategy.mu={MU}", f"strategy.tau={TAU}", "title=Two layers"]


def two_layers(inputs: int) -> nn.Module:
    return nn.Sequential(nn.Linear(inputs, 5), nn.Tanh(), nn.Linear(5, 1))


@pytest.fixture
def deeper(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give hospital/heart a model with a layer inside."""
    load, heart = catalog.load, catalog.load("tasks", "hospital/heart")
    task = dataclasses.replace(heart, model=two_layers)
    monkeypatch.setattr(catalog, "load", lambda kind, what: task if kind == "tasks" else load(kind, what))


def inside(model: Tensor, rows: Tensor) -> Tensor:
    return (rows @ model[:150].view(5, 30).T + model[150:155]).tanh()  # (rows, 5)


def outputs(model: Tensor, rows: Tensor) -> Tensor:
    return inside(model, rows) @ model[155:160, None] + model[160]


def cosine(one: Tensor, other: Tensor) -> Tensor:
    return (one * other).sum(1) / (one.norm(dim=1) * other.norm(dim=1))


def naive(scenario) -> np.ndarray:
    """Return the global model after Algorithm 1, where the first round has no contrastive term."""
    sites = federate(scenario(*SETTING), 0).sites
    w, previous = vector(new_model(scenario(*SETTING), sites[0], 0, "cpu")), {}
    for _ in range(ROUNDS):
        ends = []
        for site in sites:
            rows, model = site.train.inputs, w
            for _ in range(STEPS):
                leaf = model.clone().requires_grad_()
                losses = binary(outputs(leaf, rows), site.train.target)
                if site.name in previous:
                    near = torch.exp(cosine(inside(leaf, rows), inside(w, rows)) / TAU)
                    far = torch.exp(cosine(inside(leaf, rows), inside(previous[site.name], rows)) / TAU)
                    losses = losses - MU * torch.log(near / (near + far))
                model = model - LR * torch.autograd.grad(losses.sum() / BATCH[site.name], leaf)[0]
            ends.append(model)
        previous = {site.name: end for site, end in zip(sites, ends, strict=True)}
        w = torch.from_numpy(WEIGHTS).float() @ torch.stack(ends)
    return w.numpy()


@pytest.mark.usefixtures("deeper")
@pytest.mark.parametrize("engine", ["serial", "cohort"])
def test_moon_is_algorithm_1_with_equation_3(scenario, engine: str):
    found = trained(scenario, *MOON, engine=engine)[GLOBAL]
    same(found, naive(scenario))
    plain = trained(scenario, "strategy.name=fedavg", "title=Two layers", engine=engine)[GLOBAL]
    assert np.abs(found - plain).max() > 1e-2


@pytest.mark.whole
@pytest.mark.usefixtures("deeper")
@pytest.mark.parametrize("private", [False, True])
def test_serial_and_cohort_agree(scenario, monkeypatch, private: bool):
    rate = ["training.sampling_rate=0.5"]
    one = trained(scenario, *MOON, *rate, private=private)
    monkeypatch.setattr(cohort.serial, "train_all", None)  # nothing is trained one by one
    other = trained(scenario, *MOON, *rate, private=private, engine="cohort")
    np.testing.assert_allclose(other[GLOBAL], one[GLOBAL], rtol=1e-4, atol=1e-5)


def moon_work(rows: Examples, noise: Noise | None) -> Work:
    """Return one step with all rows and no noise, at a site whose previous model is another."""
    with global_seed(0):
        model = two_layers(4)
    plain = work(model, rows, Plan(1, 1.0, 10.0, Optimizer(lr=1.0), noise), streams(0, "a", "s", 1))
    plain = dataclasses.replace(plain, streams=dataclasses.replace(plain.streams, noise=Silent()))
    rule = Contrastive(mu=50.0, tau=1.0)  # not saturated: the term outweighs the loss
    start, memory = rule.begin(plain.start, {"previous": plain.start.flip(0)}, layers_of(model))
    return with_term(dataclasses.replace(plain, rule=rule, start=start, memory=memory), Revealing(model, rows.inputs))


@pytest.mark.parametrize("engine", [serial, cohort])
def test_one_record_moves_the_release_by_at_most_the_clip_with_the_term_in_its_loss(engine):
    """B5 with mu = 50: without noise, |update(D) - update(D')| <= lr * clip / expected batch, and all of it is used."""
    rows, clip = examples(12), 0.3
    distances = []
    for value in (-1.0, 0.0, 1.0, 1e6, float("nan")):
        more = Examples(torch.cat([rows.inputs, torch.full((1, 4), value)]), torch.cat([rows.target, torch.ones(1)]))
        before, after = engine.train_all([moon_work(one, Noise(clip, 1.0)) for one in (rows, more)])
        distances.append(float((before.parameters - after.parameters).norm()))
    assert max(distances) <= 0.1 * clip * (1 + 1e-3)
    assert max(distances) >= 0.09 * clip


def test_the_term_is_in_the_clipped_gradient():
    """Clipped to next to nothing, a step with a huge term goes next to nowhere."""
    rows = examples(12)
    free, clipped = (moon_work(rows, noise) for noise in (None, Noise(1e-3, 1.0)))
    moved = [float((serial.train_all([one])[0].parameters - one.start).norm()) for one in (free, clipped)]
    assert moved[0] > 1
    assert 0 < moved[1] <= 12 * 1e-3 / 10 * (1 + 1e-3)


DEEP = [
    name
    for name in catalog.titles("tasks")
    if (name.startswith("synthetic/") and not name.endswith("-large"))
    or name in ("school/digits", "bank/volatility")
]  # fmt: skip


@pytest.mark.parametrize("name", others_whole(DEEP, "school/digits"))
def test_every_kind_of_model_reveals_what_is_inside_and_can_be_stacked(name: str):
    """Parameters, their order and the outputs are the model's; the representations go through the last layer."""
    task = catalog.load("tasks", name)
    examples = _some_examples(task)
    model = task.model(*examples.inputs.shape[1:])
    rows = some_rows(model, examples)
    revealing = Revealing(model, rows)
    assert [*map(torch.Tensor.size, revealing.parameters())] == [*map(torch.Tensor.size, model.parameters())]
    other = vector(model) + 0.1 * torch.randn(len(vector(model)), generator=torch.Generator().manual_seed(0))
    both = functional_call(revealing, parts_of(revealing, other), (rows,))
    expected = functional_call(model, parts_of(model, other), (rows,))
    assert torch.equal(both[:, : expected.shape[1]], expected)
    last = [layer for layer in model.modules() if [*layer.parameters(recurse=False)]][-1]
    weight, bias = [value for value in parts_of(model, other).values()][-2:]
    through = both[:, expected.shape[1] :] @ weight.T + bias
    torch.testing.assert_close(through, expected)
    assert revealing.features == last.in_features
    target = torch.zeros(4, 1 + 2 * revealing.features)
    losses = ComparedLosses(
        outcome_of(task.kind).losses, Contrastive(1.0, 0.5), revealing.features, task.kind == "classes"
    )
    check_rules(revealing, losses, Examples(rows, target))


def _some_examples(task) -> Examples:
    made = task.make(0) if task.make else (task.load().inputs[:4], task.load().target[:4])
    return Examples(*map(torch.from_numpy, made))


def test_class_numbers_come_through():
    """Rows of classes: the packed target is a class number again where the loss is computed."""
    rows = Examples(torch.randn(6, 4), torch.tensor([0, 2, 1, 2, 0, 1]))
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))
    todo = Plan(1, 1.0, 10.0, Optimizer(), None)
    plain = work(model, rows, todo, streams(0, "a", "s", 1), outcome_of("classes").losses)
    rule = Contrastive(0.0, 0.5)
    one = dataclasses.replace(plain, rule=rule, memory=rule.begin(plain.start, {}, layers_of(model))[1])
    packed = with_term(one, Revealing(model, rows.inputs))
    found = packed.losses(packed.model(rows.inputs), packed.examples.target)
    assert torch.equal(found, outcome_of("classes").losses(model(rows.inputs), rows.target))
    assert same_steps(packed) == same_steps(with_term(one, packed.model))


def test_a_rule_that_compares_nothing_has_no_term():
    model, rows = two_layers(4), examples(3)
    plain = work(model, rows, Plan(1, 1.0, 10.0, Optimizer(), None), streams(0, "a", "s", 1))
    with pytest.raises(TypeError, match="expected a rule that compares representations, got Plain"):
        with_term(plain, Revealing(model, rows.inputs))
