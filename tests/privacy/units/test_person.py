"""What rooms above make of the unit ``person``: plans, streams, the rule for delta, the words and the cautions."""

import json
from pathlib import Path

import numpy as np
import pytest

from fedsim.audits.claims import claim_in
from fedsim.cli.cards import card
from fedsim.data.federation import federate
from fedsim.experiments.experiment import execute
from fedsim.mistakes import Mistake
from fedsim.planning.delta_rule import delta_faults
from fedsim.planning.trial import Trial
from fedsim.report.statement import statement, weaknesses
from fedsim.results.run_directory import load
from fedsim.scenario.files import read_own
from fedsim.scenario.schema import Scenario
from fedsim.training.work import Streams

BUDGET = ["privacy.epsilon=4", "privacy.delta=1e-3", "privacy.noise_multiplier=3"]


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Write a table of three clinics, 60 patients each with 1 to 5 stays; every tenth is at another clinic once."""
    random, lines = np.random.default_rng(0), ["clinic,patient,age,died"]
    for patient in range(180):
        clinic = "abc"[patient % 3]
        for stay in range(1 + patient % 5):
            where = "a" if stay == 1 and patient % 10 == 1 else clinic
            lines.append(f"{where},{patient},{20 + patient % 60},{int(random.random() < 0.5)}")
    path = tmp_path / "stays.csv"
    path.write_text("\n".join(lines) + "\n")
    (tmp_path / "stays.ranges.toml").write_text('age = [0, 120, "years"]\n')
    return path


def stays(table: Path, *changes: str) -> Scenario:
    own = [f"data.path='{table}'", "data.target=died", "data.site=clinic", "data.person=patient"]
    return read_own([*own, "training.rounds=2", "seeds=1", *BUDGET, *changes], None)


def test_steps_draw_persons_under_this_unit_and_rows_under_others(table: Path):
    for unit, of_persons in (("person", True), ("record", False)):
        trial = Trial(stays(table, f"privacy.unit={unit}"), 0, "federated")
        assert trial.plan(8.0).of_persons is of_persons
        assert trial.plan(8.0).expected_batch == 8.0


def test_two_releases_share_no_draws_of_persons(table: Path):
    """M11: as for records, or what is in one training's steps would be in all of them."""
    one, other = (stays(table, "privacy.unit=person", f"privacy.clip={clip}") for clip in (1.0, 2.0))
    drawn = [Streams.of(each, 0, arm, "a", 1).batches.key for each in (one, other) for arm in ("federated", "local")]
    assert len(set(drawn)) == 4
    secret = stays(table, "privacy.unit=person", "privacy.rng=secure")
    assert Streams.of(secret, 0, "federated", "a", 1).kind == "secure"


def test_delta_is_held_against_persons(table: Path):
    """H2: a site has more rows than persons, and delta bounds nothing above one over the persons."""
    loose = stays(table, "privacy.unit=person", "privacy.delta=0.02")
    federation = federate(loose, 0)
    persons = [site.train.persons or 0 for site in federation.sites]
    assert min(persons) < 1 / 0.02 < min(len(site.train) for site in federation.sites)
    assert not [*delta_faults(loose, federation)]
    tight = stays(table, "privacy.unit=person", f"privacy.delta={1 / min(persons)}")
    (fault,) = delta_faults(tight, federation)
    assert "one over the persons in training rows of the smallest site" in fault


@pytest.mark.whole
@pytest.mark.usefixtures("charts_undrawn")
def test_a_run_says_whom_it_protects_and_how_many(table: Path):
    """H1: unit, clip and denominator in words of persons; how many there are, and how many at several sites."""
    run = load(execute(stays(table, "privacy.unit=person"), table.parent / "run").path)
    terms = dict(statement(run))
    assert terms["Unit"].startswith("One person at one site: all rows")
    assert "several sites is protected at each of them" in terms["Unit"]
    assert "with all rows" in terms["Sampling"]
    assert "the sum of one person's gradients" in terms["Clip"]
    assert "the number of persons expected in a step" in terms["Denominator"]
    assert "names that are at several sites: 12" in terms["Persons"]
    ledger = json.loads((run.path / "ledger.json").read_text())
    assert (ledger["unit"], ledger["persons"]["most_rows"]) == ("person", 5)
    assert not any("for one row" in weakness for weakness in weaknesses(run))
    claim = claim_in(run)
    assert claim is not None
    assert claim.protects == "person"
    assert "one person" in (run.path / "report.html").read_text()


@pytest.mark.whole
@pytest.mark.usefixtures("charts_undrawn")
def test_protecting_rows_where_persons_have_several_is_cautioned_against(table: Path):
    """H3: in the statement, and with the table's notes before anything is trained."""
    run = load(execute(stays(table, "privacy.unit=record"), table.parent / "run").path)
    (caution,) = [weakness for weakness in weaknesses(run) if "for one row" in weakness]
    assert "up to 5 rows at a site" in caution
    assert any("for one row and not for a person" in note for note in run.manifest["data"]["notes"])


def test_a_card_counts_persons(table: Path, tmp_path: Path):
    assert "24,613 rows of 11,141 persons" in card("school-years").text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            ["privacy.unit=person", "data.person='patients'"],
            r"data.person: expected a column .* did you mean 'patient'",
        ),
        (["privacy.unit=person", "data.person=clinic"], "expected a column of its own for outcome and site and person"),
    ],
)
def test_a_wrong_column_of_persons_is_named(table: Path, changes: list[str], message: str):
    with pytest.raises(Mistake, match=message):
        federate(stays(table, *changes), 0)


def test_persons_must_be_named_to_be_protected(table: Path):
    own = [f"data.path='{table}'", "data.target=died", "data.site=clinic", *BUDGET]
    with pytest.raises(
        Mistake, match=r"privacy.unit: expected data.person beside 'person'.* \"record\" protects one row"
    ):
        read_own([*own, "privacy.unit=person"], None)


def test_a_row_without_a_person_is_an_error_and_not_left_out(table: Path):
    lines = table.read_text().splitlines()
    lines[3] = lines[3].replace(f",{lines[3].split(',')[1]},", ",,")
    table.write_text("\n".join(lines) + "\n")
    with pytest.raises(Mistake, match=r"row 4, column patient: expected the name or number of each row's person"):
        federate(stays(table, "privacy.unit=person"), 0)
