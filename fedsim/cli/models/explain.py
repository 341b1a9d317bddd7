"""``fedsim explain``: which features drive the models of a finished run."""

from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from fedsim import figures
from fedsim.cli import options
from fedsim.cli.output import print_json, print_lines, print_places, print_table, waiting

if TYPE_CHECKING:
    import pandas as pd

EXAMPLES = ("explain", "explain runs/mine", "explain runs/mine --json")


def explain(
    run_dir: options.RunDirectory = None,
    task: options.TaskOfRun = None,
    strategy: options.StrategyOfRun = None,
    quiet: options.Quiet = False,
    as_json: options.AsJson = False,
) -> None:
    """Say which features drive the models of a finished run, and add a picture to its report.

    The data is read again. Figures are of exact test rows, which no epsilon covers.
    """
    options.allow_code(task, strategy)
    with waiting(quiet, as_json) as progress:
        from fedsim.experiments.experiment import lock
        from fedsim.experiments.explanations.explain import explain as explain_run
        from fedsim.report import page
        from fedsim.report.explanations.chart import features
        from fedsim.report.explanations.section import LIMITS, NOT_COVERED, first_arm
        from fedsim.results.explained.table import FILE, PICTURE, write
        from fedsim.results.run_directory import load, newest, write_bytes
        from fedsim.results.seal import seal

        folder = run_dir or newest()
        finished = load(folder, made_anew=[FILE, PICTURE, page.FILE])
        with lock(finished.path):
            table = explain_run(finished, progress)
            write(finished.path, table)
            arm = first_arm(table)
            write_bytes(finished.path / PICTURE, features(table, arm).files()[PICTURE])
            report = page.write(finished)
            seal(finished.path)
    if as_json:
        rows = table.astype(object).where(table.notna(), None).to_dict("records")
        print_json({"run_dir": str(finished.path), "features": rows})
        return
    print_table(_table(table, arm))
    print_lines([f"Means over seeds, {arm} arm, all sites. {LIMITS}"])
    if finished.scenario.private:
        print_lines([f"Take care: {NOT_COVERED}"])
    print_places({"table": finished.path / FILE, "picture": finished.path / PICTURE, "report": report})


def _table(table: "pd.DataFrame", arm: str) -> Table:
    """Return the features of an arm that matter most, by both methods."""
    from fedsim.report.explanations.chart import top_features  # it needs what is heavy
    from fedsim.results.evaluation import INSIDE
    from fedsim.results.explained.table import GRADIENTS, PERMUTATION

    own = table[(table["arm"] == arm) & (table["site"] == INSIDE)]
    kinds = sorted(set(own["private"]))
    by_place = {(row["method"], row["private"], row["feature"]): row for row in own.to_dict("records")}
    unit = str(own.loc[own["method"] == PERMUTATION, "unit"].iloc[0])

    shown = Table(
        title=f"What drives the {arm} model",
        title_justify="left",
        title_style="bold",
        box=SIMPLE_HEAD,
        pad_edge=False,
    )
    shown.add_column("feature", overflow="fold")
    for private in kinds:
        kind = "private" if private else "plain"
        shown.add_column(f"loss of {unit}\n{kind}", justify="right", no_wrap=True)
        shown.add_column(f"gradients\n{kind}", justify="right", no_wrap=True)
    for name in top_features(table[table["arm"] == arm]):
        cells = []
        for private in kinds:
            cells.append(figures.figure(float(by_place[PERMUTATION, private, name]["importance"]), signed=True))
            cells.append(figures.figure(float(by_place[GRADIENTS, private, name]["importance"])))
        shown.add_row(escape(name), *cells)
    return shown
