"""Strategies with a client half: against naive loops over the four hospitals, and on every engine."""

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
import torch
from flwr.app import Context, RecordDict
from flwr.common.serde import recorddict_from_proto, recorddict_to_proto
from torch import nn

import fedsim.site.app
from fedsim.data.federation import federate
from fedsim.engines import cohort, serial
from fedsim.experiments.arms import GLOBAL, Job, run_job
from fedsim.flower.records import keep, kept_in
from fedsim.mistakes import Mistake, RunFailed
from fedsim.planning.checks import refuse, strategy_faults
from fedsim.planning.noise import noise_for, passes_of
from fedsim.scenario import catalog
from fedsim.scenario.schema import Optimizer
from fedsim.strategy.local_rule import Part, Plain
from fedsim.strategy.private_layers import PrivateLayers
from fedsim.training.model import layers_of, new_model
from fedsim.training.work import Plan
from strategies.fedprox import Proximal
from tests.cases import others_whole
from tests.works import examples, streams, work

LR, ROUNDS, STEPS = 0.5, 3, 3
BATCH = {"cleveland": 90, "hungarian": 90, "switzerland": 36, "va_long_beach": 60}
SETTING = [f"training.rounds={ROUNDS}", f"training.local_steps={STEPS}", "training.sampling_rate=1.0"]
Vector = np.ndarray


def has_client_half(name: str) -> bool:
    """Whether a strategy's sites do anything but what those of federated averaging do."""
    strategy = catalog.load("strategies", name)()
    return strategy.local_rule() != Plain() or strategy.second_rule() is not None


WITH_CLIENT_HALF = [name for name in catalog.titles("strategies") if has_client_half(name)]


def chosen(name: str) -> list[str]:
    """Return the settings with which a strategy runs on logistic regression."""
    return [f"strategy.name={name}", *(['strategy.private="*bias"'] if name in ("fedper", "fedrep") else [])]


def trained(scenario, *overrides: str, private: bool = False, engine: str = "serial") -> dict[str, Vector]:
    """Return the models of a federated training, weights and bias in one vector each."""
    found = run_job(
        scenario(*SETTING, f"engine={engine}", *overrides), Job("federated", private, 0), lambda number: None
    )
    return {
        name: torch.cat([part.flatten() for part in parts.values()]).double().numpy()
        for name, parts in found.models.items()
    }


class Hospital:
    """Rows of one hospital, and the gradient of its summed log loss over the expected batch, in numpy."""

    def __init__(self, scenario, site: int) -> None:
        self.site = federate(scenario(*SETTING), 0).sites[site]
        rows = self.site.train.inputs.double().numpy()
        self.rows = np.concatenate([rows, np.ones((len(rows), 1))], 1)  # the bias is last
        self.target = self.site.train.target.double().numpy()
        self.batch = BATCH[self.site.name]

    def gradient(self, model: Vector) -> Vector:
        likely = 1 / (1 + np.exp(-self.rows @ model))
        return self.rows.T @ (likely - self.target) / self.batch

    def descend(
        self, start: Vector, steps: int, correct: Callable[[Vector, Vector, int], Vector], rate: float = LR
    ) -> Vector:
        model = start
        for step in range(steps):
            model = model - rate * correct(self.gradient(model), model, step)
        return model


@pytest.fixture
def hospitals(scenario) -> list[Hospital]:
    return [Hospital(scenario, site) for site in range(4)]


WEIGHTS = np.array([*BATCH.values()]) / sum(BATCH.values())


def same(found: Vector, expected: Vector) -> None:
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_fedprox_is_algorithm_2(scenario, hospitals):
    x = np.zeros(31)
    for _ in range(ROUNDS):
        models = [one.descend(x, STEPS, lambda g, w, step, x=x: g + 0.7 * (w - x)) for one in hospitals]
        x = WEIGHTS @ models
    same(trained(scenario, "strategy.name=fedprox", "strategy.mu=0.7")[GLOBAL], x)


