"""Try whether a task's model takes its inputs and answers as its kind of outcome asks, before the first round."""

from __future__ import annotations

import inspect
import traceback
from pathlib import Path

import torch
from torch import Tensor, nn

from fedsim.data.federation import Examples
from fedsim.mistakes import STOPS, Mistake, place_of, text_of
from fedsim.outcomes.outcome import Outcome
from fedsim.training.rows_alone import some_rows

_ROWS = 4  # on which a model is tried
_NOT_THE_TASKS = (Path(torch.__file__).parent, Path(__file__).parents[1])  # folders of code that is nobody's own


def check_fits_outcome(model: nn.Module, examples: Examples, outcome: Outcome, made_up: bool) -> None:
    """Make sure that a model's outputs for some rows have the shape that its kind of outcome asks for.

    Args:
        model: The model; its mode stays as it is.
        examples: Rows of its task; without any, nothing is tried.
        outcome: The task's kind of outcome.
        made_up: Whether inputs and targets are made up, as where rows are protected: an error's text may hold values.

    Raises:
        Mistake: The model fails, its outputs have another shape, or the loss is not one number for each row.
    """
    if not len(examples):
        return
    count = min(_ROWS, len(examples))
    inputs = some_rows(model, examples, count) if made_up else examples.inputs[:count]
    target = examples.target[:count]
    if made_up:
        target = torch.zeros_like(target)

    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            outputs = model(inputs)
            losses = None if _fault(outputs, target, outcome) else outcome.losses(outputs, target)
    except STOPS:
        raise
    except Exception as error:
        said = f"{type(error).__name__}: {text_of(error)} ({_place_in_task(error)})"
        raise Mistake(f"task: expected a model that takes inputs {_shape(inputs)}, got {said}") from error
    finally:
        model.train(was_training)

    fault = _fault(outputs, target, outcome)
    if fault:
        raise Mistake(f"task: {fault}{_place_of_model(model)}")
    if not isinstance(losses, Tensor) or losses.shape != (count,):
        got = f"shape {_shape(losses)}" if isinstance(losses, Tensor) else type(losses).__name__
        raise Mistake(f"task: kind {outcome.name!r}: expected a loss for each row, (rows,), got {got} for {count} rows")


def _fault(outputs: object, target: Tensor, outcome: Outcome) -> str | None:
    """Return what is wrong with a model's outputs for some rows; None if nothing is."""
    expected = f"expected a model for the kind {outcome.name!r} that gives"
    if not isinstance(outputs, Tensor):
        return f"{expected} {outcome.outputs_in_words}, got {type(outputs).__name__}"
    asked = None
    if outputs.ndim < 2 or len(outputs) != len(target):
        asked = outcome.outputs_in_words
    asked = asked or outcome.fault_of_outputs(outputs, target)
    return asked and f"{expected} {asked}, got {_shape(outputs)} for {len(target)} rows"


def _shape(values: Tensor) -> str:
    return str(tuple(values.shape))


def _place_in_task(error: Exception) -> str:
    """Return the last place in code of the task's own at which an error passed, e.g. ``net.py:37``."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        path = Path(frame.filename)
        if not any(path.is_relative_to(folder) for folder in _NOT_THE_TASKS):
            return f"{path.name}:{frame.lineno}"
    return place_of(error)


def _place_of_model(model: nn.Module) -> str:
    """Return where a model's class is written, in brackets; nothing if it is torch's own."""
    try:
        path = Path(inspect.getfile(type(model)))
        _, line = inspect.getsourcelines(type(model))
    except (OSError, TypeError):
        return ""
    if any(path.is_relative_to(folder) for folder in _NOT_THE_TASKS):
        return ""
    return f" ({path.name}:{line}, {type(model).__name__})"
