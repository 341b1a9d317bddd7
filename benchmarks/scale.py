"""Time and memory against the number of sites: 1000 sampled a round out of 1000, 10 000 and 100 000.

Each number of sites is run in a process of its own, which reports its largest resident memory. The sampled sites' rows
are made anew in every round, so that all three do the same.
"""

import itertools
import json
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

RESULTS = Path(__file__).parent / "results" / "scale.json"


def main() -> None:
    """Run each size, print and write the figures."""
    if len(sys.argv) > 1:
        print(json.dumps(run(int(sys.argv[1]))))
        return
    rows = []
    for sites in (1_000, 10_000, 100_000):
        out = subprocess.run([sys.executable, __file__, str(sites)], capture_output=True, text=True, check=True).stdout
        rows.append(json.loads(out.splitlines()[-1]))
        print(rows[-1], flush=True)
    RESULTS.write_text(json.dumps(rows, indent=2) + "\n")


def run(sites: int) -> dict[str, float]:
    """Train a few rounds of `tabular` and return the figures; the test at the end, over all sites, is left out."""
    import torch

    from fedsim.data import federation
    from fedsim.experiments import arms
    from fedsim.scenario.files import parse

    federation._KEPT = 0  # no site's rows are kept: with 1000 sites all would be at hand from the second round on
    torch.set_num_threads(1)
    ticks = [time.perf_counter()]
    scenario = parse({
        "name": "scale", "title": "Scale", "task": "synthetic/tabular", "arms": ["federated"], "seeds": 1,
        "partition": {"by": "made", "sites": sites}, "split": {"validation": 0.0, "test": 0.2},
        "training": {"rounds": 6, "local_steps": 8, "sampling_rate": 0.125, "expected_batch": 32.0,
                     "sites_per_round": 1000, "optimizer": {"lr": 0.1}},
    })  # fmt: skip
    progress = arms._Progress(scenario, arms.Job("federated", False, 0), lambda: ticks.append(time.perf_counter()))
    arms._federated(progress)
    rounds = [after - before for before, after in itertools.pairwise(ticks[1:])]
    return {
        "sites": sites,
        "sampled": 1000,
        "start_seconds": round(ticks[1] - ticks[0], 3),
        "seconds_per_round": round(statistics.median(rounds), 3),
        "peak_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
    }


if __name__ == "__main__":
    main()
