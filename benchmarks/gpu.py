"""The stack on a GPU: equal to single sites on a CPU, and timed beside its peers on the same card.

``benchmarks/gpu.sh`` makes the environments and calls it. Sites' noise is drawn by other generators on CUDA, so that
equality is looked at with clipping and without noise; how the noise is drawn there is a matter of the tests. With
``--device cpu`` it is a rehearsal: all steps are taken, what has to do with a GPU is left out and said so.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import rounds
import torch
from workloads import WORKLOADS

RESULTS = Path(__file__).parent / "results"
FILES = {"cuda": "gpu.json", "cpu": "gpu_cpu_rehearsal.json"}
AGREES = 1e-4
PROCESSES_OF_PFL = (1, 5)
_SECONDS_BETWEEN_SAMPLES = 0.5
_LEAST_SECONDS = 10  # less is not worth a start
_MOST_CORES = 8


def main() -> None:
    """Compare, then measure until the time is over; print and write what was found."""
    asked = read_arguments()
    if asked.only_equal:
        equal(asked.device, print_found)
        return

    ends = time.monotonic() + asked.seconds
    is_rehearsal = asked.device == "cpu"
    found: dict[str, Any] = {
        "rehearsal": "on a CPU: nothing here was measured on a GPU" if is_rehearsal else False,
        "device": "cpu" if is_rehearsal else torch.cuda.get_device_name(),
        "cores": len(os.sched_getaffinity(0)),
        "torch": torch.__version__,
        "measured_rounds": asked.rounds,
        "equal": {},
        "rounds": [],
        "left_out": [],
    }
    if is_rehearsal:
        for line in left_out_on_a_cpu(asked):
            leave_out(found, line)

    found["equal"] = equal_in_a_process(asked, found)
    write(found, asked.device)
    for framework, workload, private in steps(asked.workloads.split(",")):
        of_what = f"{framework}, {workload}, {'private' if private else 'plain'}"
        left = ends - time.monotonic()
        if left < _LEAST_SECONDS:
            leave_out(found, f"{of_what}: the time is over")
            continue
        asked.limit = int(min(left, asked.step_seconds))
        with used(asked.device) as samples:
            row = rounds.attempt(framework, workload, private, asked)
        if isinstance(row, str):
            leave_out(found, f"{of_what}: {row}")
        else:
            found["rounds"].append(row | usage(samples, asked.device))
            print(found["rounds"][-1], flush=True)
        write(found, asked.device)

    wrong = [name for name, one in found["equal"].items() if not one["agrees"]]
    all_but = f"all but {', '.join(wrong)}" if wrong else "all"
    print(f"equal to single sites on a CPU: {all_but} of {len(found['equal'])}")
    print(f"{len(found['rounds'])} measured, {len(found['left_out'])} left out: {RESULTS / FILES[asked.device]}")
    if wrong or not found["equal"] or not found["rounds"]:
        sys.exit(1)


def read_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--workloads", default=",".join(WORKLOADS), help="a comma between them")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, help=f"by default one for each core, {_MOST_CORES} at most")
    parser.add_argument("--seconds", type=float, default=450, help="after so many nothing goes on")
    parser.add_argument("--step-seconds", type=float, help="after so many a framework is left out; 60, on a CPU 150")
    parser.add_argument("--only-equal", action="store_true", help="compare, and measure nothing")
    asked = parser.parse_args()
    if unknown := set(asked.workloads.split(",")) - set(WORKLOADS):
        parser.error(f"--workloads: expected some of {', '.join(WORKLOADS)}, got {', '.join(sorted(unknown))}")
    if asked.device == "cuda" and not torch.cuda.is_available():
        parser.error("argument --device: expected a GPU that torch sees, found none; try it with --device cpu")
    asked.step_seconds = asked.step_seconds or (150.0 if asked.device == "cpu" else 60.0)
    asked.threads = asked.threads or min(len(os.sched_getaffinity(0)), _MOST_CORES)
    return asked


def steps(workloads: list[str]) -> Iterator[tuple[str, str, bool]]:
    """Yield what is measured, (framework, workload, private), so that what matters most is not cut off by the time."""
    pfl, *rest = rounds.FRAMEWORKS["pfl"]
    for_pfl = []
    for processes in PROCESSES_OF_PFL:
        name = f"pfl, {processes} process{'es' if processes > 1 else ''}"
        rounds.FRAMEWORKS[name] = (pfl, *rest, "--processes", str(processes))
        for_pfl.append(name)
    for private in (False, True):
        for workload in workloads:
            yield "fedsim cohort", workload, private
            for name in () if private else for_pfl:
                yield name, workload, private
    for private in (False, True):
        for workload in workloads:
            yield "flower ray", workload, private
    for private in (False, True):
        for workload in workloads:
            yield "floor", workload, private


def left_out_on_a_cpu(asked: argparse.Namespace) -> Iterator[str]:
    """Yield a line for each thing that a GPU would have been asked for and a rehearsal leaves out or makes small."""
    yield "equality: stacks on CUDA, also as graphs, against single sites on a CPU; here both are on a CPU"
    yield "utilisation: that of the card and its memory, by nvidia-smi; here the load of the processor"
    yield "pfl, Flower on Ray, fedsim and the floor on one card; here on the processor's cores"
    if asked.rounds < 5:
        yield f"rounds: 5 measured after one of warm-up; here {asked.rounds}"
    if others := [name for name in WORKLOADS if name not in asked.workloads.split(",")]:
        yield f"workloads: {', '.join(others)} as well"


def leave_out(found: dict[str, Any], line: str) -> None:
    """Say and write down what was left out."""
    found["left_out"].append(line)
    print(f"left out: {line}", flush=True)


def equal_in_a_process(asked: argparse.Namespace, found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Compare in a process that can be stopped; what it had found by then counts."""
    command = [sys.executable, __file__, "--device", asked.device, "--only-equal"]
    limit = min(asked.seconds, 2 * asked.step_seconds)
    status, printed, errors = rounds.run(command, limit)
    if status is None:
        leave_out(found, f"equality: what was not compared after {limit:.0f} s")
    elif status:
        leave_out(found, f"equality: {(errors.strip() or 'no message').splitlines()[-1]}")
    lines = [json.loads(line) for line in printed.splitlines() if line.startswith("{") and line.endswith("}")]
    compared = {name: one for line in lines for name, one in line.items()}
    largest = max((one.get("largest_difference", 0.0) for one in compared.values()), default=0.0)
    graphs = sum(one.get("graph", False) for one in compared.values())
    print(f"equality: {len(compared)} compared, {graphs} as a graph, largest difference {largest:.1e}", flush=True)
    return compared


