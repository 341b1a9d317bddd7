"""Export a trained model of a run: as ONNX with its preprocessing inside, as safetensors, and with a model card.

What is written is run by onnxruntime on all rows of the task first, and must agree with PyTorch.
"""

import json
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pandas as pd
from torch import Tensor

from fedsim.data.own_table import frames
from fedsim.data.task import Task
from fedsim.experiments.given import allow_given_code
from fedsim.exporting.card import card
from fedsim.exporting.choice import Chosen, Wanted, choose
from fedsim.exporting.facts import facts_of
from fedsim.exporting.in_torch import classes_of, handed_on, torch_predictions
from fedsim.exporting.predict import CARD, FACTS, FILES, MODEL, PARAMETERS, check_extra, outputs_of
from fedsim.exporting.sources import Source, source_of
from fedsim.mistakes import Mistake, RunFailed
from fedsim.results.digests import sha256
from fedsim.results.run_directory import Run, load, write_json, write_tensors
from fedsim.results.seal import NAME as SEAL
from fedsim.results.whole_files import write_bytes
from fedsim.strategy.contract import Strategy
from fedsim.strategy.trainable import trainable, whole

TOLERANCE = 1e-5
"""The most that a prediction may differ from PyTorch's: in a probability, or in halves of a number's range."""


def export(
    run: str | Path | Run,
    to: str | Path,
    *,
    arm: str | None = None,
    private: bool | None = None,
    seed: int | None = None,
    site: str | None = None,
    data: pd.DataFrame | None = None,
    task: Task | str | None = None,
    strategy: Strategy | type | str | None = None,
) -> Path:
    """Export a trained model of a finished run.

    Args:
        run: The run, or its directory.
        to: The directory to make.
        arm: The arm; by default the federated one.
        private: Whether the model was trained under privacy; by default if the run is private.
        seed: The seed; by default the first.
        site: The site whose own model is meant, in the local arm or of a strategy that leaves sites with one.
        data: The frame that the run was begun with, if it was one.
        task: The task that the run was begun with, where it is the user's own.
        strategy: Likewise its strategy.

    Returns:
        The directory, with ``model.onnx``, ``model.safetensors``, ``model.json``, ``README.md`` and ``SHA256SUMS``.

    Raises:
        Mistake: There is no such model, it can't be exported, or the run's promise does not cover it.
        OSError: Something can't be written.
    """
    check_extra("onnx", "onnxruntime")
    folder = Path(to)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise Mistake(f"{to}: expected a new or empty directory, it is taken")
    allow_given_code(task, strategy)
    finished = run if isinstance(run, Run) else load(run)
    with ExitStack() as stack:
        if data is not None:
            stack.enter_context(frames.held(frames.table_of(data)))
        chosen = choose(finished, Wanted(arm, private, seed, site))
        source = source_of(chosen.trial)
        names = classes_of(chosen)
        content = onnx_of(chosen, source, names)
        difference = checked(chosen, source, content)
        facts = facts_of(chosen, source.inputs, names, difference)

    folder.mkdir(parents=True, exist_ok=True)
    write_bytes(folder / MODEL, content)
    about = {"task": chosen.trial.task.title, "training": chosen.job.key, "site": chosen.site}
    write_tensors(folder / PARAMETERS, _parameters(chosen), about)
    write_json(folder / FACTS, facts)
    write_bytes(folder / CARD, card(facts).encode())
    lines = [f"{sha256((folder / name).read_bytes())}  {name}\n" for name in sorted(FILES)]
    write_bytes(folder / SEAL, "".join(lines).encode())
    return folder


def _parameters(chosen: Chosen) -> dict[str, Tensor]:
    """Return all values of a model that is handed on, by the names in the task's own model."""
    if chosen.trial.scenario.training.adapt is None:
        return whole(chosen.trial.untried_model, chosen.parameters)
    model = handed_on(chosen)
    return whole(model, trainable(model))


def onnx_of(chosen: Chosen, source: Source, classes: Sequence[str]) -> bytes:
    """Return the model with its preprocessing as an ONNX file.

    Raises:
        Mistake: A layer of the model can't be written as ONNX.
    """
    from fedsim.exporting import preprocessing
    from fedsim.exporting.graph import FLOAT, UINT8, Graph
    from fedsim.exporting.layers import outputs_of

    task = chosen.trial.task
    inputs = source.inputs
    graph = Graph()
    if inputs.kind == "table":
        length = [inputs.windows.length] if inputs.windows else []
        raw = preprocessing.raw_inputs(graph, [column.column for column in inputs.columns], length)
        value = preprocessing.encoded(graph, raw, source.columns, source.derive)
    elif inputs.kind == "images":
        pixels = graph.input("image", UINT8, inputs.shape, "brightness, 0 to 255")
        value = preprocessing.brightness(graph, pixels, has_channels=len(inputs.shape) == 3)
    else:
        value = graph.input("inputs", FLOAT, inputs.shape, "inputs as the task encodes them")

    value = preprocessing.standardized(graph, value, chosen.scale)
    outputs = outputs_of(handed_on(chosen), value)
    preprocessing.predictions(graph, outputs, task.kind, task.outcome, classes, task.range, chosen.scale)
    about = {
        "title": task.title,
        "outcome": task.outcome,
        "training": chosen.job.key,
        "classes": json.dumps(list(classes)),
    }
    return graph.finished(about).SerializeToString(deterministic=True)


def checked(chosen: Chosen, source: Source, content: bytes) -> float:
    """Run an ONNX file on all rows of the task; return the largest difference to PyTorch, as TOLERANCE counts it.

    Raises:
        RunFailed: It is above TOLERANCE.
    """
    wanted = torch_predictions(chosen, source.encoded)
    outputs = outputs_of(content, source.arrays)
    number = chosen.trial.task.range
    got = outputs[{"binary": "probability", "classes": "probabilities", "number": "prediction"}[chosen.trial.task.kind]]
    difference = float(np.abs(got - wanted).max()) / (number.scale if number else 1.0)
    if not difference <= TOLERANCE:
        expected = f"predictions within {TOLERANCE:g} of PyTorch's"
        raise RunFailed(f"export: expected {expected}, they differ by {difference:.2g}")
    return difference
