"""Every attack: what the attackers send, and what a run with them gives."""

import re
import sys

import pytest
import torch

from clients.attacks.alie import ALIE, hidden
from clients.attacks.backdoor import Backdoor
from clients.attacks.free_rider import FreeRider
from clients.attacks.ipm import IPM
from clients.attacks.scaled import Scaled
from clients.attacks.sign_flip import SignFlip
from fedsim.planning.attack import Attack
from fedsim.scenario import catalog
from tests.clients.attacks.running import forged, run, setting, weights

NAMES = list(catalog.titles("attacks"))


@pytest.mark.parametrize("attackers", [1, 2, 5])
@pytest.mark.parametrize("name", [name for name in NAMES if catalog.load("attacks", name).forges()])
def test_every_attacker_sends_a_model(name: str, attackers: int):
    found = forged(catalog.load("attacks", name)(), attackers)
    assert found.shape == (attackers, 6)
    assert found.isfinite().all()


def test_every_attack_poisons_or_forges_and_has_a_source():
    for name in NAMES:
        kind = catalog.load("attacks", name)
        assert issubclass(kind, Attack)
        assert kind.forges() or kind.poisons()
        assert re.search(r"https://", sys.modules[kind.__module__].__doc__), name


def test_what_is_forged_is_what_the_papers_say():
    center, honest = setting()
    mean, std = honest.mean(0), honest.std(0, correction=0)
    torch.testing.assert_close(forged(SignFlip(2.0)), center - 2 * (honest - center))
    torch.testing.assert_close(forged(Scaled(3.0)), center + 3 * (honest - center))
    torch.testing.assert_close(forged(Backdoor(factor=4.0)), center + 4 * (honest - center))
    torch.testing.assert_close(forged(FreeRider()), center.expand(5, -1))
    torch.testing.assert_close(forged(IPM(0.5)), (center - 0.5 * (mean - center)).expand(5, -1))
    torch.testing.assert_close(forged(ALIE(z=1.2)), (mean - 1.2 * std).expand(5, -1))
    torch.testing.assert_close(forged(ALIE()), (mean - hidden(20, 5) * std).expand(5, -1))


@pytest.mark.whole
def test_attacks_are_the_same_on_both_engines_and_differ_from_none(scenario):
    clean = weights(run(scenario))
    for name in NAMES:
        chosen = [f"attack.name={name}", "attack.share=0.5"]
        one, other = (weights(run(scenario, *chosen, f"engine={engine}")) for engine in ("serial", "cohort"))
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
        assert not torch.allclose(one, clean, atol=1e-4), name
