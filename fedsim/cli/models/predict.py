"""``fedsim predict``: predictions of an exported model for new rows, as CSV."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from fedsim.cli.output import printable, waiting
from fedsim.mistakes import Mistake

EXAMPLES = ("predict heart-model patients.csv", "predict heart-model patients.csv --to predictions.csv")


def predict(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The directory that fedsim export wrote.")],
    rows: Annotated[
        Path,
        typer.Argument(
            metavar="FILE", help="A table, CSV or Parquet, with the columns that the model was trained on; or images."
        ),
    ],
    to: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The CSV file to write.", show_default="the standard output"),
    ] = None,
) -> None:
    """Predict new rows with an exported model; it needs no PyTorch."""
    with waiting(quiet=True, as_json=False):
        from fedsim.exporting.predict import open_exported
        from fedsim.results.whole_files import write_bytes

        if to is not None and to.exists() and to.samefile(rows):
            raise Mistake(f"--to {to}: expected another file than the one that is read")
        predicted = open_exported(folder).predict(rows)
    for note in predicted.notes:
        sys.stderr.write(f"fedsim: {printable(note)}\n")
    text = predicted.table.to_csv(index=False)
    if to is None:
        sys.stdout.write(printable(text))
        return
    write_bytes(to, text.encode())
