import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import r2_score, roc_auc_score, root_mean_squared_error
from torch import nn

from fedsim.data.federation import Examples, Federation, Site
from fedsim.data.tables import Number
from fedsim.experiments.ranking import rank
from fedsim.experiments.tournament import Played
from fedsim.results.evaluation import INSIDE, POOLED, Answers, evaluate, headline_of, scores_of
from tests.calls import calls_in
from tests.works import examples


def test_each_site_is_measured_with_its_own_model_and_all_together():
    model = nn.Linear(4, 1)
    sites = tuple(Site(i, name, examples(1), examples(1), examples(30, seed=i)) for i, name in enumerate("ab"))
    own = {name: {"weight": torch.randn(1, 4), "bias": torch.zeros(1)} for name in "ab"}
    table = evaluate(model, own, Federation(sites), "test").set_index("site")
    assert list(table.index) == ["a", "b", INSIDE, POOLED]
    scores = {s.name: torch.sigmoid(s.test.inputs @ own[s.name]["weight"].T)[:, 0].numpy() for s in sites}
    for site in sites:
        assert table["auc"][site.name] == pytest.approx(roc_auc_score(site.test.target, scores[site.name]))
    both = np.concatenate([site.test.target.numpy() for site in sites])
    assert table["auc"][POOLED] == pytest.approx(roc_auc_score(both, np.concatenate([scores["a"], scores["b"]])))
    assert table["rows"][POOLED] == table["rows"][INSIDE] == 60


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
    assert table["accuracy"].tolist() == [0.75, 0.75, 0.75]
    assert table["most_common"].tolist() == [2, 2, 2]
    assert "positives" not in table


def said_of(sites: int, rows: int, kind: str = "binary", seed: int = 0) -> list[Answers]:
    """Return made-up answers of sites that differ in how common the outcome is, with ties."""
    random, found = np.random.default_rng(seed), []
    for number in range(sites):
        count = int(random.integers(1, 2 * rows))
        common = number / sites
        if kind == "binary":
            target = (random.random(count) < common).astype(np.float32)
            answers = np.round((target + common + random.normal(size=count)).clip(-2, 3) / 5 + 0.4, 1)
        elif kind == "classes":
            target = random.integers(0, 1 + number % 3, count)  # the third class is at a third of the sites only
            answers = np.round(random.dirichlet(np.ones(3), count) + np.eye(3)[target], 1) / 2
        else:
            target = (common + 0.3 * random.normal(size=count)).astype(np.float32)
            answers = 0.5 * target + 0.1 * random.normal(size=count)
        found.append(Answers(f"site-{number}", target, answers, {}))
    return found


def pairs_won(target: np.ndarray, said: np.ndarray) -> tuple[float, int]:
    """Return how many pairs of a positive and a negative row are ranked rightly, ties half, and of how many."""
    positive, negative = said[target][:, None], said[~target][None]
    return float((positive > negative).sum() + 0.5 * (positive == negative).sum()), positive.size * negative.size


@pytest.mark.parametrize("seed", range(5))
def test_the_auc_inside_sites_counts_the_pairs_of_each_site(seed: int):
    """Oracle: every pair by itself; then the mean of scikit-learn's AUCs, weighted by the numbers of pairs."""
    found = said_of(9, 12, seed=seed)
    table = scores_of(found).set_index("site")
    won = np.sum([pairs_won(one.target == 1, one.said) for one in found], axis=0)
    assert table["auc"][INSIDE] == pytest.approx(won[0] / won[1])
    both = [one for one in found if 0 < one.target.sum() < len(one.target)]
    pairs = [one.target.sum() * (1 - one.target).sum() for one in both]
    areas = [roc_auc_score(one.target, one.said) for one in both]
    assert 0 < len(both) < len(found)  # site-0 has no positive row, so that it drops out
    assert table["auc"][INSIDE] == pytest.approx(np.average(areas, weights=pairs))
    assert table["auc"][INSIDE] < table["auc"][POOLED]  # which is also paid for telling sites apart
    for name in ("accuracy", "log_loss", "rows", "positives"):
        assert table[name][INSIDE] == table[name][POOLED]


def test_the_auc_of_classes_inside_sites_is_the_mean_over_classes():
    found = said_of(9, 12, "classes")
    areas = []
    for number in range(3):
        won = np.sum([pairs_won(one.target == number, one.said[:, number]) for one in found], axis=0)
        areas.append(won[0] / won[1])
    table = scores_of(found, "classes").set_index("site")
    assert table["auc"][INSIDE] == pytest.approx(np.mean(areas))
    assert table["most_common"][INSIDE] == sum(np.unique(one.target, return_counts=True)[1].max() for one in found)


