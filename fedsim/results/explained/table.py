"""``explanations.csv`` of a run directory: how much each feature drives each model, per site and in all."""

import io
from pathlib import Path

import pandas as pd

from fedsim.mistakes import Mistake
from fedsim.results.columns import check_columns
from fedsim.results.run_directory import write_bytes
from fedsim.scenario.reading import read_ordinary

FILE = "explanations.csv"
PICTURE = "explanations.svg"
PERMUTATION = "permutation"
GRADIENTS = "integrated gradients"

_COLUMNS = ("method", "arm", "private", "site", "feature", "importance", "spread", "seeds", "unit")
_KEY = ("method", "arm", "private", "site", "feature")
_LARGEST = 2**27  # bytes


def write(folder: Path, table: pd.DataFrame) -> Path:
    """Write the table, and return its path."""
    path = folder / FILE
    write_bytes(path, table.to_csv(index=False).encode())
    return path


def read(folder: Path) -> pd.DataFrame | None:
    """Read the table of a run; None if it was not explained.

    Raises:
        Mistake: It holds something else.
    """
    path = folder / FILE
    if not path.exists():
        return None
    texts = dict.fromkeys(("method", "arm", "site", "feature", "unit"), str)
    try:
        content = read_ordinary(path, _LARGEST).decode()
        table = pd.read_csv(io.StringIO(content), dtype=texts, keep_default_na=False, na_values=[""])
    except OSError as error:
        raise Mistake(f"{path}: {error.strerror}") from None
    except ValueError as error:  # what is no text, or no table
        raise Mistake(f"{path}: expected the table that fedsim explain writes, got another ({error})") from None
    if "unit" in table:
        table["unit"] = table["unit"].fillna("")
    check_columns(table, _COLUMNS, _KEY, str(path))
    return table
