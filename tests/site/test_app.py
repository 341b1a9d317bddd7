"""The ClientApp of a site: what leaves it, and what does not."""

import dataclasses
import re

import numpy as np
import pytest
import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, RecordDict
from flwr.serverapp.strategy import FedAvg as FlowerFedAvg
from torch import nn

import fedsim.site.app
from fedsim import engines
from fedsim.data import federation
from fedsim.data.federation import Examples, Federation
from fedsim.engines.serial import execute
from fedsim.flower.adapter import Adapter
from fedsim.flower.grid import InProcessGrid, node_of
from fedsim.flower.records import ARRAYS, CONFIG, MECHANISM, METRICS, REPORTED, WEIGHT, Flat, Layout
from fedsim.mistakes import Mistake
from fedsim.planning import trial
from fedsim.results.evaluation import evaluate
from fedsim.scenario import catalog
from fedsim.scenario.schema import Privacy, Scenario
from fedsim.site.app import SiteApp
from fedsim.strategy.contract import WITHOUT_NOISE
from fedsim.strategy.make import strategy_of
from fedsim.training.model import new_model, parts_of
from strategies.fedavg import FedAvg


def grid_of(scenario: Scenario, private: bool, forget_noise: bool = False) -> InProcessGrid:
    if not private:
        scenario = scenario.model_copy(update={"privacy": Privacy()})
    config: dict = {"scenario": scenario.model_dump_json(), "seed": 0, "arm": "federated"}
    if private and not forget_noise:
        config["noise-multiplier"] = 2.0
    return InProcessGrid(execute(SiteApp()), 4, config)


def ask(scenario: Scenario, private: bool, kind: str = MessageType.TRAIN, forget_noise: bool = False) -> list[Message]:
    """Send the initial model to the four hospitals."""
    grid = grid_of(scenario, private, forget_noise)
    model = new_model(scenario, federation.federate(scenario, 0).sites[0], 0, "cpu")
    arrays = ArrayRecord(model.state_dict())
    messages = list(Adapter(FedAvg()).configure_train(1, arrays, ConfigRecord(), grid))
    if kind == MessageType.EVALUATE:
        messages = [Message(m.content, dst_node_id=m.metadata.dst_node_id, message_type=kind) for m in messages]
    return list(grid.send_and_receive(messages))


def fields(content: RecordDict) -> dict[str, list[str]]:
    return {name: sorted(map(str, record)) for name, record in content.items()}


def test_under_privacy_a_reply_holds_the_listed_fields_and_nothing_else(scenario):
    """B12, M6: the allow-list. No loss, no accuracy, no number of rows."""
    for reply in ask(scenario(), private=True):
        assert fields(reply.content) == {
            ARRAYS: ["bias", "weight"],
            METRICS: [WEIGHT],
            MECHANISM: ["clip", "expected_batch", "noise_multiplier", "rng", "sampling_rate", "steps"],
        }


@pytest.mark.parametrize("strategy", catalog.titles("strategies"))
def test_whatever_the_strategy_the_listed_fields_are_all_that_leaves(scenario, strategy: str):
    """B12: a strategy that wants losses is refused; one that wants the number of steps gets the public one."""
    allowed = {ARRAYS, METRICS, MECHANISM}
    for reply in ask(scenario(f"strategy={{name='{strategy}'}}", "training.rounds=1"), private=True):
        if reply.has_error():
            losses = set(strategy_of(scenario(f"strategy={{name='{strategy}'}}")).reports) & set(WITHOUT_NOISE)
            # these keep layers at home, or compare the last but one, and there is only one
            where = {"fedbn": "private_layers", "fedper": "private_layers", "fedrep": "private_layers", "moon": "moon"}
            assert reply.error.reason.startswith("PermissionError" if losses else f"ValueError ({where[strategy]}.py:")
            continue
        assert set(reply.content) == allowed
        assert set(reply.content[METRICS]) <= {WEIGHT, REPORTED["steps"]}
        assert reply.content[METRICS].get(REPORTED["steps"], 2) == 2


@pytest.mark.parametrize("change", ["one row more", "one row less", "a row replaced", "no rows"])
def test_neighbours_give_the_same_reply_but_for_the_noisy_model(scenario, monkeypatch, change: str):
    """B12, B6, M6, M25: what is not noised is byte for byte the same, and the noise is too."""
    chosen = scenario()
    before = [reply.content for reply in ask(chosen, private=True)]
    whole = federation.federate(chosen, 0)
    rows = whole.sites[0].train
    more = Examples(torch.cat([rows.inputs, torch.ones(1, 30)]), torch.cat([rows.target, torch.ones(1)]))
    less = Examples(rows.inputs[:-1], rows.target[:-1])
    other = Examples(more.inputs[1:], more.target[1:])
    none = Examples(rows.inputs[:0], rows.target[:0])
    changed = {"one row more": more, "one row less": less, "a row replaced": other, "no rows": none}[change]
    neighbour = Federation((dataclasses.replace(whole.sites[0], train=changed), *whole.sites[1:]))
    monkeypatch.setattr(trial, "federate", lambda *args, **alone: neighbour)
    after = [reply.content for reply in ask(chosen, private=True)]
    for old, new in zip(before, after, strict=True):
        assert fields(old) == fields(new)
        assert old.metric_records == new.metric_records
        assert old.config_records == new.config_records
        for name, array in old.array_records[ARRAYS].items():
            assert (array.dtype, array.shape, len(array.data)) == (
                new.array_records[ARRAYS][name].dtype, new.array_records[ARRAYS][name].shape,
                len(new.array_records[ARRAYS][name].data),
            )  # fmt: skip
    assert before[1].array_records[ARRAYS]["weight"].data == after[1].array_records[ARRAYS]["weight"].data


