import math
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional

from fedsim.data.federation import Examples, federate
from fedsim.mistakes import Mistake
from fedsim.planning.checks import check_expected_batches
from fedsim.scenario.schema import Optimizer
from fedsim.training import model
from fedsim.training.model import best_device, new_model
from fedsim.training.row_gradients import find_way
from fedsim.training.rows_alone import check_rows_are_alone
from fedsim.training.steps import train
from fedsim.training.work import Noise, Plan
from tests.works import examples, streams, vector, work


def plan(optimizer: Optimizer, steps: int = 3) -> Plan:
    return Plan(steps, 1.0, 10.0, optimizer, noise=None)


@pytest.mark.parametrize(
    ("optimizer", "kind", "settings"),
    [
        (Optimizer(lr=0.3), torch.optim.SGD, {"lr": 0.3}),
        (
            Optimizer(lr=0.3, momentum=0.9, weight_decay=0.1),
            torch.optim.SGD,
            {"lr": 0.3, "momentum": 0.9, "weight_decay": 0.1},
        ),
        (Optimizer(name="adam", lr=0.01), torch.optim.Adam, {"lr": 0.01}),
    ],
)
def test_plain_training_is_that_optimizer_on_the_summed_loss_over_the_expected_batch(optimizer, kind, settings):
    """Oracle: the loop written out."""
    rows = examples(10)
    first, second = nn.Linear(4, 1), nn.Linear(4, 1)
    second.load_state_dict(first.state_dict())
    before = vector(first)
    done = train(work(first, rows, plan(optimizer), streams(0, "a", "b", 1)))
    assert done.mechanism is None
    assert torch.equal(vector(first), before)  # what came is left alone
    naive = kind(second.parameters(), **settings)
    for _ in range(3):
        naive.zero_grad()
        logits = second(rows.inputs)[:, 0]
        (functional.binary_cross_entropy_with_logits(logits, rows.target, reduction="sum") / 10).backward()
        naive.step()
    torch.testing.assert_close(done.parameters, vector(second))


def test_an_empty_plain_batch_changes_nothing():
    model = nn.Linear(4, 1)
    none = Examples(torch.zeros(0, 4), torch.zeros(0))
    done = train(work(model, none, plan(Optimizer()), streams(0, "a", "b", 1)))
    assert torch.equal(done.parameters, vector(model))


def test_the_weights_of_a_site_are_public(scenario):
    """M3, M4: a number for all, or a declared number for each; never the rows that are there."""
    chosen = scenario()
    check_expected_batches(chosen, federate(chosen, 0))
    assert {name: chosen.expected_batch(name) for name in federate(chosen, 0).names} == chosen.training.expected_batch
    chosen = scenario("training.expected_batch=50")
    check_expected_batches(chosen, federate(chosen, 0))
    assert {chosen.expected_batch(name) for name in federate(chosen, 0).names} == {50.0}


def test_batches_for_other_sites_than_there_are_is_a_mistake(scenario):
    chosen = scenario("training.expected_batch={cleveland=1, utah=2}")
    with pytest.raises(
        Mistake, match=r"expected one number for each of cleveland, hungarian, .*got them for cleveland, utah"
    ):
        check_expected_batches(chosen, federate(chosen, 0))


def test_initial_weights_depend_on_the_seed_alone(scenario, monkeypatch):
    class Random:
        inputs = ()
        model = staticmethod(lambda inputs: nn.Linear(inputs, 1))

    monkeypatch.setattr(model, "task_of", lambda scenario: Random)
    chosen = scenario()
    site = _a_site()
    torch.rand(5)
    first = new_model(chosen, site, 0, "cpu")
    state = torch.random.get_rng_state()
    second, other = new_model(chosen, site, 0, "cpu"), new_model(chosen, site, 1, "cpu")
    assert torch.equal(first.weight, second.weight)  # type: ignore[arg-type]
    assert not torch.equal(first.weight, other.weight)  # type: ignore[arg-type]
    assert torch.equal(torch.random.get_rng_state(), state)


def test_batchnorm_is_refused_with_a_replacement(scenario, monkeypatch):
    """M10: it mixes rows."""

    class Mixing:
        inputs = ()
        model = staticmethod(
            lambda inputs: nn.Sequential(
                nn.Linear(inputs, 3), nn.BatchNorm1d(3, track_running_stats=False), nn.Linear(3, 1)
            )
        )

    monkeypatch.setattr(model, "task_of", lambda scenario: Mixing)
    with pytest.raises(Mistake, match=r"treat each row alone.*got BatchNorm1d .1.; use GroupNorm or LayerNorm"):
        new_model(scenario(), _a_site(), 0, "cpu")


