import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, log_loss, roc_auc_score
from torch import nn

from fedsim.evaluation import POOLED, evaluate, measure
from fedsim.federation import Examples, Federation, Site
from tests.conftest import examples


@given(st.lists(st.tuples(st.integers(0, 1), st.sampled_from([0.01, 0.2, 0.5, 0.7, 0.99])), min_size=2, max_size=40))
def test_the_metrics_are_scikit_learns(pairs: list[tuple[int, float]]):
    """Oracle, ties included."""
    target, probability = (np.array(column, dtype=float) for column in zip(*pairs, strict=True))
    found = measure("a", target, probability)
    assert found["accuracy"] == pytest.approx(accuracy_score(target, probability >= 0.5))
    assert found["log_loss"] == pytest.approx(log_loss(target, probability, labels=[0, 1]))
    if len(set(target)) == 2:
        assert found["auc"] == pytest.approx(roc_auc_score(target, probability))
    else:
        assert found["auc"] is None


def test_each_site_is_measured_with_its_own_model_and_all_together():
    model = nn.Linear(4, 1)
    sites = tuple(Site(i, name, examples(1), examples(1), examples(30, seed=i)) for i, name in enumerate("ab"))
    own = {name: {"weight": torch.randn(1, 4), "bias": torch.zeros(1)} for name in "ab"}
    table = evaluate(model, own, Federation(sites), "test").set_index("site")
    assert list(table.index) == ["a", "b", POOLED]
    scores = {s.name: torch.sigmoid(s.test.inputs @ own[s.name]["weight"].T)[:, 0].numpy() for s in sites}
    for site in sites:
        assert table["auc"][site.name] == pytest.approx(roc_auc_score(site.test.target, scores[site.name]))
    both = np.concatenate([site.test.target.numpy() for site in sites])
    assert table["auc"][POOLED] == pytest.approx(roc_auc_score(both, np.concatenate([scores["a"], scores["b"]])))
    assert table["rows"][POOLED] == 60


@pytest.mark.parametrize("broken", ["no rows", "not finite"])
def test_what_can_not_be_measured_is_missing(broken: str):
    rows = Examples(torch.zeros(0, 4), torch.zeros(0)) if broken == "no rows" else examples(5)
    weight = torch.full((1, 4), float("nan") if broken == "not finite" else 0.0)
    site = Site(0, "a", examples(1), examples(1), rows)
    table = evaluate(nn.Linear(4, 1), {"a": {"weight": weight, "bias": torch.zeros(1)}}, Federation((site,)), "test")
    assert table[["auc", "accuracy", "log_loss"]].isna().all().all()


def test_dropout_is_off_while_measuring():
    model = nn.Sequential(nn.Dropout(0.9), nn.Linear(4, 1)).train()
    site = Site(0, "a", examples(1), examples(1), examples(40))
    parameters = {"a": {name: value.detach() for name, value in model.named_parameters()}}
    tables = [evaluate(model, parameters, Federation((site,)), "test") for _ in range(2)]
    assert tables[0].equals(tables[1])
