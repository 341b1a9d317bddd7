"""The features of a table, as a reader names them: a column with all inputs of the model that are made of it."""

from collections.abc import Sequence
from dataclasses import dataclass

from fedsim.data.task import Task
from fedsim.mistakes import Mistake


@dataclass(frozen=True)
class Feature:
    """A column of the table.

    Attributes:
        name: The column's name.
        inputs: The numbers of the model's inputs that are made of it: its number and the mark that it is missing, or
            the marks of its levels.
    """

    name: str
    inputs: Sequence[int]


def features_of(task: Task, shape: tuple[int, ...]) -> list[Feature]:
    """Return the features of a task.

    Args:
        task: The task.
        shape: The shape of a row.

    Raises:
        Mistake: Its rows are images or sequences, or their inputs have no names.
    """
    features = []
    place = 0
    for column in task.columns:
        features.append(Feature(column.name, range(place, place + column.width)))
        place += column.width
    if not features or shape != (place,):
        written = " x ".join(map(str, shape))
        raise Mistake(f"explain: expected a table with named columns, got rows of the shape {written} without them")
    return features
