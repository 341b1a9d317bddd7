"""Sites may be called as they like: no name is taken for what stands for all sites."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from fedsim import run
from fedsim.data import loading
from fedsim.data.federation import federate
from fedsim.data.settling import settled
from fedsim.experiments.arms import GLOBAL, Job, run_job
from fedsim.experiments.experiment import execute, resume
from fedsim.mistakes import Mistake
from fedsim.privacy.accounting import epsilon
from fedsim.privacy.ledger import EACH_SITE, POOL, Ledger, Mechanism
from fedsim.report.statement import statement
from fedsim.results import run_directory as results
from fedsim.scenario.files import read_own
from fedsim.scenario.schema import Data, Scenario
from fedsim.training.work import Streams
from tests.runs import unsealed

pytestmark = pytest.mark.usefixtures("charts_undrawn")

NAMES = ["each site", "global", "global/x", "mean", "pooled", "sites"]
UNITS = {
    "record": [],
    "client": ["arms=['federated']"],
    "local": ["arms=['federated']"],
    "distributed": [
        "arms=['federated']",
        "secure_aggregation.on=true",
        "secure_aggregation.drop_outs=1",
    ],
}
PERSONAL = [*((unit, "ditto") for unit in UNITS), ("client", "apfl"), ("record", "fedper"), ("distributed", "fedper")]


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return write_table(tmp_path, monkeypatch, NAMES)


def write_table(folder: Path, monkeypatch: pytest.MonkeyPatch, names: list[str]) -> Path:
    monkeypatch.chdir(folder)
    random = np.random.default_rng(0)
    lines = ["clinic,age,ill"]
    for name in names:
        for age in random.integers(20, 90, 30):
            lines.append(f"{name},{age},{int(age + random.normal(0, 15) > 55)}")
    (folder / "ill.csv").write_text("\n".join(lines) + "\n")
    (folder / "ill.ranges.toml").write_text('age = [0, 120, "years"]\n')
    return folder


def scenario(*overrides: str) -> Scenario:
    return read_own([
        "data.path=ill.csv",
        "data.target=ill",
        "data.site=clinic",
        "training.rounds=2",
        "training.local_steps=1",
        "training.optimizer={name='sgd', lr=0.5}",
        *overrides,
    ])  # fmt: skip


def private(unit: str, *overrides: str) -> Scenario:
    promise = [f"privacy.unit={unit}", "privacy.epsilon=40", "privacy.delta=1e-2", "privacy.clip=0.5"]
    return scenario(*promise, "privacy.noise_multiplier=2.0", *UNITS[unit], *overrides)


@pytest.mark.whole
@pytest.mark.parametrize(("unit", "strategy"), PERSONAL)
def test_what_is_released_is_the_global_model_and_no_sites_own(table: Path, unit: str, strategy: str):
    chosen = private(unit, f"strategy.name={strategy}", "data.model=mlp", "arms=['federated']")
    done = execute(chosen, table / "run")
    trained = run_job(settled(chosen), Job("federated", True, 0), lambda number: None)
    shared = trained.models[GLOBAL]
    assert set(trained.models) == {GLOBAL, *NAMES}

    released = load_file(done.path / "model.safetensors")
    of_sites = {name for name in released if name.startswith("site/")}
    assert set(released) - of_sites == set(shared)
    for name, value in shared.items():
        assert torch.equal(released[name], value)
    for site in NAMES:
        assert any(not torch.equal(trained.models[site][name], shared[name]) for name in shared), site

    # Where whole sites are protected, the models that they keep are not private.
    if unit == "record":
        assert len(of_sites) == len(NAMES) * len(shared)
        for name in shared:
            assert torch.equal(released[f"site/global%2Fx/{name}"], trained.models["global/x"][name])
    else:
        assert not of_sites


@pytest.mark.whole
@pytest.mark.parametrize("unit", UNITS)
def test_the_ledger_books_each_site_by_itself_and_the_report_is_made(table: Path, unit: str):
    done = execute(private(unit), table / "run")
    again = results.load(done.path)
    assert (done.path / "report.html").exists()
    assert statement(again)
    trainings = {one["arm"]: one for one in again.ledger["trainings"]}
    assert set(trainings) == set(done.scenario.private_arms)
    for arm, training in trainings.items():
        if arm == "centralized":
            assert training["charged"] == "pooled"
            continue
        if unit == "client":
            assert (training["charged"], set(training["epsilon"])) == ("each site", {"each site"})
            continue
        assert training["charged"] == "sites"
        assert Counter(entry["site"] for entry in training["entries"]) == dict.fromkeys(NAMES, 2)
        assert set(training["epsilon"]) == set(NAMES)
        assert len(set(training["epsilon"].values())) == 1


@pytest.mark.whole
def test_sites_in_turns_are_charged_by_their_names_under_a_trusted_server(table: Path):
    done = execute(private("client", "training.site_turns=3", "training.rounds=3"), table / "run")
    training = done.ledger["trainings"][0]
    assert training["charged"] == "sites"
    assert Counter(entry["site"] for entry in training["entries"]) == dict.fromkeys(NAMES, 1)


@pytest.mark.whole
def test_all_trainings_together_are_composed_for_a_site_of_any_name(table: Path):
    """A record of the site called ``pooled`` is in its own trainings, and in the pool's; so is one of any other."""
    done = execute(private("record"), table / "run")
    repetition = dict(statement(done))["Repetition"]
    together = [entry["mechanism"] for one in done.ledger["trainings"] for entry in one["entries"]
                if one["charged"] == "pooled" or entry["site"] == "global"]  # fmt: skip
    expected = epsilon([Mechanism(**one).segment() for one in together], 1e-2)
    assert f"epsilon {np.ceil(100 * expected) / 100:.2f} at the same delta" in repetition


