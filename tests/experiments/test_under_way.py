"""A training that is interrupted and goes on ends bit for bit where it would have ended."""

import copy
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from flwr.serverapp.strategy import FedAvg

from fedsim.experiments import under_way as under_way_module
from fedsim.experiments.arms import Job, Trained, run_job
from fedsim.experiments.under_way import UnderWay
from fedsim.flower.packed import pack, unpack
from fedsim.mistakes import Mistake
from fedsim.planning.trial import Trial
from fedsim.scenario import catalog
from fedsim.scenario.changes import with_strategy
from fedsim.scenario.files import read
from fedsim.scenario.schema import Checkpoints, Scenario
from fedsim.strategy.foreign import foreign
from tests.cases import others_whole

HEART = ("training.rounds=4", "training.local_steps=2", "seeds=1")
EVERY_ROUND = Checkpoints(every_rounds=1)


class Stop(Exception):
    """An interruption."""


def stopping(*rounds: int) -> Callable[[int], None]:
    def observe(number: int) -> None:
        if number in rounds:
            raise Stop

    return observe


def bytes_of(done: Trained) -> dict[str, Any]:
    """Return all that a training leaves behind, as it can be compared bit for bit."""
    models = {}
    for key, parts in done.models.items():
        models[key] = {name: value.cpu().numpy().tobytes() for name, value in parts.items()}
    return {
        "models": models,
        "scores": done.scores.to_json(),
        "curve": done.curve.to_json(),
        "ledger": done.ledger.as_json() if done.ledger else None,
        "notes": done.notes,
        "kept_round": done.kept_round,
        "traffic": done.traffic,
    }


def under_way(folder: Path, scenario: Scenario, job: Job, settings: Checkpoints = EVERY_ROUND) -> UnderWay:
    repeatable = not (job.private and scenario.privacy.rng == "secure")
    return UnderWay(folder / "checkpoints", job.key, "same", settings, repeatable)


def interrupted(
    scenario: Scenario, job: Job, folder: Path, *stops: int, settings: Checkpoints = EVERY_ROUND
) -> Trained:
    """Train, stopped when each of some rounds is measured, before it is kept; go on each time."""
    folder.mkdir(exist_ok=True)
    for stop in stops:
        with pytest.raises(Stop):
            run_job(scenario, job, stopping(stop), under_way(folder, scenario, job, settings))
    return run_job(scenario, job, stopping(), under_way(folder, scenario, job, settings))


PRIVATE = ("privacy.unit=record", "privacy.noise_multiplier=2", "privacy.epsilon=900", "privacy.delta=1e-3")
WHOLE = ("privacy.noise_multiplier=2", "privacy.clip=0.1", "privacy.epsilon=900", "privacy.delta=1e-4")
CLIP_THAT_MOVES = "privacy.adaptive_clip={quantile=0.5, bit_noise=1.5}"
CORRELATED = ("privacy.correlated=true", "training.site_turns=2")
FLOWER = "flwr.serverapp.strategy"
CASES = {
    "plain": ("federated", False, ()),
    "serial": ("federated", False, ("engine=serial",)),
    "private": ("federated", True, PRIVATE),
    "fedadam": ("federated", False, ("strategy.name=fedadam",)),
    "scaffold": ("federated", False, ("strategy.name=scaffold",)),
    "ditto, private": ("federated", True, ("strategy.name=ditto", *PRIVATE)),
    "fedbuff": ("federated", False, ("strategy={name='fedbuff', k=2}", "training.duration_spread=1")),
    "ifca": ("federated", False, ("strategy.name=ifca",)),
    "some sites": ("federated", False, ("training.sites_per_round=2", "training.duration_spread=0.5")),
    "faults": ("federated", False, ("faults.drop_out=0.3", "faults.spoiled=0.25")),
    "masks": ("federated", False, ("secure_aggregation=true", "faults.drop_out=0.1")),
    "whole sites": ("federated", True, (*WHOLE, "privacy.unit=client", CLIP_THAT_MOVES)),
    "correlated": ("federated", True, (*WHOLE, "privacy.unit=client", *CORRELATED)),
    "distributed": ("federated", True, (*WHOLE, "privacy.unit=distributed", "secure_aggregation={drop_outs=1}")),
    "local noise": ("federated", True, (*WHOLE, "privacy.unit=local")),
    "centralized": ("centralized", False, ()),
    "centralized, private": ("centralized", True, PRIVATE),
    "local": ("local", False, ()),
    "local, private": ("local", True, PRIVATE),
    "scaffold, cosine": ("federated", False, ("strategy.name=scaffold", "training.schedule.name=cosine")),
    "best round": ("federated", False, ("training.stopping={}",)),
    "best round, personal": ("federated", True, ("strategy.name=ditto", "training.stopping={}", *PRIVATE)),
    "best round, centralized": ("centralized", True, ("training.stopping={}", *PRIVATE)),
    "best round, local": ("local", False, ("training.stopping={metric='log_loss'}",)),
    "Flower's FedAvg": ("federated", False, (f"strategy.name='{FLOWER}:FedAvg'",)),
    "Flower's FedAdam": ("federated", False, (f"strategy.name='{FLOWER}:FedAdam'",)),
    "Flower's FedAvgM": ("federated", False, (f"strategy={{name='{FLOWER}:FedAvgM', server_momentum=0.9}}",)),
}  # fmt: skip


