import itertools
from collections import Counter

import numpy as np
import pytest
from scipy import stats

from fedsim.sampling import most_rounds, sites_of_round
from fedsim.scenario_files import read


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
