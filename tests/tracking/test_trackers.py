"""Trackers: what they wrote is read back by their own libraries, and a run goes on whatever becomes of them."""

import json
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from fedsim.experiments import trainings
from fedsim.experiments.arms import jobs
from fedsim.experiments.experiment import execute, resume
from fedsim.mistakes import Interrupted, Mistake
from fedsim.results import run_directory as results
from fedsim.scenario import catalog
from fedsim.scenario.files import read
from fedsim.tracking import watch as watching
from fedsim.tracking.contract import Ended, Run, Tracker, Training
from fedsim.tracking.trackers.mlflow import MLflow
from fedsim.tracking.trackers.tensorboard import TensorBoard
from fedsim.tracking.watch import Watch, label_of, names_of
from tests.torture.interruptions import products

pytestmark = pytest.mark.usefixtures("charts_undrawn")
SMALL = ("training.rounds=3", "privacy.noise_multiplier=2", "privacy.epsilon=900", "seeds=1")
Series = dict[str, list[tuple[int, float]]]
TRAINING = Training("federated", True, 0)


def in_event_files(folder: Path) -> dict[str, Series]:
    """Return {training: {tag: [(step, value)]}} as TensorBoard reads event files."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its own imports
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = {}
    for place in sorted(folder.iterdir()):
        accumulator = EventAccumulator(str(place), size_guidance={"scalars": 0})
        accumulator.Reload()
        tags = accumulator.Tags()["scalars"]
        found[place.name] = {tag: [(one.step, one.value) for one in accumulator.Scalars(tag)] for tag in tags}
    return found


def in_store(address: str) -> tuple[dict[str, Series], dict[str, Any]]:
    """Return {training: {metric: [(step, value)]}}, and {training: run}, as MLflow reads a store."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its libraries, about each other
        from mlflow.tracking import MlflowClient

        client = MlflowClient(tracking_uri=address)
        (experiment,) = [one for one in client.search_experiments() if one.name != "Default"]
        runs = {run.data.tags["fedsim.training"]: run for run in client.search_runs([experiment.experiment_id])}
        found = {}
        for key, run in runs.items():
            found[key] = {
                name: [(one.step, one.value) for one in client.get_metric_history(run.info.run_id, name)]
                for name in run.data.metrics
            }
        whole = runs[""]
        reports = [one.path for one in client.list_artifacts(whole.info.run_id)]
        return found, {**runs, "artefacts": reports}


def expected_series(run: results.Run) -> dict[str, Series]:
    """Return what a run's own files say: validation figures of each round, and the figures on test rows."""
    series: dict[str, Series] = {}
    metrics = ["auc", "accuracy", "log_loss"]
    for (arm, private, seed), rows in run.rounds.groupby(["arm", "private", "seed"]):
        key = Training(str(arm), bool(private), int(seed)).key  # type: ignore[arg-type]
        series[key] = {f"validation/{name}": list(zip(rows["round"], rows[name], strict=True)) for name in metrics}
    return series


def check_series(found: Mapping[str, Series], run: results.Run, rounds: int = 3) -> None:
    """Make sure that what was tracked is what the run's files say: each round once, and epsilon up to the ledger's."""
    expected = expected_series(run)
    assert set(found) >= set(expected)
    for key, series in expected.items():
        for name, points in series.items():
            assert [step for step, _ in found[key][name]] == list(range(1, rounds + 1)), (key, name)
            assert [value for _, value in found[key][name]] == pytest.approx([value for _, value in points], rel=1e-6)
        assert ("epsilon" in found[key]) == ("private" in key)
        assert [step for step, _ in found[key]["test/auc"]] == [rounds]
    for training in run.ledger["trainings"]:
        key = Training(training["arm"], training["private"], training["seed"]).key
        spent = found[key]["epsilon"]
        assert [step for step, _ in spent] == list(range(1, rounds + 1))
        assert [value for _, value in spent] == sorted(value for _, value in spent)
        assert spent[0][1] < spent[-1][1] == pytest.approx(max(training["epsilon"].values()), rel=1e-6)


def tensorboard_of(folder: Path) -> dict[str, Series]:
    return in_event_files(folder / "tracking" / "tensorboard" / label_of(folder))


