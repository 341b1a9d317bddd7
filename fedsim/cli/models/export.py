"""``fedsim export``: the model of a run, with its preprocessing and its card, in a directory to hand on."""

from pathlib import Path
from typing import Annotated

import typer

from fedsim.cli import options
from fedsim.cli.output import print_json, print_lines, print_places, waiting

EXAMPLES = (
    "export --to heart-model",
    "export runs/mine --to model --arm centralized --seed 1",
    "export runs/mine --to north --arm local --site north",
)


def export(
    folder: Annotated[Path, typer.Option("--to", metavar="DIR", help="The directory to make.")],
    run_dir: options.RunDirectory = None,
    arm: Annotated[
        str | None,
        typer.Option(help="The arm: federated, centralized or local.", show_default="federated"),
    ] = None,
    private: Annotated[
        bool | None,
        typer.Option(
            "--private/--plain",
            help="The model trained under privacy, or the one without.",
            show_default="private where the run is",
        ),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(metavar="NUMBER", help="The seed of the training.", show_default="the first")
    ] = None,
    site: Annotated[
        str | None,
        typer.Option(help="The site whose own model is meant: in the local arm, or of a strategy that gives it one."),
    ] = None,
    task: options.TaskOfRun = None,
    strategy: options.StrategyOfRun = None,
    as_json: options.AsJson = False,
) -> None:
    """Write a run's model as ONNX with its preprocessing inside, and a model card."""
    options.allow_code(task, strategy)
    with waiting(quiet=False, as_json=as_json):
        from fedsim.exporting.write import export as write
        from fedsim.results.run_directory import newest

        write(run_dir or newest(), folder, arm=arm, private=private, seed=seed, site=site)
        from fedsim.exporting.predict import CARD, MODEL
    if as_json:
        print_json({"model": str(folder / MODEL), "card": str(folder / CARD)})
        return
    print_places({"model": folder / MODEL, "card": folder / CARD})
    print_lines([f"Predict new rows with: fedsim predict {folder} FILE"])
