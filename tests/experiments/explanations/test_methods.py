"""Importance is that of the planted feature, exactly 0 of one without weight; contributions add up to the output."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from fedsim.data.federation import Examples, Federation, Site
from fedsim.data.loading import task_of
from fedsim.data.scale import Scale
from fedsim.data.tables import Levels, Number
from fedsim.data.task import Task
from fedsim.experiments.explanations import gradients
from fedsim.experiments.explanations.features import Feature, features_of
from fedsim.experiments.explanations.gradients import contributions, mean_contributions
from fedsim.experiments.explanations.permutation import REPEATS, permutation_importance
from fedsim.mistakes import Mistake
from fedsim.outcomes.scores import auc
from fedsim.randomness import stream
from fedsim.results.evaluation import INSIDE, POOLED
from fedsim.scenario.files import read
from fedsim.scenario.kinds import Kind

FEATURES = [Feature("age", range(0, 2)), Feature("dose", range(2, 3)), Feature("kind", range(3, 5))]
SITES = ("north", "south")


def federation(rows: int = 60, kind: Kind = "binary") -> Federation:
    """Make sites whose outcome follows from the input 2 alone, the dose."""
    sites = []
    for number, name in enumerate(SITES):
        random = np.random.default_rng([number, rows])
        inputs = random.normal(size=(rows, 5)).astype(np.float32)
        signal = inputs[:, 2] + 0.3 * random.normal(size=rows)
        target = np.digitize(signal, [-0.5, 0.5]) if kind == "classes" else (signal > 0).astype(np.float32)
        part = Examples(torch.from_numpy(inputs), torch.from_numpy(target))
        sites.append(Site(number, name, part, part, part))
    return Federation(tuple(sites))


def linear(weights: list[list[float]]) -> tuple[nn.Module, dict[str, Tensor]]:
    weight = torch.tensor(weights)
    return nn.Linear(5, len(weights)), {"weight": weight, "bias": torch.full((len(weights),), 0.2)}


def curved(outputs: int = 1) -> tuple[nn.Module, dict[str, Tensor]]:
    with torch.random.fork_rng():
        torch.manual_seed(5)
        model = nn.Sequential(nn.Linear(5, 16), nn.Tanh(), nn.Linear(16, outputs))
    return model, {name: 3 * value.detach() for name, value in model.named_parameters()}


def shared(parameters: dict[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    return dict.fromkeys(SITES, parameters)


def test_a_feature_without_weight_has_an_importance_of_exactly_zero_and_the_planted_one_comes_first():
    model, parameters = linear([[0.5, 0.0, 3.0, 0.0, 0.0]])
    table = permutation_importance(model, shared(parameters), federation(), FEATURES, "binary", None, seed=0)
    assert set(table["site"]) == {*SITES, INSIDE, POOLED}
    assert (table.loc[table["feature"] == "kind", "importance"] == 0).all()
    for _, at_site in table.groupby("site"):
        assert at_site.loc[at_site["importance"].idxmax(), "feature"] == "dose"
        assert at_site["importance"].max() > 0.2


def test_an_importance_is_the_auc_less_that_of_shuffled_rows_by_hand():
    model, parameters = linear([[1.0, -2.0, 1.0, 0.5, 0.0]])
    sites = federation()
    table = permutation_importance(model, shared(parameters), sites, FEATURES, "binary", None, seed=3)
    test = sites.sites[1].test
    weight = parameters["weight"][0].numpy()
    inputs, target = test.inputs.numpy(), test.target.numpy()
    after = []
    for repeat in range(REPEATS):
        order = stream(3, "permutation", "south", "age", repeat).permutation(len(target))
        shuffled = inputs.copy()
        shuffled[:, :2] = inputs[order, :2]  # number and mark together
        after.append(auc(target, shuffled @ weight))
    by_hand = auc(target, inputs @ weight) - np.mean(after)  # type: ignore[operator]
    row = table[(table["site"] == "south") & (table["feature"] == "age")]
    assert row["importance"].iloc[0] == pytest.approx(by_hand)


def test_both_arms_are_shuffled_alike_and_seeds_are_not():
    model, parameters = linear([[1.0, -2.0, 1.0, 0.5, 0.0]])
    first, again, other = (
        permutation_importance(model, shared(parameters), federation(), FEATURES, "binary", None, seed=seed)
        for seed in (0, 0, 1)
    )
    pd.testing.assert_frame_equal(first, again)
    assert not np.allclose(first["importance"], other["importance"])


@pytest.mark.parametrize("kind", ["binary", "classes"])
def test_contributions_add_up_to_the_output_less_that_of_the_baseline(kind: Kind):
    model, parameters = curved(3 if kind == "classes" else 1)
    inputs = federation().sites[0].test.inputs
    added = contributions(model, parameters, inputs, kind).sum(1)
    model.load_state_dict(parameters)
    with torch.no_grad():
        outputs, baseline = model(inputs), model(torch.zeros(1, 5))
    named = outputs.argmax(1, keepdim=True) if kind == "classes" else torch.zeros(len(inputs), 1, dtype=torch.int64)
    difference = (outputs.gather(1, named) - baseline.expand_as(outputs).gather(1, named)).squeeze(1)
    assert difference.abs().max() > 1
    torch.testing.assert_close(added, difference, atol=2e-3, rtol=2e-3)


def test_contributions_to_a_linear_model_are_weight_times_input_and_features_add_their_inputs():
    model, parameters = linear([[1.0, -2.0, 3.0, 0.0, 0.0]])
    sites = federation()
    table = mean_contributions(model, shared(parameters), sites, FEATURES, "binary", 1.0, seed=0)
    by_place = table.set_index(["site", "feature"])["importance"]
    inputs = sites.sites[0].test.inputs
    expected = (inputs[:, 0] - 2 * inputs[:, 1]).abs().mean()
    assert by_place["north", "age"] == pytest.approx(float(expected), rel=1e-5)
    assert by_place["north", "kind"] == 0
    both = (by_place["north", "dose"] + by_place["south", "dose"]) / 2
    assert by_place[INSIDE, "dose"] == pytest.approx(both)


def test_contributions_to_a_number_are_in_its_unit():
    model, parameters = linear([[0.0, 0.0, 1.0, 0.0, 0.0]])
    scale = Scale(np.zeros(5), np.ones(5), np.full(5, -1), 0.0, 0.5)
    sites = federation()
    scaled = Federation(tuple(Site(0, "north", each.train, each.validation, each.test, scale=scale)
                              for each in sites.sites[:1]))  # fmt: skip
    table = mean_contributions(model, shared(parameters), scaled, FEATURES, "number", 10.0, seed=0)
    expected = 10.0 * 0.5 * float(sites.sites[0].test.inputs[:, 2].abs().mean())
    row = table[(table["site"] == INSIDE) & (table["feature"] == "dose")]
    assert row["importance"].iloc[0] == pytest.approx(expected, rel=1e-5)


def test_of_many_rows_some_are_drawn(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(gradients, "MOST_ROWS", 20)
    model, parameters = linear([[1.0, 0.0, 0.0, 0.0, 0.0]])
    sites = federation()
    first = mean_contributions(model, shared(parameters), sites, FEATURES, "binary", 1.0, seed=0)
    again = mean_contributions(model, shared(parameters), sites, FEATURES, "binary", 1.0, seed=0)
    pd.testing.assert_frame_equal(first, again)
    all_rows = float(sites.sites[0].test.inputs[:, 0].abs().mean())
    drawn = first[(first["site"] == "north") & (first["feature"] == "age")]["importance"].iloc[0]
    assert drawn == pytest.approx(all_rows, rel=0.5)
    assert drawn != pytest.approx(all_rows, rel=1e-4)


def test_a_feature_is_a_column_with_its_mark_and_levels():
    columns = (Number("age", 0, 99, missing=True), Levels("stage", ("a", "b", "c")), Number("dose", 0, 1))
    task = Task("t", "o", "s", columns, model=nn.Linear, load=lambda: None)  # type: ignore[arg-type]
    assert [(feature.name, list(feature.inputs)) for feature in features_of(task, (6,))] == [
        ("age", [0, 1]),
        ("stage", [2, 3, 4]),
        ("dose", [5]),
    ]
    with pytest.raises(Mistake, match="explain: expected a table with named columns, got rows of the shape 7"):
        features_of(task, (7,))


def test_images_have_no_features():
    with pytest.raises(Mistake, match="named columns, got rows of the shape 1 x 8 x 8"):
        features_of(task_of(read("school-digits")), (1, 8, 8))


def test_without_captum_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(gradients, "find_spec", lambda name: None)
    with pytest.raises(Mistake) as told:
        gradients.check_installed()
    expected = "explain: captum is not installed; it comes with: pip install 'fedsim-flower[explain]'"
    assert str(told.value) == expected
