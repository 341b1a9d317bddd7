import copy
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fedsim.privacy.units import unit_of
from fedsim.report.statement import _meaning, _training_rows, statement, weaknesses
from fedsim.results.run_directory import Run
from fedsim.scenario.schema import SecureAggregation, Stopping
from tests.runs import FEWER_ARMS, make_run, nothing_released, spending, training

Edit = Callable[[dict[str, Any]], None]


def terms(run: Run) -> dict[str, str]:
    """Return {term: its definitions, one a line}."""
    found: dict[str, str] = {}
    for term, text in statement(run):
        found[term] = f"{found[term]}\n{text}" if term in found else text
    return found


def change(field: str, value: float) -> Edit:
    """Return an edit of a ledger: what the site ``north`` did in all federated trainings."""

    def edit(ledger: dict[str, Any]) -> None:
        for entry in (e for t in ledger["trainings"] if t["arm"] == "federated" for e in t["entries"]):
            if entry["site"] == "north":
                entry["mechanism"] = entry["mechanism"] | {field: value}

    return edit


def put(**values: object) -> Edit:
    return lambda ledger: ledger.update(values)


LEDGER: dict[str, tuple[str, Edit, str]] = {
    "Neighbours": ("add or remove one", put(neighbours="replace-one"), "replace one"),
    "Epsilon": (
        "8.00 at every site; an upper bound for one federated training, the most over 4 seeds. The budget was 8;",
        lambda ledger: ledger["trainings"][0]["epsilon"].update(north=9.001),
        "north: 9.01; south: 8.00",
    ),
    "Delta": ("0.0001:", put(delta=1e-6), "1e-06:"),
    "Accountant": ("PLD (dp-accounting 0.6.0).", put(accountant="RDP 2"), "RDP 2."),
    "Sampling": ("Poisson: each row joins a step with probability 0.5 at every site", change("sampling_rate", 0.25),
                 "north: 0.25; south: 0.5"),
    "Noise multiplier": ("sigma = 1.866 at every site", change("noise_multiplier", 2.5), "north: 2.5; south: 1.866"),
    "Clip": ("1 at every site", change("clip", 0.3), "north: 0.3; south: 1"),
    "Denominator": ("60 at every site", change("expected_batch", 90.0), "north: 90; south: 60"),
    "Steps": ("3 rounds × 2 steps = 6 steps at every site", change("steps", 5),
              "north: 3 rounds × 5 steps = 15 steps; south: 3 rounds × 2 steps = 6 steps"),
}  # fmt: skip


def test_the_statement_is_complete(tmp_path: Path) -> None:
    wanted = {"In plain words", "Unit", *LEDGER, "Mechanism", "Released", "Trust model", "Not covered",
              "Tuning", "Repetition", "Random numbers", "Arithmetic", "Other arms"}  # fmt: skip
    assert set(terms(make_run(tmp_path))) == wanted


@pytest.mark.whole
@pytest.mark.parametrize("term", LEDGER)
def test_the_statement_says_what_is_in_the_ledger(tmp_path: Path, term: str) -> None:
    before, edit, after = LEDGER[term]
    run = make_run(tmp_path)
    assert before in terms(run)[term]
    changed = copy.deepcopy(run.ledger)
    edit(changed)
    assert after in terms(replace(run, ledger=changed))[term]