def test_one_record_moves_the_released_model_by_at_most_what_is_declared(scenario, monkeypatch):
    """B5 on the whole path of one step: |update(D) - update(D')| <= lr * clip / expected batch, with skewed weights."""
    chosen = scenario("training.local_steps=1", "training.sampling_rate=1.0", "privacy.clip=0.3")
    declared = chosen.training.optimizer.lr * 0.3 / 90  # cleveland's expected batch
    before = ask(chosen, private=True)[0].content.array_records[ARRAYS]
    whole = federation.federate(chosen, 0)
    rows = whole.sites[0].train
    distances = []
    for value in (-1.0, 0.3, 1.0, 1e6, float("nan")):
        more = Examples(torch.cat([rows.inputs, torch.full((1, 30), value)]), torch.cat([rows.target, torch.ones(1)]))
        neighbour = Federation((dataclasses.replace(whole.sites[0], train=more), *whole.sites[1:]))
        monkeypatch.setattr(trial, "federate", lambda *args, neighbour=neighbour, **alone: neighbour)
        after = ask(chosen, private=True)[0].content.array_records[ARRAYS]
        distances.append(np.sqrt(sum(((before[k].numpy() - after[k].numpy()) ** 2).sum() for k in before)))
    assert max(distances) <= declared * (1 + 1e-3)
    assert max(distances) >= 0.9 * declared


def test_a_private_site_does_not_answer_with_metrics(scenario):
    for reply in ask(scenario(), private=True, kind=MessageType.EVALUATE):
        assert reply.has_error()
        assert reply.error.reason.startswith("PermissionError")


def test_a_site_that_is_not_private_measures_on_its_validation_rows(scenario):
    for reply in ask(scenario(), private=False, kind=MessageType.EVALUATE):
        metrics = reply.content.metric_records[METRICS]
        assert set(metrics) == {WEIGHT, "auc", "accuracy", "log_loss"}
        assert metrics["log_loss"] == pytest.approx(np.log(2))  # the model starts at even odds


@pytest.mark.parametrize("engine", ["cohort", "serial"])
def test_sites_are_measured_together_as_one_by_one(scenario, engine: str):
    """Two models, each at some of the sites."""
    chosen = scenario().model_copy(update={"privacy": Privacy()})
    sites = federation.federate(chosen, 0)
    config = {"scenario": chosen.model_dump_json(), "seed": 0, "arm": "federated"}
    grid = InProcessGrid(engines.load(engine).execute(SiteApp()), 4, config)
    model = new_model(chosen, sites.sites[0], 0, "cpu")
    size = sum(value.numel() for value in model.parameters())
    sent = [torch.linspace(-1, 1 + site % 2, size) for site in range(4)]
    messages = [
        Message(RecordDict({ARRAYS: Flat(vector, Layout.of(model))}), node_of(site), MessageType.EVALUATE)
        for site, vector in enumerate(sent)
    ]
    for site, (vector, reply) in enumerate(zip(sent, grid.send_and_receive(messages), strict=True)):
        one = sites.sites[site]
        table = evaluate(model, {one.name: parts_of(model, vector)}, Federation((one,)), "validation", sites=False)
        expected = {name: table[name][0] for name in ("auc", "accuracy", "log_loss")}
        assert dict(reply.content[METRICS]) == pytest.approx({WEIGHT: len(one.validation), **expected})


def test_a_plain_reply_says_nothing_of_a_mechanism(scenario):
    for reply in ask(scenario(), private=False):
        assert set(reply.content) == {ARRAYS, METRICS}


def test_flowers_own_fedavg_trains_the_hospitals(scenario):
    """The ClientApp is a real one: Flower's loop and strategy drive it, training and evaluation."""
    chosen = scenario()
    model = new_model(chosen, federation.federate(chosen, 0).sites[0], 0, "cpu")
    result = FlowerFedAvg(min_available_nodes=4, min_train_nodes=4, min_evaluate_nodes=4).start(
        grid=grid_of(chosen, private=False), initial_arrays=ArrayRecord(model.state_dict()), num_rounds=5
    )
    assert result.evaluate_metrics_clientapp[5]["auc"] > 0.75
    assert CONFIG not in result.arrays


class Centering(nn.Module):
    """Takes the mean of the batch off every row's output."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.layer = nn.Linear(inputs, 1)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        outputs = self.layer(inputs)
        return outputs - outputs.sum() / max(1, len(outputs))


def test_under_privacy_a_model_that_mixes_rows_is_not_trained(scenario, monkeypatch):
    """M10: clipping a row's gradient bounds nothing if the row moves the others' too."""
    monkeypatch.setattr(trial, "new_model", lambda scenario, site, *_: Centering(site.train.inputs.shape[1]))
    with pytest.raises(Mistake, match="depends on that row alone, got one that mixes rows"):
        ask(scenario(), private=True)


def test_a_site_does_not_train_without_noise_what_promises_privacy(scenario):
    """A server that leaves the noise out gets no model."""
    for reply in ask(scenario(), private=True, forget_noise=True):
        assert reply.has_error()
        assert reply.error.reason.startswith("PermissionError")


def test_under_privacy_an_error_says_nothing_of_the_rows(scenario, monkeypatch):
    def leak(work):
        raise ValueError(f"bad value {work.examples.inputs[0]}")

    monkeypatch.setattr(fedsim.site.app, "train_site", leak)
    for reply in ask(scenario(), private=True):
        assert re.fullmatch(r"ValueError \(test_app.py:\d+\)", reply.error.reason)
    for reply in ask(scenario("privacy.unit=none"), private=False):
        assert "bad value" in reply.error.reason
