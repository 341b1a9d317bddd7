"""Rounds of a workload in pfl-research 0.6.0, whose own model, backend, FedAvg and in-memory datasets do the work.

As its guide to fast simulation advises (https://apple.github.io/pfl-research/guides/simulation_distributed.html), users
are in-memory datasets (one object a user, so that pfl keeps its batches) and the cohort is spread over processes: one a
thread on a CPU, on a GPU as many as `--processes` says. No evaluation, automatic mixed precision or compilation.
"""

import argparse
import os
import socket
import subprocess
import sys
import warnings
from argparse import Namespace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import torch
from torch import Tensor, nn
from workloads import Workload, age, read_arguments, result_line, rows_of

RANK = "PFL_WORKER_RANK"  # pfl's names for its processes
ADDRESSES = "PFL_WORKER_ADDRESSES"


def main() -> None:
    """Measure and print one line; the processes other than the first print nothing."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--processes", type=int, help="by default one for each thread on a CPU, one on a GPU")
    own, rest = parser.parse_known_args()
    command = [*sys.argv]  # with which other processes are started
    sys.argv[1:] = rest
    arguments = read_arguments(__doc__.partition("\n")[0])
    sys.argv = command
    if arguments.private:
        # It clips what a whole batch or a whole user sends; nothing in it has gradients of single rows.
        print("pfl 0.6.0 has no record-level DP-SGD for local training", file=sys.stderr)
        sys.exit(3)
    warnings.filterwarnings("ignore", category=FutureWarning, module="pfl")
    processes = own.processes or (arguments.threads if arguments.device == "cpu" else 1)
    os.environ["PFL_PYTORCH_DEVICE"] = arguments.device
    torch.set_num_threads(max(1, arguments.threads // processes))
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002 - pfl samples users from the global generator, alike in all processes
    others = start_others(processes) if processes > 1 and RANK not in os.environ else []
    try:
        ages = run_rounds(arguments)
        if os.environ.get(RANK, "0") == "0":
            print(result_line("pfl", arguments, ages, ("pfl", "torch")))
    finally:
        for other in others:
            other.terminate()
            other.wait()


def start_others(processes: int) -> list[subprocess.Popen]:
    """Start this command again for each further process of the simulation, and become the first one."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    os.environ[ADDRESSES] = ",".join(f"localhost:{port + i}" for i in range(processes))
    os.environ[RANK] = "0"
    command = [sys.executable, *sys.argv]
    return [subprocess.Popen(command, env={**os.environ, RANK: str(i)}) for i in range(1, processes)]


class LocalModel(nn.Module):
    """A network with the two methods that pfl asks for."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the mean cross entropy."""
        return nn.functional.cross_entropy(self.network(x), y)

    def metrics(self, _: Tensor, y: Tensor) -> dict:
        """Count rows: pfl evaluates in the first round whatever it is told, and this costs nothing."""
        from pfl.metrics import Weighted

        return {"rows": Weighted(len(y), 1)}


def run_rounds(arguments: Namespace) -> list[float]:
    """Run a warm-up round and the measured ones; return the process's age at the end of each."""
    from pfl.aggregate.simulate import SimulatedBackend
    from pfl.aggregate.weighting import WeightByDatapoints
    from pfl.algorithm.base import NNAlgorithmParams
    from pfl.algorithm.federated_averaging import FederatedAveraging
    from pfl.callback.base import TrainingProcessCallback
    from pfl.hyperparam import NNEvalHyperParams, NNTrainHyperParams
    from pfl.metrics import Metrics
    from pfl.model.pytorch import PyTorchModel

    class Clock(TrainingProcessCallback):
        ages: list[float] = []  # noqa: RUF012 - one instance

        def after_central_iteration(self, *_: object, **__: object) -> tuple[bool, Metrics]:
            self.ages.append(age())
            return False, Metrics()

    workload = arguments.workload
    network = LocalModel(workload.model())
    central = torch.optim.SGD(network.parameters(), lr=1.0)  # FedAvg: the mean of the updates, added as it is
    users = federated_dataset(workload, arguments.device)
    FederatedAveraging().run(
        NNAlgorithmParams(arguments.rounds + 1, arguments.rounds + 1, workload.sampled, val_cohort_size=None),
        SimulatedBackend(training_data=users, val_data=users, postprocessors=[WeightByDatapoints()]),
        PyTorchModel(network, torch.optim.SGD, central),
        NNTrainHyperParams(local_num_epochs=1, local_learning_rate=workload.lr, local_batch_size=workload.batch),
        NNEvalHyperParams(local_batch_size=None),
        callbacks=[clock := Clock()],
        send_metrics_to_platform=False,
    )
    return clock.ages


def federated_dataset(workload: Workload, device: str) -> "FederatedDataset":  # noqa: F821 - imported below, once pfl knows of its processes
    """Return all sites as users: everyone in turn if all take part in a round, else drawn at random by pfl."""
    from pfl.data.federated_dataset import FederatedDataset
    from pfl.data.pytorch import PyTorchTensorDataset
    from pfl.data.sampling import get_user_sampler

    rows = (rows_of(workload, site) for site in range(workload.sites))
    users = [PyTorchTensorDataset((x.to(device), y.to(device))) for x, y in rows]
    kind = "minimize_reuse" if workload.sampled == workload.sites else "random"
    return FederatedDataset(users.__getitem__, get_user_sampler(kind, range(workload.sites)))


if __name__ == "__main__":
    main()
