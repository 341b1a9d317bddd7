"""IFCA against a naive loop, and whether it finds two kinds of sites."""

import numpy as np
import pytest
import torch

from fedsim.data.federation import federate
from fedsim.experiments.arms import GLOBAL, Job, run_job
from fedsim.flower.adapter import Adapter
from fedsim.mistakes import Mistake
from fedsim.scenario.files import read
from fedsim.strategy.contract_check import Bench, Round
from fedsim.strategy.initial_models import initial_models
from fedsim.training.losses import binary
from strategies.ifca import IFCA, BestOfSeveral
from tests.cases import others_whole
from tests.strategy.test_local_rules import BATCH, LR, ROUNDS, SETTING, STEPS, same, trained

NAME = "strategy.name=ifca"


def naive(scenario, k: int) -> tuple[list[list[int]], np.ndarray, dict[str, np.ndarray]]:
    """Return the choices of each round, the model of the heaviest cluster and each site's, after Algorithm 1."""
    sites = federate(scenario(*SETTING), 0).sites
    models, choices = initial_models(torch.nn.Linear(30, 1), 0, k), []
    for _ in range(ROUNDS):
        ends: list[list[tuple[int, torch.Tensor]]] = [[] for _ in models]
        choices.append([])
        for site in sites:

            def loss(model: torch.Tensor, site=site) -> torch.Tensor:
                outputs = site.train.inputs @ model[:30, None] + model[30]
                return binary(outputs, site.train.target).sum() / BATCH[site.name]

            best = min(range(k), key=lambda j, loss=loss, models=models: float(loss(models[j])))
            model = models[best]
            for _ in range(STEPS):
                leaf = model.clone().requires_grad_()
                model = model - LR * torch.autograd.grad(loss(leaf), leaf)[0]
            ends[best].append((BATCH[site.name], model))
            choices[-1].append(best)
        models = [
            sum(weight * model for weight, model in own) / sum(weight for weight, _ in own) if own else model
            for own, model in zip(ends, models, strict=True)
        ]
    heaviest = max(range(k), key=lambda j: sum(weight for weight, _ in ends[j]))
    chosen = {site.name: models[j].numpy() for site, j in zip(sites, choices[-1], strict=True)}
    return choices, models[heaviest].numpy(), chosen


@pytest.mark.parametrize("engine", ["serial", "cohort"])
def test_ifca_is_algorithm_1_with_model_averaging(scenario, engine: str):
    choices, heaviest, chosen = naive(scenario, 3)
    assert len({j for row in choices for j in row}) > 1
    found = trained(scenario, NAME, "strategy.k=3", engine=engine)
    same(found.pop(GLOBAL), heaviest)
    assert set(found) == set(chosen)
    for name, model in chosen.items():
        same(found[name], model)


@pytest.mark.parametrize("seed", others_whole([0, 1], 0))
def test_two_kinds_of_sites_are_told_apart(seed: int):
    """Those of one kind end with one model, the others with the other."""
    scenario = read("synthetic-two-kinds", [NAME, "training.rounds=5"])
    models = run_job(scenario, Job("federated", False, seed), lambda number: None).models
    names = federate(scenario, seed).names
    kinds = [
        {names.index(name) for name in names if models[name]["0.weight"].equal(models[of]["0.weight"])}
        for of in names[:2]
    ]
    assert kinds == [set(range(0, 10, 2)), set(range(1, 10, 2))]


def test_a_cluster_is_the_weighted_mean_of_those_who_chose_it_and_one_that_nobody_chose_stays():
    given = Round.made(4).with_(cluster=torch.tensor([0.0, 2.0, 0.0, 2.0]))
    state = {f"model-{number}": torch.full((7,), float(number)) for number in range(3)}
    new, models = Bench(IFCA(k=3)).run(given, state)
    for number, own in ((0, [0, 2]), (2, [1, 3])):
        expected = np.average(given.updates[own].numpy(), axis=0, weights=given.weights[own].numpy())
        np.testing.assert_allclose(models[f"model-{number}"], expected, rtol=1e-5)
    assert torch.equal(models["model-1"], state["model-1"])
    heavier = 0 if given.weights[[0, 2]].sum() > given.weights[[1, 3]].sum() else 2
    assert torch.equal(new, models[f"model-{heavier}"])


def test_initial_models_differ_by_name_and_seed_also_where_the_task_starts_at_zero():
    zero = torch.nn.Linear(4, 1)
    torch.nn.init.zeros_(zero.weight)
    before = torch.get_rng_state()
    models = [*initial_models(zero, 0, 3), *initial_models(zero, 1, 3)]
    assert torch.equal(torch.get_rng_state(), before)
    assert len({tuple(model.tolist()) for model in models}) == 6
    assert torch.equal(initial_models(zero, 0, 5)[2], models[2])
    assert not zero.weight.any()


def test_models_that_can_not_be_drawn_anew_are_refused():
    with pytest.raises(Mistake, match="expected a model whose layers can be drawn anew"):
        initial_models(torch.nn.PReLU(), 0, 2)


def test_a_server_that_tells_fewer_models_is_found_out():
    with pytest.raises(ValueError, match="expected 2 models from the server, got 1"):
        BestOfSeveral(2).candidates({"model-0": torch.zeros(3)})


def test_the_models_travel_beside_the_global_one():
    adapter = Adapter(IFCA(k=2), state=IFCA(k=2).first_state(lambda k: [torch.full((3,), 1.0 * n) for n in range(k)]))
    assert {name: value[0].item() for name, value in adapter.told().items()} == {"model-0": 0.0, "model-1": 1.0}
