from collections import Counter

import numpy as np
import pytest
from scipy import stats

from fedsim.sampling import most_rounds, sites_of_round


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
