"""Runs in Python: read one with its models, and go on with one that was interrupted."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from fedsim.data.own_table import frames
from fedsim.data.task import Task
from fedsim.experiments import experiment
from fedsim.experiments.given import allow_given_code
from fedsim.experiments.progress import Progress, told
from fedsim.exporting.choice import Chosen, Wanted, choose
from fedsim.exporting.in_torch import model_of, predicted
from fedsim.results import run_directory as results
from fedsim.scenario.schema import Arm
from fedsim.strategy.contract import Strategy
from fedsim.tracking.watch import OnRound, Watch, names_of

Rows = str | Path | pd.DataFrame | np.ndarray | torch.Tensor


@dataclass(frozen=True)
class LoadedRun(results.Run):
    """A finished run with its models; its tables are ``comparison``, ``sites``, ``rounds`` and ``groups``."""

    def model(
        self,
        seed: int | None = None,
        arm: Arm | None = None,
        *,
        private: bool | None = None,
        site: str | None = None,
        data: pd.DataFrame | None = None,
    ) -> nn.Module:
        """Return a trained model with its weights, on the CPU and in the mode for predictions.

        It takes rows as the task encodes them. ``predict`` takes rows as they stand in a table.

        Args:
            seed: The seed of the training; by default the first.
            arm: The arm; by default the federated one.
            private: Whether the model was trained under privacy; by default if the run is private. What the run's
                promise does not cover is refused; ``private=False`` takes the model without any promise.
            site: The site whose own model is meant, in the local arm or of a strategy that leaves sites with one.
            data: The frame that the run was begun with, if it was one.

        Raises:
            Mistake: There is no such model, or the run's promise does not cover it.
        """
        return self._with_chosen(Wanted(arm, private, seed, site), data, model_of)

    def predict(
        self,
        rows: Rows,
        seed: int | None = None,
        arm: Arm | None = None,
        *,
        private: bool | None = None,
        site: str | None = None,
        data: pd.DataFrame | None = None,
    ) -> pd.DataFrame:
        """Predict new rows with a trained model: the figures of ``fedsim.predict`` after ``fedsim.export``.

        Args:
            rows: A table as a frame or a file, with the columns that the model was trained on; the path of images; or,
                of a task that does not say how its rows are written in a file, an array of inputs (rows, ...).
            seed: As in ``model``; so are the others.
            arm: The arm.
            private: Whether the model was trained under privacy.
            site: The site whose own model is meant.
            data: The frame that the run was begun with, if it was one.

        Returns:
            A row for each prediction: what names it, then ``probability`` of a yes or no, ``class`` and ``probability
            of CLASS`` of classes, or ``prediction`` of a number, in its unit.

        Raises:
            Mistake: There is no such model, the run's promise does not cover it, or the rows are not as it needs them.
        """
        return self._with_chosen(Wanted(arm, private, seed, site), data, lambda chosen: predicted(chosen, rows))

    def _with_chosen(self, wanted: Wanted, data: pd.DataFrame | None, use: Any) -> Any:  # noqa: ANN401
        """Use a trained model, while the frame that the run was begun with is held."""

        def used() -> Any:  # noqa: ANN401
            chosen: Chosen = choose(self, wanted)
            return use(chosen)

        if data is None:
            return used()
        with frames.held(frames.table_of(data)):
            return used()


def load(
    run_dir: str | Path, *, task: Task | str | None = None, strategy: Strategy | type | str | None = None
) -> LoadedRun:
    """Read a finished run, with its models.

    Args:
        run_dir: The run directory, as ``frame.attrs["run_dir"]`` of ``fedsim.run`` has it.
        task: The task that the run was begun with, where it is the user's own: its models need it, its figures don't.
        strategy: Likewise its strategy.

    Raises:
        Mistake: There is none, it is not finished, or a file has changed since it was written.
    """
    allow_given_code(task, strategy)
    return of_run(results.load(run_dir))


def of_run(run: results.Run) -> LoadedRun:
    """Return a run that was read as one with its models."""
    return LoadedRun(**{field.name: getattr(run, field.name) for field in fields(run)})


def resume(
    run_dir: str | Path,
    *,
    task: Task | str | None = None,
    strategy: Strategy | type | str | None = None,
    force: bool = False,
    progress: bool | Progress = True,
    jobs: int = 1,
    on_round: OnRound | None = None,
    track: str | list[str] | None = None,
    track_to: str | Path | None = None,
) -> LoadedRun:
    """Go on with an interrupted run: what was finished is not run again, and what failed is tried again.

    Args:
        run_dir: The run directory. A run of a frame goes on by ``fedsim.run`` with the frame, see there.
        task: The task that the run was begun with, where it is the user's own.
        strategy: Likewise its strategy.
        force: Whether to go on under other circumstances than it was begun under, such as other versions; that is
            written down. Another task is another run.
        progress: Whether to show progress, or a function, as in ``fedsim.run``.
        jobs: In how many processes trainings run beside each other.
        on_round: As in ``fedsim.run``.
        track: As in ``fedsim.run``.
        track_to: As in ``fedsim.run``.

    Raises:
        Mistake: There is nothing to go on with, or the circumstances, the task or the strategy are others.
    """
    allow_given_code(task, strategy)
    watch = Watch(names_of(track), None if track_to is None else Path(track_to), on_round)
    with told(progress) as tell:
        return of_run(experiment.resume(run_dir, tell, force, jobs, watch))
