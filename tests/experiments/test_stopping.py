"""Trainings that end early, keep their best round and step by a schedule: the same on all arms, engines and resumes."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from fedsim.experiments.arms import Job, Trained, run_job
from fedsim.experiments.experiment import execute, resume
from fedsim.mistakes import RunFailed
from fedsim.report import statement_page
from fedsim.results.run_directory import load
from fedsim.scenario.schema import Scenario
from tests.experiments.test_under_way import PRIVATE, bytes_of, interrupted

pytestmark = pytest.mark.whole

ARMS = ("federated", "centralized", "local")
MANY = "training.rounds=9"
STOP = "training.stopping={patience=2, metric='accuracy'}"
COSINE = "training.schedule={name='cosine', warmup_rounds=2}"


def trained(asked: Scenario, arm: str = "federated", private: bool = False) -> Trained:
    return run_job(asked, Job(arm, private, 0), lambda number: None)  # type: ignore[arg-type]


def ending_early(asked: Scenario, arm: str, private: bool = False) -> tuple[Job, Trained]:
    """Return the first training, by its seed, that ends before round 9 and keeps an earlier round than its last."""
    for seed in range(20):
        job = Job(arm, private, seed)  # type: ignore[arg-type]
        done = run_job(asked, job, lambda number: None)
        if done.kept_round < len(done.curve) < 9:
            return job, done
    raise AssertionError("none of 20 seeds ends early")


def assert_same_models(one: Trained, other: Trained, **how: float) -> None:
    assert one.models.keys() == other.models.keys()
    for key, parts in one.models.items():
        for name, value in parts.items():
            torch.testing.assert_close(other.models[key][name], value, **(how or {"rtol": 0, "atol": 0}))


def best_of(figures: Sequence[float], patience: int) -> tuple[int, int]:
    """Return the first best round and how many are run, by a rule that is written out once more."""
    for rounds in range(1, len(figures) + 1):
        best = max(range(rounds), key=lambda number: (figures[number], -number)) + 1
        if rounds - best >= patience:
            return best, rounds
    return best, len(figures)


@pytest.mark.parametrize("arm", ARMS)
def test_the_best_round_is_what_a_training_of_so_many_rounds_ends_with(scenario, arm: str):
    whole = trained(scenario(MANY), arm)
    kept, ran = best_of(list(whole.curve["accuracy"]), 2)
    assert kept < ran < 9  # else this would show nothing

    done = trained(scenario(MANY, STOP), arm)
    assert (done.kept_round, len(done.curve), done.stopped) == (kept, ran, True)
    shorter = trained(scenario(f"training.rounds={kept}"), arm)
    assert_same_models(done, shorter)
    assert done.scores.equals(shorter.scores)
    assert done.groups.equals(shorter.groups)

    # The curve is that of the longer training, up to its end, with the round that is kept.
    assert done.curve[whole.curve.columns].equals(whole.curve[:ran])
    assert list(done.curve.loc[done.curve["kept"], "round"]) == [kept]
    assert list(done.curve["judged"]) == list(done.curve["accuracy"])


def test_the_best_of_all_rounds_is_kept_without_patience(scenario):
    whole = trained(scenario(MANY))
    done = trained(scenario(MANY, "training.stopping={metric='accuracy'}"))
    kept = int(whole.curve["accuracy"].idxmax()) + 1
    assert (done.kept_round, len(done.curve), done.stopped) == (kept, 9, False)
    assert_same_models(done, trained(scenario(f"training.rounds={kept}")))


def test_the_last_round_is_kept_where_that_was_asked(scenario):
    done = trained(scenario(MANY, "training.stopping={patience=2, metric='accuracy', keep='last'}"))
    assert done.stopped
    assert done.kept_round == len(done.curve) > int(done.curve["accuracy"].idxmax()) + 1
    assert_same_models(done, trained(scenario(f"training.rounds={done.kept_round}")))


def test_personal_models_are_of_the_round_that_is_kept(scenario):
    ditto = (MANY, "strategy.name=ditto")
    done = trained(scenario(*ditto, STOP))
    assert done.kept_round < len(done.curve)
    assert len(done.models) == 5
    assert_same_models(done, trained(scenario("strategy.name=ditto", f"training.rounds={done.kept_round}")))


def test_without_a_choice_the_last_round_is_kept(scenario):
    done = trained(scenario())
    assert (done.kept_round, done.stopped) == (2, False)
    assert not {"judged", "kept"} & set(done.curve.columns)


@pytest.mark.parametrize("arm", ARMS)
def test_every_round_that_ran_is_charged(scenario, arm: str):
    """Those after the best are releases like all others."""
    asked = [MANY, *PRIVATE]
    job, done = ending_early(scenario(*asked, STOP), arm, private=True)
    assert done.ledger is not None
    assert {entry.round for entry in done.ledger.entries} == set(range(1, len(done.curve) + 1))

    # It spends what the first rounds of the whole training do, with the same noise, and so less in all.
    whole = run_job(scenario(*asked), job, lambda number: None)
    assert whole.ledger is not None
    assert list(done.ledger.entries) == [entry for entry in whole.ledger.entries if entry.round <= len(done.curve)]
    assert done.curve["auc"].equals(whole.curve["auc"][: len(done.curve)])


def test_a_budget_that_is_spent_first_is_told_as_before(scenario):
    spent = ("privacy.noise_multiplier=2.5", "privacy.epsilon=2.5", MANY)
    done = trained(scenario(*spent, "training.stopping={patience=7}"), private=True)
    rounds = len(done.curve)
    assert 0 < rounds < 9
    assert not done.stopped
    assert done.notes == [f"stopped after {rounds} of 9 rounds: the next would exceed epsilon 2.5"]
    assert 0 < done.kept_round <= rounds


def test_only_the_rows_of_sites_that_are_declared_public_judge_a_round(scenario, monkeypatch: pytest.MonkeyPatch):
    """What other sites' validation rows are changes nothing of the choice."""
    from fedsim.experiments import arms

    public = "training.stopping={metric='log_loss', patience=2, public_sites=['switzerland']}"
    done = trained(scenario(MANY, public))
    alone = trained(scenario(MANY, "training.stopping={metric='log_loss', patience=2}"))
    assert list(done.curve["judged"]) != list(done.curve["log_loss"])
    assert list(alone.curve["judged"]) == list(alone.curve["log_loss"])

    asked = []
    whole = arms.headline_figures

    def watched(model, by_site, federation, part, *rest):
        asked.append((part, tuple(by_site)))
        return whole(model, by_site, federation, part, *rest)

    monkeypatch.setattr(arms, "headline_figures", watched)
    again = trained(scenario(MANY, public))
    assert ("validation", ("switzerland",)) in asked
    assert again.kept_round == done.kept_round