def test_scaffold_is_algorithm_1_where_the_sites_send_their_control_variates(scenario, hospitals):
    """Ours sends none: the server works them out."""
    x, c, own = np.zeros(31), np.zeros(31), np.zeros((4, 31))
    for _ in range(ROUNDS):
        models = [
            one.descend(x, STEPS, lambda g, w, step, k=k, c=c, own=own: g - own[k] + c)
            for k, one in enumerate(hospitals)
        ]
        new = np.array([own[k] - c + (x - models[k]) / (STEPS * LR) for k in range(4)])
        x = x + 0.9 * (WEIGHTS @ (np.array(models) - x))
        c = c + WEIGHTS @ (new - own)
        own = new
    same(trained(scenario, "strategy.name=scaffold", "strategy.eta=0.9")[GLOBAL], x)


COSINE = "training.schedule={name='cosine', warmup_rounds=1, final=0.2}"
RATES = [LR / 2, LR, LR * 0.2]


@pytest.mark.parametrize("engine", ["serial", "cohort"])
def test_scaffold_divides_by_the_rate_of_each_round(scenario, hospitals, engine: str):
    """Site and server both do: with the full rate in every round, c would not be the mean gradient."""
    x, c, own = np.zeros(31), np.zeros(31), np.zeros((4, 31))
    for rate in RATES:
        models = [
            one.descend(x, STEPS, lambda g, w, step, k=k, c=c, own=own: g - own[k] + c, rate)
            for k, one in enumerate(hospitals)
        ]
        new = np.array([own[k] - c + (x - models[k]) / (STEPS * rate) for k in range(4)])
        x = x + WEIGHTS @ (np.array(models) - x)
        c = c + WEIGHTS @ (new - own)
        own = new
    same(trained(scenario, "strategy.name=scaffold", COSINE, engine=engine)[GLOBAL], x)


@pytest.mark.parametrize("engine", ["serial", "cohort"])
def test_apfl_mixes_with_the_rate_of_each_round(scenario, hospitals, engine: str):
    """The mixture is of w and of v, which steps along alpha times the gradient at the mixture, each at this rate."""
    alpha = 0.3
    x, own = np.zeros(31), np.zeros((4, 31))
    for rate in RATES:
        ends = []
        for k, one in enumerate(hospitals):
            w, v = x, own[k]
            for _ in range(STEPS):
                mixture = alpha * v + (1 - alpha) * w
                v = v - rate * alpha * one.gradient(mixture)
                w = w - rate * one.gradient(w)
            own[k] = v
            ends.append(w)
        x = WEIGHTS @ np.array(ends)
    found = trained(scenario, "strategy.name=apfl", f"strategy.alpha={alpha}", COSINE, engine=engine)
    same(found[GLOBAL], x)
    for k, one in enumerate(hospitals):
        same(found[one.site.name], alpha * own[k] + (1 - alpha) * x)


def test_qfedavg_computes_with_the_rate_of_each_round(scenario):
    """With q = 0 it is averaging at any rate, and with q > 0 the rate counts."""
    averaged = trained(scenario, "strategy.name=fedavg", COSINE)[GLOBAL]
    same(trained(scenario, "strategy.name=qfedavg", "strategy.q=0.0", COSINE, "privacy.unit=none")[GLOBAL], averaged)
    follows = trained(scenario, "strategy.name=qfedavg", "strategy.q=1.0", COSINE)[GLOBAL]
    fixed = trained(scenario, "strategy.name=qfedavg", "strategy.q=1.0", f"strategy.lr={LR}", COSINE)[GLOBAL]
    assert np.abs(follows - fixed).max() > 1e-3


def test_feddyn_is_algorithm_1(scenario, hospitals):
    x, h, own = np.zeros(31), np.zeros(31), np.zeros((4, 31))
    for _ in range(ROUNDS):
        models = np.array([
            one.descend(x, STEPS, lambda g, w, step, k=k, x=x, own=own: g - own[k] + 0.3 * (w - x))
            for k, one in enumerate(hospitals)
        ])  # fmt: skip
        own = own - 0.3 * (models - x)
        h = h - 0.3 * (WEIGHTS @ (models - x))
        x = WEIGHTS @ models - h / 0.3
    same(trained(scenario, "strategy.name=feddyn", "strategy.alpha=0.3")[GLOBAL], x)


