"""Low-rank adapters and heads: what is trained, what is refused, and that both engines agree."""

import copy

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from clients.text import BertConfig, SentenceEncoder
from fedsim.data.federation import Examples
from fedsim.engines.stack.generic import Generic
from fedsim.engines.stack.layers import Rows
from fedsim.engines.stack.train import check_rules, stacked_model, train_together
from fedsim.flower.unchanged import check_changed
from fedsim.mistakes import Mistake, RunFailed
from fedsim.randomness import Words
from fedsim.results.evaluation import predict
from fedsim.scenario.schema import Adapt, Optimizer
from fedsim.strategy.trainable import frozen, trainable, vector_of
from fedsim.training import functional
from fedsim.training.adapt import adapted, merged
from fedsim.training.dropout import Draws
from fedsim.training.functional import outputs_with
from fedsim.training.in_use import check_in_use
from fedsim.training.losses import binary
from fedsim.training.row_gradients import Way, find_way, gradients_of_rows
from fedsim.training.rows_alone import check_rows_are_alone
from fedsim.training.steps import train
from fedsim.training.work import Noise, Plan, Streams, Work

TINY = BertConfig(20, 8, 2, 2, 12, 10)
LORA = Adapt(method="lora", rank=2, modules=["query", "value"], also=["head"])


def tiny(seed: int = 0) -> SentenceEncoder:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return SentenceEncoder(TINY, 1)


def with_adapters() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(7)
        model = adapted(tiny(), LORA)
        for name, value in trainable(model).items():
            if "lora_B" in name:
                nn.init.normal_(value, std=0.3)
    return model


def works(model: nn.Module, noise: Noise | None) -> list[Work]:
    found = []
    for site, rows in enumerate((5, 3, 6)):
        random = torch.Generator().manual_seed(site)
        words = torch.randint(1, 20, (rows, 6), generator=random)
        words[:, 4:] = 0
        target = (torch.rand(rows, generator=random) < 0.5).float()
        plan = Plan(3, 0.7, 3.0, Optimizer(lr=0.3, weight_decay=0.1), noise)
        streams = Streams(Words.of(0, "b", site), Words.of(0, "n", site), layers=site)
        found.append(Work(model, vector_of(model), Examples(words, target), plan, streams, binary))
    return found


@pytest.mark.whole
@pytest.mark.parametrize("noise", [None, Noise(0.3, 1.0)], ids=["plain", "private"])
def test_adapters_of_a_transformer_are_trained_alike_on_both_engines(noise: Noise | None):
    """Opacus' gradients of rows and the stack's rules agree, and the frozen weights stay bitwise as they were."""
    model = with_adapters()
    before = {name: value.clone() for name, value in frozen(model).items()}
    stack = works(model, noise)
    expected = torch.stack([train(work).parameters for work in works(model, noise)])  # streams are used up
    check_rules(model, binary, stack[0].examples)
    assert not any(isinstance(layer, Generic) for layer in stacked_model(model, torch.device("cpu")).layers)
    found = torch.stack([work.start for work in stack])
    train_together(stack, found)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
    assert (expected - stack[0].start).abs().max() > 0.01
    assert all(torch.equal(value, before[name]) for name, value in frozen(model).items())


def test_serial_takes_the_rows_gradients_of_adapters_by_opacus():
    (work, *_) = works(with_adapters(), Noise(0.3, 1.0))
    assert find_way(work) == "opacus"


def test_lora_begins_with_the_outputs_of_the_base_and_trains_adapters_alone():
    base, model = tiny(), adapted(tiny(), replace_also(None))
    words = torch.arange(12).reshape(2, 6)
    torch.testing.assert_close(model(words), base(words), rtol=0, atol=0)
    assert all(".lora_A." in name or ".lora_B." in name for name in trainable(model))
    assert len(trainable(model)) == 2 * 2 * TINY.num_hidden_layers


def replace_also(also: list[str] | None) -> Adapt:
    return LORA.model_copy(update={"also": also})


def test_an_adapter_adds_alpha_over_rank_times_b_a():
    model = adapted(nn.Sequential(nn.Linear(4, 3)), Adapt(method="lora", rank=2, alpha=6.0, modules=["0"]))
    parts = dict(model.named_parameters())
    nn.init.normal_(parts["0.lora_B.weight"])
    rows = torch.randn(5, 4)
    weight = parts["0.base_layer.weight"] + 3 * parts["0.lora_B.weight"] @ parts["0.lora_A.weight"]
    expected = rows @ weight.mT + parts["0.base_layer.bias"]
    torch.testing.assert_close(model(rows), expected)
    assert isinstance(merged(model)[0], nn.Linear)  # type: ignore[index]
    torch.testing.assert_close(model(rows), expected)