def test_no_two_releases_share_noise_because_of_a_name(table: Path):
    """The pool trains under the name ``pooled``; the arm is in the name of the noise, and of private batches."""
    chosen = private("record")
    places = [(arm, site, number) for arm in ("federated", "local") for site in NAMES for number in (1, 2)]
    places += [("centralized", federate(chosen, 0).pooled([0]).name, number) for number in (1, 2)]
    places += [("federated", f"{site}\0beside", number) for site in NAMES for number in (1, 2)]
    streams = [Streams.of(chosen, 0, *place) for place in places]
    assert len({one.noise.key for one in streams}) == len(places)
    assert len({one.batches.key for one in streams}) == len(places)


def test_a_site_can_not_have_the_noise_of_anothers_second_training(table: Path, monkeypatch: pytest.MonkeyPatch):
    honest = loading.named("hospital/heart")
    rows = honest.rows(None)
    site = np.where(rows.site == "hungarian", "cleveland\0beside", rows.site)
    monkeypatch.setattr(type(honest), "rows", lambda self, path: type(rows)(rows.inputs, rows.target, site))
    with pytest.raises(Mistake, match="expected names of sites without a zero byte from what it loads"):
        loading.load(honest, "hospital/heart", Data())


@pytest.mark.parametrize("name", ["(pooled)", "(inside sites)"])
def test_the_name_of_all_sites_in_tables_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str):
    write_table(tmp_path, monkeypatch, ["north", name])
    with pytest.raises(Mistake, match=r"expected sites with names other than \(inside sites\) and \(pooled\)"):
        execute(scenario(), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.whole
def test_the_comparison_has_a_column_for_a_site_of_any_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    names = ["arm", "high", "mean", "pooled", "private", "site mean"]
    write_table(tmp_path, monkeypatch, names)
    frame = run(None, "data.path=ill.csv", "data.target=ill", "data.site=clinic", "training.rounds=1")
    columns = ["site arm", "site high", "site site mean", "pooled", "site private", "site mean"]
    assert list(frame.columns[-6:]) == columns
    compared = results.load(frame.attrs["run_dir"]).comparison
    for name, column in zip(names, columns, strict=True):
        inside = compared[(compared["site"] == name) & (compared["metric"] == frame["metric"][0])]
        same = frame[frame["metric"] == frame["metric"][0]]
        assert sorted(same[column]) == pytest.approx(sorted(inside["mean"]))


def test_a_ledger_is_not_charged_for_sites_and_for_several_together():
    step = Mechanism(0.5, 2.0, 1.0, 10.0, 1)
    for one, other in ((POOL, "pooled"), ("each site", EACH_SITE), (POOL, EACH_SITE)):
        ledger = Ledger(1e-3, "add-or-remove-one")
        ledger.charge(one, 1, step)
        with pytest.raises(ValueError, match="one kind of party"):
            ledger.charge(other, 1, step)
        assert ledger.rounds(other) == 0


def older(folder: Path) -> None:
    """Write a run's files as earlier versions did: without ``charged``, site's tensors under their bare names."""
    ledger = json.loads((folder / "ledger.json").read_text())
    for training in ledger["trainings"]:
        del training["charged"]
    results.write_json(folder / "ledger.json", ledger)
    manifest = json.loads((folder / "manifest.json").read_text())
    files = manifest.pop("files")
    results.write_manifest(folder, manifest)
    assert json.loads((folder / "manifest.json").read_text())["files"] != files
    for path in (folder / "checkpoints").glob("*.json"):
        found = results.read_checkpoint(folder / "checkpoints", path.stem)
        assert found
        tensors, values = found
        del values["tensor_names"]
        if values["ledger"]:
            del values["ledger"]["charged"]
        bare = {name.removeprefix("site/").replace("%2F", "/"): value for name, value in tensors.items()}
        results.write_checkpoint(folder / "checkpoints", path.stem, bare, values)


@pytest.mark.whole
def test_an_older_runs_directory_is_read_as_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write_table(tmp_path, monkeypatch, ["a/b", "north"])
    done = execute(private("record", "strategy.name=ditto"), tmp_path / "run")
    model, said = (done.path / "model.safetensors").read_bytes(), statement(done)
    older(done.path)
    unsealed(done.path)
    assert statement(results.load(done.path)) == said

    # An interrupted one goes on: what was trained is found again, under today's names.
    (done.path / "manifest.json").unlink()
    monkeypatch.setattr("fedsim.experiments.trainings.run_job", None)
    assert statement(resume(done.path)) == said
    assert (done.path / "model.safetensors").read_bytes() == model


@pytest.mark.whole
def test_an_older_checkpoint_that_may_hold_a_sites_model_as_the_shared_one_is_refused(table: Path):
    done = execute(private("record", "strategy.name=ditto"), table / "run")
    older(done.path)
    (done.path / "manifest.json").unlink()
    with pytest.raises(Mistake, match="may be of more than one model; run the scenario into a new directory"):
        resume(done.path)
