"""Actors of Ray for the trainings of a run: Flower's simulation is started once and ended after the last of them.

Flower runs a ServerApp in a thread of its own. The one here only hands its grid over and waits: the trainings run where
they always run, and so time limits, Ctrl-C and checkpoints do as they always do.
"""

import logging
import os
import queue
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from fedsim.engines import cohort
from fedsim.flower.grid import Identity
from fedsim.flower.nodes import Nodes, Told, at_hand, by_grid, wait_for
from fedsim.mistakes import RunFailed, said_by
from fedsim.scenario import catalog
from fedsim.scenario.schema import Scenario
from fedsim.site import node

_SECONDS_TO_START = 180.0  # Ray itself gives up a node after 30
_SECONDS_TO_END = 30.0


@contextmanager
def actors_for(scenario: Scenario) -> Iterator[None]:
    """Have the actors that a scenario asks for at hand in the body of a ``with``.

    Raises:
        RunFailed: Ray can't be started, or its actors don't come.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    from flwr.simulation import run_simulation  # it imports Ray

    came: queue.Queue[tuple[Grid, Identity] | BaseException] = queue.Queue()
    over = threading.Event()
    server = ServerApp()

    @server.main()
    def hand_over(grid: Grid, _: Context) -> None:
        came.put((grid, Identity.now()))
        over.wait()

    def simulate() -> None:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                run_simulation(server, node.app, scenario.ray.actors, backend_config=_backend(scenario))
        except BaseException as error:
            came.put(error)

    before = Identity.now()
    level = logging.getLogger("flwr").level
    logging.getLogger("flwr").setLevel(logging.CRITICAL)  # what goes wrong is raised here
    thread = threading.Thread(target=simulate, name="ray", daemon=True)
    thread.start()
    try:
        found = came.get(timeout=_SECONDS_TO_START)
        if isinstance(found, BaseException):
            raise RunFailed(f"engine ray: Ray could not be started: {said_by(found)}") from found
        grid, identity = found
        with identity.taken():
            ids = wait_for(grid, scenario.ray.actors, _SECONDS_TO_START)
        ask = by_grid(grid, identity, told(scenario, scenario.ray.inside), scenario.limits.round_seconds)
        with before.taken(), at_hand(Nodes(ids, ask, scenario.ray.inside)):
            yield
    except queue.Empty:
        raise RunFailed(f"engine ray: Ray was not there after {_SECONDS_TO_START:g} seconds") from None
    finally:
        over.set()
        thread.join(_SECONDS_TO_END)
        logging.getLogger("flwr").setLevel(level)


def _backend(scenario: Scenario) -> dict[str, Any]:
    """Return what Flower gives Ray: so many actors, each with its cores and its part of the GPUs."""
    wanted = scenario.ray
    each = {"num_cpus": wanted.cpus, "num_gpus": wanted.gpus}
    if wanted.address is not None:
        start: dict[str, Any] = {"address": wanted.address}
    else:
        start = {"num_cpus": wanted.cpus * wanted.actors, "include_dashboard": False}
    return {"init_args": {**start, "logging_level": "ERROR", "log_to_driver": False}, "client_resources": each}


def told(scenario: Scenario, engine: str) -> Told:
    """Return what every node is told beside its sites' messages.

    Args:
        scenario: The scenario.
        engine: The engine by which the nodes train.
    """
    return {
        "engine": engine,
        "cohort-size": scenario.cohort_size,
        "cores": cohort.cores_to_cut_for(),
        "strategies": sorted(catalog.allowed()) or [""],  # Flower takes no empty list
    }