@pytest.mark.parametrize("changes", [(COSINE,), (STOP,), (COSINE, STOP, "strategy.name=scaffold")], ids=str)
@pytest.mark.parametrize("arm", ARMS)
def test_stacked_and_one_by_one_are_the_same(scenario, arm: str, changes: Sequence[str]):
    one = trained(scenario(MANY, "engine=serial", *changes), arm)
    other = trained(scenario(MANY, "engine=cohort", *changes), arm)
    assert one.kept_round == other.kept_round
    assert len(one.curve) == len(other.curve)
    assert_same_models(one, other, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("arm", ARMS)
def test_a_round_steps_with_its_own_rate(scenario, arm: str, optimizer: str):
    """A site's change of the model is that of a training whose only round has this rate."""
    chosen = f"training.optimizer={{name='{optimizer}', lr=0.2}}"
    halved = trained(scenario(chosen, "training.rounds=2", "training.schedule={warmup_rounds=1}"), arm)
    by_hand = trained(scenario(chosen, "training.rounds=2"), arm)
    assert not torch.equal(vector_of(halved), vector_of(by_hand))
    first = trained(scenario(chosen.replace("0.2", "0.1"), "training.rounds=1"), arm)
    begun = run_rounds_up_to(1, scenario(chosen, "training.rounds=2", "training.schedule={warmup_rounds=1}"), arm)
    torch.testing.assert_close(begun, vector_of(first), rtol=0, atol=0)


def vector_of(done: Trained) -> torch.Tensor:
    return torch.cat([value.flatten() for parts in done.models.values() for value in parts.values()])


def run_rounds_up_to(number: int, asked: Scenario, arm: str) -> torch.Tensor:
    """Return the models after a round of a training."""
    from fedsim.experiments.arms import _Training

    seen = {}
    whole = _Training.end_round

    def watched(self, round_number, models):
        seen[round_number] = torch.cat([value.flatten() for parts in models.values() for value in parts.values()])
        whole(self, round_number, models)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(_Training, "end_round", watched)
        trained(asked, arm)
    return seen[number]


@pytest.mark.parametrize(
    ("arm", "private", "changes"),
    [
        ("federated", False, (COSINE, STOP)),
        ("federated", True, ("strategy.name=ditto", STOP, *PRIVATE)),
        ("centralized", True, (COSINE, STOP, *PRIVATE)),
        ("local", False, (STOP,)),
        ("federated", False, ("strategy.name='flwr.serverapp.strategy:FedAdam'", STOP)),
    ],
    ids=str,
)
def test_interrupted_in_any_round_it_ends_with_the_same_bytes(
    scenario, tmp_path: Path, arm: str, private: bool, changes: Sequence[str]
):
    asked = scenario(MANY, *changes)
    job, whole = ending_early(asked, arm, private)
    again = interrupted(asked, job, tmp_path, *range(1, len(whole.curve) + 1))
    assert bytes_of(again) == bytes_of(whole)
    assert again.stopped

    # It is kept that it had ended: no round is run after that.
    tested_again = interrupted(asked, job, tmp_path)
    assert bytes_of(tested_again) == bytes_of(whole)


def test_rounds_without_a_figure_end_in_words(scenario, monkeypatch: pytest.MonkeyPatch):
    from fedsim.experiments import arms

    whole = arms.headline_figures
    monkeypatch.setattr(arms, "headline_figures", lambda *args: {**whole(*args), "auc": None})
    with pytest.raises(RunFailed, match=r"no round has a figure \(AUC\)"):
        trained(scenario("training.stopping={}"))


def test_a_run_says_which_round_it_kept(scenario, tmp_path: Path, charts_undrawn: None):
    asked = scenario(MANY, STOP, COSINE, "privacy.epsilon=8", "arms=['federated', 'local']")
    run = execute(asked, tmp_path / "run")
    chosen = run.manifest["chosen_rounds"]
    assert len(chosen) == 4
    for one in chosen:
        own = run.rounds.query("arm == @one['arm'] and private == @one['private']")
        assert list(own.loc[own["kept"], "round"]) == [one["kept_round"]]
        assert len(own) == one["rounds"]

    page = (tmp_path / "run" / "report.html").read_text()
    assert "Rounds that were kept" in page
    first = chosen[0]
    assert (
        f"Federated: the model of round {first['kept_round']} is kept, the best of {first['rounds']} that ran" in page
    )
    assert "Choice of the round" in page
    assert "The guarantee does not cover the choice of the round" in page
    statement_page.write(run)
    assert load(tmp_path / "run").rounds.equals(run.rounds)

    before = (tmp_path / "run" / "rounds.parquet").read_bytes()
    (tmp_path / "run" / "manifest.json").unlink()
    resume(tmp_path / "run")
    assert (tmp_path / "run" / "rounds.parquet").read_bytes() == before
