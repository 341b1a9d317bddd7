"""A federation of four real sites on one machine, to see it work: a SuperLink and four SuperNodes, each a process.

Each site has a folder with its own patients, policy and ledger. TLS and the SuperNodes' keys are real. One SuperNode is
killed in the middle of a round, and the training ends well without it.
"""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedsim.data.loading import task_of
from fedsim.experiments.on_flower import deployed
from fedsim.experiments.on_flower.deployment_plan import APP, CONNECTION, RUN, SITES, Plan, node_config, write_plan
from fedsim.experiments.on_flower.programs import (
    HOST,
    flwr,
    free_ports,
    last_lines,
    started,
    superlink_words,
    supernode_words,
    wait_until_it_listens,
)
from fedsim.mistakes import RunFailed
from fedsim.scenario.files import read
from fedsim.scenario.schema import Scenario
from fedsim.site import own_ledger, real

Say = Callable[[str], None]
Process = subprocess.Popen[bytes]

SCENARIO = "hospital-heart"
_SITES = ("cleveland", "hungarian", "switzerland", "va_long_beach")
_ROUNDS = 4
_KILLED_AFTER_ROUND = 1
_SECONDS_FOR_ALL = 900.0
_SECONDS_BETWEEN_LOOKS = 0.5
_CHANGES = (
    f"training.rounds={_ROUNDS}",
    "privacy.rng=secure",
    'arms=["federated"]',
    "limits.round_seconds=90",
    "deployment.tries=1",
    f"deployment.sites={json.dumps(_SITES)}",
)


@dataclass(frozen=True)
class Rehearsed:
    """What came of a demonstration: the server's directory, and {site: its folder}."""

    run: Path
    sites: dict[str, Path]


def rehearse(folder: Path, say: Say) -> Rehearsed:
    """Plan a federation, start it, kill a site in the middle of a round, and wait for the end.

    Args:
        folder: The directory to make; the processes write their logs into it.
        say: Told what happens, in sentences.

    Raises:
        RunFailed: It did not end well.
    """
    scenario = scenario_of()
    port, *own_ports = free_ports(1 + len(_SITES))
    plan = write_plan(scenario, folder, HOST, port)
    say(f"The plan is written: {folder}/README.md. Each site has a folder with its rows, policy, key and ledger.")
    tables = task_of(scenario).tables
    if tables is None:
        raise RunFailed(f"expected a task that comes with tables, got {scenario.task}")
    for site, table in tables().items():
        table.to_csv(plan.site(site) / "rows.csv", index=False)

    with federation(plan, port, own_ports, folder) as (superlink, nodes):
        say(f"A SuperLink with TLS and {len(nodes)} SuperNodes are started; each has shown its key.")
        submit(plan, folder / RUN)
        _kill_in_mid_round(plan, nodes, folder, say)
        wait_for_end(folder / RUN, superlink, folder)
    return Rehearsed(folder / RUN, {site: plan.site(site) for site in _SITES})


@contextmanager
def federation(
    plan: Plan, port: int, own_ports: Sequence[int], logs: Path
) -> Iterator[tuple[Process, dict[str, Process]]]:
    """Start the SuperLink and the SuperNodes of a plan on this machine; end them with the body of a ``with``.

    Args:
        plan: The plan; its sites have their rows.
        port: Where the SuperLink listens, as planned.
        own_ports: A port for each SuperNode.
        logs: Where the processes write.

    Yields:
        The SuperLink, and {site: its SuperNode}.
    """
    address = f"{HOST}:{port}"
    with ExitStack() as running:
        superlink = running.enter_context(superlink_of(plan, port, logs))
        nodes = {}
        sites = sorted(path.name for path in (plan.folder / SITES).iterdir())
        for site, own_port in zip(sites, own_ports, strict=True):
            flwr(plan.home, ["supernode", "register", f"keys/{site}.pub", CONNECTION], plan.server)
            own = plan.site(site).absolute()
            words = supernode_words(address, own_port, own / "ca.crt", own / "node.key", node_config(site, own))
            nodes[site] = running.enter_context(started(logs, plan.home, f"supernode-{site}", words))
        yield superlink, nodes


@contextmanager
def superlink_of(plan: Plan, port: int, logs: Path) -> Iterator[Process]:
    """Start the SuperLink of a plan, or start it again: it keeps what it knows in a file."""
    database = plan.server.absolute() / "superlink.db"
    with started(logs, plan.home, "superlink", superlink_words(port, plan.files, database=database)) as superlink:
        wait_until_it_listens(port, superlink, logs)
        yield superlink


def scenario_of() -> Scenario:
    """Return the scenario of the demonstration."""
    return read(SCENARIO, list(_CHANGES))


def submit(plan: Plan, out: Path) -> None:
    """Submit the app of a plan, whose results go into a directory."""
    flwr(plan.home, ["run", APP, CONNECTION, "--run-config", f'out="{out.absolute()}"'], plan.server)


def _kill_in_mid_round(plan: Plan, nodes: Mapping[str, Process], logs: Path, say: Say) -> None:
    """Wait until the last site has been charged for the next round, and kill its SuperNode at once."""
    site = _SITES[-1]
    until = time.monotonic() + _SECONDS_FOR_ALL
    while (done := rounds_of(plan.site(site), site)) <= _KILLED_AFTER_ROUND:
        if time.monotonic() > until:
            raise RunFailed(f"no round was begun at {site}{last_lines(logs / 'superlink.log')}")
        time.sleep(_SECONDS_BETWEEN_LOOKS)
    os.killpg(nodes[site].pid, signal.SIGKILL)
    say(f"{site} is killed in the middle of round {done}; its ledger says that the round was charged.")


def rounds_of(folder: Path, site: str) -> int:
    """Return how many rounds a site has charged."""
    with own_ledger.opened(folder / real.LEDGER_FOLDER, site) as ledger:
        return len(ledger.entries)


def wait_for_end(run: Path, superlink: Process, logs: Path) -> None:
    """Wait until a deployment is finished.

    Raises:
        RunFailed: It is not, or its SuperLink has ended.
    """
    until = time.monotonic() + _SECONDS_FOR_ALL
    while not (run / "SHA256SUMS").exists():
        if superlink.poll() is not None or time.monotonic() > until:
            raise RunFailed(f"the federation did not end well{last_lines(logs / 'superlink.log')}")
        time.sleep(_SECONDS_BETWEEN_LOOKS)


def about(run: Path) -> dict[str, Any]:
    """Return what the server wrote down."""
    return dict(json.loads((run / deployed.ABOUT).read_text()))
