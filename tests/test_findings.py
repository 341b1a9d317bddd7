import re
from pathlib import Path

import pytest

from fedsim.comparison import SAME
from fedsim.evaluation import POOLED
from fedsim.findings import Estimate, findings, headline
from fedsim.results import Run
from tests.runs import (
    ARMS,
    BETTER,
    FEWER_ARMS,
    NOISE,
    SEEDS,
    WORSE,
    make_run,
    nothing_released,
    one_seed,
    only_north_gains,
    spending,
    without_auc,
)

QUALITY, POOL, COST, JOIN, PROMISE = (
    "How good is the model they train together?",
    "Would pooling all records be better?",
    "What does privacy cost?",
    "Which site gains by joining?",
    "What is promised about privacy?",
)


def said(run: Run) -> dict[str, str]:
    return dict(findings(run))


@pytest.mark.parametrize("effect", [BETTER, WORSE, NOISE], ids=["better", "worse", "noise"])
def test_a_difference_is_not_distinguishable_exactly_when_its_interval_holds_zero(
    tmp_path: Path, effect: tuple[float, ...]
) -> None:
    run = make_run(tmp_path, {("federated", True): effect})
    row = run.comparison.query(f"arm == 'federated' and private and metric == 'auc' and site == {POOLED!r}").iloc[0]
    holds_zero = bool(row["difference_low"] <= 0 <= row["difference_high"])
    assert holds_zero == (effect == NOISE)
    answers = said(run)
    for question in (POOL, COST, JOIN):
        assert (SAME in answers[question]) == holds_zero, question
    assert (SAME in headline(run)) == holds_zero


def test_a_difference_is_said_with_the_way_it_goes(tmp_path: Path) -> None:
    better = said(make_run(tmp_path, {("federated", True): BETTER}))
    assert "better by +0.051 (95 % interval +0.0" in better[POOL]
    assert "no cost is visible" in better[COST]
    assert "gain" in better[JOIN]
    assert "lose" not in better[JOIN]
    worse = said(make_run(tmp_path, {("federated", True): WORSE}))
    assert "worse: the difference is −0.051" in worse[POOL]
    assert "privacy lowers it" in worse[COST]
    assert "north (−0.051, 95 % interval −0.05" in worse[JOIN]
    assert "lose." in worse[JOIN]


def test_a_site_gains_only_where_the_interval_leaves_out_zero(tmp_path: Path) -> None:
    answer = said(only_north_gains(make_run(tmp_path, private=False)))[JOIN]
    assert re.search(r"north \(\+0\.051, [^)]*\) gains;", answer)
    assert "for south a gain or loss cannot be told apart from chance" in answer


def test_one_seed_has_no_interval_and_proves_nothing(tmp_path: Path) -> None:
    run = one_seed(make_run(tmp_path, {("federated", True): BETTER}))
    assert "interval 0" not in headline(run)
    assert "±" not in headline(run)
    for question in (POOL, COST):
        assert "one seed gives no interval, so it may be chance" in said(run)[question]
    assert "for none of the sites can a gain or loss be told apart from chance with one seed" in said(run)[JOIN]
    assert SAME not in headline(run)


@pytest.mark.parametrize("arms", FEWER_ARMS)
def test_arms_that_were_not_run_are_not_spoken_of(tmp_path: Path, arms: tuple[str, ...]) -> None:
    run = make_run(tmp_path, arms=arms)
    answers = said(run)
    if "federated" not in arms:
        assert "The federated arm was not run" in headline(run)
        assert not {POOL, COST, JOIN} & set(answers)
    else:
        assert ("cannot be told: the centralized arm was not run" in answers[POOL]) == ("centralized" not in arms)
        assert ("cannot be told: the local arm" in answers[JOIN]) == ("local" not in arms)


def test_without_privacy_there_is_no_guarantee_and_no_number(tmp_path: Path) -> None:
    run = make_run(tmp_path, private=False)
    assert "no privacy guarantee" in headline(run)
    assert not re.search(r"epsilon|sigma|delta", headline(run), re.IGNORECASE)


@pytest.mark.parametrize(("epsilon", "weak"), [(10.0, False), (10.001, True), (5000.0, True)])
def test_an_epsilon_above_ten_is_called_weak(tmp_path: Path, epsilon: float, weak: bool) -> None:
    run = make_run(tmp_path)
    run.ledger["trainings"][0]["epsilon"]["south"] = epsilon
    assert ("weak formal guarantee" in said(run)[PROMISE]) == weak


def test_an_epsilon_is_never_rounded_down(tmp_path: Path) -> None:
    assert "epsilon 0.54" in headline(spending(make_run(tmp_path), 0.5312))


def test_private_trainings_that_released_nothing_are_called_that(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    assert " with epsilon 8.00 for each record." in said(run)[QUALITY]
    assert " with nothing released." in said(nothing_released(run))[QUALITY]
    assert "Nothing was released" in said(nothing_released(run))[PROMISE]


@pytest.mark.parametrize("seeds", [[0], list(range(SEEDS))], ids=["one seed", "all seeds"])
def test_a_site_whose_auc_is_missing_is_still_spoken_of(tmp_path: Path, seeds: list[int]) -> None:
    assert "a gain or loss" in said(without_auc(make_run(tmp_path), "south", seeds))[JOIN]


def test_an_auc_that_is_missing_everywhere_is_unknown(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    run.sites["auc"] = None  # as Parquet gives it back: a column of objects
    assert "an AUC of unknown" in headline(run)


def test_a_sentence_does_not_list_many_sites(tmp_path: Path) -> None:
    run = make_run(tmp_path, {("federated", True): BETTER}, sites=[f"site-{n}" for n in range(9)])
    run.sites.loc[run.sites["site"] == "site-8", "auc"] = 0.7
    assert re.search(r"site-4 \([^)]*\) and 3 more gain; for site-8 a gain", said(run)[JOIN])


def test_an_interval_is_cut_where_the_metric_ends(tmp_path: Path) -> None:
    run = make_run(tmp_path, {(arm, False): (0.19, -0.5, 0.1, -0.6) for arm in ARMS}, private=False)
    auc = run.comparison.query("metric == 'auc'")
    assert (auc["low"].min(), auc["high"].max()) == (0.0, 1.0)
    assert "(95 % interval 0.000 to 1.000)" in said(run)[QUALITY]


def test_a_change_too_small_for_three_digits_keeps_its_sign() -> None:
    small = Estimate(0.0003, -0.0004, 0.001)
    assert small.text(signed=True) == "+0.0003 (95 % interval −0.0004 to +0.001)"
    assert small.text() == "0.000 (95 % interval 0.000 to 0.001)"
    assert Estimate(-0.00001, -0.1, 0.0).value(signed=True) == "0.0000"
