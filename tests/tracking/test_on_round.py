"""A function of the caller's is told of each round: from Python, in any number of processes."""

import traceback
from pathlib import Path

import pytest

import fedsim
from fedsim.experiments.experiment import execute, resume
from fedsim.mistakes import CannotGoOn, Mistake
from fedsim.scenario.files import read
from fedsim.tracking.contract import Round
from fedsim.tracking.watch import Watch
from tests.torture.interruptions import products

pytestmark = pytest.mark.usefixtures("charts_undrawn")
SMALL = ("training.rounds=3", "privacy.noise_multiplier=2", "privacy.epsilon=900")
SCENARIO = ("hospital-heart", [*SMALL, "seeds=1", "arms=['federated']"])


@pytest.mark.whole
@pytest.mark.parametrize("processes", [1, 2])
def test_it_sees_the_figures_and_the_epsilon_of_every_round(processes: int, tmp_path: Path):
    seen: list[Round] = []
    arms = "arms=['federated']" if processes > 1 else "arms=['federated','centralized','local']"
    table = fedsim.run(
        *("hospital-heart", *SMALL, arms),
        seeds=1,
        out=tmp_path / "run",
        on_round=seen.append,
        jobs=processes,
        progress=False,
    )
    run = fedsim.load(table.attrs["run_dir"])
    assert len(seen) == 3 * (6 if processes == 1 else 2)
    for (arm, private), rows in run.rounds.groupby(["arm", "private"]):
        own = [one for one in seen if (one.arm, one.private) == (arm, private)]
        assert [(one.round, one.rounds, one.seed) for one in own] == [(number, 3, 0) for number in (1, 2, 3)]
        for name in ("auc", "accuracy", "log_loss"):
            assert [one.figures[name] for one in own] == rows[name].tolist()
        if not private:
            assert {one.epsilon for one in own} == {None}
    for training in run.ledger["trainings"]:
        own = [one for one in seen if one.arm == training["arm"] and one.private]
        assert own[-1].epsilon == max(training["epsilon"].values())
        assert 0 < own[0].epsilon < own[1].epsilon < own[2].epsilon  # type: ignore[operator]
    assert not (run.path / "tracking").exists()


@pytest.mark.whole
def test_rounds_without_validation_rows_have_no_figures(tmp_path: Path):
    seen: list[Round] = []
    scenario = read("hospital-heart", [*SMALL, "seeds=1", "split.validation=0", "arms=['federated']"])
    execute(scenario, tmp_path / "run", watch=Watch(on_round=seen.append))
    assert [dict(one.figures) for one in seen] == [{}] * 6
    assert [one.round for one in seen] == [1, 2, 3, 1, 2, 3]


@pytest.mark.whole
@pytest.mark.parametrize(
    ("processes", "error"),
    [(1, ValueError("enough")), (1, OSError(2, "No such file", "log")), (2, ValueError("enough"))],
)
def test_its_error_ends_the_run_is_raised_as_it_is_and_the_run_can_go_on(
    processes: int, error: Exception, tmp_path: Path
):
    whole = execute(read(*SCENARIO), tmp_path / "whole")

    def stop(end: Round) -> None:
        if end.private and end.round == 2:
            raise error

    with pytest.raises(type(error)) as caught:
        execute(read(*SCENARIO), tmp_path / "run", None, processes, Watch(on_round=stop))
    assert caught.value is error
    assert not isinstance(caught.value, CannotGoOn)
    assert "in stop" in "".join(traceback.format_exception(caught.value))
    assert caught.value.__notes__[-1].endswith(f"the run can go on with: fedsim resume {tmp_path / 'run'}")

    again: list[Round] = []
    run = resume(tmp_path / "run", watch=Watch(on_round=again.append))
    assert run.failed == []
    assert products(run.path) == products(whole.path)
    assert again


@pytest.mark.whole
def test_it_is_told_of_no_round_twice_and_time_in_it_is_not_the_rounds(tmp_path: Path):
    """A limit of a round's time ends what hangs in the round, and no function that looks at it afterwards."""
    import time

    changes = [*SMALL, "seeds=1", "arms=['federated']", "checkpoints.every_rounds=1", "limits.round_seconds=1.5"]
    seen: list[tuple[bool, int]] = []

    def look(end: Round) -> None:
        seen.append((end.private, end.round))
        if end.round == 1:
            time.sleep(2)
        if seen == [(False, 1), (False, 2)]:
            raise ValueError("stop")

    with pytest.raises(ValueError, match="stop"):
        execute(read("hospital-heart", changes), tmp_path / "run", watch=Watch(on_round=look))
    run = resume(tmp_path / "run", watch=Watch(on_round=look))
    assert run.failed == []
    assert seen == [(False, 1), (False, 2), (False, 2), (False, 3), (True, 1), (True, 2), (True, 3)]


def test_what_is_no_function_is_a_mistake():
    with pytest.raises(Mistake, match="on_round: expected a function, got str"):
        fedsim.run("hospital-heart", on_round="print")  # type: ignore[arg-type]
