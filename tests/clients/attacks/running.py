"""Attackers that were trained honestly, and runs with attackers."""

import torch

from fedsim.experiments.arms import GLOBAL, Job, run_job
from fedsim.randomness import stream


def setting(attackers: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(0)
    center = torch.randn(6, generator=random)
    return center, center + 0.5 + 0.2 * torch.randn(attackers, 6, generator=random)


def forged(attack, attackers: int = 5, sites: int = 20) -> torch.Tensor:
    center, honest = setting(attackers)
    before = honest.clone()
    found = attack.forge(center, honest, sites, stream(0, "attack"))
    assert torch.equal(honest, before)
    return found


def run(scenario, *overrides: str, private: bool = False):
    return run_job(scenario("training.rounds=2", *overrides), Job("federated", private, 0), lambda number: None)


def weights(found) -> torch.Tensor:
    return found.models[GLOBAL]["weight"].flatten()
