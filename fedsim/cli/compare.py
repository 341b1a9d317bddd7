"""``fedsim compare``: a tournament of strategies over scenarios, attacks and privacy budgets."""

import math
from pathlib import Path
from typing import Annotated

import typer

from fedsim.cli import options
from fedsim.cli.output import FAILURE, print_json, print_lines, print_places, print_table, waiting
from fedsim.mistakes import Mistake

EXAMPLES = (
    "compare synthetic-attacked --strategy fedavg,median,krum:f=4 --attack none,own",
    "compare hospital-heart --strategy fedavg,my_strategy.py --epsilon none,8 --seeds 10",
    "compare synthetic-attacked --strategy fedavg,krum:f=4 --vary attack.share=0.1,0.3",
    "compare synthetic-label-skew --strategy fedavg,scaffold --metric accuracy --reach 0.8",
    "compare hospital-heart --strategy fedavg,scaffold --arms federated,centralized,local",
)


def compare(
    scenarios: Annotated[
        list[str],
        typer.Argument(help="Scenarios' names, or .toml files.", autocompletion=options.scenarios),
    ],
    strategy: Annotated[
        str,
        typer.Option(
            metavar="NAME,...",
            help="The strategies: fedavg, krum:f=2, files of your own, or package.module:Class.",
            autocompletion=options.strategies,
        ),
    ] = "fedavg",
    task: options.TaskCode = None,
    attack: Annotated[
        str,
        typer.Option(
            metavar="NAME,...",
            help="Attacks by a fifth of the sites, e.g. none,sign-flip:factor=4,alie:share=0.1; own: the scenario's.",
            autocompletion=options.attacks,
        ),
    ] = "own",
    epsilon: Annotated[
        str,
        typer.Option(
            metavar="NUMBER,...",
            help="Privacy budgets for the scenario's privacy unit, or for records if it has none, e.g. none,8,2.",
        ),
    ] = "none",
    arms: options.Arms = "federated",
    seeds: Annotated[int, typer.Option(help="How many seeds, for means and intervals.", min=1)] = 5,
    vary: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=V1,V2", help="Cross with values of any key, e.g. attack.share=0.1,0.3."),
    ] = None,
    changes: options.Changes = None,
    metric: options.MetricName = None,
    reach: Annotated[
        float | None,
        typer.Option(metavar="NUMBER", help="Count the rounds, and the time, until validation reaches this value."),
    ] = None,
    out: Annotated[Path, typer.Option(metavar="DIR", help="The directory to write into.")] = Path("runs/tournament"),
    kept: options.Cache = Path("runs/cache"),
    jobs: options.Jobs = 1,
    quiet: options.Quiet = False,
    as_json: options.AsJson = False,
) -> None:
    """Run a tournament of strategies. What has run before is not run again."""
    if reach is not None and not math.isfinite(reach):
        raise Mistake(f"--reach: expected a finite number, got {reach:g}")
    with waiting(quiet, as_json) as progress:
        from fedsim.experiments import tournament, tournament_files
        from fedsim.experiments.deciding.files import check_place
        from fedsim.python import comparing

        check_place(out)
        axes_asked = tournament.Axes(
            scenarios=scenarios,
            strategies=strategy.split(","),
            attacks=attack.split(","),
            epsilons=epsilon.split(","),
            varied=vary or [],
            changes=[*options.code_from(task), *(changes or [])],
            seeds=seeds,
            arms=options.arms_of(arms),
        )
        grid = tournament.cells(axes_asked)
        found = comparing.compete(grid, metric, reach, kept, progress, jobs)
    comparing.write(out, found, seeds, tournament.command_of(axes_asked, found.metric, reach))
    if as_json:
        print_json({"out": str(out), **tournament_files.as_document(found.ranks, found.played, found.metric)})
    else:
        print_table(tournament_files.table(found.ranks, found.axes, found.metric))
        print_lines(tournament_files.lines(found.played, found.ranks, found.axes, found.metric, seeds))
        print_places({"page": out / "tournament.html"})
    if found.played.failures:
        raise typer.Exit(FAILURE)
