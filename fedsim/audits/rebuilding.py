"""Records rebuilt from updates: what attacks on them share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fedsim import figures
from fedsim.audits.bounds import CONFIDENCE, clopper_pearson
from fedsim.audits.finding import Answer, Measured, Picture, RebuiltRecord, Row
from fedsim.audits.pictures import names_of
from fedsim.audits.target import Target
from fedsim.data.federation import Examples
from fedsim.data.loading import task_of
from fedsim.data.tables import Column, Levels
from fedsim.randomness import Words, stream
from fedsim.scenario.schema import Optimizer
from fedsim.training.model import parts_of
from fedsim.training.work import Plan, Streams, Work

_CLOSE = 0.1  # the relative error below which a record counts as rebuilt
_TRIED = 20  # records that are rebuilt
_CAPTION = (
    "A site takes one step on this record alone, the worst case, and sends the result. Without noise the record can be "
    "solved for; with it, the reconstruction has nothing to do with it."
)
_REAL = "The record is one of the data set's."
_MADE_UP = "The record is made up, so that this page shows nobody's; the shares are of real records."


@dataclass(frozen=True)
class Inversion:
    """Reconstructions beside their records.

    Attributes:
        error: The median over the records of |rebuilt - record| / |record|.
        found: The share of the records with an error below 0.1.
        records: How many were attacked.
        record: The first record, as the model sees it.
        rebuilt: Its reconstruction.
        made_up: Whether these two are of a record that is made up, which the figures are not about.
    """

    error: float
    found: float
    records: int
    record: np.ndarray
    rebuilt: np.ndarray
    made_up: bool = False

    def showing(self, record: Examples, rebuilt: Tensor) -> Inversion:
        """Return the same figures with a record that is made up, and its reconstruction (1, ...), to be drawn."""
        return replace(self, record=record.inputs[0].cpu().numpy(), rebuilt=rebuilt[0].cpu().numpy(), made_up=True)

    @property
    def values(self) -> dict[str, Any]:
        """The figures as JSON holds them: never a record."""
        return {"error": self.error, "found": self.found, "records": self.records}

    def measured(self, name: str) -> tuple[Measured, ...]:
        """Return the share rebuilt, with its interval, and the median error for a finding."""
        low, high = clopper_pearson(round(self.found * self.records), self.records, CONFIDENCE)
        return (
            Measured(f"{name}: share rebuilt", "share", self.found, float(low), float(high), CONFIDENCE),
            Measured(f"{name}: median error", "relative error", self.error),
        )

    def words(self, method: str) -> str:
        """Return the share rebuilt and the median error for a terminal."""
        return f"{method} {figures.share(self.found)}, {self.error:.2g}; {self.records} tried"

    def row(self, name: str, hint: str = "") -> Row:
        """Return the share rebuilt and the median error for the story's table."""
        error = "< 0.001" if self.error < 1e-3 else f"{self.error:.2g}"
        return Row(name, hint, f"{figures.share(self.found)} of {self.records} ({error})")

    @property
    def answer(self) -> Answer:
        """The answer for a privacy officer."""
        return Answer(
            "Can a record be rebuilt?",
            "From the update of a site that trained on it alone",
            f"{figures.share(self.found)} of the records",
        )

    def picture(self, target: Target) -> Picture:
        """Return the first record beside its reconstruction."""
        names = names_of(task_of(target.scenario).columns, self.record.size)
        return Picture(
            name="records",
            heading="A record, and what an attacker makes of its update",
            alt="A record as the model sees it, and its reconstruction at each level",
            caption=f"{_CAPTION} {_MADE_UP if self.made_up else _REAL}",
            data=RebuiltRecord(self.record, self.rebuilt, tuple(names)),
        )


def some_records(target: Target) -> Examples:
    """Choose a few of the target's records at random."""
    chosen = torch.from_numpy(stream(target.seed, "inversion records").permutation(len(target.rows))[:_TRIED])
    return target.rows.some(chosen)


