"""Rounds of a workload in Flower's Ray simulation: plain PyTorch clients or, with --private, Opacus in each client.

One actor a thread, one thread an actor. A worker makes the rows of all sites when it is first called and keeps them, as
it keeps its network in the plain case; Opacus hooks into a network, so that a private call to train builds a new one.
"""

import functools
import logging
import os
import sys
from argparse import Namespace
from collections.abc import Iterable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
os.environ["FLWR_TELEMETRY_ENABLED"] = os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ.setdefault("RAY_worker_niceness", "0")  # 15 by default: clients would wait for whoever else is there
os.environ["FLWR_DISABLE_UPDATE_CHECK"] = "1"

import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from flwr.simulation import run_simulation
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from workloads import WORKLOADS, Workload, age, read_arguments, result_line, rows_of

client = ClientApp()


def main() -> None:
    """Measure and print one line."""
    arguments = read_arguments(__doc__.partition("\n")[0])
    logging.getLogger("flwr").setLevel(logging.ERROR)
    stdout = os.dup(1)
    os.dup2(2, 1)  # whatever Flower and Ray print goes to stderr
    ages: list[float] = []
    run_simulation(
        server_app=server(arguments, ages),
        client_app=client,
        num_supernodes=arguments.workload.sites,
        backend_config=backend_config(arguments),
    )
    packages = ("flwr", "ray", "torch", *(("opacus",) if arguments.private else ()))
    os.write(stdout, f"{result_line('flower-ray', arguments, ages[1:], packages)}\n".encode())


def backend_config(arguments: Namespace) -> dict:
    """Let Ray run one client a thread."""
    init = {"num_cpus": arguments.threads, "logging_level": "ERROR", "log_to_driver": False}
    if arguments.device == "cpu":
        return {"init_args": init, "client_resources": {"num_cpus": 1, "num_gpus": 0.0}}
    resources = {"num_cpus": 1, "num_gpus": 1 / arguments.threads}
    return {"init_args": {**init, "num_gpus": 1}, "client_resources": resources}


def server(arguments: Namespace, ages: list[float]) -> ServerApp:
    """Return the server, which appends the process's age at the start of each round and at the end of the last."""
    app = ServerApp()
    workload = arguments.workload

    @app.main()
    def run(grid: Grid, _: Context) -> None:
        torch.manual_seed(0)
        config = {"workload": workload.name, "private": arguments.private, "device": arguments.device}
        strategy = TimedFedAvg(workload, ages)
        start = ArrayRecord(build(workload, arguments.private).state_dict())
        strategy.start(grid, start, num_rounds=arguments.rounds + 1, train_config=ConfigRecord(config))
        ages.append(age())

    return app


class TimedFedAvg(FedAvg):
    """Flower's FedAvg without evaluation, which notes when rounds start and takes no failed client for an answer."""

    def __init__(self, workload: Workload, ages: list[float]) -> None:
        super().__init__(
            fraction_train=workload.sampled / workload.sites,
            fraction_evaluate=0.0,
            min_train_nodes=workload.sampled,
            min_available_nodes=workload.sites,
        )
        self.ages = ages

    def configure_train(self, server_round: int, *rest: object) -> Iterable[Message]:
        """Note the age of the process, then do as FedAvg does."""
        self.ages.append(age())
        return super().configure_train(server_round, *rest)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Check that every sampled client trained, then do as FedAvg does."""
        replies = list(replies)
        trained = sum(not r.has_error() for r in replies)
        if trained != self.min_train_nodes:
            reasons = {r.error.reason for r in replies if r.has_error()}
            raise RuntimeError(f"round {server_round}: {trained} of {self.min_train_nodes} clients trained; {reasons}")
        return super().aggregate_train(server_round, replies)


@client.train()
def train(message: Message, context: Context) -> Message:
    """Train for one epoch on the rows of the client's site."""
    torch.set_num_threads(1)
    config = message.content["config"]
    workload, private, device = WORKLOADS[config["workload"]], config["private"], config["device"]
    x, y = all_rows(workload, device)[context.node_config["partition-id"]]
    network = build(workload, True).to(device) if private else kept_network(workload, device)
    network.load_state_dict(message.content["arrays"].to_torch_state_dict())
    (train_privately if private else train_plainly)(network, workload, x, y)
    content = {
        "arrays": ArrayRecord(network.state_dict()),
        "metrics": MetricRecord({"num-examples": workload.rows}),
    }
    return Message(RecordDict(content), reply_to=message)


def train_plainly(network: nn.Module, workload: Workload, x: Tensor, y: Tensor) -> None:
    """Do one epoch of SGD in shuffled batches."""
    optimizer = torch.optim.SGD(network.parameters(), workload.lr)
    for batch in torch.randperm(workload.rows).to(x.device).split(workload.batch):
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(x[batch]), y[batch]).backward()
        optimizer.step()


def train_privately(network: nn.Module, workload: Workload, x: Tensor, y: Tensor) -> None:
    """Do one epoch of DP-SGD, by Opacus as its tutorials use it: Poisson batches, as many steps as in an epoch."""
    from opacus import PrivacyEngine

    module, optimizer, loader = PrivacyEngine().make_private(
        module=network,
        optimizer=torch.optim.SGD(network.parameters(), workload.lr),
        data_loader=DataLoader(TensorDataset(x, y), batch_size=workload.batch),
        noise_multiplier=1.0,
        max_grad_norm=1.0,
        poisson_sampling=True,
    )
    for inputs, labels in loader:
        optimizer.zero_grad()
        nn.functional.cross_entropy(module(inputs), labels).backward()
        optimizer.step()


def build(workload: Workload, private: bool) -> nn.Module:
    """Return a new network, with Opacus's own GRU where torch's has no gradients of single rows."""
    if private and workload.name == "sequence":
        from opacus.layers import DPGRU

        return workload.model(recurrent=DPGRU)
    return workload.model()


@functools.cache
def kept_network(workload: Workload, device: str) -> nn.Module:
    """Return this worker's network."""
    return build(workload, private=False).to(device)


@functools.cache
def all_rows(workload: Workload, device: str) -> list[tuple[Tensor, Tensor]]:
    """Return the rows of all sites, kept in this worker."""
    rows = (rows_of(workload, site) for site in range(workload.sites))
    return [(x.to(device), y.to(device)) for x, y in rows]


if __name__ == "__main__":
    # Under its own name: workers import it once, where functions of __main__ would travel with each message.
    import flower_ray

    flower_ray.main()
