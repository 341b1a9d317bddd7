"""Every privacy unit, held against one table; and units that are not there, or are added as a file."""

import json
import math
import os
import subprocess
import sys
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from fedsim.audits.claims import claim_in, claim_of
from fedsim.cli.terminal import closing_lines
from fedsim.experiments.arms import Job, run_job
from fedsim.experiments.experiment import check
from fedsim.mistakes import Mistake
from fedsim.planning.budgets import Spending
from fedsim.planning.checks import check_strategy
from fedsim.planning.delta_rule import check_delta
from fedsim.planning.noise import noise_for
from fedsim.planning.participation import joining_of, sites_of_round
from fedsim.planning.secure_checks import check_secure
from fedsim.planning.trial import Trial
from fedsim.privacy.accounting import epsilon
from fedsim.privacy.central import PublicSites
from fedsim.privacy.ledger import Ledger, Mechanism, OwnUpdate, Release, SiteUpdate
from fedsim.privacy.noise_shares import NoiseShare
from fedsim.privacy.unit import Asked, Place, Protected, Sampled, Unit
from fedsim.privacy.units import names, released_in, unit_of
from fedsim.randomness import Words
from fedsim.report.statement import statement
from fedsim.results.run_directory import load
from fedsim.scenario.schema import Privacy, Scenario
from fedsim.scenario.unit_facts import facts_of, unit_names
from fedsim.training.work import Streams
from tests.privacy.mutants.test_mutants import copy_to

OLDER = Path(__file__).parent / "older"
BOTH = ("add-or-remove-one", "replace-one")


@dataclass(frozen=True)
class Used:
    """How often a row and a site are used, in numbers that no two products share."""

    row_rate: float = 0.25
    joining_rate: float | None = 0.125
    rounds: int = 20
    most_rounds: int = 7
    steps: int = 3


@dataclass(frozen=True)
class Expected:
    """What a unit promises, by the table in docs/privacy.md, and what that costs where ``Used`` is done."""

    neighbours: tuple[str, ...]
    arms: tuple[str, ...]
    protects: Protected
    place: Place
    sampled: Sampled
    cost: tuple[float, int]
    cost_if_chosen: tuple[float, int]  # where sites do not join on their own


UNITS = {
    "record": Expected(BOTH, ("federated", "centralized", "local"), Protected.RECORD, Place.IN_STEPS, Sampled.ROWS,
                       (0.25, 21), (0.25, 21)),
    "client": Expected(BOTH, ("federated",), Protected.SITE, Place.AT_SERVER, Sampled.SITES, (0.125, 20), (1.0, 7)),
    "local": Expected(("replace-one",), ("federated",), Protected.SITE, Place.ON_UPDATES, Sampled.NOTHING,
                      (1.0, 7), (1.0, 7)),
    "distributed": Expected(BOTH, ("federated",), Protected.SITE, Place.IN_SHARES, Sampled.NOTHING, (1.0, 7), (1.0, 7)),
}  # fmt: skip
each_unit = pytest.mark.parametrize("name", UNITS)

ASKED = Asked(
    noise_multiplier=1.5,
    clip=0.5,
    rng="reproducible",
    sampling_rate=0.25,
    expected_batch=30.0,
    steps=4,
    params=6,
    sites=7,
    drop_outs=2,
    colluding=1,
)
RELEASED = {
    "record": Mechanism(0.25, 1.5, 0.5, 30.0, 4),
    "local": OwnUpdate(1.5, 0.5),
    "distributed": NoiseShare(1.5, 0.5, 6, 7, 2, 1),
}


def test_the_table_has_every_unit_there_is():
    assert sorted([*UNITS, "none"]) == names() == unit_names()


@each_unit
def test_a_unit_is_what_its_page_says(name: str):
    unit, wanted = unit_of(name), UNITS[name]
    assert (unit.neighbours, unit.arms, unit.protects) == (wanted.neighbours, wanted.arms, wanted.protects)
    assert (unit.place, unit.sampled) == (wanted.place, wanted.sampled)