def test_fednova_weighs_a_stragglers_steps_as_everybodys(scenario, hospitals):
    slow = ["faults.straggler=0.5", "faults.straggler_steps=1"]
    from fedsim.planning.misbehaviour import slow_of

    stragglers = slow_of(scenario(*slow), 0, 4)
    assert len(stragglers) == 2
    steps = np.array([1 if site in stragglers else STEPS for site in range(4)])
    x = np.zeros(31)
    for _ in range(ROUNDS):
        models = [one.descend(x, steps[k], lambda g, w, step: g) for k, one in enumerate(hospitals)]
        deltas = np.array(models) - x
        x = x + (WEIGHTS @ steps) * (WEIGHTS @ (deltas / steps[:, None]))
    same(trained(scenario, "strategy.name=fednova", *slow)[GLOBAL], x)


@pytest.mark.parametrize("head_steps", [0, 1])
def test_private_parameters_stay_home(scenario, hospitals, head_steps: int):
    """FedPer, and FedRep, whose first step is the bias' alone."""
    name = "fedrep" if head_steps else "fedper"
    own_bias, x, bias = np.zeros(31), np.zeros(31), np.zeros(4)
    own_bias[-1] = 1
    for _ in range(ROUNDS):
        models = []
        for k, one in enumerate(hospitals):

            def correct(g: Vector, w: Vector, step: int) -> Vector:
                return g if not head_steps else g * (own_bias if step < head_steps else 1 - own_bias)

            model = one.descend(np.append(x[:-1], bias[k]), STEPS, correct)
            bias[k] = model[-1]
            models.append(np.append(model[:-1], x[-1]))
        x = WEIGHTS @ models
    found = trained(scenario, *chosen(name))
    same(found[GLOBAL], x)
    assert found[GLOBAL][-1] == 0  # it never left a site
    for k, one in enumerate(hospitals):
        same(found[one.site.name], np.append(x[:-1], bias[k]))


@pytest.fixture
def normed(monkeypatch) -> list[str]:
    """A deeper model with a normalization layer; a title of its own, since settings are kept by scenario."""
    heart = catalog.load("tasks", "hospital/heart")

    def deeper(inputs: int) -> nn.Module:
        return nn.Sequential(nn.Linear(inputs, 5), nn.LayerNorm(5), nn.Tanh(), nn.Linear(5, 1))

    load, task = catalog.load, dataclasses.replace(heart, model=deeper)
    monkeypatch.setattr(catalog, "load", lambda kind, what: task if kind == "tasks" else load(kind, what))
    return ["strategy.name=fedbn", "title=A model with a norm"]


@pytest.mark.parametrize("engine", ["serial", "cohort"])
def test_fedbn_is_algorithm_1(scenario, hospitals, normed, engine: str):
    """Naive: the forward pass by hand, autograd, the norm's two vectors kept in a table by hospital."""
    setting = scenario(*SETTING, *normed)
    start = new_model(setting, federate(setting, 0).sites[0], 0, "cpu").double().state_dict()
    shared = {name: value.clone() for name, value in start.items() if not name.startswith("1.")}
    norms = [{name: value.clone() for name, value in start.items() if name.startswith("1.")} for _ in hospitals]
    for _ in range(ROUNDS):
        came = []
        for k, one in enumerate(hospitals):
            own = {name: value.clone().requires_grad_() for name, value in {**shared, **norms[k]}.items()}
            rows, target = torch.from_numpy(one.rows[:, :-1]), torch.from_numpy(one.target)
            for _ in range(STEPS):
                hidden = rows @ own["0.weight"].T + own["0.bias"]
                middle = hidden - hidden.mean(1, keepdim=True)
                scaled = middle / torch.sqrt((middle**2).mean(1, keepdim=True) + 1e-5) * own["1.weight"] + own["1.bias"]
                said = (torch.tanh(scaled) @ own["3.weight"].T + own["3.bias"]).squeeze(1)
                loss = (torch.log1p(torch.exp(-said.abs())) + said.clamp(min=0) - target * said).sum() / one.batch
                slopes = torch.autograd.grad(loss, list(own.values()))
                own = {
                    name: (value - LR * slope).detach().requires_grad_()
                    for (name, value), slope in zip(own.items(), slopes, strict=True)
                }
            norms[k] = {name: own[name].detach() for name in norms[k]}
            came.append({name: own[name].detach() for name in shared})
        shared = {name: sum(w * m[name] for w, m in zip(WEIGHTS, came, strict=True)) for name in shared}
    found = trained(scenario, *normed, engine=engine)
    for one, own in zip(hospitals, norms, strict=True):
        whole = {**shared, **own}
        same(found[one.site.name], torch.cat([whole[name].flatten() for name in start]).numpy())
    assert not np.allclose(found["cleveland"][155:165], found["hungarian"][155:165], atol=1e-3)
    same(found[GLOBAL][155:165], np.repeat([1.0, 0.0], 5))  # where it began: no norm ever left a site


