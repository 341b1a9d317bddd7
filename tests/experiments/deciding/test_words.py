"""Findings in sentences: what is told apart is said first, and what is ruled out where nothing is."""

import math

import pandas as pd

from fedsim.experiments.deciding import words
from fedsim.experiments.deciding.together import Released
from fedsim.scenario.schema import Tuning

POINTS = pd.DataFrame(
    [("federated", "2", 0.8), ("federated", "0.5", 0.7), ("federated", "none", 0.81)],
    columns=["arm", "epsilon", "mean"],
)
NONE = {"here_low": -0.01, "here_high": 0.03, "here_verdict": "not distinguishable", "seeds_needed": 12.0}
LOWER = {"arm": "federated", "epsilon": "0.5", "against": "2", "difference": -0.1, "low": -0.12, "high": -0.08,
         "verdict": "lower", **NONE}  # fmt: skip
SAME = {"arm": "federated", "epsilon": "none", "against": "2", "difference": 0.01, "low": -0.02, "high": 0.04,
        "verdict": "not distinguishable", **NONE}  # fmt: skip


def test_the_first_sentence_says_what_is_told_apart():
    said = list(words.of_epsilons(POINTS, pd.DataFrame([LOWER, SAME]), "auc"))
    assert said == [
        "In the federated arm, epsilon 2 gives AUC 0.800 on test rows; epsilon 0.5 is told to be lower.",
        "Epsilon 0.5 instead: −0.100 (−0.120 to −0.080), lower.",
        "No privacy instead: +0.010 (−0.020 to +0.040), not distinguishable; a loss of more than 0.020 is ruled out.",
    ]
    assert next(words.of_epsilons(POINTS, pd.DataFrame([SAME]), "auc")).endswith(
        "; nothing else can be told apart from it."
    )


def test_a_difference_on_these_records_is_said_where_there_is_none_elsewhere():
    row = {**SAME, "here_low": 0.005, "here_high": 0.015, "here_verdict": "higher"}
    said = list(words.of_epsilons(POINTS, pd.DataFrame([row]), "auc"))[1]
    assert "not distinguishable at institutions like these, though higher on these records (+0.005 to +0.015)" in said


def test_without_an_interval_nothing_is_judged():
    row = {**SAME, "low": math.nan, "high": math.nan, "verdict": None}
    assert list(words.of_epsilons(POINTS, pd.DataFrame([row]), "auc"))[1].endswith(
        "+0.010 (there is no interval to judge it by)."
    )


def test_arms_are_compared_at_the_first_epsilon():
    points = pd.DataFrame(
        [("federated", "none", 0.8), ("centralized", "none", 0.79)], columns=["arm", "epsilon", "mean"]
    )
    row = {**SAME, "against": "centralized"}
    assert next(words.of_arms(points, pd.DataFrame([row]), "auc")).startswith(
        "Without privacy, the federated arm has AUC 0.800, the centralized one 0.790: +0.010"
    )


def test_seeds_that_would_be_needed():
    table = pd.DataFrame([{"seeds_needed": 12.0}, {"seeds_needed": 80.0}])
    assert "about 12 to 80 seeds" in next(words.of_seeds(table, 5))
    assert "more than 1000 seeds" in next(words.of_seeds(pd.DataFrame([{"seeds_needed": math.inf}]), 5))
    assert next(words.of_seeds(table, 1)) == "One seed tells nothing apart: it takes 3 or more."
    assert list(words.of_seeds(pd.DataFrame([{"seeds_needed": math.nan}]), 5)) == []


def test_what_all_trainings_cost_is_said_with_what_is_not_covered():
    (said,) = words.of_privacy([Released("heart", 75, 63.731, 1e-4, ["record"], "record")], Tuning())
    assert said.startswith("Each epsilon is that of one training, for one record")
    assert "All 75 private trainings on the records of heart come to epsilon 63.74 together" in said
    assert "an epsilon above 10 is a weak formal guarantee" in said
    assert "figures on validation and test rows, are covered by nothing" in said


def test_trainings_that_a_scenario_charges_for_are_said():
    (said,) = words.of_privacy([Released("heart", 1, 0.88, 1e-4, ["record"], "record")], Tuning(runs=5, charged=True))
    assert said.startswith("Each epsilon is that of 5 trainings like the one that was run (privacy.tuning)")
    assert "The one private training on the records of heart" in said
