import itertools
from collections import Counter

import numpy as np
import pytest
from scipy import stats

from fedsim.mistakes import Mistake
from fedsim.planning.participation import most_rounds, share_of_sites, sites_of_round
from fedsim.scenario.files import read
from tests.cases import others_whole


def names(sites: int) -> list[str]:
    return [f"site-{number:04}" for number in range(sites)]


def test_each_site_is_as_likely_as_any_other_and_none_comes_twice(scenario):
    """C3: 2000 rounds of 5 out of 40; the chi-square test's false-alarm rate is 1e-6."""
    chosen = scenario("training.sites_per_round=5")
    times: Counter[int] = Counter()
    for number in range(1, 2001):
        sites = sites_of_round(chosen, 0, names(40), number)
        assert sites == sorted(set(sites))
        assert len(sites) == 5
        times.update(sites)
    assert stats.chisquare([times[site] for site in range(40)]).pvalue > 1e-6


def test_a_round_does_not_depend_on_the_one_before():
    """C3: of 5 sites out of 20, as many were in the round before as the hypergeometric distribution says; p > 1e-6."""
    wanted, sites, rounds = 5, 20, 3000
    chosen_of = _rounds(wanted, sites, rounds)
    again = np.bincount([len(one & other) for one, other in itertools.pairwise(chosen_of)], minlength=4)
    law = stats.hypergeom(sites, wanted, wanted)
    expected = (rounds - 1) * np.array([*law.pmf([0, 1, 2]), law.sf(2)])
    assert stats.chisquare([*again[:3], again[3:].sum()], expected).pvalue > 1e-6


@pytest.mark.whole
def test_who_takes_part_has_nothing_to_do_with_names_or_rows(scenario):
    """C3: the draw is a function of the seed and the count; nor do counts go along with some sizes, |z| < 5."""
    chosen = scenario("training.sites_per_round=5")
    assert sites_of_round(chosen, 0, names(40), 3) == sites_of_round(chosen, 0, [f"x{n}" for n in range(40)], 3)
    rounds = _rounds(5, 20, 3000)
    counts = np.bincount([site for one in rounds for site in one], minlength=20)
    for sizes in (np.arange(20), np.random.default_rng(0).pareto(1, 20)):
        weights = (sizes - sizes.mean()) / sizes.std()
        deviation = np.sqrt(3000 * (5 / 20) * (15 / 20) * 20 / 19 * 20)  # of a draw without replacement
        assert abs((weights * counts).sum()) < 5 * deviation


def _rounds(wanted: int, sites: int, rounds: int) -> list[set[int]]:
    chosen = read("hospital-heart", [f"training.sites_per_round={wanted}"])
    return [set(sites_of_round(chosen, 7, names(sites), number)) for number in range(1, rounds + 1)]


def test_rounds_and_seeds_draw_anew_and_can_be_repeated(scenario):
    chosen = scenario("training.sites_per_round=5")
    first = sites_of_round(chosen, 0, names(1000), 1)
    assert first == sites_of_round(chosen, 0, names(1000), 1)
    assert first != sites_of_round(chosen, 0, names(1000), 2)
    assert first != sites_of_round(chosen, 1, names(1000), 1)


@pytest.mark.parametrize("wanted", ["", "training.sites_per_round=4", "training.sites_per_round=9"])
def test_all_take_part_where_nothing_else_is_said(scenario, wanted: str):
    chosen = scenario(*[wanted] if wanted else [])
    assert sites_of_round(chosen, 0, names(4), 1) == [0, 1, 2, 3]
    assert most_rounds(chosen, 0, names(4)) == chosen.training.rounds


def test_the_busiest_site_is_counted(scenario):
    chosen = scenario("training.sites_per_round=3", "training.rounds=50")
    times = np.bincount(np.concatenate([sites_of_round(chosen, 2, names(20), number) for number in range(1, 51)]))
    assert most_rounds(chosen, 2, names(20)) == times.max()


def drawn(rounds: int, sites: int, rate: float, *overrides: str, seed: int = 0) -> np.ndarray:
    """Return which sites join which round, bool (rounds, sites)."""
    chosen = read("hospital-heart", [f"training.site_sampling_rate={rate}", f"training.rounds={rounds}", *overrides])
    found = np.zeros((rounds, sites), bool)
    for number in range(rounds):
        found[number, sites_of_round(chosen, seed, names(sites), number + 1)] = True
    return found


@pytest.mark.parametrize(("rate", "sites"), others_whole([(0.05, 400), (0.3, 50), (0.5, 4)], 0.5, 0.3))
def test_sites_join_on_their_own_with_the_rate(rate: float, sites: int):
    """C3: sizes have the binomial's mean and variance, and sites, neighbours in number and rounds are independent."""
    rounds = 2000
    found = drawn(rounds, sites, rate)
    sizes, times = found.sum(1), found.sum(0)
    spread = sites * rate * (1 - rate)
    assert sizes.mean() == pytest.approx(sites * rate, abs=5 * np.sqrt(spread / rounds))
    kurtosis = 3 + (1 - 6 * rate * (1 - rate)) / spread
    assert sizes.var() == pytest.approx(spread, abs=5 * spread * np.sqrt((kurtosis - 1) / rounds))
    each = ((times - rounds * rate) ** 2 / (rounds * rate * (1 - rate))).sum()
    assert 1e-6 < stats.chi2.sf(each, sites) < 1 - 1e-6
    for one, other in ((found[1:], found[:-1]), (found[:, 1:], found[:, :-1])):  # rounds before, sites beside
        together = (one & other).mean()
        assert together == pytest.approx(rate**2, abs=5 * rate / np.sqrt(one.size) * 1.5)


def test_who_joins_depends_on_seed_round_and_number_alone():
    found = drawn(40, 30, 0.3)
    assert np.array_equal(found, drawn(40, 30, 0.3, "privacy.epsilon=1", "strategy.name=fedprox"))
    assert np.array_equal(found[:, :20], drawn(40, 20, 0.3))  # more sites change nothing for the others
    assert np.array_equal(found[:20], drawn(20, 30, 0.3))
    assert not np.array_equal(found, drawn(40, 30, 0.3, seed=1))
    assert (found <= drawn(40, 30, 0.4)).all()


def test_everybody_joins_at_rate_one():
    assert drawn(5, 7, 1.0).all()


def test_records_gain_nothing_from_sites_that_join_at_random():
    """The server sees who joins, and records are protected from it: rounds of the site that joins most often count."""
    chosen = read("hospital-heart", ["training.site_sampling_rate=0.5"])
    assert most_rounds(chosen, 0, names(4)) == drawn(20, 4, 0.5).sum(0).max()
    assert share_of_sites(chosen, names(4)) == 0.5


def test_sites_are_drawn_in_one_way():
    with pytest.raises(Mistake, match="site_sampling_rate: expected none beside sites_per_round"):
        read("hospital-heart", ["training.site_sampling_rate=0.5", "training.sites_per_round=2"])
