"""A cohort against its sites one by one, which is Opacus, and against vmap of grad with explicit clipping."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn
from torch.func import functional_call, grad, vmap
from torch.nn import functional

from fedsim.data.federation import Examples
from fedsim.engines import cohort as cohort_engine
from fedsim.engines import serial as serial_engine
from fedsim.engines.stack import train as stacking
from fedsim.engines.stack.generic import Generic
from fedsim.engines.stack.layers import NoRule, NotApart, Sizes, outer_sizes
from fedsim.engines.stack.model import StackedModel
from fedsim.engines.stack.train import check_rules, train_together
from fedsim.mistakes import Mistake
from fedsim.randomness import Words
from fedsim.scenario.schema import Optimizer
from fedsim.training import row_gradients
from fedsim.training.losses import binary, classes
from fedsim.training.steps import train
from fedsim.training.work import Noise, Plan, Streams, Work
from tests.cases import others_whole
from tests.works import Silent, examples, streams, vector

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


class Last(nn.Module):
    """Passes on the last output of a recurrent layer."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.layer(inputs)[0][:, -1]


def twice() -> nn.Module:
    shared = nn.Linear(16, 16)
    return nn.Sequential(shared, nn.Tanh(), shared, nn.Linear(16, 1))


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
    "two convolutions": lambda: nn.Sequential(
        *(Flat(1, 4, 4), nn.Conv2d(1, 4, 3, stride=2, padding=1), nn.GroupNorm(2, 4), nn.ReLU()),
        *(nn.Conv2d(4, 2, 2, bias=False), nn.Flatten(), nn.Linear(2, 1)),
    ),
    "pooling": lambda: nn.Sequential(
        *(Flat(1, 4, 4), nn.Conv2d(1, 3, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(12, 1)),
    ),
    "gru": lambda: nn.Sequential(Flat(4, 4), Last(nn.GRU(4, 5, num_layers=2, batch_first=True)), nn.Linear(5, 1)),
    "lstm": lambda: nn.Sequential(Flat(4, 4), Last(nn.LSTM(4, 5, batch_first=True)), nn.Linear(5, 1)),
    "linear with ghost norms": lambda: nn.Sequential(Flat(2, 8), nn.Linear(8, 20), nn.Flatten(), nn.Linear(40, 1)),
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
            start,
            vector(start),
            examples(size, 16, seed=site),
            Plan(steps, rate, 3.0 + site, OPTIMIZERS[optimizer], noise),
            streams(0, "federated", f"site{site}", 1),
            binary,
        )
        for site, size in enumerate(SIZES)
    ]


def together(stack: list[Work]) -> torch.Tensor:
    """Train a stack; return its parameters, (sites, params)."""
    found = torch.stack([work.start for work in stack])
    train_together(stack, found)
    return found


def in_double_precision(work: Work) -> Work:
    """Return the work with its weights and rows as float64: two ways to one figure then agree to the last digits."""
    rows = Examples(work.examples.inputs.double(), work.examples.target.double())
    return replace(work, model=work.model.double(), start=work.start.double(), examples=rows)


def both_ways(alone: list[Work], stack: list[Work]) -> tuple[torch.Tensor, torch.Tensor]:
    """Train the sites one by one, and as a stack; return both results, (sites, params)."""
    expected = [train(work) for work in alone]
    found = torch.stack([work.start for work in stack])
    assert [one.mechanism for one in train_together(stack, found)] == [done.mechanism for done in expected]
    return torch.stack([done.parameters for done in expected]), found


