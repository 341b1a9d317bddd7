"""``fedsim check``: try a strategy on made-up updates."""

from dataclasses import asdict
from typing import Annotated

import typer

from fedsim.cli import options
from fedsim.cli.output import FAILURE, print_json, print_table, waiting
from fedsim.cli.terminal import checks_table
from fedsim.scenario.changes import allow_strategy, named

EXAMPLES = ("check krum:f=2", "check my_strategy.py --set factor=0.5")
_NARROW = 80  # sentences wrap


def check(
    strategy: Annotated[
        str,
        typer.Argument(
            help="A strategy: krum, krum:f=2, a file of your own, or package.module:Class.",
            autocompletion=options.strategies,
        ),
    ],
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Set a hyperparameter, e.g. f=2. May be given several times."),
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """Try a strategy on made-up updates; exit code 1 if it breaks what every strategy must keep."""
    name = allow_strategy(strategy)
    _, parameters = named(strategy)
    settings = [change.removeprefix("strategy.") for change in changes or []]

    with waiting(quiet=False, as_json=as_json):
        from fedsim.strategy.contract_check import examine
        from fedsim.strategy.make import made_of

        findings = examine(made_of(name, [*parameters, *settings]))
    broken = [finding for finding in findings if finding.required and not finding.holds]
    if as_json:
        checks = [asdict(finding) for finding in findings]
        print_json({"strategy": strategy, "passes": not broken, "checks": checks})
    else:
        print_table(checks_table(strategy, findings), piped_width=_NARROW)
    if broken:
        raise typer.Exit(FAILURE)