@pytest.mark.parametrize("name", others_whole(CASES, "plain", "whole sites"))
def test_it_ends_where_it_would_have_ended(name: str, tmp_path: Path):
    arm, private, changes = CASES[name]
    scenario = read("hospital-heart", [*HEART, *changes])
    job = Job(arm, private, 0)  # type: ignore[arg-type]
    whole = run_job(scenario, job, stopping())
    again = interrupted(scenario, job, tmp_path, 1, 3, 4)
    assert bytes_of(again) == bytes_of(whole)

    # What came of it could not be written: all rounds are behind, and the models are tested once more.
    tested_again = run_job(scenario, job, stopping(), under_way(tmp_path, scenario, job))
    assert bytes_of(tested_again) == bytes_of(whole)


SEVEN = ("task='hospital/heart-network'", "partition={by='iid',sites=7}", "training.expected_batch=20")


@pytest.mark.whole
@pytest.mark.parametrize("strategy", sorted(set(catalog.titles("strategies")) - {"fedbn"}))  # that model has no norms
def test_it_does_with_every_strategy(strategy: str, tmp_path: Path):
    scenario = read("hospital-heart", [*HEART, *SEVEN, f"strategy.name={strategy}"])
    job = Job("federated", False, 0)
    whole = run_job(scenario, job, stopping())
    assert bytes_of(interrupted(scenario, job, tmp_path, 2, 3)) == bytes_of(whole)


def rounds_run(scenario: Scenario, job: Job, folder: Path, **settings: Any) -> list[int]:
    """Return the numbers of the rounds that are run."""
    seen: list[int] = []
    run_job(scenario, job, seen.append, under_way(folder, scenario, job, **settings))
    return seen


def files_of(folder: Path) -> list[Path]:
    return sorted((folder / "checkpoints").glob("*.under-way-*"))


@pytest.fixture
def plain() -> tuple[Scenario, Job]:
    return read("hospital-heart", HEART), Job("federated", False, 0)


def test_only_the_rounds_since_the_state_was_kept_are_run_again(plain: tuple[Scenario, Job], tmp_path: Path):
    with pytest.raises(Stop):
        run_job(plain[0], plain[1], stopping(4), under_way(tmp_path, *plain))
    assert rounds_run(*plain, tmp_path) == [4]