def test_batch_norm_is_refused_without_privacy_too(scenario, monkeypatch):
    """Its running means are no parameters: they would neither be sent nor kept."""
    heart, load = catalog.load("tasks", "hospital/heart"), catalog.load
    task = dataclasses.replace(heart, model=lambda inputs: nn.Sequential(nn.BatchNorm1d(inputs), nn.Linear(inputs, 1)))
    monkeypatch.setattr(catalog, "load", lambda kind, what: task if kind == "tasks" else load(kind, what))
    with pytest.raises(Mistake, match=r"got BatchNorm1d \(0\); use GroupNorm or LayerNorm in place of BatchNorm"):
        trained(scenario, "strategy.name=fedbn", "title=With BatchNorm", "privacy.unit=none")


def test_finetuning_leaves_each_site_with_its_own_last_steps(scenario, hospitals):
    x = np.zeros(31)
    for _ in range(ROUNDS):
        models = [one.descend(x, STEPS, lambda g, w, step: g) for one in hospitals]
        x = WEIGHTS @ models
    found = trained(scenario, "strategy.name=finetuning")
    same(found[GLOBAL], x)
    for model, one in zip(models, hospitals, strict=True):
        same(found[one.site.name], model)


def test_ditto_is_algorithm_1(scenario, hospitals):
    x, personal = np.zeros(31), np.zeros((4, 31))
    for _ in range(ROUNDS):
        for k, one in enumerate(hospitals):
            personal[k] = one.descend(personal[k], STEPS, lambda g, w, step, x=x: g + 0.4 * (w - x))
        x = WEIGHTS @ [one.descend(x, STEPS, lambda g, w, step: g) for one in hospitals]
    found = trained(scenario, "strategy.name=ditto", "strategy.lambda_=0.4")
    same(found[GLOBAL], x)
    for own, one in zip(personal, hospitals, strict=True):
        same(found[one.site.name], own)


LINEAR = [name for name in WITH_CLIENT_HALF if name not in ("fedbn", "moon")]
PRIVATE = [name for name in LINEAR if name != "ifca"]


@pytest.mark.whole
@pytest.mark.parametrize(
    ("name", "private"), [*((name, False) for name in LINEAR), *((name, True) for name in PRIVATE)]
)
def test_serial_and_cohort_agree(scenario, name: str, private: bool):
    rate = ["training.sampling_rate=0.5"]
    one = trained(scenario, *chosen(name), *rate, private=private)
    other = trained(scenario, *chosen(name), *rate, private=private, engine="cohort")
    assert set(one) == set(other)
    for site, model in one.items():
        np.testing.assert_allclose(other[site], model, rtol=1e-4, atol=1e-6)


