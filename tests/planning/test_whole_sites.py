"""Runs that protect whole sites, from the scenario to the ledger and the statement."""

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from fedsim.data.federation import federate
from fedsim.experiments import experiment
from fedsim.experiments.arms import GLOBAL, Job, jobs, run_job
from fedsim.mistakes import Mistake
from fedsim.planning.noise import noise_for
from fedsim.planning.participation import joining_of
from fedsim.planning.whole_sites import central_noise
from fedsim.privacy.accounting import Segment, epsilon
from fedsim.privacy.ledger import EACH_SITE, Ledger, SiteUpdate
from fedsim.report.statement import statement
from fedsim.results.run_directory import Run
from fedsim.scenario.files import read
from fedsim.scenario.schema import Scenario
from fedsim.training.model import new_model

SMALL = ("partition.sites=12", "training.rounds=4", "training.local_steps=2", "seeds=1", "privacy.unit=client")


def scenario(*overrides: str) -> Scenario:
    return read("synthetic-whole-sites", [*SMALL, "training.site_sampling_rate=0.4", *overrides])


def trained(chosen: Scenario, seed: int = 0):
    return run_job(chosen, Job("federated", True, seed), lambda number: None)


def test_only_the_federated_arm_is_private():
    chosen = scenario("arms=['federated', 'centralized', 'local']")
    assert [job.key for job in jobs(chosen)] == [
        *("federated-plain-0", "centralized-plain-0", "local-plain-0", "federated-private-0")
    ]
    with pytest.raises(Mistake, match=r"arms: expected federated among them with privacy.unit = 'client'"):
        scenario("arms=['local']")


@pytest.mark.whole
@pytest.mark.parametrize("rate", [0.1, 0.4, 1.0])
def test_a_training_spends_its_epsilon_and_not_more(rate: float):
    chosen = scenario(f"training.site_sampling_rate={rate}")
    ledger = trained(chosen).ledger
    assert ledger is not None
    assert len(ledger.entries) == 4  # also of rounds without a site
    noise = noise_for(chosen, 0, "federated")
    assert ledger.epsilon(EACH_SITE) == epsilon([Segment(rate, noise, 4)], 1e-4)
    assert 3.98 < ledger.epsilon(EACH_SITE) <= 4
    (did,) = {entry.mechanism for entry in ledger.entries}
    assert isinstance(did, SiteUpdate)
    assert (did.sampling_rate, did.noise_multiplier, did.clip, did.heaviest) == (rate, noise, 0.5, 30.0)
    assert did.denominator == pytest.approx(12 * rate)


def test_a_fixed_number_of_sites_is_accounted_for_without_amplification():
    chosen = scenario()
    fixed = chosen.training.model_copy(update={"sites_per_round": 5, "site_sampling_rate": None})
    chosen = chosen.model_copy(update={"training": fixed})
    ledger = trained(chosen).ledger
    assert ledger is not None
    assert len(ledger.entries) == 4 * 5
    most = max(ledger.rounds(entry.site) for entry in ledger.entries)
    spent = {ledger.rounds(entry.site): ledger.epsilon(entry.site) for entry in ledger.entries}
    noise = noise_for(chosen, 0, "federated")
    assert spent[most] == epsilon([Segment(1.0, noise, most)], 1e-4) <= 4
    assert {entry.mechanism.denominator for entry in ledger.entries} == {5.0}  # type: ignore[union-attr]


@pytest.mark.whole
def test_given_noise_ends_the_run_when_the_budget_is_spent():
    limit = epsilon([Segment(0.4, 1.0, 3)], 1e-4) + 0.01
    done = trained(scenario("privacy.noise_multiplier=1.0", f"privacy.epsilon={limit}", "training.rounds=9"))
    assert done.ledger is not None
    assert len(done.ledger.entries) == len(done.curve) == 3
    assert done.notes == [f"stopped after 3 of 9 rounds: the next would exceed epsilon {limit:g}"]
    assert done.ledger.epsilon(EACH_SITE) <= limit


