"""Choosing among trainings: declared or charged, and what the trainings come to together; delta; wording."""

import json
import math
import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from fedsim.cli import commands as cli
from fedsim.cli.terminal import closing_lines
from fedsim.data.federation import federate
from fedsim.experiments import tournament, tournament_files
from fedsim.experiments.arms import Job, run_job
from fedsim.experiments.experiment import execute
from fedsim.mistakes import Mistake
from fedsim.planning.delta_rule import delta_faults
from fedsim.planning.noise import noise_for
from fedsim.planning.participation import joining_of, sites_of_round
from fedsim.privacy.accounting import Segment, epsilon, noise_multiplier
from fedsim.privacy.calculator import answer
from fedsim.privacy.ledger import Ledger, Mechanism
from fedsim.report.statement import statement
from fedsim.results.run_directory import Run
from fedsim.scenario.files import read
from fedsim.training.work import Streams
from tests.runs import make_run, spending, training

CHARGED = "privacy.tuning={ runs = 20, charged = true }"


def terms(run: Run) -> dict[str, str]:
    found: dict[str, str] = {}
    for term, text in statement(run):
        found[term] = f"{found[term]}\n{text}" if term in found else text
    return found


def tuned(run: Run, runs: int | None, charged: bool = False) -> Run:
    return replace(run, ledger=run.ledger | {"tuning": {"runs": runs, "charged": charged}})


def up(value: float) -> str:
    return f"{math.ceil(100 * value) / 100:.2f}"


@pytest.mark.whole
@pytest.mark.parametrize("arm", ["federated", "centralized", "local"])
def test_charged_tuning_sets_the_noise_for_all_trainings_together(scenario, arm: str):
    """20 trainings of 4 steps are 80 steps; the budget of one would be exceeded by twice as many."""
    charged = scenario(CHARGED)
    noise = noise_for(charged, 0, arm)
    assert noise == noise_multiplier(1.0, 0.5, 20 * 4, 1e-4)
    assert epsilon([Segment(0.5, noise, 4)] * 20, 1e-4) <= 1.0
    assert noise > 2 * noise_for(scenario(), 0, arm)
    assert noise_for(scenario("privacy.tuning.runs=20"), 0, arm) == noise_for(scenario(), 0, arm)


@pytest.mark.parametrize("change", ["training.optimizer.lr=0.1", "privacy.epsilon=2", "strategy.name=fedadam", CHARGED])
def test_trainings_that_are_composed_draw_their_own_batches_and_sites(scenario, change: str):
    """What is sampled is not sampled together: else k trainings on the same sites cost one with k times the signal."""
    one, other = scenario(), scenario(change)
    keys = {Streams.of(of, 0, arm, "cleveland", 1).batches.key for of in (one, other) for arm in ("federated", "local")}
    assert len(keys) == 4
    joining = ["privacy.unit=client", "training.site_sampling_rate=0.5", "partition={by='iid',sites=40}",
               "training.expected_batch=5"]  # fmt: skip
    several = [joining_of(scenario(*joining, *more), 0)(1).key for more in ([], [change])]
    assert several[0] != several[1]
    names = [f"site-{number:02d}" for number in range(40)]
    drawn = [sites_of_round(scenario(*joining, *more), 0, names, 1) for more in ([], [change])]
    assert drawn[0] != drawn[1]


def test_without_privacy_arms_and_variants_share_batches(scenario):
    plain = [scenario("privacy.unit=none"), scenario("privacy.unit=none", "training.optimizer.lr=0.1")]
    keys = {Streams.of(of, 0, arm, "cleveland", 1).batches.key for of in plain for arm in ("federated", "local")}
    assert len(keys) == 1


@pytest.mark.whole
def test_a_charged_training_stops_before_all_together_would_exceed_the_budget(scenario):
    """A noise of 8 lasts for both rounds of one training, but for one round of four."""
    settings = ["privacy.noise_multiplier=8", "privacy.epsilon=1"]
    alone = run_job(scenario(*settings), Job("federated", True, 0), lambda number: None)
    shared = scenario(*settings, "privacy.tuning={ runs = 8, charged = true }")
    together = run_job(shared, Job("federated", True, 0), lambda number: None)
    assert alone.ledger
    assert together.ledger
    assert len(alone.ledger.entries) == 2 * 4
    assert len(together.ledger.entries) == 4
    spent = together.ledger.epsilon("cleveland")
    assert spent == pytest.approx(epsilon([Segment(0.5, 8.0, 8 * 2)], 1e-4))
    assert spent <= 1.0 < epsilon([Segment(0.5, 8.0, 8 * 4)], 1e-4)


@pytest.mark.whole
def test_a_ledger_of_several_trainings_composes_them():
    did = Mechanism(0.1, 1.5, 1.0, 10.0, 7)
    ledger = Ledger(1e-5, "replace-one", trainings=3)
    ledger.charge("a", 1, did)
    assert ledger.epsilon("a") == epsilon([Segment(0.1, 1.5, 21)], 1e-5, "replace-one")
    assert ledger.epsilon_of(ledger.spent("a"), did) == epsilon([Segment(0.1, 1.5, 42)], 1e-5, "replace-one")


