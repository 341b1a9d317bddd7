"""``fedsim tune``: each arm tuned with the same number of trials, and compared on test rows."""

from pathlib import Path
from typing import Annotated

import typer

from fedsim.cli import options
from fedsim.cli.output import print_json, print_lines, print_places, print_table, waiting

EXAMPLES = (
    "tune hospital-heart --trials 20",
    "tune hospital-heart --trials 20 --epsilon none --arms federated,centralized --jobs 2",
    "tune bank-lending --vary training.optimizer.lr=0.01..10:log --vary training.local_steps=1..8",
    "tune hospital-heart --trials 10 --charged",
)


def tune(
    scenario: options.OneScenario,
    trials: Annotated[int, typer.Option(help="How many settings are tried in each arm, under each seed.", min=1)] = 20,
    vary: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=LOW..HIGH",
            help="A range, LOW..HIGH or LOW..HIGH:log, or values V1,V2 of a setting.",
            show_default="the learning rate, the weight decay and the clip",
        ),
    ] = None,
    changes: options.Changes = None,
    task: options.TaskCode = None,
    strategy: options.StrategyCode = None,
    arms: options.SomeArms = None,
    epsilon: options.Epsilon = None,
    seeds: options.SomeSeeds = None,
    charged: Annotated[
        bool,
        typer.Option(
            "--charged",
            help="Set the noise so that all trials together stay within epsilon; else their number is declared.",
        ),
    ] = False,
    no_pruning: Annotated[
        bool, typer.Option("--no-pruning", help="Train every trial to its last round, also those that fall behind.")
    ] = False,
    metric: options.MetricName = None,
    out: Annotated[Path, typer.Option(metavar="DIR", help="The directory to write into.")] = Path("runs/tune"),
    kept: options.Cache = Path("runs/cache"),
    jobs: options.Jobs = 1,
    quiet: options.Quiet = False,
    as_json: options.AsJson = False,
) -> None:
    """Tune federated, centralized and local alike, then compare them. What was trained before is not trained again."""
    with waiting(quiet, as_json) as progress:
        from fedsim.experiments.deciding import files, tuned_files
        from fedsim.experiments.deciding.tune import Wanted
        from fedsim.experiments.deciding.tune import tune as run_tune

        files.check_place(out)
        wanted = Wanted(
            scenario=scenario,
            trials=trials,
            space=vary or [],
            arms=None if arms is None else options.arms_of(arms),
            epsilon=epsilon,
            changes=[*options.code_from(task, strategy), *(changes or [])],
            seeds=seeds,
            charged=charged,
            prune=not no_pruning,
        )
        tuned = run_tune(wanted, kept, metric, progress, jobs)
        tuned_files.write(out, tuned)
    if as_json:
        print_json({"out": str(out), **files.as_document(tuned.decided)})
        return
    print_table(files.table(tuned.decided))
    print_lines(files.lines(tuned.decided))
    print_places({"page": out / "tune.html", "trials": out / "trials.csv"})
