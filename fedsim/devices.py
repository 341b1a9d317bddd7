"""The device that a training runs on, as far as the code depends on it.

Tests put other functions in the place of these, and so take on a CPU the ways that a GPU takes.
"""

import threading
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

_capturing = threading.Lock()  # torch has one stream for all captures of a process


def is_gpu(device: torch.device) -> bool:
    """Whether many small operations cost more there than few large ones."""
    return device.type == "cuda"


def free_bytes(device: torch.device) -> int:
    """Return how many bytes of a GPU's memory can still be taken, with those that torch holds and nobody uses."""
    free, _ = torch.cuda.mem_get_info(device)
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return free + unused


def give_back(device: torch.device) -> None:
    """Give the memory that torch holds and nobody uses back to a GPU, so that it may be cut anew."""
    if device.type == "cuda":
        torch.cuda.empty_cache()


def moved(values: np.ndarray, device: torch.device) -> Tensor:
    """Copy numbers to a device; nobody waits for what a GPU still has to do."""
    tensor = torch.from_numpy(values)
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def captured(work: Callable[[], None], device: torch.device) -> Callable[[], None]:
    """Return what does the same work on the same memory again; on CUDA it is a graph, which is one launch.

    Capturing only writes down what is to be done. Nothing has been computed before the first call.

    Raises:
        RuntimeError: The work can't be captured: it waits for the GPU, or copies to it what is not pinned.
    """
    if device.type != "cuda":
        return work
    graph = torch.cuda.CUDAGraph()
    with _capturing, torch.cuda.device(device):
        stream = torch.cuda.current_stream()
        try:
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                work()
        finally:
            torch.cuda.set_stream(stream)  # torch leaves the capture's stream in place where a capture fails
    return graph.replay
