"""A federation of real sites: the server has their names, and nothing of their rows.

Only the federated arm is trained, once. What comes of it is a directory with the model, the ledger, what each site gave
and a page that says what is promised and what can't be known here. After each round the state is kept, so that the same
command goes on after an interruption: sites give the same answer again to a message that they have answered.
"""

import json
import secrets
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.serverapp import Grid, ServerApp

from fedsim.experiments import begun
from fedsim.experiments.on_flower.server_app import checked_config
from fedsim.experiments.progress import Progress, shown
from fedsim.experiments.server_side import adapted, irregularities, plans_of, run_config
from fedsim.experiments.under_way import UnderWay
from fedsim.flower.foreign_strategy import Hosted
from fedsim.flower.grid import OF_A_SIMULATION, Identity, node_of
from fedsim.flower.real_grid import RealGrid
from fedsim.flower.records import ARRAYS, CONFIG, METRICS, ROUND, WEIGHT, Flat, Layout, flatten
from fedsim.flower.rounds import CentralBudget, Finished, run_rounds, taken_up
from fedsim.mistakes import Mistake
from fedsim.planning.budgets import Spending
from fedsim.planning.checks import check_expected_batches, noise_faults, refuse, strategy_faults
from fedsim.planning.deployment import deployment_faults
from fedsim.planning.trial import Trial
from fedsim.privacy.accounting import ACCOUNTANT
from fedsim.privacy.central import CentralNoise
from fedsim.report import deployment as page
from fedsim.results import run_directory as results
from fedsim.results.digests import sha256
from fedsim.results.seal import seal
from fedsim.scenario import catalog
from fedsim.scenario.files import read
from fedsim.scenario.schema import Checkpoints, Scenario
from fedsim.strategy.foreign import Foreign
from fedsim.strategy.trainable import whole

ABOUT = "deployment.json"
"""The file by which a deployment's directory is known, written when it is finished."""

_TRAINING = "training.json"
_RANDOM_BYTES = 16
DEFAULTS: dict[str, str | int] = {"out": ""}


def check(scenario: Scenario) -> None:
    """Refuse a scenario that real sites can't train, with all that is wrong with it.

    Raises:
        Mistake: It can't be run; the message has a line for each fault.
    """
    faults = list(deployment_faults(scenario))
    if scenario.private and scenario.privacy.rng != "secure":
        faults.append("privacy.rng: expected 'secure': noise that follows from the seed can be subtracted from what a "
                      "site sends by whoever knows the seed")  # fmt: skip
    refuse(faults)
    trial = Trial(scenario, scenario.seed, "federated")
    check_expected_batches(scenario, trial.federation)
    refuse(strategy_faults(scenario, len(trial.names), trial.untried_model))
    refuse(noise_faults(scenario, trial.names))


def app_for(scenario: Path, strategy: str = "") -> ServerApp:
    """Return the ServerApp for real sites, as ``fedsim deploy plan`` writes it.

    Args:
        scenario: The scenario's file.
        strategy: ``package.module:Class``, where it is code of the user's that is in the app.
    """
    own = ServerApp()
    if strategy:
        catalog.allow(strategy)

    @own.main()
    def run_it(grid: Grid, context: Context) -> None:
        config = checked_config(dict(context.run_config), DEFAULTS)
        if not Path(str(config["out"])).is_absolute():
            raise Mistake(f"run config: out: expected the whole path of a directory, got {config['out']!r}")
        with shown() as progress:
            folder = deploy(read(str(scenario)), grid, Identity.now(), Path(str(config["out"])), progress)
        sys.stderr.write(f"fedsim: finished: {folder}\n")

    return own


def deploy(scenario: Scenario, grid: Grid, identity: Identity, folder: Path, progress: Progress | None = None) -> Path:
    """Train a scenario at real sites.

    Args:
        scenario: The scenario.
        grid: Flower's grid.
        identity: Under which messages are made for it.
        folder: The directory to write into; one that was begun is gone on with.
        progress: Called with (what is trained, rounds done, rounds in all).

    Raises:
        Mistake: The scenario can't be run, or the directory is another one's.
        RunFailed: Too few sites came or answered; the same call goes on.
        OSError: Something can't be written.
    """
    check(scenario)
    token = _token(folder, scenario)
    trial = Trial(scenario, scenario.seed, "federated")
    spending = Spending.of(trial) if trial.private else None
    wanted = scenario.deployment
    sites = RealGrid(
        grid,
        identity,
        wanted.sites,
        {"training": token, **run_config(trial)},
        scenario.limits.round_seconds,
        wanted.tries,
        wanted.fewest_answers,
    )
    sites.wait(wanted.seconds_to_come)

    begun_at = time.monotonic()
    with OF_A_SIMULATION.taken():  # messages are made by the numbers of the sites, and sent by the grid's own
        finished = _trained(trial, spending, sites, folder, token, progress)
        figures = _figures(trial, sites, finished) if wanted.evaluation and not trial.private else {}
    _write(folder, trial, spending, finished, figures, time.monotonic() - begun_at)
    return folder


