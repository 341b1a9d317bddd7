"""A trained model of a run in PyTorch: the module with its weights, and its predictions of new rows.

It takes what an export takes, refuses what an export refuses, and needs neither ONNX nor onnxruntime.
"""

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from fedsim.data.form import Derive
from fedsim.data.tables import Column, Number
from fedsim.exporting.choice import Chosen
from fedsim.exporting.inputs import Inputs
from fedsim.exporting.raw_rows import RawRows, read_rows
from fedsim.exporting.sources import source_of
from fedsim.mistakes import Mistake
from fedsim.outcomes import outcome_of
from fedsim.strategy.trainable import shared_when_copied, trainable, whole
from fedsim.training.adapt import merged
from fedsim.training.functional import rows_at_once

_AT_ONCE = 2**13  # rows that go through the model together


def model_of(chosen: Chosen) -> nn.Module:
    """Return a trained model with its weights, on the CPU and in the mode for predictions.

    It takes rows as the task encodes them; where ``chosen.scale`` is one, standardized by that.
    """
    model = chosen.trial.untried_model.cpu()
    with torch.no_grad():
        for name, own in trainable(model).items():
            own.copy_(chosen.parameters[name])
    return model.eval()


def handed_on(chosen: Chosen) -> nn.Module:
    """Return a trained model as it is handed on: adapters are merged into the weights beside which they stand.

    So it has the layers and the names of the task's own model.
    """
    model = model_of(chosen)
    if chosen.trial.scenario.training.adapt is None:
        return model
    return merged(copy.deepcopy(model, shared_when_copied(model)))


def predicted(chosen: Chosen, rows: str | Path | pd.DataFrame | np.ndarray | torch.Tensor) -> pd.DataFrame:
    """Predict new rows.

    Args:
        chosen: The model.
        rows: A table as a file or a frame, with the columns that the model was trained on; the path of images; or,
            where a task does not say how its rows are written in a file, inputs as it encodes them, (rows, ...).

    Returns:
        A row for each prediction: what names it, then ``probability`` of a yes or no, ``class`` and ``probability of
        CLASS`` of classes, or ``prediction`` of a number, in its unit.

    Raises:
        Mistake: The rows are not such as the model needs: all faults.
    """
    kind = chosen.trial.task.kind
    if not outcome_of(kind).predicts:
        raise Mistake(
            f"predict: expected an outcome that rows are asked for, got {kind!r}; take the model: run.model()"
        )
    source = source_of(chosen.trial)
    found, encoded = _encoded(source.inputs, source.columns, source.derive, source.encoded, rows)
    values = torch_predictions(chosen, encoded)
    columns: dict[str, Any] = {}
    if kind == "classes":
        names = np.array(classes_of(chosen), dtype=object)
        columns["class"] = names[values.argmax(axis=1)]
        for place, name in enumerate(names):
            columns[f"probability of {name}"] = values[:, place]
    elif values.ndim > 1:
        flat = values.reshape(len(values), -1)
        for place in range(flat.shape[1]):
            columns[f"prediction {place}"] = flat[:, place]
    else:
        columns["probability" if kind == "binary" else "prediction"] = values
    return found.about.assign(**columns)


def _encoded(
    inputs: Inputs,
    columns: tuple[Column, ...],
    derive: Derive | None,
    known: np.ndarray,
    rows: str | Path | pd.DataFrame | np.ndarray | torch.Tensor,
) -> tuple[RawRows, np.ndarray]:
    """Return new rows, and their inputs as the task encodes them, (rows, ...), like those of the ``known`` rows.

    Raises:
        Mistake: They are not such as the model needs: all faults.
    """
    if inputs.kind == "encoded":
        values = _array_of(rows, known)
        return RawRows({"inputs": values}, pd.DataFrame({"row": np.arange(len(values))})), values
    if isinstance(rows, np.ndarray | torch.Tensor):
        raise Mistake("rows: expected a table as a frame or a file, or the path of images, got an array")
    found = read_rows(inputs, rows)
    if inputs.kind == "images":
        pixels = found.arrays["image"]
        scaled = pixels.astype(np.float32) / np.float32(127.5) - 1
        return found, scaled.reshape(len(pixels), *known.shape[1:])

    raw: Mapping[str, Any] = derive(found.arrays) if derive else found.arrays
    parts = []
    for column in columns:
        values = np.asarray(raw[column.name])
        flat = column.encode(pd.Series(values.reshape(-1)))
        parts.append(flat.reshape(*values.shape, -1))
    return found, np.concatenate(parts, axis=-1)


def _array_of(rows: object, known: np.ndarray) -> np.ndarray:
    """Return rows that are given encoded, (rows, ...), in the type of the ``known`` ones.

    Raises:
        Mistake: They are something else.
    """
    shape = known.shape[1:]
    wanted = f"an array (rows, {', '.join(map(str, shape))}) of inputs as the task encodes them"
    if not isinstance(rows, np.ndarray | torch.Tensor):
        raise Mistake(f"rows: expected {wanted}: the task does not say how its rows are written in a file (Task.form), "
                      f"got {type(rows).__name__}")  # fmt: skip
    values = np.asarray(rows)
    if values.shape[1:] != shape or not np.issubdtype(values.dtype, np.number):
        raise Mistake(f"rows: expected {wanted}, got {values.dtype} {values.shape}")
    if np.issubdtype(known.dtype, np.integer) and not np.issubdtype(values.dtype, np.integer):
        raise Mistake(f"rows: expected {wanted}, whole numbers, got {values.dtype}")
    values = values.astype(known.dtype)
    if not np.isfinite(values).all():
        raise Mistake("rows: expected finite inputs, got some that are not")
    return values


def classes_of(chosen: Chosen) -> list[str]:
    """Return the names of the classes of an outcome: their numbers where they have none; empty for other kinds."""
    task = chosen.trial.task
    if task.kind != "classes":
        return []
    if task.classes:
        return list(task.classes)
    *_, last = whole(chosen.trial.untried_model, chosen.parameters).values()  # a model's last parameter has its outputs
    return [str(number) for number in range(len(last))]


def torch_predictions(chosen: Chosen, encoded: np.ndarray) -> np.ndarray:
    """Return PyTorch's predictions, float64: probabilities (rows,) or (rows, classes), or numbers in their unit.

    Args:
        chosen: The model.
        encoded: Rows as the task encodes them, (rows, ...).
    """
    model = model_of(chosen)
    scale = chosen.scale
    outcome = outcome_of(chosen.trial.task.kind)
    parts = []
    at_once = rows_at_once(model, _AT_ONCE)
    for start in range(0, len(encoded), at_once):
        inputs = torch.from_numpy(encoded[start : start + at_once])
        with torch.no_grad():
            outputs = model(scale.inputs(inputs) if scale else inputs)
        parts.append(outcome.said(outputs, outputs))
    predicted = np.concatenate(parts)
    number = chosen.trial.task.range
    return predicted if number is None else _in_units(predicted, number, chosen)


def _in_units(predicted: np.ndarray, number: Number, chosen: Chosen) -> np.ndarray:
    if chosen.scale is not None:
        predicted = chosen.scale.encoded_target(predicted)
    return np.array([number.in_units(each) for each in predicted])