def test_no_two_models_share_noise():
    """M11: of any rounds, seeds or budgets."""
    ledger, keys = Ledger(1e-4, "add-or-remove-one"), []
    for budget, seed in ((4, 0), (4, 1), (5, 0)):
        chosen = scenario(f"privacy.epsilon={budget}")
        joining = joining_of(chosen, seed)
        noise = central_noise(chosen, seed, "federated", ["a", "b"], 1.0, ledger, joining)
        keys += [noise.words(number).key for number in range(1, 9)]
    assert len(set(keys)) == 3 * 8


def taking_turns(*overrides: str) -> Scenario:
    chosen = scenario("training.rounds=8", *overrides)
    turns = chosen.training.model_copy(update={"site_turns": 4, "site_sampling_rate": None})
    privacy = chosen.privacy.model_copy(update={"correlated": True})
    return chosen.model_copy(update={"training": turns, "privacy": privacy})


def test_noise_that_is_correlated_is_charged_for_the_rounds_of_a_site():
    chosen = taking_turns()
    ledger = trained(chosen).ledger
    assert ledger is not None
    assert len(ledger.entries) == 8 * 3  # a quarter of twelve sites in each round
    noise = noise_for(chosen, 0, "federated")
    spent = {ledger.epsilon(entry.site) for entry in ledger.entries}
    assert spent == {epsilon([Segment(1.0, noise, 2)], 1e-4)}
    assert max(spent) <= 4
    assert {entry.mechanism.band for entry in ledger.entries} == {4}  # type: ignore[union-attr]
    rounds = {site: [e.round for e in ledger.entries if e.site == site] for site in {e.site for e in ledger.entries}}
    assert len(rounds) == 12
    assert all(later - earlier == 4 for earlier, later in rounds.values())


@pytest.mark.whole
def test_a_clip_that_moves_is_charged_as_a_whole():
    chosen = scenario("privacy.adaptive_clip={quantile=0.5, bit_noise=1.5}")
    ledger = trained(chosen).ledger
    assert ledger is not None
    assert 3.98 < ledger.epsilon(EACH_SITE) <= 4
    assert len({entry.mechanism.clip for entry in ledger.entries}) == 4  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["privacy.correlated=true"], "expected training.site_turns of 2 or more"),
        (["privacy.adaptive_clip={quantile=0.5}", "privacy.correlated=true"], "adaptive_clip: expected none beside"),
        (["training.site_turns=3"], "site_turns: expected none beside site_sampling_rate"),
        (["privacy.adaptive_clip={quantile=1.5}"], "adaptive_clip.quantile: expected a number"),
    ],
)
def test_what_does_not_go_together_is_named(overrides: list[str], message: str):
    with pytest.raises(Mistake, match=message):
        scenario(*overrides)


@pytest.mark.whole
def test_bits_without_enough_noise_are_refused_before_anything_runs(tmp_path: Path):
    with pytest.raises(Mistake, match="bit_noise: expected more than"):
        experiment.execute(scenario("privacy.adaptive_clip={bit_noise=0.01}"), tmp_path / "run")


