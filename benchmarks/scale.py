"""Time and memory of whole runs against the number of sites: 1000 sampled a round, out of a thousand to a million.

Each number of sites is run in a process of its own, which reports its largest resident memory. No site's rows are kept:
those of the sampled sites are made anew in every round, so that all sizes do the same. What comes after the rounds, the
final test and the report, is timed too; of more than 10 000 sites so many are tested (``evaluation.most_sites``).
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

RESULTS = Path(__file__).parent / "results" / "scale.json"
SIZES = (1_000, 10_000, 100_000, 1_000_000)


def main() -> None:
    """Run each size, print and write the figures."""
    if len(sys.argv) > 1:
        print(json.dumps(run(int(sys.argv[1]))))
        return
    rows = []
    for sites in SIZES:
        out = subprocess.run([sys.executable, __file__, str(sites)], capture_output=True, text=True, check=True).stdout
        rows.append(json.loads(out.splitlines()[-1]))
        print(rows[-1], flush=True)
    RESULTS.write_text(json.dumps(rows, indent=2) + "\n")


def run(sites: int) -> dict[str, float]:
    """Run the federated arm of `tabular` for a few rounds, with all that belongs to a run, and return the figures."""
    from fedsim.data import federation
    from fedsim.experiments.experiment import execute
    from fedsim.scenario.files import parse

    federation._KEPT = 0
    scenario = parse({
        "name": "scale", "title": "Scale", "task": "synthetic/tabular", "arms": ["federated"], "seeds": 1,
        "partition": {"by": "made", "sites": sites}, "split": {"validation": 0.0, "test": 0.2},
        "training": {"rounds": 6, "local_steps": 8, "sampling_rate": 0.125, "expected_batch": 32.0,
                     "sites_per_round": 1000, "optimizer": {"lr": 0.1}},
    })  # fmt: skip
    ticks = [time.perf_counter()]
    with tempfile.TemporaryDirectory() as folder:
        execute(scenario, Path(folder) / "run", lambda *told: ticks.append(time.perf_counter()))
    ended = time.perf_counter()
    rounds = [after - before for before, after in itertools.pairwise(ticks[1:])]
    return {
        "sites": sites,
        "sampled": 1000,
        "start_seconds": round(ticks[1] - ticks[0], 3),
        "seconds_per_round": round(statistics.median(rounds), 3),
        "seconds_after_the_rounds": round(ended - ticks[-1], 3),
        "peak_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
    }


if __name__ == "__main__":
    main()