def _token(folder: Path, scenario: Scenario) -> str:
    """Return the name of the training in a directory, which is drawn when it begins.

    Raises:
        Mistake: The directory is finished, or another scenario's.
    """
    if (folder / ABOUT).exists():
        raise Mistake(f"{folder}: expected a new directory, or one that was begun; this one is finished")
    digest = sha256(json.dumps(scenario.values(), sort_keys=True).encode())
    if (folder / _TRAINING).exists():
        kept = results.read_json(folder / _TRAINING)
        if kept.get("scenario") != digest or not isinstance(kept.get("training"), str):
            raise Mistake(f"{folder}: expected a directory that was begun with this scenario, got another one's")
        return str(kept["training"])
    if folder.exists() and any(folder.iterdir()):
        raise Mistake(f"{folder}: expected a new or empty directory, it is taken")
    folder.mkdir(parents=True, exist_ok=True)
    token = secrets.token_hex(_RANDOM_BYTES)
    results.write_scenario(folder, scenario)
    results.write_json(folder / _TRAINING, {"training": token, "scenario": digest, "begun": _now()})
    return token


def _trained(
    trial: Trial,
    spending: Spending | None,
    sites: RealGrid,
    folder: Path,
    token: str,
    progress: Progress | None,
) -> Finished:
    """Run the rounds."""
    scenario = trial.scenario
    plans = plans_of(trial)
    budget = spending.federated(plans) if spending else None
    strategy = trial.strategy
    if isinstance(strategy, Foreign):
        hosted = Hosted(strategy.inner, trial.seed, len(trial.names))
    else:
        hosted = adapted(trial, spending, budget)

    def observe(number: int, _: ArrayRecord) -> None:
        if progress:
            progress(scenario.title, number, scenario.training.rounds)

    kept = UnderWay(folder / "checkpoints", "federated", token, Checkpoints(every_rounds=1), repeatable=True)
    noise = budget.noise if isinstance(budget, CentralBudget) else None
    return run_rounds(
        strategy=hosted,
        grid=sites,
        initial=Flat(trial.start, Layout.of(trial.model)),
        rounds=scenario.training.rounds,
        budget=budget,
        observe=observe,
        names={node: name for node, (name, _) in plans.items()},
        halfway=_WithLedger(kept, spending, noise),
    )


@dataclass(frozen=True)
class _WithLedger:
    """Keeps the ledger and the server's noise beside the state of the rounds; see ``Halfway``."""

    kept: UnderWay
    spending: Spending | None
    noise: CentralNoise | None

    def found(self) -> Mapping[str, Any] | None:
        """Return the state of the rounds, and put back what was kept beside it."""
        state = self.kept.found()
        if state is None:
            return None
        with taken_up():
            if self.spending:
                self.spending.restore(state["ledger"])
            if self.noise:
                self.noise.restore(state["noise"])
            return state["server"]

    def unseen(self, number: int) -> Sequence[Sequence[int]]:
        """Say that no round was begun before: sites that answered it give the same answer again."""
        return ()

    def begin(self, number: int, asked: Sequence[int]) -> None:
        """Keep nothing."""

    def end(self, number: int, snapshot: Callable[[], Mapping[str, Any]]) -> None:
        """Keep the state after a round."""

        def all_of_it() -> Mapping[str, Any]:
            return {
                "server": snapshot(),
                "ledger": self.spending.snapshot() if self.spending else None,
                "noise": self.noise.snapshot() if self.noise else None,
            }

        self.kept.end(number, all_of_it)


def _figures(trial: Trial, sites: RealGrid, finished: Finished) -> dict[str, dict[str, float]]:
    """Ask the sites for figures of the final model on their own test rows: {site: {metric: value}}."""
    config = ConfigRecord({ROUND: finished.rounds, "part": "test"})
    content = RecordDict({ARRAYS: Flat(flatten(finished.arrays), Layout.of(trial.model)), CONFIG: config})
    questions = [Message(content, node, "evaluate") for node in sites.get_node_ids()]
    found = {}
    for reply in sites.send_and_receive(questions):
        name = trial.names[reply.metadata.src_node_id - node_of(0)]
        if reply.has_content():
            figures = {str(key): float(value) for key, value in reply.content[METRICS].items()}  # type: ignore[arg-type]
            found[name] = {"rows": figures.pop(WEIGHT), **figures}
    return found


def _write(
    folder: Path,
    trial: Trial,
    spending: Spending | None,
    finished: Finished,
    figures: Mapping[str, Mapping[str, float]],
    seconds: float,
) -> None:
    """Write what came of it; the file that says that it is finished last."""
    scenario = trial.scenario
    names = {node_of(number): name for number, name in enumerate(trial.names)}
    ledger = spending.ledger.as_json() if spending else None
    missed = dict.fromkeys(trial.names, 0)
    for rejected in finished.rejected.values():
        for one in rejected:
            missed[names[one.node]] += 1
    about = {
        "scenario": scenario.shown(),
        "task": {"title": trial.task.title, "outcome": trial.task.outcome},
        "versions": begun.versions(),
        "finished": _now(),
        "seconds": round(seconds, 1),
        "rounds": finished.rounds,
        "noise_multiplier": trial.noise,
        "sites": [
            {"site": name, "weight": weight, "rounds_missed": missed[name], "figures": figures.get(name)}
            for name, weight in trial.weights.items()
        ],
        "notes": list(irregularities(finished, names)),
    }
    results.write_tensors(
        folder / "model.safetensors",
        whole(trial.model, trial.parts(flatten(finished.arrays))),
        {"task": str(scenario.task), "training": "federated"},
    )
    privacy = scenario.privacy
    claim = {"unit": privacy.unit, "neighbours": privacy.relation, "delta": privacy.delta, "budget": privacy.epsilon}
    training = [{"arm": "federated", "private": True, "seed": trial.seed, **ledger}] if ledger else []
    results.write_json(folder / "ledger.json", {**claim, "accountant": ACCOUNTANT, "trainings": training})
    page.write(folder, about, results.read_json(folder / "ledger.json"))
    results.write_json(folder / ABOUT, about)
    seal(folder)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
