"""``fedsim sweep``: a scenario's arms over epsilons and other settings."""

from pathlib import Path
from typing import Annotated

import typer

from fedsim.cli import options
from fedsim.cli.output import print_json, print_lines, print_places, print_table, waiting

EXAMPLES = (
    "sweep hospital-heart --epsilon 2,0.5,1,4,8",
    "sweep hospital-heart --vary privacy.epsilon=1,8 --vary strategy.name=fedavg,scaffold --arms federated",
    "sweep bank-lending --vary training.optimizer.lr=0.1,0.5,2 --seeds 3 --jobs 2",
)


def sweep(
    scenario: options.OneScenario,
    epsilon: Annotated[
        str | None,
        typer.Option(
            metavar="NUMBER,...",
            help="Privacy budgets, e.g. 2,0.5,8,none: the others are compared with the first.",
            show_default="the scenario's",
        ),
    ] = None,
    vary: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=V1,V2",
            help="Values of any key, e.g. training.optimizer.lr=0.1,0.5; validation rows choose among them.",
        ),
    ] = None,
    changes: options.Changes = None,
    task: options.TaskCode = None,
    strategy: options.StrategyCode = None,
    arms: options.SomeArms = None,
    seeds: options.SomeSeeds = None,
    metric: options.MetricName = None,
    out: Annotated[Path, typer.Option(metavar="DIR", help="The directory to write into.")] = Path("runs/sweep"),
    kept: options.Cache = Path("runs/cache"),
    jobs: options.Jobs = 1,
    quiet: options.Quiet = False,
    as_json: options.AsJson = False,
) -> None:
    """Draw the privacy-utility frontier of all arms, and choose settings by validation rows."""
    with waiting(quiet, as_json) as progress:
        from fedsim.experiments.deciding import files
        from fedsim.experiments.deciding.sweep import Axes
        from fedsim.experiments.deciding.sweep import sweep as run_sweep

        files.check_place(out)
        axes = Axes(
            scenario=scenario,
            arms=None if arms is None else options.arms_of(arms),
            epsilons=None if epsilon is None else epsilon.split(","),
            varied=vary or [],
            changes=[*options.code_from(task, strategy), *(changes or [])],
            seeds=seeds,
        )
        decided = run_sweep(axes, kept, metric, progress, jobs)
        files.write(out, decided, "sweep")
    if as_json:
        print_json({"out": str(out), **files.as_document(decided)})
        return
    print_table(files.table(decided))
    print_lines(files.lines(decided))
    print_places({"page": out / "sweep.html", "picture": out / "frontier.png"})