def test_a_correction_comes_after_clipping_and_noise(scenario):
    """Under privacy FedProx with a huge mu stays where it is, whatever the clip: the pull is not clipped."""
    near = trained(scenario, "strategy.name=fedprox", "strategy.mu=1.9", private=True)[GLOBAL]
    free = trained(scenario, "strategy.name=fedavg", private=True)[GLOBAL]
    assert np.linalg.norm(near) < 0.8 * np.linalg.norm(free)


TWICE = [name for name in WITH_CLIENT_HALF if catalog.load("strategies", name)().second_rule() is not None]


@pytest.mark.whole
@pytest.mark.parametrize("engine", ["serial", "cohort"])
@pytest.mark.parametrize("name", TWICE)
def test_a_second_training_is_paid_for(scenario, name: str, engine: str):
    """Twice the steps: more noise, the same epsilon, and the ledger counts both."""
    plain, twice = scenario(), scenario(f"strategy.name={name}", f"engine={engine}")
    assert (passes_of(plain, "federated"), passes_of(twice, "federated")) == (1, 2)
    assert (passes_of(twice, "local"), passes_of(twice, "centralized")) == (1, 1)
    assert noise_for(twice, 0, "federated") > noise_for(plain, 0, "federated")
    assert noise_for(twice, 0, "local") == noise_for(plain, 0, "local")
    found = run_job(twice, Job("federated", True, 0), lambda number: None)
    assert {entry.mechanism.steps for entry in found.ledger.entries} == {2 * twice.training.local_steps}
    assert found.notes == []
    assert found.ledger.epsilon("cleveland") <= twice.privacy.epsilon


def test_second_trainings_are_stacked_like_the_first(scenario, monkeypatch):
    sizes, whole = [], cohort.train_together
    monkeypatch.setattr(cohort, "train_together", lambda works, stack: sizes.append(len(works)) or whole(works, stack))
    monkeypatch.setattr(fedsim.site.app, "train_site", None)  # nothing is trained one by one
    trained(scenario, "strategy.name=ditto", private=True, engine="cohort")
    assert sizes == [4, 4] * ROUNDS


@pytest.mark.parametrize("engine", ["serial", "cohort"])
@pytest.mark.parametrize("half", others_whole(["beside", "answer"], "answer"))
def test_a_site_that_fails_in_its_second_half_does_not_stop_the_others(scenario, monkeypatch, half: str, engine: str):
    """Nor does it count twice: the others' models are what they are without that site."""
    honest = getattr(fedsim.site.app.SiteApp, half)

    def failing(self, message, context, *rest):
        if context.node_config["partition-id"] == 2:
            raise RuntimeError("power cut")
        return honest(self, message, context, *rest)

    monkeypatch.setattr(fedsim.site.app.SiteApp, half, failing)
    setting = ["strategy.name=ditto", f"engine={engine}", "training.rounds=2"]
    found = run_job(scenario(*setting), Job("federated", False, 0), lambda number: None)
    assert [note.partition(" was")[0] for note in found.notes] == ["round 1: switzerland", "round 2: switzerland"]
    assert "power cut" in found.notes[0]
    assert set(found.models) == {GLOBAL, *BATCH} - {"switzerland"}
    monkeypatch.undo()
    alone = run_job(
        scenario(*setting, "engine=serial", "training.rounds=1"), Job("federated", False, 0), lambda number: None
    )
    monkeypatch.setattr(fedsim.site.app.SiteApp, half, failing)
    once = run_job(scenario(*setting, "training.rounds=1"), Job("federated", False, 0), lambda number: None)
    for name in ("cleveland", "hungarian", "va_long_beach"):
        torch.testing.assert_close(once.models[name]["weight"], alone.models[name]["weight"], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["qfedavg", "afl", "ifca"])
