"""The ServerApp of fedsim: what ``flwr run`` starts, on Flower's simulation or on a SuperLink.

The run config names the scenario and what to change in it. The sites are simulated, and shared out among the nodes that
the federation has; what comes of the run is the run directory that ``fedsim run`` would have made.
"""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from fedsim.experiments.experiment import execute
from fedsim.experiments.on_flower.ray_actors import told
from fedsim.experiments.progress import shown
from fedsim.flower.grid import Identity
from fedsim.flower.nodes import Nodes, at_hand, by_grid, wait_for
from fedsim.flower.relay import SECONDS_TO_COME
from fedsim.mistakes import Mistake
from fedsim.scenario import catalog
from fedsim.scenario.changes import with_strategy
from fedsim.scenario.files import read
from fedsim.scenario.schema import Scenario

DEFAULTS: dict[str, str | int] = {
    "scenario": "hospital-heart",
    "changes": "",
    "strategy": "",
    "epsilon": "",
    "nodes": 2,
    "inside": "serial",
    "out": "",
}
"""{key of the run config: its value if nothing else is said}; an empty text leaves the scenario as it is."""

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run the scenario that the run config names at the nodes of the federation.

    Raises:
        Mistake: The run config asks for what can't be run; the log has a line for each fault.
        RunFailed: Nothing could be trained.
    """
    _run(grid, context, DEFAULTS)


def app_for(scenario: Path, strategy: str = "") -> ServerApp:
    """Return a ServerApp for a scenario of its own, as ``fedsim flower export`` writes it.

    Args:
        scenario: The scenario's file.
        strategy: ``package.module:Class``, where it is code of the user's that is in the app.
    """
    own = ServerApp()
    if strategy:
        catalog.allow(strategy)

    @own.main()
    def run_it(grid: Grid, context: Context) -> None:
        _run(grid, context, {**DEFAULTS, "scenario": str(scenario)})

    return own


def _run(grid: Grid, context: Context, defaults: Mapping[str, str | int]) -> None:
    config = checked_config(dict(context.run_config), defaults)
    identity = Identity.now()
    ids = wait_for(grid, int(config["nodes"]), SECONDS_TO_COME)
    scenario = _scenario(config)
    inside = str(config["inside"])
    out = Path(str(config["out"])).absolute() if config["out"] else None
    ask = by_grid(grid, identity, told(scenario, inside), scenario.limits.round_seconds)
    with at_hand(Nodes(ids, ask, inside)), shown() as progress:
        run = execute(scenario, out, progress)
    sys.stderr.write(f"fedsim: run directory: {run.path.absolute()}\n")


def checked_config(config: dict[str, Any], defaults: Mapping[str, str | int]) -> dict[str, Any]:
    """Return a run config with its defaults.

    Raises:
        Mistake: It has keys or values that have no meaning; each has a line.
    """
    faults = [f"run config: {key}: expected {', '.join(defaults)}" for key in sorted(set(config) - set(defaults))]
    for key, default in defaults.items():
        value = config.get(key, default)
        if type(value) is not type(default):
            kind = "a whole number" if isinstance(default, int) else "text"
            faults.append(f"run config: {key}: expected {kind}, got {value!r}")
    if faults:
        raise Mistake("\n".join(faults))
    return {**defaults, **config}


def _scenario(config: dict[str, Any]) -> Scenario:
    """Return the scenario that a run config names, with its changes, to be trained at nodes."""
    changes = [f"superlink.nodes={config['nodes']}", f"superlink.inside={config['inside']}", "engine=superlink"]
    changes += str(config["changes"]).split()
    if config["strategy"]:
        changes.insert(0, with_strategy(str(config["strategy"])))
    return read(str(config["scenario"]), changes, str(config["epsilon"]) or None)