class Remembering(nn.Module):
    """Takes off the mean of the rows that it saw before, in training: of other rows, and of no release."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(3))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        outputs = inputs - self.mean
        if self.training:
            self.mean = 0.9 * self.mean + 0.1 * inputs.mean(0).detach()
        return outputs


class Sequences(nn.Module):
    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.layer(inputs[:, :, None].expand(-1, -1, 4)).mean(2)


@pytest.mark.parametrize(
    ("layer", "name"),
    [
        (Remembering(), r"Remembering .1\.0."),
        (Sequences(nn.InstanceNorm1d(3, track_running_stats=True)), r"InstanceNorm1d .1\.0\.layer."),
    ],
    ids=["a mean", "InstanceNorm1d"],
)
def test_a_layer_that_remembers_rows_is_refused(scenario, monkeypatch, layer: nn.Module, name: str):
    """M10: what it keeps from step to step is neither clipped nor noised."""

    class Keeping:
        inputs = ()
        model = staticmethod(lambda inputs: nn.Sequential(nn.Linear(inputs, 3), nn.Sequential(layer), nn.Linear(3, 1)))

    monkeypatch.setattr(model, "task_of", lambda scenario: Keeping)
    with pytest.raises(Mistake, match=rf"remember no rows, got {name}, whose buffer .* changes"):
        new_model(scenario(), _a_site(), 0, "cpu")


def test_a_constant_buffer_is_no_reason_to_refuse_a_model(scenario, monkeypatch):
    class Constant(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("table", torch.arange(4.0))
            self.layer = nn.Linear(4, 1)

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            return self.layer(inputs + self.table)

    class Holding:
        inputs = ()
        model = staticmethod(lambda inputs: Constant())

    monkeypatch.setattr(model, "task_of", lambda scenario: Holding)
    made = new_model(scenario(), _a_site(), 0, "cpu")
    assert list(made.state_dict()) == ["table", "layer.weight", "layer.bias"]


def test_batchnorm_is_replaced_on_request(scenario, monkeypatch):
    """Each group has two channels at least, or a table would lose all its numbers; scale and shift are kept."""
    norm = nn.BatchNorm1d(6)
    nn.init.uniform_(norm.weight)

    class Mixing:
        inputs = ()
        model = staticmethod(lambda inputs: nn.Sequential(nn.Linear(inputs, 6), norm, nn.Linear(6, 1)))

    monkeypatch.setattr(model, "task_of", lambda scenario: Mixing)
    made = new_model(scenario("training.replace_batch_norm=true"), _a_site(), 0, "cpu")
    replaced = made[1]  # type: ignore[index]
    assert isinstance(replaced, nn.GroupNorm)
    assert (replaced.num_groups, replaced.num_channels) == (3, 6)
    assert torch.equal(replaced.weight, norm.weight)
    check_rows_are_alone(made, examples(4))
    assert (replaced(torch.randn(5, 6)) - replaced.bias).abs().max() > 0.1


def test_replacing_batchnorm_where_there_is_none_is_a_mistake(scenario):
    with pytest.raises(Mistake, match=r"training.replace_batch_norm: expected a model with BatchNorm"):
        new_model(scenario("training.replace_batch_norm=true"), _a_site(), 0, "cpu")


def test_a_model_with_nothing_to_train_is_a_mistake(scenario, monkeypatch):
    class Still:
        inputs = ()
        model = staticmethod(lambda inputs: nn.Linear(inputs, 1).requires_grad_(False))

    monkeypatch.setattr(model, "task_of", lambda scenario: Still)
    with pytest.raises(Mistake, match="all frozen"):
        new_model(scenario(), _a_site(), 0, "cpu")


def test_a_device_that_is_not_there_is_a_mistake(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(Mistake, match="device: expected a CUDA device, found none"):
        best_device("cuda")
    assert best_device("auto") == "cpu"


def _a_site():
    from fedsim.data.federation import Site

    return Site(0, "a", examples(4), examples(4), examples(4))


class Mixing(nn.Module):
    """Subtracts the mean of the batch."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return (inputs - inputs.mean(0))[:, :1]


class Picky(nn.Module):
    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return inputs[:, :1] + 0 * inputs[0, 0]


class MixingInTraining(nn.Module):
    """Does something to a batch, in training only; a layer before makes gradients of it."""

    def __init__(self, do) -> None:
        super().__init__()
        self.layer, self.do = nn.Linear(4, 1), do

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.layer(self.do(inputs) if self.training and len(inputs) else inputs)