def test_the_statement_comes_from_the_ledger_not_from_the_scenario(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    privacy = run.scenario.privacy.model_copy(update={"epsilon": 0.123, "clip": 77.0, "neighbours": "replace-one"})
    asked = run.scenario.model_copy(update={"privacy": privacy})
    assert statement(replace(run, scenario=asked)) == statement(run)
    nothing = run.scenario.model_copy(update={"privacy": privacy.model_copy(update={"unit": "none"})})
    assert statement(replace(run, scenario=nothing)) == statement(run)


def test_the_statement_names_what_is_not_covered(tmp_path: Path) -> None:
    said = terms(make_run(tmp_path))
    for gap in ("test metrics", "hyperparameters", "choosing among seeds", "Splitting", "repeats the training",
                "two sites", "centralized arm", "without noise"):  # fmt: skip
        assert gap in said["Not covered"]
    assert "who knows the seed there is no guarantee" in said["Random numbers"]
    assert "not hardened" in said["Arithmetic"]
    assert "whoever sees what it sends need not be trusted" in said["Trust model"]
    assert "noise seed that nobody knows but whoever adds the noise" in said["Trust model"]


@pytest.mark.whole
def test_values_that_differ_within_a_site_are_all_shown(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    mechanism = run.ledger["trainings"][0]["entries"][0]["mechanism"]
    run.ledger["trainings"][0]["entries"][0]["mechanism"] = mechanism | {"noise_multiplier": 3.25, "steps": 1}
    assert "north: 3.25 or 1.866; south: 1.866" in terms(run)["Noise multiplier"]
    assert "1 rounds × 1 steps + 2 rounds × 2 steps = 5 steps or 3 rounds × 2 steps = 6 steps" in terms(run)["Steps"]


@pytest.mark.whole
@pytest.mark.parametrize("arms", FEWER_ARMS)
def test_epsilon_is_stated_whichever_arms_were_run(tmp_path: Path, arms: tuple[str, ...]) -> None:
    assert terms(make_run(tmp_path, arms=arms))["Epsilon"].startswith("8.00")


@pytest.mark.whole
def test_other_private_arms_are_stated_too(tmp_path: Path) -> None:
    """And the federated arm is the one that is stated in full, whichever was trained first."""
    run = make_run(tmp_path)
    run.ledger["trainings"].reverse()
    assert "one federated training" in terms(run)["Epsilon"]
    for one in run.ledger["trainings"]:
        if one["arm"] == "centralized":
            one["epsilon"] = {"pooled": 3.0}
            one["entries"] = training("centralized", 0, ["pooled"], noise_multiplier=4.5)["entries"]
    centralized, local = terms(run)["Other arms"].splitlines()
    assert centralized.startswith("centralized: epsilon 3.00; sampling rate 0.5; sigma 4.5; clip 1; denominator 60;")
    assert local.startswith("local: epsilon 8.00 at every site;")


def test_epsilon_is_explained_by_its_factor_and_its_ceiling(tmp_path: Path) -> None:
    """The ceiling is (e^epsilon - 1 + 2 delta) / (e^epsilon + 1), as a share of right guesses at even odds."""
    run = make_run(tmp_path)
    right = 50 * (1 + (math.exp(8) - 1 + 2e-4) / (math.exp(8) + 1))
    assert "epsilon 8.00 that is a factor of about 2,981, a loose bound" in terms(run)["In plain words"]
    assert f"{math.ceil(right * 100) / 100} %" in terms(run)["In plain words"]
    run = spending(run, 1.0)
    assert "epsilon 1.00 that is a factor of about 2.72. " in terms(run)["In plain words"]
    assert "73.11 %" in terms(run)["In plain words"]
    assert "a factor of more than a million, a loose bound" in terms(spending(run, 20.0))["In plain words"]


@pytest.mark.parametrize(("epsilon", "weak"), [(10.0, False), (10.001, True), (5000.0, True)])
def test_an_epsilon_above_ten_is_warned_of(tmp_path: Path, epsilon: float, weak: bool) -> None:
    run = make_run(tmp_path)
    run.ledger["trainings"][0]["epsilon"]["south"] = epsilon
    assert ("weak formal guarantee" in terms(run).get("Warning", "")) == weak


@pytest.mark.whole
@pytest.mark.parametrize(("delta", "warned"), [(1 / 65, False), (1 / 64, True)])
def test_a_delta_that_is_not_below_one_over_the_rows_is_warned_of(tmp_path: Path, delta: float, warned: bool) -> None:
    """A site has 20 to 23 test rows, 21.5 on average, at a share of 20 %: it trains on 60 % of 107.5, that is 64.5."""
    run = make_run(tmp_path)
    run.ledger["delta"] = delta
    assert ("Delta" in terms(run).get("Warning", "")) == warned


def test_where_some_of_the_sites_were_tested_delta_is_held_against_all_of_them(tmp_path: Path) -> None:
    """Two sites were tested, of a thousand: about the rows of the others nothing is known."""
    run = make_run(tmp_path)
    assert not [text for text in weaknesses(run) if "tested" in text]
    few = replace(run, manifest=run.manifest | {"sites": 1000})
    (said,) = [text for text in weaknesses(few) if "tested" in text]
    assert "for the 2 of the 1000 sites that were tested" in said

    few.ledger["unit"] = "client"
    few.ledger["delta"] = 0.001
    assert "Delta 0.001 is not below one over the number of sites, 1000." in weaknesses(few)
    few.ledger["delta"] = 0.0009
    assert not [text for text in weaknesses(few) if "Delta" in text or "tested" in text]


def test_an_epsilon_is_never_rounded_down(tmp_path: Path) -> None:
    assert terms(spending(make_run(tmp_path), 0.5312))["Epsilon"].startswith("0.54")


def test_private_trainings_that_released_nothing_are_called_that(tmp_path: Path) -> None:
    assert "Nothing was released" in terms(nothing_released(make_run(tmp_path)))["Guarantee"]


def test_without_privacy_there_is_no_guarantee_and_no_number(tmp_path: Path) -> None:
    run = make_run(tmp_path, private=False)
    assert "no privacy guarantee" in terms(run)["Guarantee"]
    assert not re.search(r"epsilon|sigma|delta", str(statement(run)), re.IGNORECASE)


@pytest.mark.parametrize("private", [False, True])
def test_secure_aggregation_is_stated_where_it_was_on(tmp_path: Path, private: bool) -> None:
    run = make_run(tmp_path, private=private)
    assert "Secure aggregation" not in terms(run)
    settings = SecureAggregation(on=True, threshold=0.75)
    on = replace(run, scenario=run.scenario.model_copy(update={"secure_aggregation": settings}))
    assert "75%, rounded up, of a round's sites" in terms(on)["Secure aggregation"]
    assert "a server and sites that keep to the protocol" in terms(on)["Secure aggregation"]
    assert ("under masks" in terms(on)["Released"]) == private


@pytest.mark.parametrize(("epsilon", "right"), [(1.0, "73.2"), (8.0, "99.97")])
def test_the_page_for_data_protection_officers_says_what_a_statement_does(epsilon: float, right: str):
    """The most often that a guess is right, at delta 1e-4, rounded up."""
    said = re.search(r"is right at most (\S+) %", _meaning(epsilon, 1e-4, unit_of("record").promise))
    assert said is not None
    assert float(right) - 0.1 < float(said[1]) <= float(right)
    page = (Path(__file__).parents[2] / "docs" / "privacy.md").read_text("utf-8")
    assert re.search(rf"at most\s+{right} %(\s+of the\s+time)?\s+at epsilon {epsilon:g}", page)


def test_rows_of_all_sites_are_not_taken_for_a_site(tmp_path: Path) -> None:
    """Their training rows are no institution's, whose delta would be judged."""
    assert set(_training_rows(make_run(tmp_path))) == {"north", "south"}


def test_delta_is_not_called_the_probability_that_the_bound_fails(tmp_path: Path) -> None:
    """(epsilon, delta) bounds the privacy loss but for a probability that may be larger than delta."""
    said = dict(statement(make_run(tmp_path)))
    assert "for a probability that may be somewhat larger than delta" in said["Delta"]
    assert "at most e^epsilon times as likely, and delta more." in said["In plain words"]
    page = (Path(__file__).parents[2] / "docs" / "privacy.md").read_text("utf-8")
    for text in (page, *map(str, said.values())):
        assert "may fail" not in text
        assert not re.search("chance of `?delta", text)


def test_a_record_is_not_called_a_person(tmp_path: Path) -> None:
    said = dict(statement(make_run(tmp_path)))
    assert "A row is no person" in said["Unit"]
    page = (Path(__file__).parents[2] / "docs" / "privacy.md").read_text("utf-8")
    row = next(line for line in page.splitlines() if line.startswith("| `record` |"))
    assert "A row is no person" in row


def chosen_by(run: Run, **settings: Any) -> Run:
    """Return a run whose rounds were chosen by validation figures."""
    training = run.scenario.training.model_copy(update={"stopping": Stopping(**settings)})
    return replace(run, scenario=run.scenario.model_copy(update={"training": training}))


def test_a_round_that_is_chosen_by_figures_of_private_rows_is_not_covered(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    assert "Choice of the round" not in terms(run)
    assert not [text for text in weaknesses(run) if "choice of the round" in text]

    said = terms(chosen_by(run))["Choice of the round"]
    assert said.startswith("Not covered.")
    assert "decided which round's model is kept" in said
    assert "computed without noise" in said
    assert "No epsilon here covers the records that are validated on" in said
    assert "All rounds that ran are charged, those after the round that is kept as well." in said
    assert "beforehand" not in said
    warned = "The guarantee does not cover the choice of the round: figures without noise decided it."
    assert warned in terms(chosen_by(run))["Warning"]


def test_a_number_of_rounds_that_was_decided_on_the_way_is_no_promise_beforehand(tmp_path: Path) -> None:
    said = terms(chosen_by(make_run(tmp_path), patience=3))["Choice of the round"]
    assert "decided when a training ends and which round's model is kept" in said
    assert "it tells what was spent, and is no promise that was made beforehand. That promise is the budget, 8." in said
    said = terms(chosen_by(make_run(tmp_path), patience=3, keep="last"))["Choice of the round"]
    assert "decided when a training ends, and they" in said


def test_a_round_that_is_chosen_on_public_rows_rests_on_their_declaration(tmp_path: Path) -> None:
    run = chosen_by(make_run(tmp_path), public_sites=["north"])
    said = terms(run)["Choice of the round"]
    assert said.startswith("Made on rows that are declared public.")
    assert "validation records of north alone" in said
    assert "nothing here checks it, and no epsilon covers what the choice tells of them" in said
    assert not [text for text in weaknesses(run) if "choice of the round" in text]


def test_without_privacy_nothing_is_said_of_the_choice(tmp_path: Path) -> None:
    assert "Choice of the round" not in terms(chosen_by(make_run(tmp_path, private=False)))


def test_the_ledger_of_many_sites_is_gone_through_no_more_often_than_that_of_few(tmp_path: Path) -> None:
    """Else a statement of ten thousand sites would take a hundred times as long as one of a thousand."""

    class Entries(list[dict[str, Any]]):
        times = 0

        def __iter__(self) -> Iterator[dict[str, Any]]:
            Entries.times += 1
            return super().__iter__()

    def times_of(sites: int) -> int:
        run = make_run(tmp_path)
        names = [f"site-{number}" for number in range(sites)]
        trainings = []
        for one in run.ledger["trainings"]:
            entries = training(one["arm"], one["seed"], one["epsilon"] if one["arm"] == "centralized" else names)
            trainings.append(entries | {"entries": Entries(entries["entries"])})
        ledger = run.ledger | {"trainings": trainings, "tuning": {"runs": 3, "charged": True}}

        Entries.times = 0
        assert statement(replace(run, ledger=ledger))
        return Entries.times

    assert times_of(30) == times_of(3)