@pytest.mark.parametrize(("settings", "kept"), [
    (Checkpoints(every_rounds=2), [3, 4]),
    (Checkpoints(seconds=1e6), [1, 2, 3, 4]),
    (Checkpoints(seconds=0.0), [4]),
])  # fmt: skip
def test_it_is_kept_as_often_as_was_asked(settings: Checkpoints, kept: list[int], plain, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(under_way_module, "_SHARE_OF_TIME", math.inf)
    with pytest.raises(Stop):
        run_job(plain[0], plain[1], stopping(4), under_way(tmp_path, *plain, settings=settings))
    assert rounds_run(*plain, tmp_path, settings=settings) == kept


def test_where_keeping_takes_long_it_is_done_less_often(plain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """At most a tenth of the time goes into it: what took 2 s is due again after 20."""
    now = [0.0]
    monkeypatch.setattr(under_way_module.time, "monotonic", lambda: now[0])
    keeper = under_way(tmp_path, *plain, settings=Checkpoints(seconds=5))
    rounds = []

    def slow(number: int) -> Callable[[], dict[str, int]]:
        def snapshot() -> dict[str, int]:
            now[0] += 2
            rounds.append(number)
            return {}

        return snapshot

    for number in range(1, 41):
        now[0] += 1
        keeper.end(number, slow(number))
    assert rounds == [5, 25]


def test_a_generation_that_was_changed_is_left_aside_for_the_other(
    plain, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    with pytest.raises(Stop):
        run_job(plain[0], plain[1], stopping(4), under_way(tmp_path, *plain))
    whole = run_job(plain[0], plain[1], stopping())
    older, newer = sorted(files_of(tmp_path), key=lambda path: unpack(path.read_bytes())["round"])
    flip(newer, len(newer.read_bytes()) // 2)
    found = under_way(tmp_path, *plain).found()
    assert found is not None
    assert found["server"]["rounds"]["rounds"] == 2
    assert f"{newer} is left aside: its SHA-256 differs" in caplog.text
    flip(older, 0)
    assert under_way(tmp_path, *plain).found() is None
    assert bytes_of(interrupted(*plain, tmp_path)) == bytes_of(whole)


def flip(path: Path, place: int) -> None:
    """Change one bit of a file."""
    content = bytearray(path.read_bytes())
    content[place] ^= 4
    path.write_bytes(content)


def test_every_flip_is_noticed(tmp_path: Path):
    content = pack({"numbers": [1, 2.5], "tensor": torch.arange(5.0)})
    path = tmp_path / "packed"
    for place in range(len(content)):
        path.write_bytes(content)
        flip(path, place)
        with pytest.raises(ValueError, match="SHA-256"):
            unpack(path.read_bytes())
    for length in range(0, len(content), 7):
        with pytest.raises(ValueError, match="SHA-256"):
            unpack(content[:length])


def test_state_of_another_scenario_is_refused(plain, tmp_path: Path):
    with pytest.raises(Stop):
        run_job(plain[0], plain[1], stopping(2), under_way(tmp_path, *plain))
    other = UnderWay(tmp_path / "checkpoints", plain[1].key, "other", EVERY_ROUND, repeatable=True)
    with pytest.raises(Mistake, match="expected the scenario that this run was begun with"):
        other.found()


def test_state_of_another_version_is_left_aside(
    plain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    scenario, job = plain
    with monkeypatch.context() as patched, pytest.raises(Stop):
        patched.setattr(under_way_module, "_FORMAT", 1)
        run_job(scenario, job, stopping(3), under_way(tmp_path, scenario, job))
    assert rounds_run(scenario, job, tmp_path) == [1, 2, 3, 4]
    assert "is left aside: another version of fedsim wrote it" in caplog.text


OF_A_STRANGER: list[Any] = [
    [1],
    {"format": 2},
    {"format": 2, "round": "a", "same": "", "position": 0, "state": {}},
    {"format": 2, "round": 1, "same": "", "position": None, "state": {}},
]


@pytest.mark.parametrize("odd", OF_A_STRANGER)
def test_a_state_of_a_stranger_is_left_aside(odd: Any, plain, tmp_path: Path):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / f"{plain[1].key}.under-way-0").write_bytes(pack(odd))
    assert rounds_run(*plain, tmp_path) == [1, 2, 3, 4]


def parts_of(tree: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the places of all dictionaries' values in a tree."""
    if isinstance(tree, Mapping):
        for key, value in tree.items():
            yield (*place, key)
            yield from parts_of(value, (*place, key))


@pytest.mark.parametrize("arm", ["federated", "local"])
def test_a_state_that_lacks_something_inside_is_named_with_what_to_do(arm: str, plain, tmp_path: Path):
    """Its digest, its keys and its types may be right all the same, if a stranger made it."""
    scenario = read("hospital-heart", [*HEART, f'arms=["{arm}"]'])
    job = Job(arm, False, 0)
    with pytest.raises(Stop):
        run_job(scenario, job, stopping(2), under_way(tmp_path, scenario, job))
    path = files_of(tmp_path)[0]
    kept = unpack(path.read_bytes())
    removed = 0
    for place in parts_of(kept["state"]):
        changed = copy.deepcopy(kept)
        holder = changed["state"]
        for key in place[:-1]:
            holder = holder[key]
        del holder[place[-1]]
        path.write_bytes(pack(changed))
        try:
            run_job(scenario, job, stopping(), under_way(tmp_path, scenario, job))
        except Mistake as mistake:
            assert "to begin the training anew, delete its files .under-way-0 and .under-way-1" in str(mistake)
            removed += 1
    assert removed >= 4


def test_a_finished_training_leaves_nothing_of_the_kind(plain, tmp_path: Path):
    keeper = under_way(tmp_path, *plain)
    run_job(plain[0], plain[1], stopping(), keeper)
    assert len(files_of(tmp_path)) == 2
    keeper.forget()
    assert list((tmp_path / "checkpoints").iterdir()) == []


class Forgetful(FedAvg):
    """Remembers something that can't be written down."""

    def __init__(self) -> None:
        super().__init__()
        self.open = [object()]


def test_a_strategy_that_cannot_be_written_down_begins_anew_to_the_same_bytes(
    plain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(Trial, "strategy", property(lambda trial: foreign(Forgetful())))
    whole = run_job(plain[0], plain[1], stopping())
    assert bytes_of(interrupted(*plain, tmp_path, 3)) == bytes_of(whole)
    assert files_of(tmp_path) == []


REMEMBERS = """
import numpy as np


class Remembers:
    def __init__(self):
        self.rounds = 0
        self.random = np.random.default_rng(0)
        self.past = [(1, "begun"), None]

    def aggregate(self, center, updates, weights, state):
        self.rounds += 1
        self.past.append((self.rounds, center))
        pull = 0.01 * self.random.random() * self.past[-1][1].mean()
        return center + (weights @ updates - center) / self.rounds + pull, {}
"""


def test_what_a_strategy_keeps_in_attributes_goes_on_too(tmp_path: Path):
    """No contract foresees it; it would be lost in silence."""
    path = tmp_path / "remembers.py"
    path.write_text(REMEMBERS)
    scenario, job = read("hospital-heart", [*HEART, with_strategy(str(path))]), Job("federated", False, 0)
    whole = run_job(scenario, job, stopping())
    assert bytes_of(interrupted(scenario, job, tmp_path, 2, 3)) == bytes_of(whole)
