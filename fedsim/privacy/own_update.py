"""Local differential privacy of whole sites: a site clips its update and adds noise before it sends it.

Duchi, Jordan, Wainwright, "Local Privacy and Statistical Minimax Rates", FOCS 2013, https://arxiv.org/abs/1302.3203,
section 1: any two inputs of a site are neighbours. Here an input is a clipped update, and the noise is Gaussian; any
update may be replaced by any other, so two of them lie up to twice the clip apart.
"""

import torch
from torch import Tensor

from fedsim.privacy.central import clipped_sum
from fedsim.privacy.ledger import OwnUpdate
from fedsim.randomness import Normals, Words


def noised(center: Tensor, update: Tensor, did: OwnUpdate, words: Words) -> Tensor:
    """Return ``center`` plus the clipped change and Gaussian noise, float32 (params,).

    Args:
        center: The model that was sent to the site, (params,).
        update: What it trained, (params,); one that is not finite counts as no change.
        did: The clip, and the noise over it.
        words: The randomness; no two updates share any.
    """
    change, _ = clipped_sum(center, update[None], torch.ones(1, dtype=torch.float64), did.clip)
    noise = torch.empty(1, len(center), device=center.device)
    Normals([words], center.device).fill(noise)
    return (center + change + did.noise_multiplier * did.clip * noise[0]).float()