def test_noise_is_not_shared_by_a_charged_and_an_uncharged_training():
    plain, declared, charged = (
        read("hospital-heart", changes).release for changes in ((), ["privacy.tuning.runs=20"], [CHARGED])
    )
    assert plain == declared != charged
    fewer = read("hospital-heart", ["privacy.tuning={ runs = 3, charged = true }"]).release
    assert fewer not in (plain, charged)  # it has less noise


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("privacy.tuning.charged=true", "privacy.tuning: expected runs beside charged = true"),
        ("privacy.tuning.runs=0", "privacy.tuning.runs: expected a number >= 1, got 0"),
        ("privacy.tuning.runs=1.5", "privacy.tuning.runs: expected a whole number, got 1.5"),
        ("privacy.tuning.run=2", "privacy.tuning.run: unknown key; did you mean 'runs'"),
        ('privacy.tuning="declared"', "privacy.tuning: expected"),
    ],
)
def test_nonsense_about_tuning_is_refused(setting: str, message: str):
    with pytest.raises(Mistake) as caught:
        read("hospital-heart", [setting])
    assert message in str(caught.value)


@pytest.mark.whole
def test_the_statement_says_what_was_tuned_by_the_ledger(tmp_path: Path):
    """One training of the hand-made run is 6 steps at a rate of 0.5 with a noise of 1.866."""
    run = make_run(tmp_path)
    assert terms(run)["Tuning"].startswith("Not declared.")
    assert "no setting was chosen" in terms(tuned(run, 1))["Tuning"]
    declared = terms(tuned(run, 20))["Tuning"]
    assert f"all 20 together have epsilon {up(epsilon([Segment(0.5, 1.866, 120)], 1e-4))}" in declared
    assert "does not cover that choice" in declared
    charged = terms(tuned(run, 20, True))
    assert "covers the choice" in charged["Tuning"]
    assert f"One of them alone has epsilon {up(epsilon([Segment(0.5, 1.866, 6)], 1e-4))}." in charged["Tuning"]
    assert "an upper bound for 20 trainings together, each like this federated training" in charged["Epsilon"]


@pytest.mark.whole
def test_the_statement_says_what_all_trainings_of_a_run_come_to(tmp_path: Path):
    """A record of a site is in 4 federated and 4 local trainings, and in 4 of the pool."""
    run = make_run(tmp_path)
    everything = epsilon([Segment(0.5, 1.866, 12 * 6)], 1e-4)
    said = terms(run)["Repetition"]
    assert said.startswith(
        f"All 12 private trainings of this run together, every arm and seed: epsilon {up(everything)} "
    )
    run.ledger["trainings"][1] = run.ledger["trainings"][1] | {
        "entries": training("centralized", 0, ["pooled"], noise_multiplier=0.5)["entries"]
    }
    assert terms(run)["Repetition"] != said
    alone = replace(run, ledger=run.ledger | {"trainings": run.ledger["trainings"][:1]})
    assert "Repetition" not in terms(alone)


@pytest.mark.whole
def test_several_trainings_are_asked_for_in_the_shell(monkeypatch, capsys):
    words = "privacy --q .01 --sigma 1 --steps 1000 --delta 1e-5 --runs 10 --json"
    monkeypatch.setattr(sys, "argv", ["fedsim", *words.split()])
    with pytest.raises(SystemExit):
        cli.main()
    found = json.loads(capsys.readouterr().out)
    assert found["epsilon"] == epsilon([Segment(0.01, 1.0, 10_000)], 1e-5)
    assert (found["steps"], found["runs"], found["weak"]) == (1000, 10, False)
    aimed = answer(0.01, 1000, 1e-5, None, 2.0, "add-or-remove-one", runs=10)
    assert aimed.mechanism.noise_multiplier == noise_multiplier(2.0, 0.01, 10_000, 1e-5)
    assert "trainings         10  (all of them together" in aimed.text
    with pytest.raises(Mistake, match="runs: expected a whole number >= 1, got 0"):
        answer(0.01, 1000, 1e-5, 1.0, None, "add-or-remove-one", runs=0)


