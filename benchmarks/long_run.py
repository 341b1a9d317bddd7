"""Memory and time of a long training: both are to be flat over 10 000 rounds.

The training is the federated arm of ``hospital-heart``, without and with privacy. Memory is what the process holds
after a round; time is the median of a thousand rounds, after the first hundred and at the end.
"""

import itertools
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

RESULTS = Path(__file__).parent / "results" / "long_run.json"
ROUNDS = 10_000
WARM = 100
WINDOW = 1_000
PRIVATE = ("privacy.noise_multiplier=8", "privacy.epsilon=1000")


def main() -> None:
    """Train, print and write the figures; an argument is the number of rounds."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    rows = [train(rounds, private) for private in (False, True)]
    print(json.dumps(rows, indent=2))
    if rounds == ROUNDS:
        RESULTS.write_text(json.dumps(rows, indent=2) + "\n")


def train(rounds: int, private: bool) -> dict[str, float]:
    """Train for many rounds as a run does, with its checkpoints; return the figures."""
    from fedsim.experiments import trainings
    from fedsim.experiments.arms import Job
    from fedsim.scenario.files import read

    changes = [f"training.rounds={rounds}", "seeds=1", *(PRIVATE if private else ("privacy.unit=none",))]
    scenario = read("hospital-heart", changes)
    ticks: list[float] = []
    held: list[int] = []

    def observe(number: int) -> None:
        ticks.append(time.perf_counter())
        held.append(resident())

    with tempfile.TemporaryDirectory() as folder:
        trainings._train(Path(folder), scenario, Job("federated", private, 0), "same", observe)

    took = [after - before for before, after in itertools.pairwise(ticks)]
    early = statistics.median(took[WARM : WARM + WINDOW])
    late = statistics.median(took[-WINDOW:])
    return {
        "private": private,
        "rounds": rounds,
        "mib_after_the_first_hundred": round(held[WARM] / 2**20, 1),
        "mib_at_the_end": round(held[-1] / 2**20, 1),
        "memory_grows_by": round(held[-1] / held[WARM] - 1, 4),
        "milliseconds_a_round": round(1000 * early, 3),
        "milliseconds_a_round_at_the_end": round(1000 * late, 3),
        "time_grows_by": round(late / early - 1, 4),
    }


def resident() -> int:
    """Return the bytes of memory that this process holds."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


if __name__ == "__main__":
    main()
