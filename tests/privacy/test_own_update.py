"""A site that clips and noises its own update: what leaves it, and what that costs."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from fedsim.experiments.arms import GLOBAL, Job, run_job
from fedsim.flower.records import MECHANISM, flatten
from fedsim.mistakes import Mistake
from fedsim.planning.noise import noise_for
from fedsim.privacy.accounting import Segment, epsilon
from fedsim.privacy.ledger import Ledger, OwnUpdate
from fedsim.privacy.own_update import noised
from fedsim.randomness import Words
from tests.site.test_app import ask, fields
from tests.works import Silent

DID = OwnUpdate(noise_multiplier=3.0, clip=0.5)


@pytest.mark.whole
def test_any_two_updates_lie_at_most_twice_the_clip_apart():
    """B5, B4: the declared sensitivity, and the worst of 1000 pairs comes near it."""
    random, center, worst = np.random.default_rng(0), torch.zeros(20), 0.0
    odd = [math.nan, math.inf, 0.0]
    for number in range(1000):
        one, other = (torch.from_numpy(random.normal(size=20).astype(np.float32)) for _ in range(2))
        one = one * 10.0 ** random.uniform(-3, 30)
        other = -one * random.uniform(0.5, 2) if number % 2 else other
        if number < 3:
            other[3] = odd[number]
        found = [noised(center, update, DID, Silent()) for update in (one, other)]
        assert all(each.isfinite().all() for each in found)
        worst = max(worst, float((found[0] - found[1]).norm()))
    assert 0.9 <= worst <= 1.0 * (1 + 1e-6)


def test_the_noise_is_gaussian_of_the_multiplier_times_the_clip():
    drawn = (noised(torch.ones(100_000), torch.ones(100_000), DID, Words.of(0, "test")) - 1) / 1.5
    assert float(drawn.var()) == pytest.approx(1, abs=5 * math.sqrt(2 / 100_000))
    assert stats.kstest(drawn.numpy(), "norm").pvalue > 1e-6


def test_an_update_costs_what_a_replaced_one_costs():
    """Twice the clip; 2 sigma here is sigma where a site is added or removed."""
    ledger = Ledger(1e-5, "replace-one")
    for number in range(25):
        ledger.charge("a", number, OwnUpdate(10.0, 1.0))
    assert ledger.epsilon("a") == epsilon([Segment(1.0, 5.0, 25)], 1e-5) == pytest.approx(4.377178, abs=1e-5)
    assert "record_epsilon" not in ledger.as_json()


@pytest.mark.parametrize("name", ["fedavg", "median", "scaffold", "ditto"])
def test_a_training_spends_its_epsilon_whatever_the_strategy(scenario, name: str):
    """A9, and post-processing: any strategy; a second training at a site stays there and costs nothing."""
    chosen = scenario("privacy.unit=local", "privacy.epsilon=50", f"strategy={{name='{name}'}}",
                      "training.expected_batch=60")  # fmt: skip
    found = run_job(chosen, Job("federated", True, 0), lambda number: None)
    assert found.ledger is not None
    assert len(found.ledger.entries) == 2 * 4
    noise = noise_for(chosen, 0, "federated")
    assert {entry.mechanism for entry in found.ledger.entries} == {OwnUpdate(noise, 1.0)}
    spent = {found.ledger.epsilon(entry.site) for entry in found.ledger.entries}
    assert spent == {epsilon([Segment(1.0, noise, 2)], 1e-4, "replace-one")}
    assert 49 < max(spent) <= 50
    assert found.models[GLOBAL]["weight"].isfinite().all()


def test_engines_agree(scenario):
    found = [
        run_job(scenario("privacy.unit=local", f"engine={engine}"), Job("federated", True, 0), lambda number: None)
        for engine in ("serial", "cohort")
    ]
    torch.testing.assert_close(*(one.models[GLOBAL]["weight"] for one in found), rtol=1e-4, atol=1e-4)


def test_what_leaves_a_site_is_noisy_and_says_so(scenario):
    """M6, M11: no two sites share noise, and the exact model stays."""
    chosen = scenario("privacy.unit=local")
    replies, exact = ask(chosen, private=True), ask(chosen, private=False)
    for reply in replies:
        assert fields(reply.content)[MECHANISM] == ["clip", "noise_multiplier", "rng"]
    noise = [
        (flatten(one.content["arrays"]) - flatten(other.content["arrays"])).numpy()  # type: ignore[arg-type]
        for one, other in zip(replies, exact, strict=True)
    ]
    assert min(np.linalg.norm(one) for one in noise) > 5  # 2.0 times sqrt(31), about
    assert np.abs(np.corrcoef(noise) - np.eye(4)).max() < 0.9
    refused = ask(chosen, private=True, forget_noise=True)
    assert all("PermissionError" in reply.error.reason for reply in refused)


def test_no_two_updates_share_noise(scenario, monkeypatch: pytest.MonkeyPatch):
    """M11: of any sites, rounds, seeds or budgets."""
    keys = []

    def watching(center, update, did, words):
        keys.append(words.key)
        return noised(center, update, did, words)

    monkeypatch.setattr("fedsim.privacy.units.local.noised", watching)
    for epsilon_, seed in ((5, 0), (5, 1), (6, 0)):
        chosen = scenario("privacy.unit=local", f"privacy.epsilon={epsilon_}")
        run_job(chosen, Job("federated", True, seed), lambda number: None)
    assert len(keys) == len(set(keys)) == 3 * 2 * 4


def test_settings_of_the_server_are_refused(scenario):
    with pytest.raises(Mistake, match="correlated: expected unit = 'client'"):
        scenario("privacy.unit=local", "privacy.correlated=true", "training.site_turns=2")