@pytest.mark.whole
def test_engines_agree_and_the_server_alone_adds_noise():
    known = ("privacy.noise_multiplier=2", "privacy.epsilon=900")
    models = [trained(scenario(*known, f"engine={engine}")).models[GLOBAL] for engine in ("serial", "cohort")]
    for one, other in zip(*(model.values() for model in models), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.whole
@pytest.mark.parametrize("fault", ["faults.drop_out=0.99", "faults.crash=1.0e0", "faults.spoiled=0.9"])
def test_a_round_goes_on_and_is_charged_whoever_fails(fault: str):
    found = trained(scenario(fault.replace("1.0e0", "0.95"), "training.site_sampling_rate=0.2"))
    assert found.ledger is not None
    assert len(found.ledger.entries) == 4
    assert all(value.isfinite().all() for value in found.models[GLOBAL].values())


@pytest.mark.parametrize("name", ["krum", "median", "scaffold", "qfedavg", "fedexp", "norm_bound"])
def test_a_strategy_that_wants_to_see_each_update_is_refused(name: str, tmp_path: Path):
    with pytest.raises(Mistake, match=f"needs the mean of the updates only .* got {name}"):
        experiment.execute(scenario(f"strategy={{name='{name}'}}"), tmp_path / "run")
    with pytest.raises(Mistake, match="needs the mean of the updates only"):
        experiment.execute(scenario("strategy={class='flwr.serverapp.strategy:FedAvg'}"), tmp_path / "run")


@pytest.mark.whole
@pytest.mark.parametrize("name", ["fedadam", "fedavgm", "fedprox", "finetuning", "ditto", "feddyn"])
def test_a_strategy_that_needs_the_mean_alone_runs(name: str):
    chosen = scenario(f"strategy={{name='{name}'}}", "training.rounds=2")
    found = trained(chosen)
    assert found.ledger is not None
    assert len(found.ledger.entries) == 2  # a second training at a site is released no more than its update is


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    chosen = scenario("arms=['federated', 'centralized', 'local']", "strategy={name='finetuning'}")
    return experiment.execute(chosen, tmp_path_factory.mktemp("runs") / "run")


def said(run: Run) -> dict[str, str]:
    found: dict[str, str] = {}
    for term, text in statement(run):
        found[term] = f"{found[term]}\n{text}" if term in found else text
    return found


@pytest.mark.whole
def test_the_statement_is_about_sites(run: Run):
    found = said(run)
    assert found["Unit"].startswith("One whole site")
    assert "add or remove one site" in found["Neighbours"]
    assert "one whole site is used, all global models together" in found["In plain words"]
    assert "It is not against the server" in found["Trust model"]
    assert "such as a model of its own, is not released" in found["Released"]
    assert "run without privacy only" in found["Not covered"]
    for term, value in {"Sampling": "probability 0.4", "Clip": "0.5", "Weights": "30", "Denominator": "4.8",
                        "Rounds": "4"}.items():  # fmt: skip
        assert value in found[term], term
    assert float(found["Epsilon of one record"].split(",")[0]) > float(found["Epsilon"].split(";")[0])


@pytest.mark.whole
@pytest.mark.parametrize(
    ("term", "field", "value", "shown"),
    [
        ("Noise multiplier", "noise_multiplier", 2.345, "2.345"),
        ("Sampling", "sampling_rate", 0.123, "0.123"),
        ("Clip", "clip", 0.77, "0.77"),
        ("Denominator", "denominator", 7.5, "7.5"),
        ("Weights", "heaviest", 31.0, "31"),
    ],
)
def test_the_statement_comes_from_the_ledger(run: Run, term: str, field: str, value: float, shown: str):
    ledger = copy.deepcopy(run.ledger)
    for entry in ledger["trainings"][0]["entries"]:
        entry["mechanism"][field] = value
    assert shown in said(replace(run, ledger=ledger))[term]
    assert shown not in said(run)[term]


@pytest.mark.whole
@pytest.mark.parametrize(("field", "value", "term"), [("bit_noise", 1.5, "Adaptive clip"), ("band", 4, "Correlation")])
def test_what_ties_rounds_together_is_stated(run: Run, field: str, value: float, term: str):
    ledger = copy.deepcopy(run.ledger)
    for entry in ledger["trainings"][0]["entries"]:
        entry["mechanism"][field] = value
    assert f"{value:g}" in said(replace(run, ledger=ledger))[term]
    assert term not in said(run)


@pytest.mark.whole
def test_the_statement_of_sites_that_noise_their_own_updates(run: Run):
    ledger = copy.deepcopy(run.ledger) | {"unit": "local", "neighbours": "replace-one"}
    for entry in ledger["trainings"][0]["entries"]:
        entry["mechanism"] = {"noise_multiplier": 3.21, "clip": 0.7}
    del ledger["trainings"][0]["record_epsilon"]
    found = said(replace(run, ledger=ledger))
    assert "3.21" in found["Noise multiplier"]
    assert "0.7" in found["Clip"]
    assert "need not be trusted: the server" in found["Trust model"]
    assert "Sampling" not in found


@pytest.mark.whole
def test_models_that_stay_at_sites_are_not_in_the_model_that_is_handed_on(run: Run):
    model = new_model(run.scenario, federate(run.scenario, 0).sites[0], 0, "cpu")
    assert load_file(run.path / "model.safetensors").keys() == model.state_dict().keys()


@pytest.mark.whole
def test_the_report_shows_no_empty_rows(run: Run):
    page = (run.path / "report.html").read_text("utf-8")
    assert "for each whole site" in page
    assert "There is none with privacy to compare with" in page
    assert "both without privacy" in page
    assert "so the others were run without privacy" in page
    assert "nothing released" not in page