def print_found(name: str, one: dict[str, Any]) -> None:
    """Print a comparison as a line of JSON."""
    print(json.dumps({name: one}), flush=True)


def equal(device: str, tell: Callable[[str, dict[str, Any]], None]) -> None:
    """Tell for each architecture and way how far a stack on the device is from single sites on the CPU.

    Each stack is trained twice, one operation at a time, and as a graph if its steps can be captured as one.
    """
    from fedsim.engines.stack import captured
    from fedsim.engines.stack.layers import NoRule
    from fedsim.engines.stack.train import check_rules, stacked_model, train_together
    from fedsim.training.losses import binary
    from fedsim.training.steps import train
    from fedsim.training.work import Noise
    from tests.engines.stack.architectures import ARCHITECTURES

    for name in ARCHITECTURES:
        for way, noise in (("plain", None), ("clipped", Noise(0.3, 1.0))):
            alone = torch.stack([train(work).parameters for work in _works(name, noise, "cpu")])
            works = _works(name, noise, device)
            stack = torch.stack([work.start for work in works])
            as_graph = stack.clone()
            try:
                check_rules(works[0].model, binary, works[0].examples)
                train_together(works, stack)
                with mock.patch.object(captured, "_OFTEN", 1):  # these trainings are short
                    train_together([work.again() for work in works], as_graph)
            except NoRule as error:
                tell(f"{name}, {way}", {"agrees": True, "by": f"one site after another: {error}"})
                continue
            apart = max(float((found.cpu() - alone).abs().max()) for found in (stack, as_graph))
            is_graph = stacked_model(works[0].model, stack.device).captured.has_graph
            tell(f"{name}, {way}", {"agrees": apart <= AGREES, "largest_difference": apart, "graph": is_graph})


def _works(name: str, noise: Any, device: str) -> list[Any]:
    """Return a work for each size, with noise of zero, on a device."""
    from dataclasses import replace

    from tests.engines.stack import test_any_layer
    from tests.works import Silent

    works = test_any_layer.works(test_any_layer.made(name).to(device), noise)
    moved = []
    for work in works:
        rows = replace(work.examples, inputs=work.examples.inputs.to(device), target=work.examples.target.to(device))
        streams = replace(work.streams, noise=Silent())
        moved.append(replace(work, start=work.start.to(device), examples=rows, streams=streams))
    return moved


@contextmanager
def used(device: str) -> Iterator[list[tuple[float, float]]]:
    """Sample a card's utilisation (percent) and memory (MiB), or a processor's, while something runs."""
    samples: list[tuple[float, float]] = []
    over = threading.Event()
    sample = of_card if device == "cuda" else of_processor()

    def watch() -> None:
        while not over.wait(_SECONDS_BETWEEN_SAMPLES):
            now = sample()
            if now is not None:
                samples.append(now)

    watching = threading.Thread(target=watch, daemon=True)
    watching.start()
    try:
        yield samples
    finally:
        over.set()
        watching.join()


def of_card() -> tuple[float, float] | None:
    """Return how busy the first card is, in percent, and its memory in use, MiB; None where it can't be told."""
    command = ["nvidia-smi", "--query-gpu=utilization.gpu,memory.used", "--format=csv,noheader,nounits"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, check=False, timeout=5).stdout
        share, memory = (float(value) for value in said.partition("\n")[0].split(","))
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return None
    return share, memory


def of_processor() -> Callable[[], tuple[float, float]]:
    """Return the function that tells how busy all cores were since it was last called, percent, and MiB in use."""
    before = _jiffies()

    def sample() -> tuple[float, float]:
        nonlocal before
        now = _jiffies()
        busy, all_of_it = now[0] - before[0], now[1] - before[1]
        before = now
        memory = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
        in_use = int(memory["MemTotal"].split()[0]) - int(memory["MemAvailable"].split()[0])
        return 100 * busy / max(1, all_of_it), in_use / 1024

    return sample


def _jiffies() -> tuple[int, int]:
    """Return the processor's time in use, and all of it, since the machine was started."""
    numbers = [int(number) for number in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    return sum(numbers) - numbers[3] - numbers[4], sum(numbers)


def usage(samples: list[tuple[float, float]], device: str) -> dict[str, float]:
    """Return the mean and the largest utilisation, and the most memory; nothing without samples."""
    if not samples:
        return {}
    whose = "card" if device == "cuda" else "processor"
    shares = [share for share, _ in samples]
    return {
        f"{whose}_utilisation_percent": round(statistics.mean(shares), 1),
        f"{whose}_most_utilisation_percent": round(max(shares), 1),
        f"{whose}_most_memory_mib": round(max(memory for _, memory in samples)),
    }


def write(found: dict[str, Any], device: str) -> None:
    """Write what was found so far."""
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / FILES[device]).write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