@pytest.mark.whole
@pytest.mark.parametrize(("engine", "processes"), [("cohort", 1), ("serial", 2)])
def test_trackers_have_every_round_and_change_no_byte(engine: str, processes: int, tmp_path: Path):
    arms = "['federated','centralized','local']" if processes == 1 else "['federated']"
    scenario = read("hospital-heart", [*SMALL, f"engine={engine}", f"arms={arms}"])
    alone = execute(scenario, tmp_path / "alone")
    run = execute(scenario, tmp_path / "run", None, processes, Watch(("tensorboard", "mlflow")))
    assert products(run.path) == products(alone.path)
    assert results.load(run.path).manifest["failed"] == []  # its seal is whole

    found = tensorboard_of(run.path)
    check_series(found, run)
    assert set(found) == {job.key for job in jobs(scenario)} | {"run"}

    series, kept = in_store(f"sqlite:///{run.path / 'tracking' / 'mlflow.db'}")
    check_series(series, run)
    assert kept["artefacts"] == ["report.html"]
    assert kept[""].data.params["training.rounds"] == "3"
    assert kept["federated-private-0"].data.tags["mlflow.parentRunId"] == kept[""].info.run_id
    assert {kept[job.key].info.status for job in jobs(scenario)} == {"FINISHED"}


@pytest.mark.whole
def test_wandb_writes_offline_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("WANDB_MODE", "online")  # it is not listened to
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run = execute(read("hospital-heart", [*SMALL, "arms=['federated']"]), tmp_path / "run", watch=Watch(("wandb",)))
        found = in_offline_runs(run.path / "tracking" / "wandb")
    assert set(found) == {"federated-plain-0", "federated-private-0", "report"}
    check_series(found, run)


def records_in(content: bytes) -> Iterator[bytes]:
    """Yield the records of a log of LevelDB, which the library has no public reader of.

    After a header of 7 bytes, blocks of 32 KiB hold parts: 4 bytes checksum, 2 length, 1 kind (1 whole, 2 first, 3
    middle, 4 last).
    """
    record = b""
    place = 7
    while place + 7 <= len(content):
        if 32768 - place % 32768 < 7:
            place += 32768 - place % 32768
            continue
        length = int.from_bytes(content[place + 4 : place + 6], "little")
        kind = content[place + 6]
        record += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):
            yield record
            record = b""


def in_offline_runs(folder: Path) -> dict[str, Series]:
    """Return {training: {name: [(step, value)]}} in the messages of the library of Weights & Biases."""
    from wandb.proto.wandb_internal_pb2 import Record

    found: dict[str, Series] = {}
    for file in folder.glob("offline-run-*/*.wandb"):
        series: Series = {}
        at_the_end: dict[str, float] = {}
        name = ""
        last = 0
        for content in records_in(file.read_bytes()):
            record = Record()
            record.ParseFromString(content)
            kind = record.WhichOneof("record_type")
            if kind == "run":
                name = record.run.display_name
            elif kind == "history":
                row = {
                    item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in record.history.item
                }
                last = int(row["_step"])
                for key, value in row.items():
                    if not key.startswith("_"):
                        series.setdefault(key, []).append((last, value))
            elif kind == "summary":
                for item in record.summary.update:
                    key = item.key or ".".join(item.nested_key)
                    if key.startswith("test"):
                        at_the_end[key] = json.loads(item.value_json)
        found[name] = series | {key: [(last, value)] for key, value in at_the_end.items()}
    return found


