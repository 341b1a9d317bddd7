"""Sites that attack: what they do to their rows, or to the model they send in place of the honest one.

The honest client trains as ever; an attack changes the rows before (``poison``) or the model after (``forge``). Those
that forge see what all attackers trained honestly, as if they had agreed, and nothing of the honest sites.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fedsim.data.federation import Examples
from fedsim.strategy import check


@dataclass(frozen=True)
class LabelFlip:
    """Label flip: train on wrong labels, class c as the last class minus c.

    Tolpegin, Truex, Gursoy, Liu, "Data Poisoning Attacks Against Federated Learning Systems", ESORICS 2020,
    https://arxiv.org/abs/2007.08432; all classes at once.
    """

    def poison(self, rows: Examples, classes: int, random: np.random.Generator) -> Examples:
        """Return the rows with their labels turned around."""
        return Examples(rows.inputs, classes - 1 - rows.target)


@dataclass(frozen=True)
class Backdoor:
    """Backdoor: give rows with a trigger in them the attackers' class, and scale the change up.

    Bagdasaryan, Veit, Hua, Estrin, Shmatikov, "How To Backdoor Federated Learning", AISTATS 2020,
    https://arxiv.org/abs/1807.00459. The trigger sets the first ``size`` >= 1 inputs of a row to ``value``; a ``rate``
    in (0, 1] of the rows gets it; ``factor`` > 0 multiplies the change that is sent.
    """

    size: int = 3
    value: float = 1.0
    target: int = 1
    rate: float = 0.5
    factor: float = 1.0

    def __post_init__(self) -> None:
        check(self, size="whole [1, inf)", value="(-inf, inf)", target="whole [0, inf)", rate="(0, 1]",
              factor="(0, inf)")  # fmt: skip

    def poison(self, rows: Examples, classes: int, random: np.random.Generator) -> Examples:
        """Return the rows, some of them with the trigger and the attackers' class.

        Raises:
            ValueError: There is no such class.
        """
        if self.target >= classes:
            raise ValueError(f"attack.target: expected a class below {classes}, got {self.target}")
        chosen = torch.from_numpy(random.random(len(rows)) < self.rate).to(rows.target.device)  # (rows,)
        shape = (-1,) + (1,) * (rows.inputs.dim() - 1)
        inputs = torch.where(chosen.reshape(shape), self.stamp(rows.inputs), rows.inputs)
        return Examples(inputs, rows.target.masked_fill(chosen, self.target))

    def stamp(self, inputs: Tensor) -> Tensor:
        """Return inputs (rows, ...) with the trigger in them."""
        flat = inputs.flatten(1).clone()
        flat[:, : self.size] = self.value
        return flat.view_as(inputs)

    def forge(self, center: Tensor, honest: Tensor, sites: int, random: np.random.Generator) -> Tensor:
        """Return the poisoned models with their change multiplied."""
        return center + self.factor * (honest - center)


@dataclass(frozen=True)
class SignFlip:
    """Sign flip: send the opposite of the honest change, ``factor`` > 0 times as long.

    Li, Xu, Chen, Giannakis, Ling, "RSA: Byzantine-Robust Stochastic Aggregation Methods for Distributed Learning", AAAI
    2019, https://arxiv.org/abs/1811.03761.
    """

    factor: float = 1.0

    def __post_init__(self) -> None:
        check(self, factor="(0, inf)")

    def forge(self, center: Tensor, honest: Tensor, sites: int, random: np.random.Generator) -> Tensor:
        """Return ``center - factor (honest - center)``."""
        return center - self.factor * (honest - center)


@dataclass(frozen=True)
class Scaled:
    """Scaled: send the honest change ``factor`` > 0 times as long, so that one site decides.

    Model replacement of Bagdasaryan and others (see ``Backdoor``), equation 3, without the backdoor.
    """

    factor: float = 10.0

    def __post_init__(self) -> None:
        check(self, factor="(0, inf)")

    def forge(self, center: Tensor, honest: Tensor, sites: int, random: np.random.Generator) -> Tensor:
        """Return ``center + factor (honest - center)``."""
        return center + self.factor * (honest - center)


@dataclass(frozen=True)
class Gaussian:
    """Gaussian: send noise of standard deviation ``sigma`` > 0 in each parameter in place of a change.

    Blanchard, El Mhamdi, Guerraoui, Stainer, "Machine Learning with Adversaries", NeurIPS 2017, section 6,
    https://arxiv.org/abs/1703.02757.
    """

    sigma: float = 1.0

    def __post_init__(self) -> None:
        check(self, sigma="(0, inf)")

    def forge(self, center: Tensor, honest: Tensor, sites: int, random: np.random.Generator) -> Tensor:
        """Return the global model plus noise."""
        noise = torch.from_numpy(random.standard_normal(tuple(honest.shape), np.float32)).to(center)
        return center + self.sigma * noise


@dataclass(frozen=True)
class FreeRider:
    """Free rider: send the global model back, plus noise of ``sigma`` >= 0 to hide that nothing was trained.

    Fraboni, Vidal, Lorenzi, "Free-rider Attacks on Model Aggregation in Federated Learning", AISTATS 2021,
    https://arxiv.org/abs/2006.11901, section 3.
    """

    sigma: float = 0.0

    def __post_init__(self) -> None:
        check(self, sigma="[0, inf)")

    def forge(self, center: Tensor, honest: Tensor, sites: int, random: np.random.Generator) -> Tensor:
        """Return the global model, disguised."""
        noise = torch.from_numpy(random.standard_normal(tuple(honest.shape), np.float32)).to(center)
        return center + self.sigma * noise


@dataclass(frozen=True)
class ALIE:
    """ALIE: all send the mean of what they trained, moved by just so many standard deviations that it passes.

    Baruch, Baruch, Goldberg, "A Little Is Enough: Circumventing Defenses For Distributed Learning", NeurIPS 2019,
    https://arxiv.org/abs/1902.06156, Algorithm 3. ``z`` >= 0; 0 for the paper's largest value that hides. It takes two
    attackers, or there is no standard deviation.
    """

    z: float = 0.0

    def __post_init__(self) -> None:
        check(self, z="[0, inf)")

    def forge(self, center: Tensor, honest: Tensor, sites: int, random: np.random.Generator) -> Tensor:
        """Return ``mean - z std`` for every attacker."""
        spread = honest.std(0, correction=0)  # (params,)
        return (honest.mean(0) - (self.z or hidden(sites, len(honest))) * spread).expand_as(honest)


def hidden(sites: int, attackers: int) -> float:
    """Return the largest z with enough honest sites farther out than z standard deviations to make a majority."""
    supporters = sites // 2 + 1 - attackers
    honest = sites - attackers
    share = min(max((honest - supporters) / honest, 0.5), 1 - 1e-6) if honest else 0.5
    return float(torch.special.ndtri(torch.tensor(share, dtype=torch.float64)))


@dataclass(frozen=True)
class IPM:
    """IPM: all send the opposite of the mean of what they trained, ``epsilon`` > 0 times as long.

    Xie, Koyejo, Gupta, "Fall of Empires: Breaking Byzantine-tolerant SGD by Inner Product Manipulation", UAI 2019,
    https://arxiv.org/abs/1903.03936, section 4.
    """

    epsilon: float = 0.5

    def __post_init__(self) -> None:
        check(self, epsilon="(0, inf)")

    def forge(self, center: Tensor, honest: Tensor, sites: int, random: np.random.Generator) -> Tensor:
        """Return ``center - epsilon mean change`` for every attacker."""
        return (center - self.epsilon * (honest.mean(0) - center)).expand_as(honest)


@dataclass(frozen=True)
class MinMax:
    """Min-max: all send the mean of what they trained, moved as far as no honest model is from another.

    Shejwalkar, Houmansadr, "Manipulating the Byzantine: Optimizing Model Poisoning Attacks and Defenses for Federated
    Learning", NDSS 2021, https://doi.org/10.14722/ndss.2021.24498, section IV-B, against the standard deviation; what
    is known are the attackers' own honest models. It takes two attackers.
    """

    def forge(self, center: Tensor, honest: Tensor, sites: int, random: np.random.Generator) -> Tensor:
        """Return ``mean - gamma std`` with the largest gamma that keeps within the honest models' own distances."""
        mean, away = honest.mean(0), -honest.std(0, correction=0)  # (params,)
        limit = torch.cdist(honest, honest).max()
        low, high = 0.0, 1.0
        while away.any() and self._farthest(mean + high * away, honest) <= limit:
            low, high = high, 2 * high
        for _ in range(30):
            middle = (low + high) / 2
            within = self._farthest(mean + middle * away, honest) <= limit
            low, high = (middle, high) if within else (low, middle)
        return (mean + low * away).expand_as(honest)

    def _farthest(self, point: Tensor, honest: Tensor) -> Tensor:
        return (honest - point).norm(dim=1).max()
