"""``make torture``: kills, disk faults, flipped bits, odd files, commands, settings and replies, with a table."""

import argparse
import logging
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

os.environ.update(FLWR_TELEMETRY_ENABLED="0", FLWR_DISABLE_UPDATE_CHECK="1")

import torch

from tests.torture import changes, inputs, interruptions
from tests.torture.trials import Tried

KINDS: dict[str, tuple[Callable[[int, int, Path], Tried], int]] = {
    "kills": (interruptions.kills, 100),
    "disk": (interruptions.disk_faults, 60),
    "flips": (interruptions.flips, 1000),
    "changes": (changes.changes, 500),
    "scenarios": (inputs.scenarios, 3000),
    "commands": (inputs.command_lines, 500),
    "flower": (inputs.flower_settings, 500),
    "replies": (inputs.replies, 300),
}
"""{kind: (the trials, how many there are by default)}."""

_MOST_SHOWN = 20


def main() -> int:
    """Run what was asked for; return 1 if anything went wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.torture", description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--share", type=float, default=1.0, help="this part of the trials of each kind")
    parser.add_argument("kinds", nargs="*", choices=[*KINDS, []], help="all by default")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)  # of what is tried
    warnings.simplefilter("ignore")

    wrong = []
    for name in asked.kinds or KINDS:
        trials, most = KINDS[name]
        count = max(1, round(asked.share * most))
        here = Path.cwd()
        with tempfile.TemporaryDirectory() as folder:
            begun = time.monotonic()
            tried = trials(count, asked.seed, Path(folder))
            took = time.monotonic() - begun
        os.chdir(here)
        facts = "; ".join(f"{value:g} {fact}" for fact, value in tried.facts.items())
        sys.stdout.write(
            f"{tried.what:<16} {tried.count:>5} tried {len(tried.wrong):>4} wrong {took:>6.0f} s  {facts}\n"
        )
        sys.stdout.flush()
        wrong += [f"{tried.what}: {line}" for line in tried.wrong]
    for line in wrong[:_MOST_SHOWN]:
        sys.stdout.write(f"{line}\n")
    if len(wrong) > _MOST_SHOWN:
        sys.stdout.write(f"and {len(wrong) - _MOST_SHOWN} more\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
