"""Which round is kept and when a training ends, by the figures of its rounds."""

import math

import pytest

from fedsim.mistakes import Mistake
from fedsim.outcomes.kinds.binary import AUC, LOG_LOSS
from fedsim.outcomes.metric import Metric
from fedsim.planning.checks import check, stopping_faults
from fedsim.planning.deployment import deployment_faults
from fedsim.planning.stopping import Choice, metric_of
from fedsim.planning.trial import Trial
from fedsim.scenario.schema import Stopping


def chosen(figures: list[float | None], metric: Metric = AUC, **settings) -> tuple[int, int]:
    """Return the best round, and the round after which the training ends."""
    choice = Choice(Stopping(**settings), metric)
    for figure in figures:
        choice.judge(figure)
        if choice.enough:
            break
    return choice.judged.best_round, choice.judged.rounds


def test_the_first_of_the_best_rounds_is_kept():
    assert chosen([0.5, 0.8, 0.7, 0.8, 0.6]) == (2, 5)


def test_lower_is_better_where_the_metric_says_so():
    assert chosen([0.5, 0.8, 0.3, 0.4], LOG_LOSS) == (3, 4)


def test_it_ends_after_so_many_rounds_in_a_row_without_a_gain():
    assert chosen([0.5, 0.6, 0.6, 0.7, 0.7, 0.6, 0.9], patience=2) == (4, 6)


def test_gains_that_are_too_small_do_not_count_for_patience_and_do_for_the_best():
    assert chosen([0.5, 0.55, 0.58, 0.9], patience=2, smallest_gain=0.1) == (3, 3)


def test_small_gains_add_up():
    assert chosen([0.5, 0.55, 0.62, 0.66, 0.7], patience=2, smallest_gain=0.1) == (5, 5)


@pytest.mark.parametrize("missing", [None, math.nan])
def test_a_round_without_a_figure_is_never_the_best_and_gains_nothing(missing: float | None):
    assert chosen([missing, 0.4, missing, missing, 0.9], patience=2) == (2, 4)
    assert chosen([missing, missing, 0.9], patience=2) == (0, 2)


def test_a_choice_goes_on_from_what_was_written_down():
    figures = [0.5, 0.7, 0.6, 0.7, 0.65]
    whole = Choice(Stopping(patience=3), AUC)
    for figure in figures:
        whole.judge(figure)
    for cut in range(len(figures)):
        first = Choice(Stopping(patience=3), AUC)
        for figure in figures[:cut]:
            first.judge(figure)
        second = Choice(Stopping(patience=3), AUC)
        second.restore(first.snapshot())
        for figure in figures[cut:]:
            second.judge(figure)
        assert second.judged == whole.judged
        assert second.enough == whole.enough


def test_the_metric_is_the_tasks_first_or_the_one_that_is_named():
    assert metric_of(Stopping(), "binary") is AUC
    assert metric_of(Stopping(metric="log_loss"), "binary") is LOG_LOSS
    assert metric_of(Stopping(metric="rmse"), "binary") is None


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["training.stopping.metric=rmse"], "metric: expected 'auc' or 'accuracy' or 'log_loss', got 'rmse'"),
        (["split.validation=0"], "training.stopping: expected split.validation > 0 beside it"),
        (["secure_aggregation=true"], "training.stopping: expected public_sites beside secure_aggregation"),
        (["training.stopping.public_sites=['utah']"], "public_sites: expected names of sites, .*got 'utah'"),
        (["training.schedule.name=cosine", "strategy={name='scaffold', lr=0.1}"], "strategy.lr: expected none beside"),
    ],
)
def test_what_can_not_be_is_refused_before_training(scenario, given: list[str], message: str):
    asked = scenario("training.stopping={}", *given)
    with pytest.raises(Mistake, match=message):
        check(asked)


def test_sites_without_validation_rows_can_judge_no_round(scenario):
    tiny = ["partition={by='iid', sites=150}", "training.expected_batch=1", "split.validation=0.01"]
    (fault,) = stopping_faults(Trial(scenario("training.stopping={}", *tiny), 0, "federated"))
    assert fault.startswith(
        "training.stopping: expected a validation row at a site that rounds are judged on, got none"
    )


def test_masks_and_rows_that_are_declared_public_go_together(scenario):
    check(scenario("secure_aggregation=true", "training.stopping.public_sites=['cleveland']", "privacy.unit=none"))


def test_a_server_without_rows_judges_no_round(scenario):
    faults = list(deployment_faults(scenario("training.stopping={}", "deployment.sites=['a', 'b']")))
    assert "training.stopping: expected none: the server has no rows to judge a round on" in faults
    assert not [fault for fault in deployment_faults(scenario("deployment.sites=['a', 'b']")) if "stopping" in fault]
