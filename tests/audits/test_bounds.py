import math

import numpy as np
import pytest
from scipy.special import ndtr

from fedsim.audits.bounds import ceiling, clopper_pearson, one_run_bound, paired_bound, roc
from fedsim.audits.trade_off import paired_noise_bound
from fedsim.privacy.accounting import Segment, epsilon

DELTA = 1e-5


def gaussians(shift: float, trials: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return scores with and without a canary, of a Gaussian mechanism whose outputs lie ``shift`` deviations apart."""
    random = np.random.default_rng(seed)
    return random.normal(shift, 1, trials), random.normal(0, 1, trials)


@pytest.mark.parametrize(("successes", "trials"), [(0, 50), (1, 50), (25, 50), (50, 50)])
def test_the_interval_holds_what_its_tails_say(successes: int, trials: int):
    """At each end, what was seen has a tail probability of 2.5 %."""
    from scipy.stats import binom

    low, high = clopper_pearson(successes, trials, 0.95)
    assert low <= successes / trials <= high
    if successes:
        assert binom.sf(successes - 1, trials, low) == pytest.approx(0.025)
    if successes < trials:
        assert binom.cdf(successes, trials, high) == pytest.approx(0.025)


@pytest.mark.whole
@pytest.mark.parametrize("claimed", [1.0, 2.0, 4.0, 8.0])
def test_a_right_claim_is_never_refuted_and_a_wrong_one_is(claimed: float):
    """D1, D2, D3: on exact Gaussians, 20 audits each; then with a quarter of the noise the claim needs."""
    shift = {1.0: 1 / 3.731, 2.0: 1 / 1.994, 4.0: 1 / 1.081, 8.0: 1 / 0.6}[claimed]
    assert epsilon((Segment(1.0, 1 / shift, 1),), DELTA) == pytest.approx(claimed, abs=0.02)
    for seed in range(20):
        assert paired_bound(*gaussians(shift, 20_000, seed), DELTA) <= claimed
        assert one_run(shift, 1000, seed) <= claimed
    assert paired_bound(*gaussians(shift, 20_000), DELTA) >= 0.25 * claimed
    if claimed < 8:  # all guesses right would prove no more than log(20 000 / 2 / 5.3), which is 7.5
        assert paired_bound(*gaussians(4 * shift, 20_000), DELTA) > claimed
    if claimed in (2.0, 4.0):
        assert one_run(4 * shift, 1000) > claimed


@pytest.mark.parametrize(("claimed", "shift"), [(1.0, 1 / 3.731), (8.0, 1 / 0.6)])
def test_too_little_noise_is_found_with_few_trials(claimed: float, shift: float):
    """Half the noise is noticed, the right noise is not; the bound comes near the truth."""
    said = Segment(1.0, 1 / shift, 1)
    assert 0.6 * claimed <= paired_noise_bound(*gaussians(shift, 20_000), said, DELTA) <= claimed
    assert paired_noise_bound(*gaussians(2 * shift, 8000), said, DELTA) > claimed


def one_run(shift: float, canaries: int, seed: int = 0) -> float:
    random = np.random.default_rng(seed)
    included = random.random(canaries) < 0.5
    return one_run_bound(random.normal(0, 1, canaries) + shift * included, included, DELTA)


def test_scores_without_meaning_prove_nothing():
    assert paired_bound(*gaussians(0.0, 5000), DELTA) == pytest.approx(0, abs=0.2)
    assert one_run(0.0, 1000) == 0


def test_scores_that_tell_everything_are_bounded_by_the_number_of_trials():
    """log(n / 5.3): with 500 judged trials without one error, TPR > 0.989 and FPR < 0.0106 (99 %, two intervals)."""
    assert 4.4 < paired_bound(np.ones(1000), np.zeros(1000), DELTA) < 4.6


def test_a_roc_is_what_its_definition_says():
    inside, outside = gaussians(1.0, 4000)
    auc, tpr, most = roc(inside, outside, (0.01, 1.0))
    assert most == 1
    assert auc == pytest.approx(np.mean(inside[:, None] > outside[None]), abs=1e-9)
    assert tpr == pytest.approx(1 - ndtr(2.326 - 1), abs=0.03)
    assert roc(np.ones(10), np.ones(10)) == [0.5, 0.0]


def test_the_ceiling_is_the_area_under_the_curve_of_the_definition():
    assert ceiling(0.0, 0.0) == pytest.approx(0.5)
    assert ceiling(1.0, 0.0) == pytest.approx(math.e / (1 + math.e), abs=1e-4)
    assert ceiling(math.inf, 0.0) == pytest.approx(ceiling(1000.0, 0.0), abs=1e-4) == 1
    for claimed, sigma in ((1.0, 3.731), (4.0, 1.081)):
        assert ndtr(1 / sigma / math.sqrt(2)) < ceiling(claimed, DELTA)
