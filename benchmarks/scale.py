"""Time and memory of whole runs: against the sites there are, the sites of a round, and the size of the model.

Made-up sites: 1000 a round out of ten thousand to a million; one thousand to ten thousand, all of them in every round;
and 20 sites of a model of ten million parameters. Each run is a process of its own, which reports its largest resident
memory. No site's rows are kept: those of the sampled sites are made anew in every round, so that all sizes do the same.
The final test is of 1000 sites (``evaluation.most_sites``). ``python benchmarks/scale.py`` runs all, writes the figures
and draws them; ``python benchmarks/scale.py draw`` draws those that were written.
"""

import itertools
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from torch import nn

from fedsim import memory

RESULTS = Path(__file__).parent / "results" / "scale.json"
PICTURE = Path(__file__).parents[1] / "docs" / "scale.png"
TESTED = 1000
ROUNDS = 20
"""Rounds where 1000 sites are sampled; elsewhere there are 3."""

THERE = ((10_000, 1000), (100_000, 1000), (1_000_000, 1000))
SAMPLED = ((1000, 1000), (2500, 2500), (5000, 5000), (10_000, 10_000))
FORMS = ("none", "record")


def main() -> None:
    """Run one of the runs, or all of them, and draw the figures."""
    if sys.argv[1:2] == ["draw"]:
        draw(json.loads(RESULTS.read_text()))
        return
    if len(sys.argv) > 1:
        memory.keep_freed()  # both as the command does
        memory.collect_seldom()
        print(json.dumps(run(**json.loads(sys.argv[1]))))
        return

    asked = [{"sites": sites, "sampled": sampled, "unit": unit, "rounds": ROUNDS}
             for (sites, sampled), unit in itertools.product(THERE, FORMS)]  # fmt: skip
    asked += [{"sites": sites, "sampled": sampled, "unit": unit, "rounds": 3}
              for (sites, sampled), unit in itertools.product(SAMPLED, FORMS)]  # fmt: skip
    asked.append({"sites": 20, "sampled": 20, "unit": "none", "rounds": 3, "large": True})
    rows = []
    for one in asked:
        out = subprocess.run([sys.executable, __file__, json.dumps(one)], capture_output=True, text=True, check=True)
        rows.append(json.loads(out.stdout.splitlines()[-1]))
        print(rows[-1], flush=True)
    RESULTS.write_text(json.dumps(rows, indent=2) + "\n")
    draw(rows)


def large(inputs: int) -> nn.Module:
    """Make a network of about ten million parameters for two classes."""
    return nn.Sequential(nn.Linear(inputs, 3100), nn.ReLU(), nn.Linear(3100, 3100), nn.ReLU(), nn.Linear(3100, 2))


def run(sites: int, sampled: int, unit: str, rounds: int, large: bool = False) -> dict[str, Any]:
    """Run the federated arm of `tabular` for some rounds, with all that belongs to a run, and return the figures.

    Args:
        sites: The number of sites there are.
        sampled: The number of sites of a round.
        unit: The privacy unit; ``none`` or ``record``.
        rounds: The number of rounds; at least 2, since the first one has more to do than those after it.
        large: Whether the model has ten million parameters.

    Returns:
        The same; of the private training where there is one, else of that without privacy: the median seconds of its
        rounds but the first, of the clock and of the processor; the seconds until the first round is over, and those
        after the last; and the largest resident memory.
    """
    from dataclasses import replace

    from clients import synthetic
    from fedsim.data import federation
    from fedsim.experiments.experiment import execute
    from fedsim.scenario.files import parse

    federation._KEPT = 0
    if large:
        synthetic.tabular = replace(synthetic.tabular, model=globals()["large"])
    values: dict[str, Any] = {
        "name": "scale", "title": "Scale", "task": "synthetic/tabular", "arms": ["federated"], "seeds": 1,
        "partition": {"by": "made", "sites": sites}, "split": {"validation": 0.0, "test": 0.2},
        "training": {"rounds": rounds, "local_steps": 8, "sampling_rate": 0.125, "expected_batch": 32.0,
                     "optimizer": {"lr": 0.1}},
        "evaluation": {"most_sites": TESTED},
    }  # fmt: skip
    if sampled < sites:
        values["training"]["sites_per_round"] = sampled
    if unit != "none":
        values["privacy"] = {"unit": unit, "epsilon": 8.0, "delta": 1e-5, "clip": 1.0}
    scenario = parse(values)

    clock = [time.perf_counter()]
    processor = [time.process_time()]

    def tick(*told: object) -> None:
        clock.append(time.perf_counter())
        processor.append(time.process_time())

    with tempfile.TemporaryDirectory() as folder:
        execute(scenario, Path(folder) / "run", tick)
    tick()

    # Under privacy the training without noise comes first.
    last = -1 - rounds
    parameters = sum(value.numel() for value in synthetic.tabular.model(30).parameters())
    return {
        "sites": sites,
        "sampled": sampled,
        "unit": unit,
        "rounds": rounds,
        "parameters": parameters,
        "seconds_per_round": _between_rounds(clock[last:-1]),
        "cpu_seconds_per_round": _between_rounds(processor[last:-1]),
        "start_cpu_seconds": round(processor[1] - processor[0], 3),
        "cpu_seconds_after_the_rounds": round(processor[-1] - processor[-2], 3),
        "peak_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
    }


def _between_rounds(ends: list[float]) -> float:
    """Return the median seconds of rounds but the first, from when each of them ended."""
    return round(statistics.median(after - before for before, after in itertools.pairwise(ends)), 3)


def draw(rows: list[dict[str, Any]]) -> None:
    """Draw time and memory against the sites of a round, and against the sites there are."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    small = [row for row in rows if row["parameters"] < 10**6]
    all_of_them = [row for row in small if row["sampled"] == row["sites"]]
    some_of_them = [row for row in small if row["sampled"] < row["sites"]]
    columns = (
        (all_of_them, "sampled", "sites of a round, which are all there are", "linear"),
        (some_of_them, "sites", "sites there are, 1000 of them in a round", "log"),
    )
    lines = (("cpu_seconds_per_round", "processor seconds of a round"), ("peak_gib", "largest memory of the run, GiB"))
    names = {"none": "without privacy", "record": "private (records)"}

    figure, axes = pyplot.subplots(2, 2, figsize=(9, 6), sharey="row", layout="constrained")
    for across, (chosen, by, said, scale) in enumerate(columns):
        for down, (figure_of, meaning) in enumerate(lines):
            axis = axes[down, across]
            for unit, marker in zip(FORMS, ("o", "s"), strict=True):
                points = sorted((row[by], row[figure_of]) for row in chosen if row["unit"] == unit)
                axis.plot([x for x, _ in points], [y for _, y in points], marker=marker, label=names[unit])
            axis.set_xscale(scale)
            axis.set_ylim(bottom=0)
            if scale == "linear":
                axis.set_xlim(0, 1.12 * max(row[by] for row in chosen))
            ticks = sorted({row[by] for row in chosen})
            axis.set_xticks(ticks, [f"{tick:,}".replace(",", " ") for tick in ticks])
            axis.margins(x=0.15)
            axis.minorticks_off()
            axis.grid(alpha=0.3)
            if not across:
                axis.set_ylabel(meaning)
            if down:
                axis.set_xlabel(said)
    axes[0, 0].legend(frameon=False)
    figure.savefig(PICTURE, dpi=110)


if __name__ == "__main__":
    main()
