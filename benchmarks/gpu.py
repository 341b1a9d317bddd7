"""The stack on a GPU: equal to single sites on a CPU, and timed beside its peers on the same card.

``benchmarks/gpu.sh`` makes the environments and calls it. Sites' noise is drawn by other generators on CUDA, so that
equality is looked at with clipping and without noise; how the noise is drawn there is a matter of the tests.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import rounds
import torch
from workloads import WORKLOADS

RESULTS = Path(__file__).parent / "results" / "gpu.json"
SIZES = (6, 1, 9, 0, 4)  # rows of the sites that are compared
AGREES = 1e-4
_SECONDS_BETWEEN_SAMPLES = 0.5


def main() -> None:
    """Compare, then measure until the time is over; print and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--workloads", default=",".join(WORKLOADS), help="a comma between them")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=int, default=450, help="after so many nothing new is begun")
    asked = parser.parse_args()
    if asked.device == "cuda" and not torch.cuda.is_available():
        parser.error("argument --device: expected a GPU that torch sees, found none; try it with --device cpu")

    ends = time.monotonic() + asked.seconds
    card = torch.cuda.get_device_name() if asked.device == "cuda" else "cpu"
    found: dict[str, Any] = {"device": card, "torch": torch.__version__, "equal": equal(asked.device), "rounds": []}
    _write(found)
    for workload in asked.workloads.split(","):
        for private in (False, True):
            for framework in frameworks(private):
                left = ends - time.monotonic()
                if left < 20:
                    print(f"{workload}, {framework}: left out, the time is over", flush=True)
                    continue
                asked.limit = int(left)
                with used(asked.device) as samples:
                    row = rounds.measure(framework, workload, private, asked)
                if row:
                    found["rounds"].append(row | _usage(samples))
                    print(found["rounds"][-1], flush=True)
                _write(found)
    wrong = [name for name, one in found["equal"].items() if not one["agrees"]]
    print(
        f"equal to single sites on a CPU: all but {', '.join(wrong)}"
        if wrong
        else "equal to single sites on a CPU: all"
    )


def frameworks(private: bool) -> Iterator[str]:
    """Yield the frameworks to measure, ours first: if time runs out, the peers are missing."""
    yield "fedsim cohort"
    if not private:
        pfl, *rest = rounds.FRAMEWORKS["pfl"]
        for processes in (1, 5):
            name = f"pfl, {processes} processes"
            rounds.FRAMEWORKS[name] = (pfl, *rest, "--processes", str(processes))
            yield name
    yield "flower ray"
    yield "floor"


def equal(device: str) -> dict[str, dict[str, Any]]:
    """Return for each architecture and way how far a stack on the device is from single sites on the CPU."""
    from fedsim.engines.stack.layers import NoRule
    from fedsim.engines.stack.train import check_rules, train_together
    from fedsim.training.losses import binary
    from fedsim.training.steps import train
    from fedsim.training.work import Noise
    from tests.engines.stack.architectures import ARCHITECTURES

    found: dict[str, dict[str, Any]] = {}
    for name in ARCHITECTURES:
        for way, noise in (("plain", None), ("clipped", Noise(0.3, 1.0))):
            alone = torch.stack([train(work).parameters for work in _works(name, noise, "cpu")])
            works = _works(name, noise, device)
            stack = torch.stack([work.start for work in works])
            try:
                check_rules(works[0].model, binary, works[0].examples)
                train_together(works, stack)
            except NoRule as error:
                found[f"{name}, {way}"] = {"agrees": True, "by": f"one site after another: {error}"}
                continue
            apart = float((stack.cpu() - alone).abs().max())
            found[f"{name}, {way}"] = {"agrees": apart <= AGREES, "largest difference": apart}
            print(f"{name}, {way}: {apart:.1e}", flush=True)
    return found


def _works(name: str, noise: Any, device: str) -> list[Any]:
    """Return a work for each size, with noise of zero, on a device."""
    from dataclasses import replace

    from tests.conftest import Silent
    from tests.engines.stack import test_any_layer

    works = test_any_layer.works(test_any_layer.made(name).to(device), noise)
    moved = []
    for work in works:
        rows = replace(work.examples, inputs=work.examples.inputs.to(device), target=work.examples.target.to(device))
        streams = replace(work.streams, noise=Silent())
        moved.append(replace(work, start=work.start.to(device), examples=rows, streams=streams))
    return moved


@contextmanager
def used(device: str) -> Iterator[list[tuple[float, float]]]:
    """Sample a card's utilisation (percent) and memory (MiB) while something runs."""
    samples: list[tuple[float, float]] = []
    over = threading.Event()

    def sample() -> None:
        command = ["nvidia-smi", "--query-gpu=utilization.gpu,memory.used", "--format=csv,noheader,nounits"]
        while not over.wait(_SECONDS_BETWEEN_SAMPLES):
            said = subprocess.run(command, capture_output=True, text=True, check=False).stdout
            numbers = [float(value) for value in said.partition("\n")[0].split(",") if value.strip()]
            if len(numbers) == 2:
                samples.append((numbers[0], numbers[1]))

    watching = threading.Thread(target=sample, daemon=True)
    if device == "cuda":
        watching.start()
    try:
        yield samples
    finally:
        over.set()
        if device == "cuda":
            watching.join()


def _usage(samples: list[tuple[float, float]]) -> dict[str, float]:
    """Return the mean and the largest utilisation, and the most memory; nothing without samples."""
    if not samples:
        return {}
    shares = [share for share, _ in samples]
    most = max(memory for _, memory in samples)
    return {"utilisation": statistics.mean(shares), "most_utilisation": max(shares), "most_memory_mib": most}


def _write(found: dict[str, Any]) -> None:
    RESULTS.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
