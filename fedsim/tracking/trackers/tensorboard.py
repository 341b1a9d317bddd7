"""TensorBoard: event files, a folder for each arm and seed."""

import html
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from fedsim.tracking.contract import Ended, Run, Tracker, Training

_SECONDS_TO_FLUSH = 5
_OWN = "events.out.tfevents.*"
_WHOLE_RUN = "run"


class TensorBoard(Tracker):
    """Writes event files with the writer of the package ``tensorboard``, which needs neither TensorFlow nor torch."""

    needs: ClassVar[tuple[str, ...]] = ("tensorboard",)
    extra: ClassVar[str] = "tensorboard"

    def __init__(self, run: Run) -> None:
        self._place = _place_of(run)
        self._settings = run.flat_settings()
        self._writers: dict[str, Any] = {}

    def begin(self, training: Training) -> None:
        """Begin the series of a training anew: earlier event files of it are removed."""
        self._open(training.key)

    def log(self, training: Training, step: int, figures: Mapping[str, float]) -> None:
        """Write scalars."""
        self._write(training.key, step, figures)

    def end(self, training: Training, ended: Ended) -> None:
        """Write the figures on test rows at the last step, and the reason of a failure as text."""
        self._write(training.key, ended.rounds, ended.figures)
        remarks = list(ended.notes)
        if ended.failed is not None:
            remarks.append(f"failed: {ended.failed}")
        if remarks:
            self._write_text(training.key, "notes", "\n\n".join(remarks))
        self._writers.pop(training.key).close()

    def finish(self, report: Path | None) -> None:
        """Write the settings and the place of the report as text, and close all files."""
        if report is not None:
            self._open(_WHOLE_RUN)
            rows = [f"| {key} | {value} |" for key, value in self._settings.items()]
            self._write_text(_WHOLE_RUN, "settings", "\n".join(["| key | value |", "|---|---|", *rows]))
            self._write_text(_WHOLE_RUN, "report", str(report.resolve()))
        for writer in self._writers.values():
            writer.close()
        self._writers.clear()

    @classmethod
    def how_to_look(cls, run: Run) -> str:
        """Return the command that shows the series."""
        return f"tensorboard --logdir {_place_of(run)}"

    def _open(self, name: str) -> None:
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        folder = self._place / name
        for earlier in folder.glob(_OWN):
            earlier.unlink()
        self._writers[name] = EventFileWriter(str(folder), flush_secs=_SECONDS_TO_FLUSH)

    def _write(self, name: str, step: int, figures: Mapping[str, float]) -> None:
        from tensorboard.compat.proto.event_pb2 import Event  # type: ignore[attr-defined]  made when imported
        from tensorboard.compat.proto.summary_pb2 import Summary  # type: ignore[attr-defined]  made when imported

        values = [Summary.Value(tag=tag, simple_value=value) for tag, value in figures.items()]
        event = Event(wall_time=time.time(), step=step, summary=Summary(value=values))
        self._writers[name].add_event(event)

    def _write_text(self, name: str, tag: str, text: str) -> None:
        from tensorboard.compat.proto.event_pb2 import Event  # type: ignore[attr-defined]  made when imported
        from tensorboard.plugins.text.summary import pb

        # TensorBoard shows it as Markdown.
        summary = pb(tag, html.escape(text, quote=False))
        self._writers[name].add_event(Event(wall_time=time.time(), summary=summary.SerializeToString()))


def _place_of(run: Run) -> Path:
    return run.place / "tensorboard" / run.label
