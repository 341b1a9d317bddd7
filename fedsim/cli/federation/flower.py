"""``fedsim flower``: scenarios as apps of Flower's."""

from pathlib import Path
from typing import Annotated

import typer

from fedsim.cli import options
from fedsim.cli.help import Command, examples
from fedsim.cli.output import print_lines, print_places, waiting
from fedsim.scenario.changes import with_strategy

EXPORT_EXAMPLES = (
    "flower export hospital-heart heart-app",
    "flower export hospital-heart heart-app --strategy my_strategy.py --set training.rounds=50",
)

SENTENCE = "Write scenarios as apps of Flower's, which flwr run starts."

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, epilog=examples("flower export hospital-heart heart-app")
)


@app.callback()
def _group() -> None:
    """Write scenarios as apps of Flower's, which flwr run starts."""


@app.command("export", cls=Command, epilog=examples(*EXPORT_EXAMPLES))
def export(
    scenario: Annotated[
        str, typer.Argument(help="A scenario's name, or a .toml file.", autocompletion=options.scenarios)
    ],
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The directory to make.")],
    changes: options.Changes = None,
    strategy: options.StrategyCode = None,
) -> None:
    """Write a scenario as an app that flwr run starts, wherever fedsim-flower is installed."""
    with waiting(quiet=True, as_json=False):
        from fedsim.experiments.on_flower.flower_app import export as write
        from fedsim.scenario.files import read

        overrides = [*(changes or [])]
        if strategy is not None:
            overrides.insert(0, with_strategy(strategy))
        write(read(scenario, overrides), folder)
    print_places({"app": folder})
    print_lines([f"Run it with: flwr run {folder}"])
