"""Kinds of releases in files, of this version and of earlier ones."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from fedsim.audits.claims import claim_in
from fedsim.privacy.accounting import epsilon
from fedsim.privacy.ledger import Ledger, SiteUpdate
from fedsim.privacy.units import released_in, unit_of
from fedsim.report.statement import statement
from fedsim.results.run_directory import load
from tests.cases import others_whole
from tests.privacy.units.test_units import RELEASED, each_unit

OLDER = Path(__file__).parent / "older"


@pytest.mark.parametrize("name", others_whole(["record", "client", "local", "distributed"], "client", "local"))
def test_a_ledger_of_an_earlier_version_is_read_as_it_was_meant(name: str):
    """Its entries have no kind; each site's epsilon is what the file says."""
    path = OLDER / "record" / "ledger.json" if name == "record" else OLDER / f"{name}.json"
    ledger = json.loads(path.read_text("utf-8"))
    assert ledger["unit"] == name
    (training,) = ledger["trainings"]
    assert not any("kind" in entry for entry in training["entries"])
    for site, spent in training["epsilon"].items():
        own = [released_in(entry).segment() for entry in training["entries"] if entry["site"] == site]
        assert epsilon(own, ledger["delta"], ledger["neighbours"]) == pytest.approx(spent, abs=1e-12)
        kinds = {type(released_in(entry)) for entry in training["entries"]}
        assert kinds == set(unit_of(ledger["unit"]).releases)


@pytest.mark.whole
def test_a_run_directory_of_an_earlier_version_has_its_statement_and_its_claim():
    run = load(OLDER / "record")
    terms = dict(statement(run))
    assert terms["Epsilon"].startswith("8.00 at every site; an upper bound for one federated training.")
    assert terms["Steps"].startswith("2 rounds × 2 steps = 4 steps at every site")
    claim = claim_in(run)
    assert claim is not None
    assert claim.epsilon == pytest.approx(max(run.epsilon().values()), abs=1e-12)


@pytest.mark.whole
@each_unit
def test_every_entry_says_its_kind(name: str):
    release = RELEASED.get(name, SiteUpdate(1.0, 1.5, 0.5, 30.0, 4.0))
    ledger = Ledger(1e-4, "add-or-remove-one")
    ledger.charge("a", 1, release)
    (entry,) = json.loads(json.dumps(ledger.as_json()))["entries"]
    assert (entry["site"], entry["round"], entry["kind"]) == ("a", 1, release.kind)
    assert released_in(entry) == release


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"kind": "noisy-rows", "mechanism": {"noise_multiplier": 1.0, "clip": 1.0}}, "got 'noisy-rows'"),
        ({"kind": "noisy-steps", "mechanism": {"noise_multiplier": 1.0, "clip": 1.0}}, "expected a release, got"),
        ({"mechanism": {"noise_multiplier": 1.0}}, "expected a release, got the fields"),
        ({"mechanism": {"noise_multiplier": 1.0, "clip": 1.0, "more": 1}}, "expected a release, got the fields"),
    ],
)
def test_an_entry_of_no_kind_is_refused(entry: Mapping[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        released_in(entry)
