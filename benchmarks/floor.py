"""The floor under a round of a workload: the floating-point work of its local steps and nothing else.

One model does forward and backward for as many rows as the sites of a round train on, in big batches, and one optimizer
step; with --private it also draws the noise of all steps of all sites. No weights of single sites, no messages, no
sampling, no shuffling, no averaging, no clipping.
"""

import ctypes
import itertools
from argparse import Namespace
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from workloads import Workload, age, count_parameters, read_arguments, result_line, rows_of

BATCHES = (512, 4096, 16384)  # rows, the sizes tried
NOISE = 2**26  # numbers drawn at once at most, 256 MiB


def main() -> None:
    """Measure and print one line."""
    arguments = read_arguments(__doc__.partition("\n")[0])
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    keep_memory()
    print(result_line("floor", arguments, run_rounds(arguments), ("torch",)))


def keep_memory() -> None:
    """Let glibc keep freed memory of any size for reuse: page faults can cost more than the arithmetic of a batch."""
    trim_threshold, mmap_max = -1, -4  # as malloc.h numbers them
    libc = ctypes.CDLL(None)
    libc.mallopt(trim_threshold, 2**31 - 1)
    libc.mallopt(mmap_max, 0)


def run_rounds(arguments: Namespace) -> list[float]:
    """Find the best batches, run a warm-up round and the measured ones; return the process's age after each."""
    workload, device = arguments.workload, arguments.device
    x, y = round_rows(workload, device)
    model = workload.model().to(device)
    batch, layout = fastest(model, x, y)
    model, x = model.to(memory_format=layout), x.contiguous(memory_format=layout)
    optimizer = torch.optim.SGD(model.parameters(), workload.lr)
    noise = draws(workload, model) if arguments.private else []
    scratch = torch.empty(max(noise, default=0), device=device)
    ages = []
    for _ in range(arguments.rounds + 1):
        optimizer.zero_grad()
        for inputs, labels in zip(x.split(batch), y.split(batch), strict=True):
            add_gradient(model, inputs, labels)
        for count in noise:
            scratch[:count].normal_()
        optimizer.step()
        ages.append(age())
    return ages


def round_rows(workload: Workload, device: str) -> tuple[Tensor, Tensor]:
    """Return the rows of one round: an epoch of each sampled site."""
    x, y = zip(*(rows_of(workload, site) for site in range(workload.sampled)), strict=True)
    return torch.cat(x).to(device), torch.cat(y).to(device)


def fastest(model: nn.Module, x: Tensor, y: Tensor) -> tuple[int, torch.memory_format]:
    """Return the batch size and the memory layout with the least time a row."""
    layouts = (torch.contiguous_format, torch.channels_last)[: 2 if x.ndim == 4 else 1]
    sizes = sorted({min(size, len(x)) for size in BATCHES})
    return min(itertools.product(sizes, layouts), key=lambda choice: seconds_a_row(model, x, y, *choice))


def seconds_a_row(model: nn.Module, x: Tensor, y: Tensor, size: int, layout: torch.memory_format) -> float:
    """Time the better of two batches, after one that warms up."""
    model.to(memory_format=layout)
    inputs, labels = x[:size].contiguous(memory_format=layout), y[:size]
    return min(itertools.islice(batch_seconds(model, inputs, labels), 1, 3)) / size


def batch_seconds(model: nn.Module, x: Tensor, y: Tensor) -> Iterator[float]:
    """Yield the seconds of one batch, again and again."""
    while True:
        start = age()
        add_gradient(model, x, y)
        yield age() - start


def add_gradient(model: nn.Module, x: Tensor, y: Tensor) -> None:
    """Do forward and backward of one batch."""
    nn.functional.cross_entropy(model(x), y).backward()


def draws(workload: Workload, model: nn.Module) -> list[int]:
    """Return how many numbers to draw at a time: for each step, as many as all sites' parameters, at most NOISE."""
    full, rest = divmod(workload.sampled * count_parameters(model), NOISE)
    return ([NOISE] * full + [rest]) * workload.steps


if __name__ == "__main__":
    main()
