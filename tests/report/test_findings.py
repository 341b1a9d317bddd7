import re
from pathlib import Path

import pytest

from fedsim.report.findings import Estimate, findings, headline
from fedsim.results.comparison import ELSEWHERE, HERE, SAME
from fedsim.results.evaluation import INSIDE
from fedsim.results.run_directory import Run
from tests.cases import others_whole
from tests.runs import (
    ARMS,
    BETTER,
    FEWER_ARMS,
    NOISE,
    SEEDS,
    WORSE,
    by_time,
    first_seeds,
    make_run,
    nothing_released,
    older,
    one_seed,
    only_north_gains,
    spending,
    without_auc,
)

FIRST, QUALITY, POOL, COST, JOIN, PROMISE = (
    "What do the figures say?",
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
    row = run.comparison.query(f"arm == 'federated' and private and metric == 'auc' and site == {INSIDE!r}").iloc[0]
    holds_zero = bool(row["difference_low"] <= 0 <= row["difference_high"])
    assert holds_zero == bool(row["difference_here_low"] <= 0 <= row["difference_here_high"])
    assert holds_zero == (effect == NOISE)
    answers = said(run)
    for question in (POOL, COST, JOIN):
        assert (SAME in answers[question]) == holds_zero, question
    assert (SAME in headline(run)) == holds_zero


def test_a_difference_is_said_with_the_way_it_goes(tmp_path: Path) -> None:
    better = said(make_run(tmp_path, {("federated", True): BETTER}))
    assert "On these records, the federated model's difference to that is +0.051 (95 % interval +0.0" in better[POOL]
    assert better[POOL].count(": it is better") == 2
    assert "no cost is visible" in better[COST]
    assert "gain" in better[JOIN]
    assert "lose" not in better[JOIN]
    worse = said(make_run(tmp_path, {("federated", True): WORSE}))
    assert "difference to that is −0.051" in worse[POOL]
    assert worse[POOL].count(": it is worse") == 2
    assert "privacy lowers it" in worse[COST]
    assert "north (−0.051, 95 % interval −0.05" in worse[JOIN]
    assert worse[JOIN].count(" lose.") == 2


def test_a_site_gains_only_where_the_interval_leaves_out_zero(tmp_path: Path) -> None:
    answer = said(only_north_gains(make_run(tmp_path, private=False)))[JOIN]
    assert re.search(r"north \(\+0\.051, [^)]*\) gains;", answer)
    assert "for south a gain or loss cannot be told apart from chance" in answer


@pytest.mark.whole
def test_one_seed_has_no_interval_and_proves_nothing(tmp_path: Path) -> None:
    run = one_seed(make_run(tmp_path, {("federated", True): BETTER}))
    assert "interval 0" not in headline(run)
    assert "±" not in headline(run)
    for question in (POOL, COST):
        assert "one seed gives no interval), so it may be chance" in said(run)[question]
    assert "for none of the sites can a gain or loss be told apart from chance with one seed" in said(run)[JOIN]
    assert SAME not in headline(run)


@pytest.mark.parametrize("arms", others_whole([pytest.param(arms) for arms in FEWER_ARMS], FEWER_ARMS[0]))
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
    assert "an AUC inside sites of unknown" in headline(run)
    assert FIRST not in said(run)


@pytest.mark.whole
def test_a_sentence_does_not_list_many_sites(tmp_path: Path) -> None:
    run = make_run(tmp_path, {("federated", True): BETTER}, sites=[f"site-{n}" for n in range(9)])
    run.sites.loc[run.sites["site"] == "site-8", "auc"] = 0.7
    assert re.search(r"site-4 \([^)]*\) and 3 more gain; all seeds agree on the change at site-8 \(0", said(run)[JOIN])


def test_an_interval_is_cut_where_the_metric_ends(tmp_path: Path) -> None:
    run = make_run(tmp_path, {(arm, False): (0.19, 0.0, 0.1, 0.0) for arm in ARMS}, private=False)
    auc = run.comparison.query("metric == 'auc'")
    assert auc["low"].min() > 0.5
    assert auc["high"].max() == 1.0
    assert re.search(r"\(95 % interval 0\.\d+ to 1\.000\)", said(run)[QUALITY])


def test_an_interval_of_all_that_is_possible_is_not_shown(tmp_path: Path) -> None:
    run = make_run(tmp_path, {(arm, False): (0.19, -0.5, 0.1, -0.6) for arm in ARMS}, private=False)
    assert "(these seeds do not bound it)" in said(run)[QUALITY]
    assert "0.000 to 1.000" not in headline(run)


def test_the_first_sentence_says_what_the_figures_say(tmp_path: Path) -> None:
    """Nobody gains where no interval says so; else who is better is said, with the question."""
    nobody = make_run(tmp_path, {("federated", True): NOISE})
    expected = "Nobody is seen to gain by joining here with privacy: at institutions like these, federated = local = "
    assert headline(nobody).startswith(expected)
    assert "the AUC inside sites is 0.830 federated, 0.830 local and 0.830 centralized." in said(nobody)[FIRST]
    better = said(make_run(tmp_path, {("federated", True): BETTER}))[FIRST]
    assert "with privacy is better than training alone and better than pooling all records: the AUC inside" in better
    assert better.startswith("At institutions like these, ")
    one = only_north_gains(make_run(tmp_path, {("federated", False): NOISE}, private=False))
    assert said(one)[FIRST].startswith("Over all sites together no gain by joining is seen: ")
    assert FIRST not in said(make_run(tmp_path, arms=["federated"]))


@pytest.mark.whole
def test_figures_inside_sites_come_first_and_pooled_ones_second(tmp_path: Path) -> None:
    answer = said(make_run(tmp_path))[QUALITY]
    assert answer.index("an AUC inside sites of 0.830") < answer.index(
        "Pooled over the sites, the AUC is 0.870 federated"
    )
    assert "0.880 local: this also rewards a model for telling sites apart" in answer
    alone = said(make_run(tmp_path, sites=["north"]))[QUALITY]
    assert "Pooled" not in alone  # it is the same


def test_an_older_run_is_spoken_of_by_its_pooled_figures_and_says_so(tmp_path: Path) -> None:
    run = older(make_run(tmp_path, {("federated", True): WORSE}))
    answer = said(run)[QUALITY]
    assert "an AUC pooled over the sites of 0.819" in answer
    assert "This run is older than the figures inside sites" in answer
    assert "inside sites is" not in headline(run)
    assert "privacy lowers it" in said(run)[COST]


def test_what_privacy_costs_is_answered_on_these_records_first(tmp_path: Path) -> None:
    """An effect that is clear here, and not at institutions like these: the wider interval holds 0."""
    effect = (-0.01, -0.03, -0.012, -0.028)
    run = make_run(tmp_path, {("federated", True): effect})
    for question, clear in ((COST, "privacy lowers it"), (POOL, "it is worse")):
        here, elsewhere = said(run)[question].split("At institutions like these, ")
        assert "On these records, " in here
        assert clear in here
        assert SAME not in here
        assert f"{SAME} from zero" in elsewhere
        assert clear not in elsewhere
    assert " lose. At institutions like these, for none of the sites" in said(run)[JOIN]
    row = run.comparison.query(f"arm == 'federated' and private and metric == 'auc' and site == {INSIDE!r}").iloc[0]
    assert (row["here_verdict"], row["verdict"]) == ("lower", SAME)
    assert (row["gain_here_verdict"], row["gain_verdict"]) == ("lower", SAME)


def test_two_seeds_give_no_verdict(tmp_path: Path) -> None:
    run = first_seeds(make_run(tmp_path, {("federated", True): WORSE}), 2)
    for question in (POOL, COST):
        assert "−0.051 (two seeds give no verdict), so it may be chance" in said(run)[question]
    assert "for none of the sites can a gain or loss be told apart from chance with two seeds" in said(run)[JOIN]
    assert "two seeds give no verdict" in said(run)[FIRST]
    assert "95 % interval" not in headline(run)


def test_where_all_seeds_agree_no_interval_is_made_up(tmp_path: Path) -> None:
    run = make_run(tmp_path, {("federated", True): [-0.05] * SEEDS})
    for question in (POOL, COST):
        assert "−0.050 (all seeds agree)" in said(run)[question]
    assert "all seeds agree on the change at north (−0.050) and south (−0.050)" in said(run)[JOIN]
    assert "−0.050 to −0.050" not in headline(run)


def test_seeds_with_the_same_rows_say_nothing_of_other_institutions(tmp_path: Path) -> None:
    run = by_time(make_run(tmp_path, {("federated", True): WORSE}))
    for question in (POOL, COST, JOIN):
        assert f"{ELSEWHERE} cannot be told, because all seeds test the same records" in said(run)[question]
        assert f"{ELSEWHERE[0].upper()}{ELSEWHERE[1:]}, the 95 % interval" not in said(run)[question]
    assert said(run)[FIRST].startswith(f"{HERE[0].upper()}{HERE[1:]}, federated training")


def test_an_interval_is_never_printed_with_the_same_ends() -> None:
    narrow = Estimate(0.5, 0.49996, 0.50004)
    assert narrow.text() == "0.500 (95 % interval 0.49996 to 0.50004)"
    assert Estimate(0.5, 0.4, 0.6).bounds() == "0.400 to 0.600"


def test_a_change_too_small_for_three_digits_keeps_its_sign() -> None:
    small = Estimate(0.0003, -0.0004, 0.001)
    assert small.text(signed=True) == "+0.0003 (95 % interval −0.0004 to +0.001)"
    assert small.text() == "0.000 (95 % interval 0.000 to 0.001)"
    assert Estimate(-0.00001, -0.1, 0.0).value(signed=True) == "0.0000"
