import pytest

from fedsim.privacy import accounting
from fedsim.privacy.accounting import Segment, epsilon, noise_multiplier
from fedsim.privacy.calibration.estimate import estimated_epsilon

SETTINGS = {
    "one row more": (0.5, 1.9, 40, 1e-4, False, 5e-3),
    "few rows in a step": (0.01, 1.0, 1000, 1e-5, False, 5e-3),
    "much noise": (0.02, 30.0, 100, 1e-5, False, 1e-3),
    "nearly all rows": (0.97, 2.0, 3, 1e-9, False, 5e-3),
    "a row replaced": (0.02, 1.5, 200, 1e-6, True, 5e-3),
}


@pytest.mark.parametrize("setting", SETTINGS)
def test_the_estimate_is_what_dp_accounting_finds_at_the_same_interval(setting: str):
    rate, noise, steps, delta, replaces, interval = SETTINGS[setting]
    relation = "replace-one" if replaces else "add-or-remove-one"
    bound = accounting._pld_bound((Segment(rate, noise, steps),), delta, relation, interval)
    assert estimated_epsilon(rate, noise, steps, delta, replaces, interval) == pytest.approx(bound, rel=1e-7)


@pytest.mark.whole
def test_a_calibration_takes_one_exact_value(monkeypatch: pytest.MonkeyPatch):
    asked = []
    exactly = accounting._pld_bound

    def counted(segments, delta, neighbours, interval):
        asked.append(segments)
        return exactly(segments, delta, neighbours, interval)

    monkeypatch.setattr(accounting, "_pld_bound", counted)
    target = 1.9
    noise = noise_multiplier(target, 0.05, 31, 1e-5)
    assert len(asked) == 1

    # What is promised is the exact value of the noise that is returned, and a digit less would not keep it.
    assert epsilon((Segment(0.05, noise, 31),), 1e-5) <= target
    assert len(asked) == 1
    assert epsilon((Segment(0.05, noise - 0.001, 31),), 1e-5) > target