def test_the_r2_inside_sites_is_against_each_sites_own_mean():
    found = said_of(9, 12, "number")
    errors = sum(((one.target - one.said) ** 2).sum() for one in found)
    squares = sum(((one.target - one.target.mean()) ** 2).sum() for one in found)
    table = scores_of(found, "number").set_index("site")
    assert table["r2"][INSIDE] == pytest.approx(1 - errors / squares, rel=1e-5)
    assert table["r2"][INSIDE] < table["r2"][POOLED]
    assert table["rmse"][INSIDE] == table["rmse"][POOLED]


@pytest.mark.parametrize("kind", ["binary", "classes", "number"])
def test_one_site_is_the_same_inside_and_pooled(kind: str):
    table = scores_of(said_of(1, 30, kind, seed=3), kind).set_index("site")  # pyright: ignore[reportArgumentType]
    pd.testing.assert_series_equal(table.loc[INSIDE], table.loc[POOLED], check_names=False, rtol=1e-6)
    pd.testing.assert_series_equal(table.loc["site-0"], table.loc[POOLED], check_names=False, rtol=1e-6)


def test_sites_of_one_kind_of_rows_each_have_no_auc_inside():
    """They tell how common the outcome is at each site, and nothing else."""
    found = [Answers(name, np.full(5, float(name == "a")), np.full(5, 0.9 * (name == "a")), {}) for name in "ab"]
    table = scores_of(found).set_index("site")
    assert table["auc"][POOLED] == 1.0
    assert np.isnan(table["auc"][INSIDE])
    numbers = scores_of(found, "number").set_index("site")
    assert np.isnan(numbers["r2"][INSIDE])
    assert numbers["r2"][POOLED] > 0.9


def test_a_site_whose_model_was_lost_is_not_left_out_of_the_figure():
    """It is missing, as the pooled one: the others alone would seem to be all."""
    found = said_of(4, 12)
    found[2] = Answers("site-2", found[2].target, found[2].said * np.nan, {})
    table = scores_of(found).set_index("site")
    assert pd.isna(table["auc"][INSIDE])
    assert pd.isna(table["auc"][POOLED])


@pytest.mark.parametrize("kind", ["binary", "classes", "number"])
def test_a_site_without_test_rows_changes_nothing(kind: str):
    found = said_of(3, 12, kind)
    none = Answers("none", found[0].target[:0], found[0].said[:0], {})
    with_none = scores_of([none, found[0], none, *found[1:]], kind, sites=False)  # pyright: ignore[reportArgumentType]
    assert with_none.equals(scores_of(found, kind, sites=False))  # pyright: ignore[reportArgumentType]


def test_many_made_up_sites_are_measured_at_once():
    """One sort for all sites: a hundred times as many take no more calls; a loop over them took seconds."""
    few, many = said_of(50, 10), said_of(5000, 10)
    scores_of(few, sites=False)  # what is done once in a process is done
    assert calls_in(lambda: scores_of(many, sites=False)) <= 1.1 * calls_in(lambda: scores_of(few, sites=False))


def test_the_row_that_is_spoken_of_first_is_the_one_inside_sites_where_there_is_one():
    def scores(**auc: float) -> pd.DataFrame:
        return pd.DataFrame({"site": list(auc), "auc": list(auc.values())}).replace(
            {"inside": INSIDE, "pooled": POOLED}
        )

    assert headline_of(scores(a=0.5, inside=0.6, pooled=0.7), "auc") == INSIDE
    assert headline_of(scores(a=0.5, pooled=0.7), "auc") == POOLED  # a table from before there was the other
    assert headline_of(scores(a=np.nan, inside=np.nan, pooled=0.7), "auc") == POOLED  # no site has two test rows
    assert headline_of(scores(a=np.nan, inside=np.nan, pooled=np.nan), "auc") == INSIDE  # nothing can be said at all


def test_strategies_are_ranked_by_the_first_row_and_its_sites_are_sites_only():
    """Pooled, the other one is ahead; the rows of all sites are no site, the worst of which is told."""
    rows = []
    for strategy, inside, pooled in (("a", 0.8, 0.5), ("b", 0.7, 0.9)):
        for seed in range(3):
            figures = {"north": inside + 0.1, "south": inside - 0.1, INSIDE: inside, POOLED: pooled}
            rows += [
                {
                    "scenario": "s",
                    "strategy": strategy,
                    "seed": seed,
                    "site": site,
                    "rows": 9,
                    "auc": value + seed / 100,
                }
                for site, value in figures.items()
            ]
    costs = pd.DataFrame([{"scenario": "s", "strategy": name, "megabytes": 1.0} for name in "ab"])
    played = Played(pd.DataFrame(rows), pd.DataFrame(), costs, pd.DataFrame())
    table = rank(played, "auc", {("s",): 1 / 3}).set_index("strategy")
    assert list(table.index) == ["a", "b"]
    assert table["mean"]["a"] == pytest.approx(0.81)
    assert table["worst"]["b"] == pytest.approx(0.61)
    assert table["spread"]["b"] == pytest.approx(0.1)
