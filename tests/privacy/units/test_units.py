"""Every privacy unit, held against one table."""

import math
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch

from fedsim.privacy.accounting import epsilon
from fedsim.privacy.central import PublicSites
from fedsim.privacy.ledger import Ledger, Mechanism, OwnUpdate, SiteUpdate
from fedsim.privacy.noise_shares import NoiseShare
from fedsim.privacy.unit import Asked, Place, Protected, Sampled, Unit
from fedsim.privacy.units import names, unit_of
from fedsim.randomness import Words
from fedsim.scenario.unit_facts import facts_of, unit_names

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
    "person": Expected(BOTH, ("federated", "centralized", "local"), Protected.PERSON, Place.IN_STEPS, Sampled.PERSONS,
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
    "person": Mechanism(0.25, 1.5, 0.5, 30.0, 4),
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
    assert (facts.settings, facts.needs, facts.persons) == (unit.settings, unit.needs, unit.persons)
    assert facts.forbids == unit.forbids
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
    words = {Protected.RECORD: "record", Protected.PERSON: "person", Protected.SITE: "whole site"}
    assert unit.promise.protected == words[unit.protects]
    assert unit.persons == (unit.protects is Protected.PERSON)


def test_nobody_is_promised_nothing(scenario):
    unit = unit_of("none")
    assert not scenario("privacy.unit=none").private
    with pytest.raises(ValueError, match="no epsilon"):
        unit.cost(Used())
    with pytest.raises(ValueError, match="no claim"):
        unit.audited([OwnUpdate(1.0, 1.0)])
