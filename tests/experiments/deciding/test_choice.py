"""What is chosen by validation rows, and how what was chosen is compared on test rows."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy.stats import t

from fedsim.experiments.deciding.choice import NOT_FOR_IT, Chosen, by_arm, by_epsilon, choose, points
from fedsim.results.evaluation import HEADLINE, POOLED

OVERLAP = 0.25
VALIDATED = {"0.1": [0.9, 0.2, 0.9], "0.5": [0.1, 0.8, 0.1]}
TESTED = {"0.1": [0.70, 0.72, 0.78], "0.5": [0.90, 0.71, 0.95]}


def tables(validated=VALIDATED, tested=TESTED, arms=("federated",), epsilons=("8",), shift=0.0):
    """Scores and curves of settings lr, each with a figure for each of three seeds."""
    scores, curves = [], []
    for place, (arm, epsilon) in enumerate([(arm, epsilon) for epsilon in epsilons for arm in arms]):
        for lr in validated:
            for seed in range(3):
                row = {"arm": arm, "epsilon": epsilon, "lr": lr, "seed": seed}
                for site in (HEADLINE, POOLED, "x"):
                    figure = tested[lr][seed] - place * shift * (1 + seed)
                    scores.append({**row, "site": site, "rows": 100, "positives": 50, "auc": figure})
                curves.append({**row, "round": 1, "auc": 1 - validated[lr][seed]})
                curves.append({**row, "round": 2, "auc": validated[lr][seed]})
    return pd.DataFrame(scores), pd.DataFrame(curves)


def chosen(**changes) -> Chosen:
    return choose(*tables(**changes), ["lr"], "auc", OVERLAP)


def test_each_seed_is_tested_with_what_its_own_validation_rows_chose_in_the_last_round():
    figures = chosen().figures["federated", "8"]
    assert figures.tolist() == [TESTED["0.1"][0], TESTED["0.5"][1], TESTED["0.1"][2]]


def test_no_test_row_has_a_say():
    other = {lr: [1 - value for value in values] for lr, values in TESTED.items()}
    assert chosen().trainings["chosen"].tolist() == chosen(tested=other).trainings["chosen"].tolist()


def test_of_equals_the_first_is_chosen():
    same = {lr: [0.5, 0.5, 0.5] for lr in VALIDATED}
    assert chosen(validated=same).figures["federated", "8"].tolist() == TESTED["0.1"]


def test_a_training_without_a_validation_figure_is_not_chosen():
    unknown = {**VALIDATED, "0.1": [math.nan] * 3}
    assert chosen(validated=unknown).figures["federated", "8"].tolist() == TESTED["0.5"]


def test_where_no_training_has_a_validation_figure_nothing_is_chosen():
    unknown = {lr: [math.nan, 0.5, 0.5] for lr in VALIDATED}
    assert chosen(validated=unknown).figures.index.tolist() == [1, 2]


def test_points_say_what_was_chosen_and_how_often():
    table = points(chosen())
    assert table["mean"].tolist() == pytest.approx([np.mean([0.70, 0.71, 0.78])])
    assert table["validation"].tolist() == pytest.approx([np.mean([0.9, 0.8, 0.9])])
    assert table["settings"].tolist() == ["lr=0.1 (2 of 3 seeds); lr=0.5 (1 of 3 seeds)"]


def test_a_setting_that_an_arm_has_not_is_not_named():
    scores, curves = tables()
    for table in (scores, curves):
        table["strategy.name"] = NOT_FOR_IT
    made = choose(scores, curves, ["lr", "strategy.name"], "auc", OVERLAP)
    assert "strategy" not in points(made)["settings"].iloc[0]


def test_epsilons_are_compared_with_the_first_that_was_named_and_arms_with_the_reference():
    both = chosen(arms=("federated", "centralized"), epsilons=("2", "0.5", "8"), shift=0.001)
    table = by_epsilon(both)
    assert list(zip(table["arm"], table["epsilon"], table["against"], strict=True)) == [
        ("federated", "0.5", "2"),
        ("federated", "8", "2"),
        ("centralized", "0.5", "2"),
        ("centralized", "8", "2"),
    ]
    assert table["difference"].tolist()[:2] == pytest.approx([-0.004, -0.008])
    arms = by_arm(both, "centralized")
    assert arms["epsilon"].tolist() == ["2", "0.5", "8"]
    assert set(arms["arm"]) == {"federated"}
    assert set(arms["against"]) == {"centralized"}
    assert by_arm(both, "local").empty


def test_intervals_hold_for_all_comparisons_with_the_first_together():
    """Bonferroni over two comparisons, the corrected variance, and the variance of rounding to one pair of rows."""
    both = chosen(epsilons=("2", "0.5", "8"), shift=0.01)
    table = by_epsilon(both)
    paired = both.figures["federated", "8"] - both.figures["federated", "2"]
    step = 1 / (50 * 50)
    error = math.sqrt((paired.var(ddof=1) + step**2 / 6) * (1 / 3 + OVERLAP))
    reach = t.ppf(1 - 0.05 / 4, 2) * error
    last = table.iloc[1]
    assert (last["low"], last["high"]) == pytest.approx((paired.mean() - reach, paired.mean() + reach))
    here = t.ppf(1 - 0.05 / 4, 2) * math.sqrt((paired.var(ddof=1) + step**2 / 6) / 3)
    assert (last["here_low"], last["here_high"]) == pytest.approx((paired.mean() - here, paired.mean() + here))