def test_a_head_is_the_last_module_or_the_one_that_is_named():
    assert list(trainable(adapted(tiny(), Adapt(method="head")))) == ["head.weight", "head.bias"]
    named = adapted(tiny(), Adapt(method="head", modules=["pooler.dense"]))
    assert list(trainable(named)) == ["pooler.dense.weight", "pooler.dense.bias"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"modules": ["quarry"]}, r"'quarry', which matches nothing; there are .*query \(Linear\)"),
        ({"rank": 9}, r"rank: expected at most the smaller side of .*query \(8 x 8\), got 9"),
        ({"modules": ["word_embeddings"]}, r"expected Linear layers, got embeddings.word_embeddings \(a Embedding\)"),
        ({"also": ["tail"]}, r"training.adapt.also: .*'tail', which matches nothing"),
    ],
)
def test_what_cannot_be_adapted_is_said(changes: dict, message: str):
    with pytest.raises(Mistake, match=message):
        adapted(tiny(), LORA.model_copy(update=changes))


def test_layers_whose_weight_is_used_without_calling_them_are_refused():
    layer = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True)
    with pytest.raises(Mistake, match="linear1 \\(inside TransformerEncoderLayer, which uses its weight"):
        adapted(nn.Sequential(layer), Adapt(method="lora", rank=1, modules=["linear1"]))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"method": "lora"}, "expected rank and modules"),
        ({"method": "head", "rank": 2}, "rank: expected none beside method = 'head'"),
        ({"method": "head", "base_sha256": "0"}, "base_sha256: expected base"),
    ],
)
def test_settings_without_effect_are_refused(values: dict, message: str):
    with pytest.raises(ValueError, match=message):
        Adapt(**values)


def test_base_weights_come_from_a_file_all_faults_are_listed_and_a_changed_file_is_refused(tmp_path):
    weights = {name: value.clone() for name, value in tiny(3).state_dict().items() if not name.startswith("head")}
    file = tmp_path / "base.safetensors"
    safetensors.torch.save_file(weights, file)
    asked = LORA.model_copy(update={"base": str(file)})
    held = {name: value for name, value in frozen(adapted(tiny(), asked)).items()}
    for name, value in weights.items():
        inside = name.replace(".query.", ".query.base_layer.").replace(".value.", ".value.base_layer.")
        assert torch.equal(held[inside], value)

    with pytest.raises(Mistake, match="expected the weights that the run was begun with"):
        adapted(tiny(), asked.model_copy(update={"base_sha256": "0" * 64}))
    del weights["embeddings.position_ids"]  # a constant that newer files don't have
    safetensors.torch.save_file(weights, file)
    adapted(tiny(), asked)

    del weights["pooler.dense.bias"]
    weights |= {"extra": torch.zeros(1), "pooler.dense.weight": torch.zeros(2)}
    safetensors.torch.save_file(weights, file)
    with pytest.raises(Mistake) as caught:
        adapted(tiny(), asked)
    assert len(str(caught.value).splitlines()) == 3
    with pytest.raises(Mistake) as caught:
        adapted(tiny(), asked.model_copy(update={"modules": ["quarry", "query"], "also": ["tail", "head"], "rank": 9}))
    assert len(str(caught.value).splitlines()) == 3 + 2 + TINY.num_hidden_layers, "all faults at once"


def test_an_adapter_that_no_site_changed_fails_the_run():
    before = {name: value.detach() for name, value in trainable(with_adapters()).items()}
    after = {name: value + 1 for name, value in before.items()}
    check_changed(2, [(before, after)])
    dead = "encoder.layer.0.attention.self.query"
    half = after | {f"{dead}.lora_A.weight": before[f"{dead}.lora_A.weight"]}
    check_changed(2, [(before, half)])  # B is zero at first, so that A does not move in the first step
    still = half | {f"{dead}.lora_B.weight": before[f"{dead}.lora_B.weight"]}
    with pytest.raises(RunFailed, match=f"round 2: training.adapt: no site changed {dead}:"):
        check_changed(2, [(before, still), (before, still)])


