"""The data files in ``clients/data``; the README there names their sources."""

from importlib.resources import files

import pandas as pd


def read_table(name: str, **options: object) -> pd.DataFrame:
    """Read a CSV file of ``clients/data``; the options are those of ``pandas.read_csv``."""
    with (files("clients") / "data" / name).open("rb") as file:
        compression = "gzip" if name.endswith(".gz") else None
        return pd.read_csv(file, compression=compression, **options)  # type: ignore[call-overload]