def record_to_draw(target: Target) -> Examples | None:
    """Make up a record to be drawn in place of one of the user's own rows; None where a real one may be."""
    if target.scenario.task is not None or target.effort.real_record:
        return None
    random = stream(target.seed, "made-up record")
    like = target.rows.inputs[:1]
    parts = [_made_up(column, random) for column in task_of(target.scenario).columns]
    values = np.concatenate(parts) if parts else np.zeros(0)
    if len(values) != like.numel():
        values = random.uniform(-1, 1, like.numel())
    inputs = torch.tensor(values, dtype=like.dtype, device=like.device).reshape(like.shape)
    return Examples(inputs, torch.zeros_like(target.rows.target[:1]))


def _made_up(column: Column, random: np.random.Generator) -> np.ndarray:
    """Return the inputs of a value that is drawn from a column's public range."""
    values = np.zeros(column.width)
    if isinstance(column, Levels):
        values[random.integers(column.width)] = 1
    else:
        values[0] = random.uniform(-1, 1)
    return values


def gradients_of_each(target: Target, records: Examples, kind: str = "inversion") -> list[Tensor]:
    """Return what a site reveals by one step on each record alone, with the target's noise or without, (params,) each.

    The attacker sees the model before and after one step of a site with a batch of one, as in its first round.

    Args:
        target: What is attacked.
        records: The records.
        kind: Names the randomness of the steps.
    """
    one_step = Plan(steps=1, sampling_rate=1.0, expected_batch=1.0, optimizer=Optimizer(lr=1.0),
                    noise=target.plan.noise, of_persons=target.plan.of_persons)  # fmt: skip
    works = []
    for number in range(len(records)):
        record = Examples(
            inputs=records.inputs[number : number + 1],
            target=records.target[number : number + 1],
            person=torch.zeros(1, dtype=torch.int64, device=records.target.device),
        )
        streams = streams_of(target.seed, kind, number)
        works.append(Work(target.model, target.start, record, one_step, streams, target.losses))
    return [target.start - done.parameters for done in target.train_all(works)]


def judge(records: Examples, rebuilt: Sequence[Tensor]) -> Inversion:
    """Hold reconstructions, each (1, ...), against their records."""
    together = torch.cat([*rebuilt])
    distance = (together - records.inputs).flatten(1).norm(dim=1)
    error = distance / records.inputs.flatten(1).norm(dim=1).clamp(min=1e-9)
    return Inversion(
        error=float(error.median()),
        found=float((error < _CLOSE).float().mean()),
        records=len(records),
        record=records.inputs[0].cpu().numpy(),
        rebuilt=together[0].cpu().numpy(),
    )


def candidates(model: nn.Module, gradient: Tensor, layer: str) -> Tensor:
    """Divide the weights' gradient of each unit of a linear layer by its bias', (units, inputs).

    Where one record made the gradient (params,), that is the layer's input: dL/dW = dL/db x input. Phong, Aono,
    Hayashi, Wang, Moriai 2018, https://eprint.iacr.org/2017/715, section 3.
    """
    parts = parts_of(model, gradient)
    weight = parts[parameter_name(layer, "weight")]
    bias = parts[parameter_name(layer, "bias")]
    return weight / torch.where(bias == 0, 1.0, bias)[:, None]


def parameter_name(layer: str, parameter: str) -> str:
    """Name a parameter of a layer; the layer ``""`` is the model itself."""
    return f"{layer}.{parameter}" if layer else parameter


def first_linear(model: nn.Module) -> str | None:
    """Name the layer that sees the record as it is, if it is linear with a bias."""
    for name, layer in model.named_modules():
        has_parameters = any(True for _ in layer.parameters(recurse=False))
        if has_parameters:
            is_linear = isinstance(layer, nn.Linear) and layer.bias is not None
            return name if is_linear else None
    return None


def streams_of(seed: int, kind: str, number: int) -> Streams:
    """Derive the randomness of one attacked update."""
    return Streams(Words.of(seed, f"{kind} batches", number), Words.of(seed, f"{kind} noise", number))