def test_a_site_does_not_send_what_losses_tell_under_privacy(scenario, name: str):
    """Nor is it asked by a server that checks nothing."""
    with pytest.raises(RunFailed, match="PermissionError"):
        run_job(scenario(f"strategy.name={name}"), Job("federated", True, 0), lambda number: None)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["strategy.name=fedbn"], "expected 'norm' to choose some of weight, bias, got all or none"),
        (["strategy.name=fedper"], "expected 'last' to choose some of weight, bias, got all or none"),
        (["strategy.name=fedrep", "strategy.head_steps=2"], "head_steps: expected fewer than the 2 local steps, got 2"),
        (["strategy.name=scaffold", "training.optimizer.momentum=0.5"], "expected sgd without momentum"),
        (["strategy.name=qfedavg"], "expected one that does without losses under privacy, got qfedavg"),
        (["strategy.name=ifca"], "expected one that does without a choice by losses under privacy, got ifca"),
        (["strategy.name=moon"], "MOON: expected a model with a layer before its last, .* got weight, bias"),
        (["strategy.name=apfl", "training.optimizer.momentum=0.5"], "expected sgd without momentum"),
        (
            ['strategy.name="flwr.serverapp.strategy:FedAvg"', "training.sites_per_round=2"],
            "training.sites_per_round: exp",
        ),
        (
            ['strategy.name="flwr.serverapp.strategy:FedAvg"', "faults.joins_late={utah=2}"],
            "faults.joins_late: expected",
        ),
        (["strategy.name=krum"], r"expected n >= 2 f \+ 3 = 5 updates for f = 1 malicious ones, got n = 4"),
    ],
)
def test_what_a_strategy_can_not_do_is_said_before_anything_is_run(scenario, overrides, message):
    with pytest.raises(Mistake, match=message):
        refuse(strategy_faults(scenario(*overrides), 4, nn.Linear(30, 1)))


def rules(name: str) -> list:
    strategy = catalog.load("strategies", name)()
    return [rule for rule in (strategy.local_rule(), strategy.second_rule()) if rule is not None]


@pytest.mark.parametrize("name", WITH_CLIENT_HALF)
def test_every_rule_keeps_its_contract(name: str):
    """It is frozen, leaves what it gets alone, corrects element by element, and keeps and sends whole vectors."""
    parts = layers_of(nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 2)))
    random = torch.Generator().manual_seed(0)
    centers, ends, gradients = torch.randn(3, 5, 34, generator=random)  # each (sites, params)
    for rule in rules(name):
        assert rule.__dataclass_params__.frozen
        kept: list[dict[str, torch.Tensor]] = [{} for _ in centers]
        for _ in range(2):
            before = [tensor.clone() for tensor in (centers, ends, gradients)]
            path = {f"path-{step}": point for step, point in enumerate((*gradients[:2], centers[0]))}
            told = path if rule.follows else {}
            begun = [rule.begin(center, own | told, parts) for center, own in zip(centers, kept, strict=True)]
            memory = {key: torch.stack([own[key] for _, own in begun]) for key in begun[0][1]}  # (sites, params)
            for step in range(2):
                together = rule.correct(gradients, ends, memory, step)
                for site in range(5):
                    alone = rule.correct(gradients[site], ends[site], begun[site][1], step)
                    assert torch.equal(together[site], alone)
                    a_part = {key: value[:7] for key, value in begun[site][1].items()}
                    assert torch.equal(rule.correct(gradients[site, :7], ends[site, :7], a_part, step), alone[:7])
            finished = [rule.finish(end, own, 2) for end, (_, own) in zip(ends, begun, strict=True)]
            assert all(sent.shape == (34,) and sent.isfinite().all() for sent, _ in finished)
            kept = [own for _, own in finished]
            assert all(value.shape == (34,) for own in kept for value in own.values())
            assert all(torch.equal(*pair) for pair in zip(before, (centers, ends, gradients), strict=True))


