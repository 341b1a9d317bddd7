import numpy as np
import pytest
import torch
from sklearn.metrics import r2_score, roc_auc_score, root_mean_squared_error
from torch import nn

from fedsim.evaluation import POOLED, evaluate
from fedsim.federation import Examples, Federation, Site
from fedsim.tables import Number
from tests.conftest import examples


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


def test_numbers_are_measured_in_their_unit_and_against_the_mean_of_the_rows_measured():
    model, dose = nn.Linear(4, 1), Number("dose", 0, 50, "mg")
    sites = tuple(Site(i, name, examples(1), examples(1), numbers(30, seed=i)) for i, name in enumerate("ab"))
    weights = {"weight": 0.3 * torch.randn(1, 4, generator=torch.Generator().manual_seed(0)), "bias": torch.zeros(1)}
    table = evaluate(model, dict.fromkeys("ab", weights), Federation(sites), "test", "number", range=dose).set_index(
        "site"
    )
    said = {site.name: (site.test.inputs @ weights["weight"].T)[:, 0].numpy() for site in sites}
    together = {"a": ["a"], "b": ["b"], POOLED: ["a", "b"]}
    for name, members in together.items():
        target = np.concatenate([sites["ab".index(one)].test.target.numpy() for one in members])
        found = np.concatenate([said[one] for one in members])
        assert table["r2"][name] == pytest.approx(r2_score(target, found), rel=1e-5)
        in_mg, found_mg = 25 * (target + 1), 25 * (found + 1)
        assert table["rmse"][name] == pytest.approx(root_mean_squared_error(in_mg, found_mg), rel=1e-5)
        assert table["mean"][name] == pytest.approx(in_mg.mean(), rel=1e-5)


def numbers(rows: int, seed: int) -> Examples:
    random = torch.Generator().manual_seed(seed)
    return Examples(torch.randn(rows, 4, generator=random), torch.rand(rows, generator=random) * 2 - 1)


def test_classes_are_measured_with_the_share_of_the_most_common():
    rows = Examples(torch.eye(3)[[0, 1, 2, 1]], torch.tensor([0, 1, 2, 0]))
    site = Site(0, "a", rows, rows, rows)
    right = {"a": {"weight": 9 * torch.eye(3), "bias": torch.zeros(3)}}
    table = evaluate(nn.Linear(3, 3), right, Federation((site,)), "test", "classes")
    assert table["accuracy"].tolist() == [0.75, 0.75]
    assert table["most_common"].tolist() == [2, 2]
    assert "positives" not in table
