"""The private survival curve: one row changes one count by one, and the band holds the truth, noise included."""

from fractions import Fraction

import numpy as np
import pytest

from fedsim.data.follow_up import FollowUp
from fedsim.experiments.survival.curve import cells_of, counted, curve_of
from fedsim.experiments.survival.picture import draw
from fedsim.mistakes import Mistake
from fedsim.outcomes.survival_scores import at_risk_and_events, kaplan_meier
from fedsim.privacy.looks import noisy, shared_out
from fedsim.scenario.files import read
from tests.privacy.test_discrete_laplace import source

YEARS = FollowUp((1, 2, 3, 4, 5), "years")
INTERVALS = len(YEARS.ends)


def drawn(seed: int, rows: int) -> np.ndarray:
    """Draw rows with a hazard of 15 % in each interval, of whom 8 % are lost in each."""
    random = np.random.default_rng(seed)
    event_at = random.geometric(0.15, rows) - 1
    lost_at = random.geometric(0.08, rows)
    seen = event_at < np.minimum(lost_at, INTERVALS)
    survived = np.where(seen, event_at, np.minimum(lost_at, INTERVALS))
    return np.stack([survived, seen], 1).astype(np.float32)


def every_row() -> np.ndarray:
    events = [(survived, 1) for survived in range(INTERVALS)]
    return np.array([*events, *((survived, 0) for survived in range(INTERVALS + 1))], np.float32)


def test_a_row_more_changes_one_count_by_one():
    """All rows there can be, added to 100 tables of any size: the sensitivity is 1, and no less."""
    for seed in range(100):
        target = drawn(seed, seed)
        before = cells_of(target, INTERVALS)
        for row in every_row():
            change = cells_of(np.vstack([target, row]), INTERVALS) - before
            assert np.abs(change).sum() == 1


def test_each_kind_of_row_has_a_cell_of_its_own():
    cells = cells_of(every_row(), INTERVALS)
    assert cells.shape == (2 * INTERVALS + 1,)
    assert (cells == 1).all()


def test_without_noise_the_curve_is_kaplan_meiers():
    target = drawn(0, 400)
    cells = np.stack([cells_of(target[:150], INTERVALS), cells_of(target[150:], INTERVALS)])
    curve = curve_of(cells, YEARS, Fraction(100))
    np.testing.assert_allclose(curve["survival"], kaplan_meier(target, INTERVALS))
    at_risk, events = at_risk_and_events(target, INTERVALS)
    np.testing.assert_array_equal(curve["at_risk"], at_risk)
    np.testing.assert_array_equal(curve["events"], events)
    assert list(curve["end"]) == list(YEARS.ends)


def test_at_a_large_epsilon_the_band_is_greenwoods():
    target = drawn(1, 1000)
    curve = curve_of(cells_of(target, INTERVALS)[None], YEARS, Fraction(100))
    at_risk, events = at_risk_and_events(target, INTERVALS)
    variance = np.cumsum(events / (at_risk * (at_risk - events)))
    width = 2 * 1.96 * curve["survival"] * np.sqrt(variance)
    np.testing.assert_allclose(curve["high"] - curve["low"], width, rtol=0.08)


def test_less_epsilon_makes_a_wider_band():
    cells = cells_of(drawn(2, 300), INTERVALS)[None]
    widths = [
        (curve["high"] - curve["low"]).mean()
        for curve in (curve_of(cells, YEARS, Fraction(epsilon)) for epsilon in ("100", "1", "0.3", "0.1"))
    ]
    assert widths == sorted(widths)
    assert widths[-1] > 1.5 * widths[0]


@pytest.mark.parametrize("counts", [np.zeros((1, 11), int), np.full((3, 11), -20), np.full((1, 11), 10**6)])
def test_a_curve_of_any_counts_falls_from_one_to_zero_inside_its_band(counts: np.ndarray):
    curve = curve_of(counts, YEARS, Fraction(1))
    survival = np.concatenate([[1], curve["survival"]])
    assert (np.diff(survival) <= 0).all()
    assert (curve["low"] >= 0).all()
    assert (curve["low"] <= curve["survival"]).all()
    assert (curve["survival"] <= curve["high"]).all()
    assert (curve["high"] <= 1).all()
    assert draw(curve, "A curve", "years", 1.0).startswith(b"\x89PNG")


@pytest.mark.whole
@pytest.mark.parametrize(("sites", "epsilon"), [(4, "0.5"), (2, "0.2")])
def test_the_band_holds_the_true_curve_in_about_95_of_100_releases(sites: int, epsilon: str):
    """Five standard deviations below what 1000 releases gave; a band without the noise holds it far less often."""
    true = 0.85 ** np.arange(1, INTERVALS + 1)
    (release,) = shared_out(Fraction(epsilon), {"time": (sites, 2 * INTERVALS + 1)})
    below = source("coverage", sites)
    held, held_without_noise = [], []
    for seed in range(120):
        parts = np.array_split(drawn(seed, 150), sites)
        counts = np.stack([cells_of(part, INTERVALS) for part in parts])
        released = noisy(counts, release, below)
        curve, narrow = (curve_of(released, YEARS, budget) for budget in (Fraction(epsilon), Fraction(100)))
        held.append((curve["low"] <= true) & (true <= curve["high"]))
        held_without_noise.append((narrow["low"] <= true) & (true <= narrow["high"]))
    coverage = np.mean(held, axis=0)
    assert (coverage >= 0.75).all(), coverage
    assert np.mean(coverage) >= 0.86, coverage
    assert np.mean(held_without_noise) < np.mean(coverage) - 0.05


def test_the_sites_of_a_scenario_are_counted_whole():
    counts = counted(read("hospital-lung"))
    assert counts.cells.sum() == 227
    assert counts.cells.shape == (15, 13)
    assert counts.cells[counts.sites.index("institution-01")].sum() == 36
    with pytest.raises(Mistake, match="hospital-heart: expected a task of kind 'survival', got one of kind 'binary'"):
        counted(read("hospital-heart"))
