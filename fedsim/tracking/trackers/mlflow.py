"""MLflow: a local store in one SQLite file, a run for each arm and seed under a run for the whole."""

import os
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from fedsim.mistakes import Mistake
from fedsim.tracking.contract import Ended, Run, Tracker, Training

if TYPE_CHECKING:
    from mlflow.entities import Metric

_ADDRESS = "MLFLOW_TRACKING_URI"
_LOCAL = "sqlite:///"
_SECONDS_TO_FLUSH = 2.0  # a write takes some 15 ms, which many short rounds would wait for
_LONGEST_VALUE = 500  # characters, of a setting
_OF_RUN = "fedsim.run"
_OF_TRAINING = "fedsim.training"


class MLflow(Tracker):
    """Writes into a local MLflow store. Nothing is sent anywhere: a store that is reached by a network is refused."""

    needs: ClassVar[tuple[str, ...]] = ("mlflow", "sqlalchemy", "alembic")
    extra: ClassVar[str] = "mlflow"

    @classmethod
    def check(cls, is_place_given: bool) -> None:
        """Make sure that the store the environment names, if it counts, is a local one.

        Raises:
            Mistake: It is another.
        """
        address = os.environ.get(_ADDRESS, "")
        if address and not is_place_given and not address.startswith(_LOCAL):
            raise Mistake(
                f"track: expected a local MLflow store in {_ADDRESS}, such as sqlite:////data/mlflow.db, "
                f"got {address}: figures of a run are sent to no other machine; choose a folder with --track-to DIR"
            )

    def __init__(self, run: Run) -> None:
        os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
        self._run = run
        self._ids: dict[Training, str] = {}
        self._waiting: dict[Training, list[Metric]] = {}
        self._flushed = time.monotonic()
        with _quiet():
            from mlflow.tracking import MlflowClient

            self._client = MlflowClient(tracking_uri=_address_of(run))
            self._experiment = self._experiment_of(run)
            self._whole = self._begin_run({"mlflow.runName": run.label, _OF_TRAINING: ""})
            for key, value in run.flat_settings().items():
                self._client.log_param(self._whole, key, str(value)[:_LONGEST_VALUE])

    def begin(self, training: Training) -> None:
        """Begin the series of a training anew: an earlier run of it is deleted, as MLflow deletes."""
        tags = {
            "mlflow.runName": training.key,
            "mlflow.parentRunId": self._whole,
            _OF_TRAINING: training.key,
            "arm": training.arm,
            "private": str(training.private).lower(),
            "seed": str(training.seed),
        }
        with _quiet():
            self._ids[training] = self._begin_run(tags)
        self._waiting[training] = []

    def log(self, training: Training, step: int, figures: Mapping[str, float]) -> None:
        """Write metrics, now and then those of some rounds at once."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        self._waiting[training] += [Metric(name, value, now, step) for name, value in figures.items()]
        if time.monotonic() - self._flushed >= _SECONDS_TO_FLUSH:
            self._flush()

    def end(self, training: Training, ended: Ended) -> None:
        """Write the figures on test rows, and close the run of the training."""
        self.log(training, ended.rounds, ended.figures)
        self._flush()
        number = self._ids.pop(training)
        del self._waiting[training]
        with _quiet():
            if ended.notes:
                self._client.set_tag(number, "notes", "\n".join(ended.notes))
            if ended.failed is not None:
                self._client.set_tag(number, "failed", ended.failed)
            self._client.set_terminated(number, "FINISHED" if ended.failed is None else "FAILED")

    def finish(self, report: Path | None) -> None:
        """Keep the report as an artefact of the whole run; close what is open, as killed if the run was stopped."""
        self._flush()
        with _quiet():
            if report is not None:
                self._client.log_artifact(self._whole, str(report))
            for number in (*self._ids.values(), self._whole):
                self._client.set_terminated(number, "KILLED" if report is None else "FINISHED")

    @classmethod
    def how_to_look(cls, run: Run) -> str:
        """Return the command that shows the store; it needs the whole of MLflow."""
        return f"mlflow ui --backend-store-uri {_address_of(run)}"

    def _experiment_of(self, run: Run) -> str:
        found = self._client.get_experiment_by_name(run.name)
        if found is not None:
            return found.experiment_id
        artefacts = (run.place / "artefacts").resolve().as_uri()
        return self._client.create_experiment(run.name, artifact_location=artefacts)

    def _begin_run(self, tags: Mapping[str, str]) -> str:
        """Begin a run in the store in place of an earlier one of the same training; return its id."""
        same = f"tags.`{_OF_RUN}` = '{self._run.label}' and tags.`{_OF_TRAINING}` = '{tags[_OF_TRAINING]}'"
        for earlier in self._client.search_runs([self._experiment], same):
            self._client.delete_run(earlier.info.run_id)
        return self._client.create_run(self._experiment, tags={**tags, _OF_RUN: self._run.label}).info.run_id

    def _flush(self) -> None:
        with _quiet():
            for training, metrics in self._waiting.items():
                if metrics:
                    self._client.log_batch(self._ids[training], metrics=metrics)
                    metrics.clear()
        self._flushed = time.monotonic()


def _address_of(run: Run) -> str:
    """Return the address of the store: the environment's, or a file in the folder."""
    address = "" if run.is_place_given else os.environ.get(_ADDRESS, "")
    return address or f"{_LOCAL}{(run.place / 'mlflow.db').resolve()}"


@contextmanager
def _quiet() -> Iterator[Any]:
    """Keep what MLflow says of its tables, and what its libraries warn of each other's versions, from the user."""
    import logging

    loggers = [logging.getLogger(name) for name in ("mlflow", "mlflow.store.db.utils", "alembic")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