@pytest.mark.parametrize("name", [*UNITS, "none"])
def test_what_a_scenario_reads_of_a_unit_is_what_the_unit_says(name: str):
    """The facts are read from the source; the class is what runs."""
    unit, facts = unit_of(name), facts_of(name)
    assert (facts.neighbours, facts.arms) == (unit.neighbours, unit.arms)
    assert (facts.settings, facts.needs) == (unit.settings, unit.needs)
    assert facts.promises == (unit.protects is not Protected.NOBODY)


@each_unit
def test_a_training_costs_what_is_released_in_it(name: str):
    """M1, M2, M7: the rate is that of who is sampled and unknown; the releases are those of the costliest site."""
    unit, wanted = unit_of(name), UNITS[name]
    by_chance = unit.cost(Used())
    chosen = unit.cost(Used(joining_rate=None))
    assert (by_chance.sampling_rate, by_chance.releases) == wanted.cost
    assert (chosen.sampling_rate, chosen.releases) == wanted.cost_if_chosen


@pytest.mark.parametrize("name", RELEASED)
def test_a_site_releases_what_it_was_asked_for(name: str):
    assert unit_of(name).release(ASKED) == RELEASED[name]
    secure = replace(ASKED, rng="secure")
    assert unit_of(name).release(secure) == replace(RELEASED[name], rng="secure")


@pytest.mark.parametrize("name", ["client", "none"])
def test_where_no_site_adds_noise_none_is_asked_to(name: str):
    with pytest.raises(NotImplementedError, match="no site adds noise"):
        unit_of(name).release(ASKED)


def test_a_site_of_its_own_noise_moves_its_update_by_up_to_twice_the_clip():
    """M14: the opposite of the longest update is as far as its relation says, and no unit claims less."""
    unit = unit_of("local")
    center, direction = torch.zeros(6), torch.nn.functional.normalize(torch.arange(1.0, 7), dim=0)
    did = unit.release(ASKED)
    sent = [unit.noised(center, length * direction, did, Words.of(0, "the same")) for length in (1e3, -1e3)]
    apart = float((sent[0] - sent[1]).norm()) / ASKED.clip
    assert apart == pytest.approx(2, rel=1e-5)
    assert _sensitivity(unit, did.segment()) == pytest.approx(apart, rel=1e-5)


def test_a_share_moves_the_sum_by_up_to_the_clip_and_what_rounding_adds():
    """M16: a site that is absent adds nothing."""
    unit = unit_of("distributed")
    did = unit.release(ASKED)
    assert isinstance(did, NoiseShare)
    direction = torch.nn.functional.normalize(torch.arange(1.0, 7), dim=0)
    words = Words.of(0, "the same")
    apart = unit.noisy_share(1e3 * direction, 1.0, did, words) - unit.noisy_share(
        0 * direction, 1.0, did, words.again()
    )
    assert 0.99 * ASKED.clip < math.sqrt((apart**2).sum()) <= did.sensitivity
    assert _sensitivity(unit, did.segment()) == pytest.approx(1)


def test_a_site_moves_the_server_s_sum_by_up_to_the_clip():
    """M4: the heaviest site, which is there or not."""
    unit = unit_of("client")
    sites = PublicSites({0: "a", 1: "b"}, {0: 3.0, 1: 1.0}, None, lambda number: (2.0, 4.0))

    def released(nodes: list[int]) -> torch.Tensor:
        server = unit.at_server(
            ledger=Ledger(1e-4, "add-or-remove-one"),
            noise_multiplier=1.5,
            clip=0.5,
            sites=sites,
            words=lambda number: Words.of(0, "the same", number),
            joining=lambda number: Words.of(0, "joining", number),
        )
        mean = server.release(1, [0, 1], torch.zeros(6), torch.full((len(nodes), 6), 1e3), nodes)
        return mean * server.planned(1).denominator

    apart = float((released([0]) - released([])).norm())
    assert apart == pytest.approx(0.5, rel=1e-5)
    assert _sensitivity(unit, SiteUpdate(1.0, 1.5, 0.5, 3.0, 4 / 3).segment()) == pytest.approx(1)