def cases(precision: str) -> list:
    """Return the models, optimizers and noises that a precision can show."""
    found = []
    for model in MODELS:
        for optimizer in OPTIMIZERS:
            for noise in (None, Noise(clip=0.5, multiplier=1.5)):
                # Opacus' own recurrent layers, of which only the private way makes use, are of float32.
                only_single = noise is not None and model in ("gru", "lstm")
                # Without noise, Adam divides a gradient near zero by its own size: it makes of the last
                # digit of float32 whatever it likes. Double precision shows what can be shown.
                only_double = noise is None and optimizer == "adam"
                if precision == "single" and only_double:
                    continue
                if precision == "double" and only_single:
                    continue
                name = f"{model}-{optimizer}-{'private' if noise else 'plain'}"
                # A few cases are tried each time, and the others where there is time.
                few = ("linear", "mlp") if precision == "double" else ("linear", "lstm")
                quick = (optimizer == "sgd" and model in few) or (precision, model) == ("double", "linear")
                found.append(pytest.param(model, optimizer, noise, id=name, marks=[pytest.mark.whole] * (not quick)))
    return found


@pytest.mark.parametrize(("model", "optimizer", "noise"), cases("single"))
def test_a_stack_is_what_its_sites_are_alone(model: str, optimizer: str, noise: Noise | None):
    """20 steps with the same batches and the same noise: Opacus one by one, and stacked."""
    expected, found = both_ways(works(model, optimizer, noise), works(model, optimizer, noise))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("model", "optimizer", "noise"), cases("double"))
def test_a_stack_is_what_its_sites_are_alone_to_the_last_digits(model: str, optimizer: str, noise: Noise | None):
    """The same in float64: what is left is not rounding. Noise is drawn as float32 and keeps its digits."""
    alone, stack = (
        [in_double_precision(work) for work in works(model, optimizer, noise)] for _ in ("alone", "together")
    )
    expected, found = both_ways(alone, stack)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6 if noise else 1e-12)


def rows_gradients(start: nn.Module, rows: Examples) -> torch.Tensor:
    """Return each row's gradient by autograd, one row after another, (rows, params)."""
    found = []
    for x, y in zip(rows.inputs, rows.target, strict=True):
        loss = functional.binary_cross_entropy_with_logits(start(x[None])[0, 0], y)
        found.append(torch.cat([part.flatten() for part in torch.autograd.grad(loss, [*start.parameters()])]))
    return torch.stack(found) if found else torch.zeros(0, len(vector(start)))


def normed_twice() -> nn.Module:
    shared = nn.LayerNorm(16)
    return nn.Sequential(shared, nn.Linear(16, 16), shared, nn.Linear(16, 1))


def convolved_twice() -> nn.Module:
    shared = nn.Conv2d(1, 1, 3, padding=1)
    return nn.Sequential(Flat(1, 4, 4), shared, nn.Tanh(), shared, nn.Flatten(), nn.Linear(16, 1))


@pytest.mark.parametrize(
    "model",
    [
        *MODELS,
        "a layer used twice",
        "a norm used twice",
        "a convolution used twice",
        "a row seen in pieces",
        "rows that are moved",
    ],
)
def test_clipped_sums_are_those_of_each_rows_own_gradient(model: str, monkeypatch):
    """Oracle without Opacus: one noiseless step. A layer that meets a row twice is clipped by the whole gradient."""
    monkeypatch.setitem(MODELS, "a layer used twice", twice)
    monkeypatch.setitem(MODELS, "a norm used twice", normed_twice)
    monkeypatch.setitem(MODELS, "a convolution used twice", convolved_twice)
    monkeypatch.setitem(MODELS, "a row seen in pieces", lambda: Visits(2))
    monkeypatch.setitem(MODELS, "rows that are moved", Moves)
    stack = [quiet(work) for work in works(model, noise=Noise(0.4, 1.0), steps=1, rate=1.0)]
    check_rules(stack[0].model, binary, stack[0].examples)
    clipped = 0
    for work, found in zip(stack, together(stack), strict=True):
        expected, count = one_clipped_step(work)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
        clipped += count
    assert clipped


def quiet(work: Work) -> Work:
    """Return the work without any noise."""
    return replace(work, streams=Streams(work.streams.batches, Silent()))


def one_clipped_step(work: Work) -> tuple[torch.Tensor, int]:
    """Return where a site is after a step of all its rows without noise, and how many of them were clipped."""
    assert work.plan.noise
    gradients = rows_gradients(work.model, work.examples)
    factor = (work.plan.noise.clip / gradients.norm(dim=1)).clamp(max=1)
    moved = work.plan.optimizer.lr * (factor[:, None] * gradients).sum(0) / work.plan.expected_batch
    return work.start - moved, int((factor < 1).sum())


