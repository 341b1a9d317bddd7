"""Time whole commands, with and without kept answers of the accountant, and a checkout of an older version in turn.

Wall seconds on a machine that others use say little: the seconds of the processor are written, too.

    python benchmarks/command.py [--repeats 3] [--against CHECKOUT]
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

COMMANDS = {
    "list": ["list"],
    "privacy": ["privacy", "--sampling-rate", "0.01", "--epsilon", "2", "--steps", "1000", "--delta", "1e-5"],
    "run": ["run", "hospital-heart", "--quiet"],
}
HERE = Path(__file__).resolve().parent.parent


def main() -> None:
    """Start each command several times, each variant in turn."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--against", type=Path)
    asked = parser.parse_args()
    taken: dict[str, dict[str, list[tuple[float, float]]]] = {name: {} for name in COMMANDS}
    for _ in range(asked.repeats):
        for name, words in COMMANDS.items():
            with tempfile.TemporaryDirectory() as folder:
                for variant, tree in (("before", asked.against), ("cold", HERE), ("warm", HERE)):
                    if tree:
                        taken[name].setdefault(variant, []).append(_seconds(words, tree, Path(folder), variant))

    found = {
        "scenario": "hospital-heart",
        "cores": len(os.sched_getaffinity(0)),
        "repeats": asked.repeats,
        "commands": {
            name: {variant: _medians(pairs) for variant, pairs in variants.items()} for name, variants in taken.items()
        },
    }
    text = json.dumps(found, indent=2) + "\n"
    (Path(__file__).parent / "results" / "command.json").write_text(text)
    sys.stdout.write(text)


def _seconds(words: list[str], tree: Path, folder: Path, variant: str) -> tuple[float, float]:
    """Run a command of a checkout; return its processor's seconds and those of the clock."""
    out = ["--out", str(folder / variant)] if words[0] == "run" else []
    environment = {**os.environ, "PYTHONPATH": str(tree), "FEDSIM_CACHE": str(folder / "kept"), "OMP_NUM_THREADS": "1"}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # where it is set, every command would compile all sources again
    begun = time.perf_counter()
    child = os.posix_spawn(
        sys.executable,
        [sys.executable, "-P", "-m", "fedsim", *words, *out],  # -P: the checkout of PYTHONPATH, and not of this folder
        environment,
        file_actions=[(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)],
    )
    _, status, used = os.wait4(child, 0)
    if status:
        raise SystemExit(f"fedsim {' '.join(words)} failed")
    return used.ru_utime + used.ru_stime, time.perf_counter() - begun


def _medians(pairs: list[tuple[float, float]]) -> dict[str, float]:
    processor, clock = zip(*pairs, strict=True)
    return {
        "cpu_seconds": round(statistics.median(processor), 2),
        "wall_seconds": round(statistics.median(clock), 2),
    }


if __name__ == "__main__":
    main()