def _sensitivity(unit: Unit, segment: Any) -> float:
    """Return how far apart neighbours lie by what a unit's first relation is charged, over the noise of a segment."""
    charged = epsilon([segment], 1e-4, unit.neighbours[0])
    moved = replace(segment, noise_multiplier=segment.noise_multiplier / 2)
    return 2.0 if charged == pytest.approx(epsilon([moved], 1e-4, "add-or-remove-one"), rel=1e-6) else 1.0


@each_unit
def test_an_audit_attacks_all_that_one_site_released(name: str):
    unit = unit_of(name)
    release = RELEASED.get(name, SiteUpdate(1.0, 1.5, 0.5, 30.0, 4.0))
    attacked = unit.audited([release] * 5)
    segment = attacked.release.segment()
    all_of_it = replace(segment, steps=attacked.times * segment.steps)
    assert all_of_it == replace(release.segment(), steps=5 * release.segment().steps)


@each_unit
def test_a_statement_has_words_for_all_that_can_be_asked(name: str):
    unit = unit_of(name)
    assert set(unit.promise.neighbours) == set(unit.neighbours)
    ways = {"masked"} if unit.needs else set(unit.arms)
    assert ways <= set(unit.promise.released)
    assert set(unit.arms) == set(unit.promise.trust)
    assert unit.promise.protected == {Protected.RECORD: "record", Protected.SITE: "whole site"}[unit.protects]


def test_nobody_is_promised_nothing(scenario):
    unit = unit_of("none")
    assert not scenario("privacy.unit=none").private
    with pytest.raises(ValueError, match="no epsilon"):
        unit.cost(Used())
    with pytest.raises(ValueError, match="no claim"):
        unit.audited([OwnUpdate(1.0, 1.0)])


# Kinds of releases in files.


@pytest.mark.parametrize("path", [OLDER / "record" / "ledger.json", *sorted(OLDER.glob("*.json"))], ids=str)
def test_a_ledger_of_an_earlier_version_is_read_as_it_was_meant(path: Path):
    """Its entries have no kind; each site's epsilon is what the file says."""
    ledger = json.loads(path.read_text("utf-8"))
    (training,) = ledger["trainings"]
    assert not any("kind" in entry for entry in training["entries"])
    for site, spent in training["epsilon"].items():
        own = [released_in(entry).segment() for entry in training["entries"] if entry["site"] == site]
        assert epsilon(own, ledger["delta"], ledger["neighbours"]) == pytest.approx(spent, abs=1e-12)
        kinds = {type(released_in(entry)) for entry in training["entries"]}
        assert kinds == set(unit_of(ledger["unit"]).releases)


def test_a_run_directory_of_an_earlier_version_has_its_statement_and_its_claim():
    run = load(OLDER / "record")
    terms = dict(statement(run))
    assert terms["Epsilon"].startswith("8.00 at every site; an upper bound for one federated training.")
    assert terms["Steps"].startswith("2 rounds × 2 steps = 4 steps at every site")
    claim = claim_in(run)
    assert claim is not None
    assert claim.epsilon == pytest.approx(max(run.epsilon().values()), abs=1e-12)


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


# Units that there are not.


def made_up(scenario, *overrides: str) -> Scenario:
    """Return a scenario that got round its checks with a unit that there is not."""
    known = scenario(*overrides)
    values = {name: getattr(known.privacy, name) for name in Privacy.model_fields}
    privacy = Privacy.model_construct(**values | {"unit": "recrod"})
    sections = {name: getattr(known, name) for name in Scenario.model_fields}
    return Scenario.model_construct(**sections | {"privacy": privacy})