@pytest.mark.whole
def test_after_an_interruption_each_round_is_there_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Also of trainings that were finished before, and where trackers were not there until then."""
    scenario = read("hospital-heart", [*SMALL, "training.rounds=4", "checkpoints.every_rounds=2"])
    todo = jobs(scenario)
    whole = trainings.run_job
    begun: list[Any] = []

    def stop_in_the_fourth(scenario, job, observe, *more):
        begun.append(job)

        def stop(number: int) -> None:
            observe(number)
            if job == todo[3] and number == 3:
                raise KeyboardInterrupt

        return whole(scenario, job, stop, *more)

    monkeypatch.setattr(trainings, "run_job", stop_in_the_fourth)
    with pytest.raises(Interrupted):
        execute(scenario, tmp_path / "run", watch=Watch(("tensorboard", "mlflow")))
    address = f"sqlite:///{tmp_path / 'run' / 'tracking' / 'mlflow.db'}"
    before, kept = in_store(address)
    assert {key: run.info.status for key, run in kept.items() if key != "artefacts"} == {
        **{job.key: "FINISHED" for job in todo[:3]},
        todo[3].key: "KILLED",
        "": "KILLED",
    }
    assert [step for step, _ in before[todo[3].key]["validation/auc"]] == [1, 2, 3]

    monkeypatch.setattr(trainings, "run_job", whole)
    run = resume(tmp_path / "run", watch=Watch(("tensorboard", "mlflow")))
    check_series(tensorboard_of(run.path), run, rounds=4)
    check_series(in_store(address)[0], run, rounds=4)

    # A run that is finished can be tracked as well, and its bytes stay.
    sealed = (run.path / "SHA256SUMS").read_bytes()
    resume(run.path, watch=Watch(("tensorboard",), tmp_path / "elsewhere"))
    check_series(in_event_files(tmp_path / "elsewhere" / "tensorboard" / label_of(run.path)), run, rounds=4)
    assert (run.path / "SHA256SUMS").read_bytes() == sealed


class Fragile(TensorBoard):
    """A tracker that breaks at a point of its life."""

    at = ""

    def _break(self, where: str) -> None:
        if where == self.at:
            raise ConnectionError("the disk is gone")

    def log(self, training: Training, step: int, figures: Mapping[str, float]) -> None:
        if step == 2:
            self._break("log")
        super().log(training, step, figures)

    def end(self, training: Training, ended: Ended) -> None:
        self._break("end")
        super().end(training, ended)

    def finish(self, report: Path | None) -> None:
        self._break("finish")
        super().finish(report)


@pytest.mark.whole
@pytest.mark.parametrize("at", ["log", "end", "finish"])
def test_a_tracker_that_fails_says_so_once_and_costs_nothing(
    at: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    load = catalog.load
    monkeypatch.setattr(Fragile, "at", at)
    monkeypatch.setattr(catalog, "load", lambda kind, name: Fragile if name == "tensorboard" else load(kind, name))
    scenario = read("hospital-heart", [*SMALL, "arms=['federated']"])
    run = execute(scenario, tmp_path / "run", watch=Watch(("tensorboard", "mlflow")))
    said = [record.getMessage() for record in caplog.records if "tracks no more" in record.getMessage()]
    assert len(said) == 1
    assert said[0].startswith("tensorboard tracks no more, the run goes on without it: ConnectionError: the disk")
    assert run.failed == []
    check_series(in_store(f"sqlite:///{run.path / 'tracking' / 'mlflow.db'}")[0], run)


@pytest.mark.whole
def test_a_training_that_fails_is_a_failed_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    whole = trainings.run_job

    def fail(scenario, job, *more):
        if job.arm == "local":
            raise ZeroDivisionError("by nothing")
        return whole(scenario, job, *more)

    monkeypatch.setattr(trainings, "run_job", fail)
    run = execute(read("hospital-heart", SMALL), tmp_path / "run", watch=Watch(("mlflow",)))
    assert len(run.failed) == 2
    _, kept = in_store(f"sqlite:///{run.path / 'tracking' / 'mlflow.db'}")
    assert kept["local-plain-0"].info.status == kept["local-private-0"].info.status == "FAILED"
    assert "by nothing" in kept["local-plain-0"].data.tags["failed"]
    assert "by nothing" not in kept["local-private-0"].data.tags["failed"]  # it may hold values of a row
    assert kept["federated-plain-0"].info.status == kept[""].info.status == "FINISHED"


@pytest.mark.parametrize("name", sorted(catalog.titles("trackers")))
def test_every_tracker_is_a_tracker_with_an_extra(name: str):
    kind = catalog.load("trackers", name)
    assert issubclass(kind, Tracker)
    assert kind.extra == name
    run = Run("heart", "heart-1", Path("place"), {}, True)
    assert kind.how_to_look(run).startswith(name)


def test_faults_are_found_before_anything_is_trained_all_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(watching, "find_spec", lambda name: None if name == "wandb" else name)
    (tmp_path / "file").touch()
    asked = Watch(("tensorbord", "wandb", "mlflow", "mlflow"), tmp_path / "file", on_round=3)  # type: ignore[arg-type]
    with pytest.raises(Mistake) as caught:
        execute(read("hospital-heart", SMALL), tmp_path / "run", watch=asked)
    assert str(caught.value).splitlines() == [
        "track: expected mlflow once",
        "track: expected the name of a tracker, got 'tensorbord'; did you mean 'tensorboard'?",
        "track: 'wandb' needs the extra wandb: pip install 'fedsim-flower[wandb]'",
        f"track-to: expected a folder, got {tmp_path / 'file'}",
        "on_round: expected a function, got int",
    ]
    assert not (tmp_path / "run").exists()
    with pytest.raises(Mistake, match="track-to: expected with track only"):
        Watch(to=tmp_path).check()


def test_a_store_elsewhere_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    run = Run("heart", "heart-1", tmp_path, {}, False)
    for address in ("http://tracking.example", "databricks", "postgresql://host/db"):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        with pytest.raises(Mistake, match="sent to no other machine"):
            Watch(("mlflow",)).check()
        Watch(("mlflow",), tmp_path).check()  # the folder is what counts then
        assert str(tmp_path) in MLflow.how_to_look(Run("heart", "heart-1", tmp_path, {}, True))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/own.db")
    Watch(("mlflow",)).check()
    assert MLflow.how_to_look(run).endswith(f"sqlite:///{tmp_path}/own.db")


def test_names_come_in_one_text_or_several():
    assert names_of(["tensorboard, mlflow", "wandb"]) == ("tensorboard", "mlflow", "wandb")
    assert names_of("mlflow") == ("mlflow",)
    assert names_of(None) == ()
