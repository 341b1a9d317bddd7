"""Gradient inversion: solve for a record in the update of a site that trained on it alone.

Phong, Aono, Hayashi, Wang, Moriai 2018, https://eprint.iacr.org/2017/715, section 3. It takes a first layer that is
linear and has a bias.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from fedsim.audits.attack import Attack
from fedsim.audits.claims import RECORDS as RECORD_UNITS
from fedsim.audits.finding import IN_WORDS, RECORDS, Finding
from fedsim.audits.rebuilding import (
    Inversion,
    candidates,
    first_linear,
    gradients_of_each,
    judge,
    parameter_name,
    record_to_draw,
    some_records,
)
from fedsim.audits.target import Target
from fedsim.data.federation import Examples
from fedsim.training.model import parts_of


class Inverted(Attack):
    """Solves for records, one at a time."""

    places = RECORD_UNITS
    question = RECORDS
    label = "records rebuilt"
    sections: ClassVar = {"inversion": {}}

    def run(self, target: Target) -> Finding | None:
        """Attack a few records; None where no layer gives them away."""
        if not target.rows.inputs.is_floating_point():
            return None
        found = solve(target, some_records(target))
        if found is None:
            return None
        return self.finding(
            target,
            measured=found.measured("solved for"),
            words=(f"{IN_WORDS[target.training]}: share, median error", found.words("solved for")),
            rows=(
                found.row(
                    "Solved for, one record alone",
                    "share rebuilt, and in brackets the median error; 1 is as far off as saying nothing",
                ),
            ),
            answer=found.answer,
            picture=found.picture(target),
            section={"inversion": {target.training: {"analytic": found.values}}},
        )


def solve(target: Target, records: Examples) -> Inversion | None:
    """Solve for each of some records; None if the first layer is not linear with a bias."""
    layer = first_linear(target.model)
    if layer is None:
        return None
    shape = records.inputs[:1].shape
    gradients = gradients_of_each(target, records)
    found = judge(records, [analytic(target.model, gradient, layer).reshape(shape) for gradient in gradients])
    made_up = record_to_draw(target)
    if made_up is None:
        return found
    (gradient,) = gradients_of_each(target, made_up, "inversion of a made-up record")
    return found.showing(made_up, analytic(target.model, gradient, layer).reshape(shape))


def analytic(model: nn.Module, gradient: Tensor, layer: str) -> Tensor:
    """Solve for the input of a linear layer in the gradient (params,) of one record.

    The unit with the largest bias gradient is used.
    """
    bias = parts_of(model, gradient)[parameter_name(layer, "bias")]
    unit = int(bias.abs().argmax())
    return candidates(model, gradient, layer)[unit]