@pytest.mark.parametrize("model", others_whole(["mlp", "conv", "layernorm"], "mlp"))
def test_clipped_sums_are_those_of_vmap_of_vmap_of_grad(model: str):
    """The same oracle written with ``torch.func``, over 20 steps without noise, to 1e-5."""
    clip, steps = 0.4, 20
    stack = [
        replace(work, examples=examples(9, 16, seed=site), streams=Streams(work.streams.batches, Silent()))
        for site, work in enumerate(works(model, noise=Noise(clip, 1.0), steps=steps, rate=1.0))
    ]
    net = stack[0].model
    names, shapes = zip(*[(name, value.shape) for name, value in net.named_parameters()], strict=True)

    def loss(own: torch.Tensor, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        parts = own.split([shape.numel() for shape in shapes])
        named = {name: part.view(shape) for name, shape, part in zip(names, shapes, parts, strict=True)}
        return functional.binary_cross_entropy_with_logits(functional_call(net, named, (x[None],))[0, 0], y)

    every_row = vmap(vmap(grad(loss), in_dims=(None, 0, 0)))
    expected = torch.stack([work.start for work in stack])
    inputs = torch.stack([work.examples.inputs for work in stack])
    target = torch.stack([work.examples.target for work in stack])
    divisors = torch.tensor([work.plan.expected_batch for work in stack])[:, None]
    for _ in range(steps):
        gradients = every_row(expected, inputs, target)
        factor = (clip / gradients.norm(dim=2)).clamp(max=1)
        expected = expected - 0.5 * torch.einsum("sb,sbp->sp", factor, gradients) / divisors
    torch.testing.assert_close(together(stack), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("noise", [None, Noise(clip=0.5, multiplier=1.5)], ids=["plain", "private"])
def test_several_classes(noise: Noise | None):
    net = nn.Sequential(nn.Linear(16, 5), nn.Tanh(), nn.Linear(5, 3))
    stack = []
    for site, size in enumerate(SIZES):
        target = torch.from_numpy(np.random.default_rng(site).integers(3, size=size))
        rows = Examples(examples(size, 16, seed=site).inputs, target)
        plan = Plan(20, 0.4, 4.0, OPTIMIZERS["sgd"], noise)
        stack.append(Work(net, vector(net), rows, plan, streams(0, "a", str(site), 1), classes))
    expected = [train(work.again()).parameters for work in stack]
    torch.testing.assert_close(together(stack), torch.stack(expected), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("positions", [1, 3, 40])
@pytest.mark.parametrize("bias", [False, True])
def test_norms_of_sums_of_outer_products(positions: int, bias: bool):
    """For one position, and for several (ghost norms)."""
    inputs, gradients = torch.randn(6, positions, 30), torch.randn(6, positions, 20)
    own = torch.einsum("rto,rti->roi", gradients, inputs)
    expected = own.flatten(1).double().pow(2).sum(1)
    of_bias = gradients.double().sum(1).pow(2).sum(1)
    sizes = outer_sizes(inputs, gradients, bias)
    torch.testing.assert_close(sizes.squares, expected + (of_bias if bias else 0), rtol=1e-5, atol=1e-5)
    terms = (inputs.norm(dim=2) * gradients.norm(dim=2)).sum(1)
    masses = expected if sizes.masses is None else sizes.masses
    torch.testing.assert_close(masses.sqrt(), terms.double(), rtol=1e-5, atol=1e-5)


class Moves(nn.Module):
    """Puts time before the rows."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 1)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.layer(inputs.reshape(len(inputs), 4, 4).transpose(0, 1)).mean(0)


class Drops(nn.Module):
    """Drops inputs without a layer that says so."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(16, 1)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.layer(functional.dropout(inputs, training=self.training))


class Mixes(nn.Module):
    """Takes off the mean of the rows beside."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(16, 1)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.layer(inputs - inputs.mean(0))


REFUSED = {
    "dropout of another kind": (
        lambda: nn.Sequential(nn.AlphaDropout(), nn.Linear(16, 1)), r"AlphaDropout \(0\) draws random numbers",
    ),
    "dropout in passing": (Drops, "draws random numbers"),
    "rows that are mixed": (Mixes, "rows can't be told apart"),
    "words of a largest length": (
        lambda: nn.Sequential(
            Flat(16, integers=True), nn.Embedding(10, 3, max_norm=1.0), nn.Flatten(), nn.Linear(48, 1)
        ),
        "no rule for an Embedding with max_norm",
    ),
}  # fmt: skip


def test_layers_may_work_in_place():
    check_rules(nn.Sequential(nn.Linear(16, 8), nn.ReLU(inplace=True), nn.Linear(8, 1)), binary, examples(5, 16))


@pytest.mark.parametrize("model", MODELS)
def test_every_model_with_rules_passes_the_check(model: str):
    cost = check_rules(MODELS[model](), binary, examples(5, 16))
    assert cost.parameters > 0
    assert cost.products > 0


@pytest.mark.parametrize("name", REFUSED)
def test_a_model_that_can_not_be_stacked_is_refused(name: str):
    make, message = REFUSED[name]
    with pytest.raises(NoRule, match=message):
        check_rules(make(), binary, examples(5, 16))


def test_a_wrong_rule_is_found_out(monkeypatch):
    """Norms too small by a tenth would let a row do more than is accounted for."""
    monkeypatch.setattr(
        "fedsim.engines.stack.layers.outer_sizes",
        lambda *args, **kwargs: Sizes(0.8 * outer_sizes(*args, **kwargs).squares),
    )
    model = MODELS["mlp"]()
    with pytest.raises(NotApart, match="rows can't be told apart"):
        stacking._cost_of(model, binary, examples(5, 16), whole=False)

    # The model is then computed as one layer, without that rule.
    check_rules(model, binary, examples(5, 16))
    assert [type(layer) for layer in stacking.stacked_model(model, torch.device("cpu")).layers] == [Generic]


@pytest.mark.parametrize("noise", [None, Noise(clip=0.5, multiplier=1.5)], ids=["plain", "private"])
@pytest.mark.parametrize("model", others_whole(["mlp", "conv", "gru"], "mlp"))
def test_the_cut_changes_nothing_but_rounding(model: str, noise: Noise | None):
    whole, parts = works(model, noise=noise), works(model, noise=noise)
    found = torch.cat([together(parts[:2]), together(parts[2:3]), together(parts[3:])])
    torch.testing.assert_close(together(whole), found, rtol=1e-4, atol=1e-6)


def test_recurrent_layers_that_opacus_changes_keep_their_order():
    """Serial swaps in Opacus' own: what comes back is in the order of the model."""
    (first, *_) = works("lstm", noise=Noise(100.0, 1.0), rate=1.0, steps=1)
    quiet = replace(first, streams=Streams(first.streams.batches, Silent()))
    expected = first.start - 0.5 * rows_gradients(first.model, first.examples).sum(0) / first.plan.expected_batch
    torch.testing.assert_close(train(quiet).parameters, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.whole
@pytest.mark.parametrize("kept", [2**24, 0], ids=["gradients of rows kept", "not kept"])
@pytest.mark.parametrize("model", ["mlp", "conv", "pooling"])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1e38])
def test_a_row_that_is_not_finite_counts_as_zero(model: str, bad: float, kept: int, monkeypatch):
    """B9, M8, in the stack: its site is as if it were not there, and so are the others.

    A gradient of 1e38 may be finite, where units are switched off: then one step moves by the clip at most.
    """
    monkeypatch.setattr("fedsim.engines.stack.layers._FLOATS", kept)
    steps = 1 if bad == 1e38 else 20
    without, spoiled = (works(model, noise=Noise(0.5, 1.0), steps=steps, rate=1.0) for _ in range(2))
    rows = spoiled[2].examples
    rows.inputs[4] = bad
    others = torch.arange(len(rows)) != 4
    without[2] = replace(without[2], examples=Examples(rows.inputs[others], rows.target[others]))
    found, expected = together(spoiled), together(without)
    if bad == 1e38:
        assert found.isfinite().all()
        assert (found[2] - expected[2]).norm() <= 0.5 * 0.5 / without[2].plan.expected_batch * (1 + 1e-4)
        found[2] = expected[2]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("rows", [1, 2, 3, 5, 8, 15])
@pytest.mark.parametrize("model", ["linear", "mlp", "layernorm", "linear with ghost norms", "gru"])
def test_under_privacy_a_rows_gradient_is_the_same_bits_beside_any_number_of_others(model: str, rows: int):
    """Torch multiplies a few rows in another order than many; a model may amplify that beyond the clip."""
    start = works(model)[0].model

    def moved(examples: Examples) -> torch.Tensor:
        plan = Plan(1, 1.0, 1.0, Optimizer(lr=2.0**60), Noise(1.0, 1.0))
        work = Work(start, vector(start), examples, plan, Streams(Words.of(0, "b"), Silent()), binary)
        return together([work])

    own = examples(1, 16, seed=3)
    spoiled = Examples(torch.full((rows - 1, 16), torch.nan), torch.ones(rows - 1))  # rows that count as zero
    beside = Examples(torch.cat([own.inputs, spoiled.inputs]), torch.cat([own.target, spoiled.target]))
    assert torch.equal(moved(beside), moved(own))


@pytest.mark.parametrize("model", others_whole(["mlp", "conv"], "mlp"))
def test_padding_is_never_trained_on(model: str):
    """A site's result does not depend on how long the others' batches are."""
    for noise in (None, Noise(0.5, 1.0)):
        short, long = together(works(model, noise=noise)[:2]), together(works(model, noise=noise))
        torch.testing.assert_close(long[:2], short, rtol=1e-4, atol=1e-6)


def test_under_privacy_rows_that_can_not_be_told_apart_end_the_run():
    (first, *_) = works("mlp", noise=Noise(0.3, 1.0), steps=1, rate=1.0)
    net = Mixes()
    with pytest.raises(Mistake, match="rows can be told apart"):
        cohort_engine.train_all([replace(first, model=net, start=vector(net))])


@pytest.mark.parametrize("engine", [cohort_engine, serial_engine])
@pytest.mark.parametrize("make", [Moves, lambda: Visits(2)], ids=["moved", "in pieces"])
def test_rows_that_opacus_would_take_for_others_are_clipped_each_by_its_own_gradient(engine, make):
    """Opacus takes the first dimension for the rows: here time, or pieces of rows."""
    (first, *_) = works("mlp", noise=Noise(0.1, 1.0), steps=1, rate=1.0)
    net = make()
    four = examples(4, 16)  # as many rows as positions: the number of gradients looks right
    work = quiet(replace(first, model=net, start=vector(net), examples=four))
    (found,) = engine.train_all([work])
    expected, clipped = one_clipped_step(work)
    assert clipped
    torch.testing.assert_close(found.parameters, expected, rtol=1e-4, atol=1e-6)


def test_a_site_without_rows_does_not_stand_for_the_others_when_a_model_is_tried(monkeypatch):
    """It has no rows to try the model on, so the next site's must be."""
    (first, *_) = works("mlp", noise=Noise(0.3, 1.0), steps=1, rate=1.0)
    tried = []
    monkeypatch.setattr(row_gradients, "find_way", lambda work: tried.append(len(work.examples)) or "vmap")
    serial_engine.train_all([replace(first, examples=examples(rows, 16)) for rows in (0, 4, 5)])
    assert tried == [4]


def test_without_privacy_such_a_model_is_trained_one_after_another():
    (first, *_) = works("mlp", steps=2, rate=1.0)
    net = Moves()
    work = replace(first, model=net, start=vector(net))
    (found,) = cohort_engine.train_all([work.again()])
    torch.testing.assert_close(found.parameters, train(work).parameters)


def test_under_privacy_a_model_that_drops_by_hand_is_trained_one_after_another():
    """Its rows are alone; they only draw, which a stack can't."""
    (first, *_) = works("mlp", noise=Noise(0.3, 1.0), steps=2, rate=1.0)
    net = Drops()
    (found,) = cohort_engine.train_all([replace(first, model=net, start=vector(net))])
    assert found.mechanism is not None
    assert found.mechanism.steps == 2


def test_noise_in_the_stack_has_the_claimed_size():
    """Five sites without rows, 200 000 coordinates each: variance within 1 %, Gaussian, streams differ."""
    net = nn.Linear(200_000, 1, bias=False)
    none = Examples(torch.zeros(0, 200_000), torch.zeros(0))
    plan = Plan(1, 1.0, 1.0, Optimizer(lr=1.0), Noise(0.5, 2.0))
    drawn = [Streams(Words.of(0, "b", site), Words.of(0, "n", site)) for site in range(5)]
    stack = [Work(net, torch.zeros(200_000), none, plan, own, binary) for own in drawn]
    found = together(stack).numpy()
    assert abs(found.var() - 1) <= 0.01
    assert abs(found.var() - 1) <= 5 * np.sqrt(2 / 1e6)
    assert all(stats.kstest(row, "norm").pvalue > 1e-6 for row in found)
    assert np.abs(np.corrcoef(found) - np.eye(5)).max() < 0.02


@pytest.mark.parametrize("model", ["mlp", "conv"])
def test_steps_in_which_every_batch_is_empty_are_noisy_and_accounted(model: str):
    """B10, M9, in the stack; with and without padding."""
    stack = works(model, noise=Noise(0.5, 1.0), rate=1e-9, steps=5)
    found = torch.stack([work.start for work in stack])
    assert {done.mechanism.steps for done in train_together(stack, found) if done.mechanism} == {5}
    assert all((trained != work.start).all() for trained, work in zip(found, stack, strict=True))


@pytest.mark.parametrize("model", ["conv", "two convolutions", "mlp", "gru"])
@pytest.mark.parametrize("broken", [KeyboardInterrupt, RuntimeError])
def test_rows_of_a_step_that_was_broken_off_are_not_released_by_the_next(
    model: str, broken: type[BaseException], monkeypatch: pytest.MonkeyPatch
):
    """M23: they would be summed in a step without rows, and unclipped."""
    noise = Noise(clip=1e-3, multiplier=0.5)

    def training(net: nn.Module, rate: float) -> list[Work]:
        return [
            Work(net, vector(net), examples(6, 16, seed=site), Plan(1, rate, 1.0, Optimizer(lr=1.0), noise),
                 streams(0, "federated", f"site{site}", 1), binary)
            for site in range(2)
        ]  # fmt: skip

    with torch.random.fork_rng():
        torch.manual_seed(0)
        used = MODELS[model]()
    expected = together(training(copy.deepcopy(used), 1e-6))  # draws no row

    def break_off(_: StackedModel) -> None:
        raise broken

    with monkeypatch.context() as patched:
        patched.setattr(StackedModel, "sizes", break_off)
        with pytest.raises(broken):
            together(training(used, 1.0))
    assert torch.equal(together(training(used, 1e-6)), expected)


@pytest.mark.parametrize("sizes", [(0, 12, 7), (0, 0)])
def test_sites_without_rows_do_not_end_the_stack_of_the_others(sizes: tuple[int, ...], monkeypatch: pytest.MonkeyPatch):
    """A model is tried on rows of a site that has some, whichever site comes first."""
    stack = [
        replace(work, examples=examples(size, 16, seed=site))
        for site, (work, size) in enumerate(zip(works("mlp", noise=Noise(0.5, 1.0)), sizes, strict=False))
    ]
    expected = torch.stack([train(work.again()).parameters for work in stack])
    alone = []
    one_by_one = serial_engine.train_all
    monkeypatch.setattr(serial_engine, "train_all", lambda some: alone.append(len(some)) or one_by_one(some))
    found = torch.stack([done.parameters for done in cohort_engine.train_all(stack)])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert alone == ([] if any(sizes) else [2])