class Remembering(nn.Module):
    """Subtracts a running mean that is no buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.mean: torch.Tensor | float = 0.0

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        outputs = (inputs - self.mean)[:, :1]
        if self.training and len(inputs):
            self.mean = 0.9 * self.mean + 0.1 * inputs.mean()
        return outputs


class Scaling(nn.Module):
    """Divides by the largest number it ever saw: the same rows again change nothing, others do."""

    def __init__(self) -> None:
        super().__init__()
        self.largest = torch.tensor(1.0)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        if self.training and len(inputs):
            self.largest = torch.maximum(self.largest, inputs.abs().max())
        return inputs[:, :1] / self.largest


def shuffled_noise(inputs: torch.Tensor) -> torch.Tensor:
    """Drop by hand, and mix: the dropout is no reason not to look."""
    return functional.dropout(inputs - inputs.mean(0), training=True)


def last_counts(inputs: torch.Tensor) -> torch.Tensor:
    return inputs + 0.1 * inputs[-1:]


MIXING = {
    "mean": lambda rows: rows - rows.mean(0),
    "norm": lambda rows: rows / rows.norm(),
    "softmax over rows": lambda rows: rows.softmax(0),
    "running sum": lambda rows: rows.cumsum(0) / 10,
    "number of rows": lambda rows: rows / len(rows),
    "sorted rows": lambda rows: rows.sort(0).values,
    "neighbour": lambda rows: rows + 0.1 * rows.roll(1, 0),
    "last row": last_counts,
    "only in large batches": lambda rows: rows - rows.mean(0) if len(rows) > 8 else rows,
    "with dropout by hand": shuffled_noise,
}


@pytest.mark.parametrize("name", MIXING)
def test_a_model_that_mixes_rows_in_training_only_is_refused(name: str):
    """M10: evaluation shows nothing of it, and training is where rows are clipped."""
    model = MixingInTraining(MIXING[name])
    with pytest.raises(Mistake, match="one that mixes rows in training mode"):
        check_rows_are_alone(model, examples(4))
    model.eval()
    assert torch.equal(model(examples(4).inputs), model.layer(examples(4).inputs))


@pytest.mark.parametrize("make", [Remembering, Scaling])
def test_a_model_that_remembers_rows_is_refused(make):
    """M10: a row would be in what comes after it, where nothing clips it."""
    with pytest.raises(Mistake, match="remembers nothing"):
        check_rows_are_alone(make(), examples(4))


@pytest.mark.parametrize("training", [False, True])
def test_trying_a_model_leaves_its_mode_as_it_was(training: bool):
    model = nn.Sequential(nn.Linear(4, 3), nn.Dropout(), nn.Linear(3, 1)).train(training)
    check_rows_are_alone(model, examples(4))
    assert [layer.training for layer in model.modules()] == [training] * 4


def test_a_model_whose_rows_depend_on_nobody_passes_with_draws_of_its_own():
    class Drops(nn.Module):
        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            return functional.dropout(inputs, training=self.training)[:, :1]

    check_rows_are_alone(Drops(), examples(4))
    rnn = nn.GRU(4, 3, num_layers=2, dropout=0.5, batch_first=True)

    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = rnn

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            return self.rnn(inputs[:, None].expand(-1, 5, -1))[0][:, -1, :1]

    check_rows_are_alone(Recurrent(), examples(4))


@pytest.mark.parametrize(("model", "message"), [(Mixing(), "one that mixes rows"), (Picky(), "one that mixes rows")])
def test_a_model_that_privacy_can_not_be_promised_for_is_refused(model: nn.Module, message: str):
    """M10: clipping bounds what a row does only if it does nothing to the others."""
    with pytest.raises(Mistake, match=message):
        check_rows_are_alone(model, examples(4))
    check_rows_are_alone(nn.Sequential(nn.Linear(4, 3), nn.LayerNorm(3), nn.Dropout(), nn.Linear(3, 1)), examples(4))


def test_dropout_depends_on_the_seed_alone():
    def trained() -> torch.Tensor:
        model = nn.Sequential(nn.Dropout(), nn.Linear(4, 1, bias=False))
        nn.init.ones_(model[1].weight)  # type: ignore[arg-type]
        return train(work(model, examples(10), plan(Optimizer()), streams(0, "a", "b", 1))).parameters

    torch.rand(3)
    first = trained()
    torch.rand(3)
    assert torch.equal(trained(), first)


@pytest.mark.parametrize("spoilt", ["rows", "the model that was sent"])
def test_whether_the_trial_of_opacus_fails_tells_nothing_of_rows_or_of_what_a_server_sent(spoilt: str):
    """It is tried on made-up rows and targets, with the model's own first parameters."""
    linear = nn.Linear(4, 1)
    rows = examples(6)
    tried = work(linear, rows, Plan(2, 0.5, 4.0, Optimizer(), Noise(1.0, 1.0)), streams(0, "federated", "a", 1))
    if spoilt == "rows":
        nothing = torch.full_like
        tried = replace(tried, examples=Examples(nothing(rows.inputs, math.nan), nothing(rows.target, math.nan)))
    else:
        tried = replace(tried, start=torch.full_like(tried.start, math.inf))
    assert find_way(tried) == "opacus"
