"""The learning rate of each round, worked out by hand."""

import math

import pytest

from fedsim.mistakes import Mistake
from fedsim.scenario.schedule import SMALLEST_FACTOR, factor_of, optimizer_in
from fedsim.scenario.schema import Scenario, Schedule, Stopping


def factors(rounds: int, **settings) -> list[float]:
    return [factor_of(Schedule(**settings), number, rounds) for number in range(1, rounds + 1)]


def test_a_constant_rate_is_the_full_one_in_every_round():
    assert factors(3) == [1, 1, 1]


def test_a_step_multiplies_the_rate_after_every_so_many_rounds():
    assert factors(7, name="step", every=3, factor=0.1) == pytest.approx([1, 1, 1, 0.1, 0.1, 0.1, 0.01])


def test_a_cosine_ends_at_its_share_in_the_last_round():
    half = math.sqrt(0.5)
    expected = [1, 0.6 + 0.4 * half, 0.6, 0.6 - 0.4 * half, 0.2]
    assert factors(5, name="cosine", final=0.2) == pytest.approx(expected)


def test_warm_up_rises_evenly_and_the_schedule_begins_after_it():
    warm = [0.25, 0.5, 0.75]
    assert factors(5, warmup_rounds=3) == [*warm, 1, 1]
    assert factors(7, name="step", warmup_rounds=3, every=2, factor=0.5) == [*warm, 1, 1, 0.5, 0.5]
    assert factors(6, name="cosine", warmup_rounds=3, final=0.2) == pytest.approx([*warm, 1, 0.6, 0.2])


def test_a_cosine_with_one_round_left_after_warm_up_has_the_full_rate_there():
    assert factors(2, name="cosine", warmup_rounds=1) == [0.5, 1]


def test_no_rate_falls_to_zero():
    assert factors(500, name="step", every=1, factor=0.01)[-1] == SMALLEST_FACTOR
    assert min(factors(9, name="cosine", final=1e-9)) == SMALLEST_FACTOR


@pytest.mark.parametrize("number", [0, 4])
def test_there_is_no_rate_of_a_round_that_is_not_planned(number: int):
    with pytest.raises(ValueError, match=f"expected a number from 1 to 3, got {number}"):
        factor_of(Schedule(), number, 3)


def test_the_optimizer_of_a_round_differs_in_its_rate_alone(scenario):
    plain = scenario("training.optimizer={name='adam', lr=0.4, weight_decay=0.01}").training
    assert optimizer_in(plain, 2) is plain.optimizer
    stepped = scenario(
        "training.optimizer={name='adam', lr=0.4, weight_decay=0.01}",
        "training.schedule={name='step', every=1, factor=0.5}",
    ).training
    assert optimizer_in(stepped, 1) == plain.optimizer
    assert optimizer_in(stepped, 2) == plain.optimizer.model_copy(update={"lr": 0.2})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("schedule.name=step", "training.schedule: expected every beside name = 'step'"),
        ("schedule={name='cosine', every=2}", "every: expected name = 'step' beside it, got 'cosine'"),
        ("schedule={factor=0.1}", "factor: expected name = 'step' beside it, got 'constant'"),
        ("schedule={name='step', every=1, final=0.1}", "final: expected name = 'cosine' beside it, got 'step'"),
        ("schedule={name='step', every=2}", "training.schedule.every: expected fewer than the 2 rounds"),
        ("schedule={warmup_rounds=2}", "schedule.warmup_rounds: expected fewer than the 2 rounds, got 2"),
        ("schedule=cosine", "training.schedule.name=cosine"),
        ("stopping={keep='last'}", "training.stopping: expected patience beside keep = 'last'"),
        ("stopping={smallest_gain=0.1}", "smallest_gain: expected patience beside it"),
        ("stopping={patience=1}", "training.stopping.patience: expected at most 0 with 2 rounds"),
        ("warmup=2", "did you mean 'training.schedule.warmup_rounds'"),
    ],
)
def test_settings_that_can_not_be_meant_are_refused(scenario, given: str, message: str):
    with pytest.raises(Mistake) as caught:
        scenario(f"training.{given}")
    assert message in str(caught.value)


def test_scenarios_without_these_keys_are_what_they_were(scenario):
    """Releases, files and checkpoints of older versions know neither of them."""
    plain = scenario()
    assert not {"schedule", "stopping"} & set(plain.values()["training"])
    assert scenario("training.schedule.name=constant").release == plain.release
    older = plain.model_dump_json(include={"training"})
    assert '"schedule"' in older
    assert scenario("training.schedule.name=cosine").release != plain.release


def test_a_choice_of_the_round_shapes_no_release(scenario):
    """The same rounds are run, up to where a training ends: with the same noise, not with noise to be subtracted."""
    assert (
        scenario("training.rounds=4", "training.stopping={patience=1}").release == scenario("training.rounds=4").release
    )


def test_a_schedule_and_a_stopping_are_written_down_and_read_back(scenario):
    asked = scenario("training.rounds=5", "training.schedule={name='step', every=2}", "training.stopping={patience=1}")
    again = Scenario.model_validate(asked.values())
    assert again.training == asked.training
    assert again.training.stopping == Stopping(patience=1)