@pytest.mark.parametrize("private", others_whole([False, True], True))
@pytest.mark.parametrize("name", others_whole(["fedbn", "fedper", "fedrep"], "fedper"))
def test_private_layers_of_a_deeper_model_agree_on_both_engines(scenario, monkeypatch, name: str, private: bool):
    heart = catalog.load("tasks", "hospital/heart")

    def deeper(inputs: int) -> nn.Module:
        return nn.Sequential(nn.Linear(inputs, 5), nn.LayerNorm(5), nn.Linear(5, 1))

    load = catalog.load
    task = dataclasses.replace(heart, model=deeper)
    monkeypatch.setattr(catalog, "load", lambda kind, what: task if kind == "tasks" else load(kind, what))
    changed = [f"strategy.name={name}", "title=A deeper model"]  # a title of its own: settings are kept by scenario
    one = trained(scenario, *changed, private=private)
    other = trained(scenario, *changed, private=private, engine="cohort")
    own = {"fedbn": slice(155, 165), "fedper": slice(165, 171), "fedrep": slice(165, 171)}[name]
    for site, model in one.items():
        # LayerNorm divides by spreads of 5 numbers: float32's last bits show more than in a linear model
        np.testing.assert_allclose(other[site], model, rtol=1e-4, atol=5e-6)
        same(np.delete(model, own), np.delete(one[GLOBAL], own))
    assert not np.allclose(one["cleveland"][own], one["hungarian"][own])


def test_dittos_second_training_has_batches_and_noise_of_its_own(scenario, monkeypatch):
    seen = []
    whole = fedsim.site.app.SiteApp._work

    def spy(self, *args, **kwargs):
        seen.append(whole(self, *args, **kwargs))
        return seen[-1]

    monkeypatch.setattr(fedsim.site.app.SiteApp, "_work", spy)
    trained(scenario, "strategy.name=ditto", private=True)
    keys = [stream.key for one in seen for stream in (one.streams.batches, one.streams.noise)]
    assert len(seen) == 2 * 4 * ROUNDS
    assert len(set(keys)) == len(keys)


def test_sites_with_different_rules_are_not_put_into_one_stack():
    model, todo = nn.Linear(4, 1), Plan(2, 1.0, 10.0, Optimizer(), noise=None)
    kinds = [(Proximal(5.0), {"center": torch.ones(5)}), (Plain(), {})] * 2
    works = []
    for site, (rule, memory) in enumerate(kinds):
        one = work(model, examples(10, seed=site), todo, streams(0, "a", f"site{site}", 1))
        works.append(dataclasses.replace(one, rule=rule, memory=memory))
    together = cohort.train_all(works)
    for one, other in zip(together, serial.train_all([one.again() for one in works]), strict=True):
        torch.testing.assert_close(one.parameters, other.parameters, rtol=1e-4, atol=1e-6)


def test_what_a_site_keeps_survives_flowers_encoding(scenario):
    """A SuperNode stores a site's state between rounds as bytes."""
    context = Context(run_id=1, node_id=2, node_config={}, state=RecordDict(), run_config={})
    kept = {"own": torch.randn(7), "personal": torch.randn(7)}
    keep(context, kept)
    context.state = recorddict_from_proto(recorddict_to_proto(context.state))
    for name, value in kept_in(context).items():
        assert torch.equal(value, kept[name])
    assert set(kept_in(context)) == set(kept)
    keep(context, {"own": torch.zeros(7)})
    assert list(kept_in(context)) == ["own"]


def test_layers_are_told_apart_by_kind_and_place():
    model = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 2))
    parts = layers_of(model)
    assert parts[2] == Part("1.weight", "LayerNorm", 16, 20)
    center = torch.zeros(34)
    for which, places in (("norm", range(16, 24)), ("last", range(24, 34)), ("0.*", range(16)), ("*bias", None)):
        _, memory = PrivateLayers(which).begin(center, {}, parts)
        if places:
            assert memory["own"].nonzero().flatten().tolist() == list(places)
    assert memory["own"].sum() == 4 + 4 + 2


def test_one_local_step_of_fedavg_is_a_step_on_the_pooled_rows(scenario):
    alike = ["training.local_steps=1", "training.rounds=5"]
    one = run_job(scenario(*SETTING, *alike), Job("federated", False, 0), lambda number: None).models[GLOBAL]
    pooled = run_job(scenario(*SETTING, *alike), Job("centralized", False, 0), lambda number: None).models[GLOBAL]
    for name, value in one.items():
        torch.testing.assert_close(value, pooled[name], rtol=1e-5, atol=1e-6)