def test_a_scenario_of_an_unknown_unit_is_refused(scenario):
    with pytest.raises(Mistake, match=r"privacy.unit: expected .* got 'recrod'; did you mean 'record'"):
        scenario("privacy.unit=recrod")
    with pytest.raises(Mistake, match=r"got '../record'"):
        unit_of("../record")


def _masks(unknown: Scenario) -> None:
    check_secure(unknown, Trial(unknown, 0, "federated").strategy, 4, 10)


DOORS = {
    "whether it is private": lambda unknown: unknown.private,
    "which arms are": lambda unknown: unknown.private_arms,
    "its neighbours": lambda unknown: unknown.privacy.relation,
    "its noise": lambda unknown: noise_for(unknown, 0, "federated", ["a", "b"]),
    "its batches": lambda unknown: Streams.of(unknown, 0, "federated", "a", 1),
    "who joins": lambda unknown: joining_of(unknown, 0)(1),
    "the sites of a round": lambda unknown: sites_of_round(
        unknown.model_copy(update={"training": unknown.training.model_copy(update={"site_sampling_rate": 0.5})}),
        0, ["a", "b"], 1,
    ),
    "its first model": lambda unknown: Trial(unknown, 0, "federated").model,
    "its budget": lambda unknown: Spending.of(Trial(unknown, 0, "federated")),
    "its delta": lambda unknown: check_delta(unknown, Trial(unknown, 0, "federated").federation),
    "its strategy": lambda unknown: check_strategy(unknown, 4, torch.nn.Linear(2, 1)),
    "its masks": _masks,
    "all checks": check,
    "its claim": claim_of,
    "a training": lambda unknown: run_job(unknown, Job("federated", True, 0), lambda: None),
    "a training without noise": lambda unknown: unknown.all_seeds and run_job(
        unknown, Job("local", True, 0), lambda: None
    ),
}  # fmt: skip


@pytest.mark.parametrize("door", DOORS)
def test_nothing_takes_an_unknown_unit_for_another(scenario, door: str):
    """Also where a scenario was made without its checks: nothing falls into the case of records in silence."""
    with pytest.raises(Mistake, match=r"expected .*'record'.* got 'recrod'"):
        DOORS[door](made_up(scenario))


def test_a_run_of_an_unknown_unit_says_nothing():
    run = load(OLDER / "record")
    unknown = replace(run, ledger=run.ledger | {"unit": "recrod"})
    for ask in (statement, claim_in, lambda run: list(closing_lines(run))):
        with pytest.raises(Mistake, match="got 'recrod'"):
            ask(unknown)


def test_a_unit_without_a_fact_or_a_method_is_an_error_when_it_is_read():
    with pytest.raises(TypeError, match="expected the class attributes neighbours"):
        type("Empty", (Unit,), {})

    facts = {name: getattr(unit_of("local"), name) for name in Unit.__annotations__}
    with pytest.raises(TypeError, match="expected the methods release, noised"):
        type("Idle", (Unit,), facts)
    with pytest.raises(TypeError, match="expected a class attribute kind"):
        type("Nameless", (Release,), {})


# A unit that is added as a file.