@pytest.mark.whole
@pytest.mark.parametrize("way", ["opacus", "vmap"])
def test_gradients_of_rows_are_those_of_vmap_of_grad_on_both_engines(way: Way):
    """So that what is clipped is the norm of a row's whole gradient, over adapters and the head."""
    model = with_adapters()
    (work, *_) = works(model, Noise(0.3, 1.0))
    rows, own = work.examples, trainable(model)

    def loss(parameters: dict[str, torch.Tensor], words: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return binary(outputs_with(model, parameters, words[None]), target[None]).sum()

    values = {name: value.detach() for name, value in own.items()}
    expected = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0, 0))(values, rows.inputs, rows.target)
    assert all(gradient.abs().max() > 1e-4 for gradient in expected.values())

    check_rules(model, binary, rows)
    stacked = stacked_model(model, torch.device("cpu"))
    stacked.bind(vector_of(model)[None].clone())
    binary(stacked(rows.inputs, Rows(np.array([len(rows)]), False, torch.device("cpu"))), rows.target).sum().backward()
    squares = sum(gradient.double().flatten(1).square().sum(1) for gradient in expected.values())
    torch.testing.assert_close(stacked.sizes().squares, squares, rtol=1e-4, atol=0, check_dtype=False)
    of_stack = stacked.row_gradients(torch.arange(len(rows)))

    copied, draws = copy.deepcopy(model), Draws([], torch.device("cpu"))
    with gradients_of_rows(way, work, copied, draws) as (trained, compute):
        compute(rows.inputs, rows.target)
        of_serial = {name: value.grad_sample for name, value in trained.named_parameters() if value.requires_grad}

    assert list(of_stack) == list(expected)
    assert of_serial.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(of_stack[name], gradient, rtol=0, atol=1e-4)
        torch.testing.assert_close(of_serial[name], gradient, rtol=0, atol=1e-4)


class Gate(nn.Module):
    """Multiplies by a number that is zero at first."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.zeros(()))

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return self.factor * values


class Aside(nn.Module):
    """Has a layer that its outputs do not depend on, and one behind a gate."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.aside, self.late, self.last = (nn.Linear(4, 4) for _ in range(4))
        self.gate = Gate()

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        self.aside(rows)
        inner = self.first(rows)
        return self.last(inner) + self.gate(self.late(inner))


@pytest.mark.parametrize(
    ("modules", "also", "dead"),
    [
        (["first", "aside"], ["last"], "aside"),
        (["first"], ["late", "aside", "last"], "aside, late"),  # the gate is frozen where it is zero
        (["first"], ["late", "gate", "last"], ""),
    ],
)
def test_what_the_outputs_do_not_depend_on_is_found_by_its_gradient(modules: list[str], also: list[str], dead: str):
    """An adapter's B is zero at first, and no gradient passes to its A; that is no reason to refuse it."""
    rows = Examples(torch.zeros(0, 4), torch.zeros(0))
    model = adapted(Aside(), Adapt(method="lora", rank=1, modules=modules, also=also))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    if dead:
        with pytest.raises(Mistake, match=f"got {dead}, whose gradient is zero on every row"):
            check_in_use(model, rows)
    else:
        check_in_use(model, rows)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model.training


def test_a_model_that_mixes_rows_is_tried_although_another_was_found_to_be_good():
    """A backbone is tried once, and another model is not it."""

    class Mixing(nn.Linear):
        def forward(self, rows: torch.Tensor) -> torch.Tensor:
            return super().forward(rows - rows.mean(0))

    rows = Examples(torch.zeros(4, 3), torch.zeros(4))
    check_rows_are_alone(nn.Linear(3, 1), rows, "the good one")
    check_rows_are_alone(nn.Linear(3, 1), rows, "the good one")
    for architecture in ("another", None):
        with pytest.raises(Mistake, match="mixes rows"):
            check_rows_are_alone(Mixing(3, 1), rows, architecture)
    with pytest.raises(Mistake, match="mixes rows"):
        check_rows_are_alone(Mixing(5, 1), Examples(torch.zeros(4, 5), torch.zeros(4)), "the good one")


def test_a_stack_counts_what_autograd_keeps_for_a_frozen_backbone():
    """Else too many sites would be stacked: the layers that are trained keep little."""
    rows = works(with_adapters(), None)[0].examples
    few = check_rules(with_adapters(), binary, rows).floats
    head = check_rules(adapted(tiny(), Adapt(method="head")), binary, rows).floats
    states = 6 * TINY.hidden_size  # of a row, at one place of the model
    assert few > 20 * states
    assert head < 3 * states  # no gradient passes what is before the head, so that nothing is kept


@pytest.mark.parametrize("sizes", [(300, 0, 1), (5,)])
def test_a_large_model_measures_few_rows_at_once_with_the_same_outputs(
    sizes: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
):
    seen = []
    model = nn.Linear(3, 1)
    model.register_forward_pre_hook(lambda layer, inputs: seen.append(len(inputs[0])))
    parameters = {name: value.detach() for name, value in model.named_parameters()}
    asked = [(str(size), parameters, Examples(torch.randn(size, 3), torch.zeros(size))) for size in sizes]
    usual = [outputs for _, _, outputs in predict(model, asked)]
    assert seen == [sum(sizes)]

    seen.clear()
    monkeypatch.setattr(functional, "_LARGE", 3)
    few = [outputs for _, _, outputs in predict(model, asked)]
    assert max(seen) <= 128
    for found, expected in zip(few, usual, strict=True):
        torch.testing.assert_close(found, expected)
