"""The data files in ``clients/data``; the README there names their sources."""

from collections.abc import Sequence
from importlib.resources import files
from io import BytesIO
from pathlib import Path

import pandas as pd

from fedsim.mistakes import Mistake
from fedsim.scenario.reading import read_ordinary

LARGEST_OWN_FILE = 2**30
"""The most bytes that a file of an institution's own may have."""


def read_table(name: str, **options: object) -> pd.DataFrame:
    """Read a CSV file of ``clients/data``; the options are those of ``pandas.read_csv``."""
    with (files("clients") / "data" / name).open("rb") as file:
        compression = "gzip" if name.endswith(".gz") else None
        return pd.read_csv(file, compression=compression, **options)  # type: ignore[call-overload]


def read_own(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    """Read an institution's own CSV file, in the format of one in ``clients/data``.

    Raises:
        Mistake: It is no such file; the message names it and quotes none of its values.
    """
    try:
        content = read_ordinary(path, LARGEST_OWN_FILE)
    except OSError as error:
        raise Mistake(f"{path}: expected a file that can be read, got {error.strerror}") from None
    try:
        frame = pd.read_csv(BytesIO(content))
    except (ValueError, pd.errors.ParserError):
        raise Mistake(f"{path}: expected a table as CSV") from None
    missing = [name for name in columns if name not in frame]
    if missing:
        raise Mistake(f"{path}: expected the columns {', '.join(columns)}, it has no {', '.join(missing)}")
    return frame
