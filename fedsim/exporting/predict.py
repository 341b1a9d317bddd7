"""Predict new rows with an exported model, by onnxruntime and without PyTorch."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fedsim.exporting.inputs import Inputs
from fedsim.exporting.raw_rows import RawRows, read_rows
from fedsim.mistakes import Mistake
from fedsim.results.seal import NAME as SEAL
from fedsim.results.seal import check_seal
from fedsim.scenario.reading import parse_json, read_ordinary

MODEL = "model.onnx"
PARAMETERS = "model.safetensors"
CARD = "README.md"
FACTS = "model.json"
FILES = (MODEL, PARAMETERS, CARD, FACTS)
LARGEST = 2**31
"""Bytes that a file may have."""

_AT_ONCE = 4096  # rows that go through a model together


@dataclass(frozen=True)
class Predicted:
    """Predictions.

    Attributes:
        table: A row for each prediction: what names it, then ``probability`` of a yes or no, ``class`` and
            ``probability of CLASS`` of classes, or ``prediction`` of a number, in its unit.
        notes: Notes on values that were cut to a range or read otherwise than they stand there.
    """

    table: pd.DataFrame
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Exported:
    """An exported model, whose files are those that were written.

    Attributes:
        folder: Its directory.
        facts: What ``model.json`` says.
        inputs: Its inputs.
        content: The ONNX file.
    """

    folder: Path
    facts: Mapping[str, Any]
    inputs: Inputs
    content: bytes

    def predict(self, rows: str | Path | pd.DataFrame) -> Predicted:
        """Predict the rows of a file or a frame.

        Raises:
            Mistake: They are not such rows as the model needs: all faults.
        """
        found = self._read(rows)
        outputs = outputs_of(self.content, found.arrays)
        columns: dict[str, Any] = {}
        if "probabilities" in outputs:
            columns["class"] = outputs["class"]
            for place, name in enumerate(self.facts["outcome"]["classes"]):
                columns[f"probability of {name}"] = outputs["probabilities"][:, place]
        else:
            columns = dict(outputs)
        return Predicted(found.about.assign(**columns), found.notes)

    def _read(self, rows: str | Path | pd.DataFrame) -> RawRows:
        if self.inputs.kind == "encoded":
            raise Mistake(f"{self.folder}: expected a model with its preprocessing inside; this one takes its inputs "
                          f"encoded, as {CARD} says, and no table")  # fmt: skip
        return read_rows(self.inputs, rows)


def open_exported(folder: str | Path) -> Exported:
    """Open the directory of an exported model.

    Raises:
        Mistake: It is none, or a file has changed since it was written.
    """
    folder = Path(folder)
    if not (folder / SEAL).exists():
        raise Mistake(f"{folder}: expected a directory that fedsim export wrote, it has no {SEAL}")
    check_seal(folder, LARGEST)
    named = {line.partition("  ")[2] for line in read_ordinary(folder / SEAL, LARGEST).decode().splitlines()}
    if lacking := set(FILES) - named:
        raise Mistake(f"{folder / SEAL}: expected the digest of {', '.join(sorted(lacking))}")

    facts = parse_json(read_ordinary(folder / FACTS, LARGEST), str(folder / FACTS))
    try:
        inputs = Inputs.of_json(facts["inputs"])
        classes = facts["outcome"]["classes"]
        if not isinstance(classes, list):
            raise TypeError("no list of classes")
    except (KeyError, TypeError, ValueError) as error:
        raise Mistake(f"{folder / FACTS}: expected what fedsim export wrote, got something else: {error}") from None
    return Exported(folder, facts, inputs, read_ordinary(folder / MODEL, LARGEST))


def outputs_of(content: bytes, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the outputs of an ONNX model, {name: (rows, ...)}, for inputs by their names.

    Raises:
        Mistake: onnxruntime is not there, or can't read the model.
    """
    check_extra("onnxruntime")
    import onnxruntime
    from onnxruntime.capi import onnxruntime_pybind11_state as errors  # pyright: ignore[reportAttributeAccessIssue]

    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 3  # errors only
    settings.intra_op_num_threads = 1  # so that sums have one order
    try:
        session = onnxruntime.InferenceSession(content, settings, providers=["CPUExecutionProvider"])
    except (errors.Fail, errors.InvalidArgument, errors.InvalidGraph, errors.InvalidProtobuf) as error:
        raise Mistake(f"{MODEL}: expected a model that onnxruntime reads, got: {error}") from None

    names = [output.name for output in session.get_outputs()]
    expected = {each.name for each in session.get_inputs()}
    if expected != set(arrays):
        raise Mistake(f"{MODEL}: expected the inputs {', '.join(sorted(arrays))}, it has {', '.join(sorted(expected))}")
    rows = len(next(iter(arrays.values())))
    parts = []
    for start in range(0, max(rows, 1), _AT_ONCE):
        piece = {name: values[start : start + _AT_ONCE] for name, values in arrays.items()}
        parts.append(session.run(names, piece))
    return {name: np.concatenate([part[place] for part in parts]) for place, name in enumerate(names)}


def check_extra(*modules: str) -> None:
    """Make sure that the libraries of the extra ``export`` are there.

    Raises:
        Mistake: They are not.
    """
    if any(find_spec(module) is None for module in modules):
        raise Mistake("export: exported models need the extra export: pip install 'fedsim-flower[export]'")


def predict(folder: str | Path, rows: str | Path | pd.DataFrame) -> pd.DataFrame:
    """Predict new rows with an exported model.

    Args:
        folder: The directory that ``fedsim.export`` wrote.
        rows: A table as a file or a frame, with the columns that the model was trained on; or images.

    Returns:
        A row for each prediction, see ``Predicted.table``.

    Raises:
        Mistake: The directory or the rows are not as they should be: all faults.
    """
    return open_exported(folder).predict(rows).table