ADDED = '''
"""A whole site, by noise on its update, of which every number is clipped for itself."""

from dataclasses import dataclass
from typing import ClassVar

import torch

from fedsim.privacy.accounting import Segment
from fedsim.privacy.ledger import Release, check_size
from fedsim.privacy.promise import Promise, each, most_rounds
from fedsim.privacy.unit import Audited, Cost, Place, Protected, Sampled, Unit
from fedsim.randomness import Normals


@dataclass(frozen=True)
class NumbersUpdate(Release):
    kind: ClassVar[str] = "noisy-numbers"
    site_may_be_absent: ClassVar[bool] = False
    noise_multiplier: float
    clip: float
    rng: str = "reproducible"

    def segment(self):
        return Segment(1.0, self.noise_multiplier, 1)

    def check_claim(self, planned):
        super().check_claim(planned)
        check_size("clip", self.clip)


class Numbers(Unit):
    neighbours = ("replace-one",)
    arms = ("federated",)
    settings = ()
    needs = ()
    protects = Protected.SITE
    place = Place.ON_UPDATES
    sampled = Sampled.NOTHING
    releases = (NumbersUpdate,)
    promise = Promise(
        protected="whole site",
        unit="One whole site, number by number.",
        neighbours={"replace-one": "One site's rows differ."},
        sent="whatever a site sends is",
        released={"federated": "Noisy numbers.", "masked": "A sum of noisy numbers."},
        trust={"federated": "Each site."},
        mechanism="Noise on clipped numbers.",
        not_covered=("The rest.",),
        secure="Secure.",
    )

    def cost(self, exposure):
        return Cost(1.0, exposure.most_rounds)

    def release(self, asked):
        return NumbersUpdate(asked.noise_multiplier, asked.clip, asked.rng)

    def noised(self, center, update, did, words):
        most = did.clip / len(center) ** 0.5
        noise = torch.empty(1, len(center))
        Normals([words], center.device).fill(noise)
        change = (update - center).nan_to_num(0, 0, 0).clamp(-most, most)
        return center + change + did.noise_multiplier * did.clip * noise[0]

    def done(self, trainings):
        return [("Clip", f"{each(trainings, 'clip')}, over {most_rounds(trainings)} rounds")]

    def audited(self, releases):
        return Audited(releases[0], len(releases))
'''

USED = """
import json, pathlib, sys
from fedsim.experiments.experiment import execute
from fedsim.report.statement import statement
from fedsim.results.run_directory import load
from fedsim.scenario import catalog
from fedsim.scenario.files import read

settings = ["privacy.unit=numbers", "privacy.epsilon=8", "privacy.loose_delta=true", "training.rounds=2", "seeds=1"]
run = load(execute(read("hospital-heart", settings), pathlib.Path("run")).path)
try:
    read("hospital-heart", [*settings, "privacy.correlated=true", "training.site_turns=2"])
except Exception as error:
    refused = str(error)
print(json.dumps({"ledger": run.ledger, "statement": statement(run), "refused": refused,
                  "page": (run.path / "report.html").read_text(), "titles": dict(catalog.titles("units"))}))
"""


def test_a_unit_is_added_as_a_file(tmp_path: Path):
    """A unit with a clip, a release and words of its own runs through a private training, its ledger and statement."""
    copy = copy_to(tmp_path / "copy")
    before = {path: path.read_bytes() for path in copy.rglob("*.py")}
    (copy / "fedsim" / "privacy" / "units" / "numbers.py").write_text(textwrap.dedent(ADDED).lstrip(), encoding="utf-8")
    environment = os.environ | {"PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
    words = [sys.executable, "-c", USED]
    done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    said = json.loads(done.stdout.splitlines()[-1])
    assert {path: path.read_bytes() for path in before} == before

    ledger = said["ledger"]
    assert (ledger["unit"], ledger["neighbours"]) == ("numbers", "replace-one")
    (training,) = ledger["trainings"]
    assert training["arm"] == "federated"
    assert {entry["kind"] for entry in training["entries"]} == {"noisy-numbers"}
    assert len(training["entries"]) == 2 * 4
    segment = OwnUpdate(training["entries"][0]["mechanism"]["noise_multiplier"], 1.0).segment()
    spent = epsilon([replace(segment, steps=2)], ledger["delta"], "replace-one")
    assert training["epsilon"] == dict.fromkeys(training["epsilon"], pytest.approx(spent, abs=1e-12))
    assert 7.9 < spent <= 8

    terms = dict(said["statement"])
    assert terms["Unit"] == "One whole site, number by number."
    assert terms["Clip"].endswith("over 2 rounds")
    assert terms["Mechanism"] == "Noise on clipped numbers."
    assert "Noise on clipped numbers." in said["page"]
    assert "correlated: expected unit = 'client'" in said["refused"]
    assert said["titles"]["numbers"].startswith("A whole site, by noise on its update")
