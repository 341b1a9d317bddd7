"""Read the coefficients off a linear model, by the names and in the units of the task's columns."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from torch import Tensor, nn

from fedsim.data.scale import Scale
from fedsim.data.tables import inputs_of
from fedsim.data.task import Task

INTERCEPT = "intercept"
_KINDS = ("binary", "classes", "number")  # whose coefficients have a meaning in words
_CHANGES_NOTHING = (nn.Flatten, nn.Identity, nn.Dropout)  # in a model that is evaluated


def coefficients(
    model: nn.Module,
    parameters: Mapping[str, Tensor],
    task: Task,
    scale: Scale | None = None,
) -> pd.DataFrame:
    """Return the coefficients of a linear model.

    Args:
        model: Gives the architecture.
        parameters: {name: parameter} of the trained model.
        task: The task, with its public ranges.
        scale: The scale by which inputs and targets were standardized; None where they were not.

    Returns:
        A row for each output and input: output (from 0 on), input (its name), unit, and two
        coefficients. ``per_input`` is for one unit of the input as the model gets it: half of the
        column's public range, or one spread of its scale, or a mark that is set. ``per_unit`` is
        for one unit of the column; of a mark it is missing. The first row of an output is the
        intercept.

        Coefficients of a number are in the outcome's unit, others in log odds. Of several classes
        the coefficients of an input are given less their mean over the classes, since only their
        differences change what a model says.

        The table is empty if the model is not linear, if its inputs have no names, and for other
        kinds of outcomes.
    """
    name = _name_of_linear(model)
    inputs = inputs_of(task.columns)
    if name is None or not inputs or task.kind not in _KINDS:
        return pd.DataFrame()
    weight = parameters[f"{name}weight"].double().cpu()  # (outputs, inputs)
    if weight.shape[1] != len(inputs):
        return pd.DataFrame()

    bias = parameters.get(f"{name}bias")
    offsets = weight.new_zeros(len(weight)) if bias is None else bias.double().cpu()  # (outputs,)
    if task.kind == "classes":
        weight = weight - weight.mean(dim=0)
        offsets = offsets - offsets.mean()

    # A scaled outcome of 1 is the middle of its range and one half of it more.
    target_mean = scale.target_mean if scale else 0.0
    target_spread = scale.target_spread if scale else 1.0
    amount = task.range.scale * target_spread if task.range else 1.0
    middle = task.range.in_units(target_mean) if task.range else 0.0
    spreads = scale.spreads if scale else np.ones(len(inputs))

    rows = []
    for output, offset in enumerate(offsets.tolist()):
        intercept = middle + amount * offset
        rows.append(_row(output, INTERCEPT, "", intercept, None))
        for described, spread, value in zip(inputs, spreads, weight[output].tolist(), strict=True):
            if described.scale is None:
                # A mark is set or not, whatever its spread.
                per_input = amount * value / float(spread)
                per_unit = None
            else:
                per_input = amount * value
                per_unit = per_input / (described.scale * float(spread))
            rows.append(_row(output, described.name, described.unit, per_input, per_unit))
    return pd.DataFrame(rows)


def _row(
    output: int,
    name: str,
    unit: str,
    per_input: float,
    per_unit: float | None,
) -> dict[str, object]:
    return {
        "output": output,
        "input": name,
        "unit": unit,
        "per_input": per_input,
        "per_unit": per_unit,
    }


def _name_of_linear(model: nn.Module) -> str | None:
    """Return what stands before the parameters' names of a linear model; None of another model."""
    if isinstance(model, nn.Linear):
        return ""
    if type(model) is not nn.Sequential:
        return None

    names = []
    for name, part in model.named_children():
        if isinstance(part, _CHANGES_NOTHING):
            continue
        if not isinstance(part, nn.Linear):
            return None
        names.append(f"{name}.")
    return names[0] if len(names) == 1 else None
