"""The local rule of strategies that leave some layers at home: FedPer, FedRep, FedBN."""

from dataclasses import dataclass
from fnmatch import fnmatch

import torch
from torch import Tensor

from fedsim.strategy.local_rule import Parts, Personal, State


@dataclass(frozen=True)
class PrivateLayers(Personal):
    """Some parameters are the site's own: they are trained, kept, and sent back as they came.

    Attributes:
        which: ``last`` layer, ``norm`` layers, or a pattern for names, such as ``*bias``.
        head_steps: The first steps of a round train the private parameters only, the others the shared ones only; with
            0 all steps train all.
    """

    which: str
    head_steps: int = 0

    def begin(self, center: Tensor, kept: State, parts: Parts) -> tuple[Tensor, State]:
        """Start from the global model with the site's own parameters in their places.

        Raises:
            ValueError: The model has no such parameters, or no others.
        """
        own = torch.zeros_like(center)  # 1 where a parameter is private, (params,)
        for part in parts:
            if self._is_private(part.name, part.layer, parts):
                own[part.start : part.stop] = 1
        if not own.any() or own.all():
            names = ", ".join(part.name for part in parts)
            raise ValueError(f"strategy.private: expected {self.which!r} to choose some of {names}, got all or none")
        return self._with_private(center, kept.get("private"), own), {"own": own, "center": center}

    def correct(self, gradient: Tensor, parameters: Tensor, memory: State, step: int) -> Tensor:
        """Leave the gradient as it is, or silence a part of it."""
        if not self.head_steps:
            return gradient
        if step < self.head_steps:
            return gradient * memory["own"]
        return gradient * (1 - memory["own"])

    def finish(self, parameters: Tensor, memory: State, steps: int) -> tuple[Tensor, State]:
        """Send the shared parameters, keep the private ones."""
        own = memory["own"]
        return torch.where(own > 0, memory["center"], parameters), {"private": parameters, "own": own}

    def personal(self, center: Tensor, kept: State) -> Tensor:
        """Return the global model with the site's own parameters in their places."""
        if not kept:
            return center
        return self._with_private(center, kept["private"], kept["own"])

    def _with_private(self, center: Tensor, private: Tensor | None, own: Tensor) -> Tensor:
        """Return the global model with a site's private parameters in their places, if it has any yet."""
        if private is None:
            return center
        return torch.where(own > 0, private, center)

    def _is_private(self, name: str, layer: str, parts: Parts) -> bool:
        if self.which == "norm":
            return "Norm" in layer
        if self.which == "last":
            return name.rpartition(".")[0] == parts[-1].name.rpartition(".")[0]
        return fnmatch(name, self.which)
