"""Weights & Biases, offline: a folder for each arm and seed, which ``wandb sync`` sends if you want it to."""

import hashlib
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from fedsim.tracking.contract import Ended, Run, Tracker, Training

_REPORT = "report"
_CACHE = "WANDB_CACHE_DIR"


class Wandb(Tracker):
    """Writes offline runs. They are always offline, whatever ``WANDB_MODE`` says."""

    needs: ClassVar[tuple[str, ...]] = ("wandb",)
    extra: ClassVar[str] = "wandb"

    def __init__(self, run: Run) -> None:
        os.environ["WANDB_ERROR_REPORTING"] = "false"
        self._has_cache = _CACHE not in os.environ
        if self._has_cache:
            os.environ[_CACHE] = str(run.place / "wandb" / "cache")
        self._run = run
        self._open: dict[Training, Any] = {}

    def begin(self, training: Training) -> None:
        """Begin the series of a training anew: the folder of an earlier one is removed."""
        self._open[training] = self._begin_run(training.key, training.arm)

    def log(self, training: Training, step: int, figures: Mapping[str, float]) -> None:
        """Write figures at a step."""
        self._open[training].log(dict(figures), step=step)

    def end(self, training: Training, ended: Ended) -> None:
        """Write the figures on test rows as the summary, and close the run of the training."""
        run = self._open.pop(training)
        run.summary.update(dict(ended.figures))
        if ended.notes:
            run.summary["notes"] = "\n".join(ended.notes)
        if ended.failed is not None:
            run.summary["failed"] = ended.failed
        run.finish(exit_code=0 if ended.failed is None else 1)

    def finish(self, report: Path | None) -> None:
        """Keep the report as an artefact of a run of its own; close what is open, and end the process that writes."""
        import wandb

        for run in self._open.values():
            run.finish(exit_code=1)
        self._open.clear()
        if report is not None:
            run = self._begin_run(_REPORT, _REPORT)
            artefact = wandb.Artifact(f"{_REPORT}-{self._run.label}", type=_REPORT)
            artefact.add_file(str(report), skip_cache=True)
            run.log_artifact(artefact)
            run.finish()
        wandb.teardown()
        if self._has_cache:
            os.environ.pop(_CACHE, None)

    @classmethod
    def how_to_look(cls, run: Run) -> str:
        """Return the command that sends the runs to a server: nothing shows them here."""
        return f"wandb sync {run.place / 'wandb' / 'offline-run-*'}"

    def _begin_run(self, name: str, kind: str) -> Any:  # noqa: ANN401  wandb.Run, which is not imported yet
        import wandb

        number = hashlib.sha256(f"{self._run.label}/{name}".encode()).hexdigest()[:12]
        for earlier in (self._run.place / "wandb").glob(f"offline-run-*-{number}"):
            shutil.rmtree(earlier)
        quiet = wandb.Settings(
            console="off",
            silent=True,
            disable_git=True,
            disable_code=True,
            save_code=False,
            x_disable_stats=True,
            x_disable_meta=True,
            x_disable_machine_info=True,
        )
        return wandb.init(
            project=self._run.name,
            group=self._run.label,
            name=name,
            job_type=kind,
            id=number,
            config=dict(self._run.settings),
            dir=str(self._run.place),
            mode="offline",
            reinit="create_new",
            settings=quiet,
        )