@pytest.mark.whole
def test_a_tournament_says_what_choosing_among_its_rows_would_cost(tmp_path: Path):
    """Two strategies, two seeds and one epsilon: four private trainings of two steps, whose noise is given."""
    changes = ["training.rounds=1", "privacy.noise_multiplier=2", "arms=['federated']"]
    axes = tournament.Axes(["hospital-heart"], ["fedavg", "median"], epsilons=["none", "8"], changes=changes, seeds=2)
    played = tournament.play(tournament.cells(axes), tmp_path)
    again = tournament.play(tournament.cells(axes), tmp_path)  # from the cache
    for one in (*played.released, *again.released):
        assert (one.scenario, one.trainings, one.delta) == ("hospital-heart", 4, 1e-4)
        assert one.epsilon == epsilon([Segment(0.5, 2.0, 4 * 2)], 1e-4)
    assert len(played.released) == 1
    from fedsim.experiments.ranking import axes_of, rank

    names = axes_of(played.scores)
    fields = {("hospital-heart", "none", "none"): 1 / 3, ("hospital-heart", "none", "8"): 1 / 3}
    said = " ".join(tournament_files.lines(played, rank(played, "auc", fields), names, "auc", 2))
    assert f"the 4 private trainings on the records of hospital-heart come to epsilon {up(one.epsilon)}" in said
    plain = replace(played, released=())
    assert "come to epsilon" not in " ".join(tournament_files.lines(plain, rank(plain, "auc", fields), names, "auc", 2))


@pytest.mark.parametrize(
    ("delta", "settings", "refused"),
    [
        (0.012, [], False),  # Switzerland trains on 75 rows or so: 0.9
        (0.02, [], True),
        (0.02, ["privacy.loose_delta=true"], False),
        (0.02, ["privacy.unit=none"], False),
        (0.003, ["arms=['centralized']"], True),  # 552 rows in the pool
        (0.001, ["arms=['centralized']"], False),
    ],
)
def test_a_delta_that_bounds_nothing_anywhere_is_refused(delta: float, settings: list[str], refused: bool):
    """H2."""
    chosen = read("hospital-heart", [f"privacy.delta={delta}", *settings])
    federation = federate(chosen, 0)
    faults = list(delta_faults(chosen, federation))
    assert len(faults) == refused
    pattern = r"privacy.delta: expected less than one over the training rows of .*loose_delta"
    assert all(re.match(pattern, fault) for fault in faults)


def test_a_loose_delta_is_refused_before_anything_is_written(tmp_path: Path):
    with pytest.raises(Mistake, match=r"privacy.delta"):
        execute(read("hospital-heart", ["privacy.delta=0.1"]), tmp_path / "x")
    assert not (tmp_path / "x").exists()


@pytest.mark.whole
@pytest.mark.parametrize("arms", [("federated", "local"), ("centralized",), ("local",)])
def test_every_statement_has_all_that_a_claim_needs(tmp_path: Path, arms: tuple[str, ...]):
    """H1, of a run that was really made: each term is there, and its figure is that of what ran."""
    settings = ["training.rounds=1", "seeds=1", "privacy.noise_multiplier=3", f"arms={list(arms)}"]
    run = execute(read("hospital-heart", settings), tmp_path / "run")
    said = terms(run)
    needed = {
        "Unit": r"One record",
        "Neighbours": r"add or remove one",
        "Epsilon": r"\d\.\d\d",
        "Delta": r"0\.0001",
        "Accountant": r"dp-accounting \d",
        "Sampling": r"Poisson: .*0\.5|Poisson",
        "Noise multiplier": r"sigma = 3",
        "Clip": r"1",
        "Denominator": r"\d",
        "Steps": r"1 rounds × 2 steps = 2 steps",
        "Released": r"model",
        "Not covered": r"test metrics",
        "Tuning": r"Not declared",
        "Random numbers": r"Reproducible: noise and batches",
    }
    assert set(needed) <= set(said)
    for term, pattern in needed.items():
        assert re.search(pattern, said[term]), (term, said[term])


ROOT = Path(__file__).parents[2]
TEXTS = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("fedsim/**/*.py"), *ROOT.glob("fedsim/**/*.j2"),
         *ROOT.glob("scenarios/*.toml"), *ROOT.glob("clients/*.py")]  # fmt: skip
TOO_MUCH = r"anonym|fully private|completely private|perfect privacy|guaranteed private|no risk"


def test_nothing_is_called_anonymous_or_fully_private():
    """H3, in every page, template, scenario and line of code; the report of a run is searched in test_report."""
    assert len(TEXTS) > 100
    said = {str(path.relative_to(ROOT)): re.findall(TOO_MUCH, path.read_text("utf-8"), re.IGNORECASE) for path in TEXTS}
    assert not {path: words for path, words in said.items() if words}


@pytest.mark.whole
@pytest.mark.parametrize(("value", "weak"), [(10.0, False), (10.01, True)])
def test_an_epsilon_above_ten_is_flagged_in_the_terminal_too(tmp_path: Path, value: float, weak: bool):
    """H3; the report and the findings have tests of their own."""
    run = spending(make_run(tmp_path), value)
    assert any("weak formal guarantee" in line for line in closing_lines(run)) == weak
    sigma = noise_multiplier(value, 0.5, 100, 1e-4)
    found = answer(0.5, 100, 1e-4, 0.99 * sigma if weak else sigma, None, "add-or-remove-one")
    assert ("weak formal guarantee" in found.text) == found.values["weak"] == weak
