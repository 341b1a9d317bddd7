"""Sentences and cautions about the base rate: when an arm is better than no model, and when that is not seen."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from fedsim.report.base_findings import base_answer, base_figures, base_sentences, cautions
from fedsim.results.evaluation import INSIDE, POOLED
from fedsim.results.measured import Measured
from fedsim.results.run_directory import Run
from tests.cases import others_whole
from tests.runs import SEEDS, first_seeds, make_run

GOOD = {"accuracy": 0.55, "log_loss": 0.69}


def with_base(run: Run, answer: float = 0.4, **by_seed: Sequence[float] | float) -> Run:
    """Give a run base rates: a number for all seeds, or one for each."""
    rows = []
    for seed in range(SEEDS):
        figures = {"auc": 0.5, **GOOD}
        for name, value in by_seed.items():
            figures[name] = value[seed] if isinstance(value, Sequence) else value
        for site in (INSIDE, POOLED):
            rows.append({"seed": seed, "site": site, "rows": 40, "answer": answer, **figures})
    return replace(run, measured=Measured(threshold=0.5, base_rates=pd.DataFrame(rows)))


def auc_of(run: Run, arm: str, private: bool) -> list[float]:
    sites = run.sites
    rows = sites[(sites["arm"] == arm) & (sites["private"] == private) & (sites["site"] == INSIDE)]
    return list(rows.sort_values("seed")["auc"])


def test_a_run_that_is_better_says_by_how_much_and_needs_no_caution(tmp_path: Path):
    run = with_base(make_run(tmp_path))
    said = base_sentences(run)
    assert said.startswith("Without a model, always answering negative has an AUC inside sites of 0.500, ")
    assert "an accuracy of 0.550 and a log loss of 0.690" in said
    assert "The federated model with privacy's difference to that in AUC inside sites is +0.330" in said
    assert "at institutions like these: it is better. The answer is the majority of the training rows" in said
    assert "no epsilon covers it" in said
    assert cautions(run) == []


def test_without_privacy_nothing_is_said_of_epsilon(tmp_path: Path):
    said = base_sentences(with_base(make_run(tmp_path, private=False), answer=0.7))
    assert "epsilon" not in said
    assert "always answering positive" in said
    assert "The federated model's difference" in said


def test_an_arm_below_the_base_rate_is_no_better(tmp_path: Path):
    worse = {("federated", True): [-0.4] * SEEDS, ("local", True): [-0.35] * SEEDS}
    (said,) = [text for text in cautions(with_base(make_run(tmp_path, worse), accuracy=0.0)) if "AUC" in text]
    assert said == (
        "The federated model with privacy and the local models with privacy are no better than always answering "
        "negative: AUC inside sites 0.430 and 0.480 against 0.500."
    )


@pytest.mark.parametrize("seeds", others_whole([1, 2], 2))
@pytest.mark.parametrize(("shift", "warned"), others_whole([(0.0, True), (0.001, True), (-0.001, False)], 0.001))
def test_few_seeds_decide_by_the_mean_alone(tmp_path: Path, seeds: int, shift: float, warned: bool):
    run = make_run(tmp_path, private=False, arms=("federated",))
    base = [value + shift for value in auc_of(run, "federated", False)]
    said = cautions(with_base(first_seeds(run, seeds), auc=base, accuracy=0.0))
    assert [text.startswith("The federated model is no better than") for text in said] == [True] * warned


def test_an_interval_with_zero_in_it_is_a_caution_too(tmp_path: Path):
    run = make_run(tmp_path, private=False, arms=("federated",))
    apart = [0.05, -0.03, 0.06, -0.01]
    base = [value - change for value, change in zip(auc_of(run, "federated", False), apart, strict=True)]
    (said,) = cautions(with_base(run, auc=base, accuracy=0.0))
    assert said.startswith("The federated model cannot be told apart from always answering negative, at institutions")
    assert said.endswith("and the interval of the difference includes zero.")


def test_an_accuracy_that_the_majority_reaches_is_a_caution_beside_a_good_auc(tmp_path: Path):
    (said,) = cautions(with_base(make_run(tmp_path, private=False), accuracy=0.95))
    assert said.startswith("The federated model, the centralized model and the local models are no better than")
    assert "accuracy 0.730, 0.730 and 0.730 against 0.950" in said


def test_a_metric_that_is_not_known_is_no_caution(tmp_path: Path):
    run = with_base(make_run(tmp_path, private=False))
    sites = run.sites.assign(auc=math.nan)
    assert cautions(replace(run, sites=sites)) == []
    assert base_sentences(replace(run, sites=sites))


def test_seeds_without_a_test_row_are_named(tmp_path: Path):
    run = with_base(make_run(tmp_path, private=False))
    sites = run.sites.copy()
    sites.loc[sites["seed"] == 2, "rows"] = 0
    assert "Under seed 2 no site has a test row: only the other 3 give figures." in cautions(replace(run, sites=sites))


def test_older_runs_have_no_base_rate(tmp_path: Path):
    run = make_run(tmp_path)
    assert (base_answer(run), base_sentences(run), cautions(run), run.over_base) == (None, "", [], None)
    assert all(math.isnan(value) for value in base_figures(run, INSIDE).values())
