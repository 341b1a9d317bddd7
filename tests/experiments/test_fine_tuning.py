"""Low-rank adapters from the scenario to the exported model: what is sent, kept, merged and refused."""

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

import fedsim
from clients.text import BertConfig, comedies
from fedsim.data.task import Rows, Task
from fedsim.mistakes import Mistake, RunFailed
from fedsim.report.statement import statement
from fedsim.results import run_directory as results
from tests.clients.tiny_bert import write_bert

pytestmark = [pytest.mark.whole, pytest.mark.usefixtures("charts_undrawn")]

ADAPTERS = [
    f"encoder.layer.{layer}.attention.self.{part}.lora_{matrix}.weight"
    for layer in (0, 1)
    for part in ("query", "value")
    for matrix in ("A", "B")
]
SENT = [*ADAPTERS, "head.weight", "head.bias"]
"""The parameters of two layers' adapters and of the head: 4 pairs of 2 x 8 and 8 x 2, 8 weights and a bias."""
NUMBERS = 4 * (2 * 8 + 8 * 2) + 8 + 1

SCENARIO = """
title = "Comedies"
seeds = 1
arms = ["federated"]
[partition]
by = "iid"
sites = 3
[training]
rounds = 2
local_steps = 2
sampling_rate = 0.5
expected_batch = 8
optimizer = { name = "sgd", lr = 0.5 }
[training.adapt]
method = "lora"
rank = 2
modules = ["query", "value"]
also = ["head"]
base = BASE
[privacy]
unit = "record"
epsilon = 50
delta = 1e-4
noise_multiplier = 1.0
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bert(tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="module")
def task(folder: Path) -> Task:
    return comedies(folder, length=8, most=2)


def scenario_in(place: Path, base: Path) -> Path:
    file = place / "comedies.toml"
    file.write_text(SCENARIO.replace("BASE", json.dumps(str(base))), encoding="utf-8")
    return file


@pytest.fixture(scope="module", params=["cohort", "serial"])
def run_dir(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, folder: Path, task: Task) -> Path:
    place = tmp_path_factory.mktemp(request.param)
    scenario = scenario_in(place, folder / "model.safetensors")
    fedsim.run(scenario, f"engine={request.param}", task=task, out=place / "run", progress=False)
    return place / "run"


def test_what_passes_between_server_and_sites_are_adapters_alone(run_dir: Path):
    traffic = pd.read_parquet(run_dir / "traffic.parquet")
    assert set(traffic["private"]) == {False, True}
    models = traffic[traffic["record"] == "arrays"]
    assert len(models) == 4  # both ways, plainly and privately
    for row in models.to_dict("records"):
        assert row["fields"] == ", ".join(SENT)
        names = sum(map(len, SENT))
        assert 4 * NUMBERS + names <= row["most"] <= 4 * NUMBERS + names + 200 * len(SENT)  # with what Flower adds
    assert not any("base_layer" in fields or "embeddings" in fields for fields in traffic["fields"])
    for checkpoint in (run_dir / "checkpoints").glob("*.safetensors"):
        kept = safetensors.torch.load_file(checkpoint)
        assert sorted(name.partition("/")[2] or name for name in kept) == sorted(SENT), "nothing frozen is kept twice"


def test_the_manifest_says_which_weights_a_model_stands_on(run_dir: Path, folder: Path):
    manifest = json.loads((run_dir / "manifest.json").read_text("utf-8"))
    digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    assert manifest["base_weights"] == {"file": "model.safetensors", "sha256": digest}
    said = [text for term, text in statement(results.load(run_dir)) if term == "Not covered"]
    assert any(f"from the file model.safetensors (SHA-256 {digest[:16]}...)" in text for text in said)


@pytest.mark.parametrize("private", [False, True])
def test_a_loaded_model_has_the_frozen_weights_of_the_file_and_predicts(
    run_dir: Path, folder: Path, task: Task, private: bool
):
    run = fedsim.load(run_dir, task=task)
    model = run.model(private=private)
    base = safetensors.torch.load_file(folder / "model.safetensors")
    values = model.state_dict()
    for name, value in base.items():
        inside = name.replace(".query.", ".query.base_layer.").replace(".value.", ".value.base_layer.")
        assert torch.equal(values[inside], value), name
    assert all(values[name].abs().max() > 0 for name in SENT)  # B was zero

    words = task.rows().inputs[:5]
    found = run.predict(words, private=private)
    assert list(found["probability"]) == pytest.approx(torch.sigmoid(model(torch.from_numpy(words)))[:, 0].tolist())
    with pytest.raises(Mistake, match="whole numbers, got float64"):
        run.predict(words + 0.5, private=private)


def test_a_layer_that_onnx_does_not_know_is_refused_in_a_line(run_dir: Path, task: Task, tmp_path: Path):
    fedsim.load(run_dir, task=task)
    with pytest.raises(Mistake, match=r"^export: expected [^\n]*$"):
        fedsim.export(run_dir, tmp_path / "model")


def test_an_interrupted_run_goes_on_with_the_same_base_only(task: Task, tmp_path: Path):
    place = write_bert(tmp_path / "base")
    fedsim.run(scenario_in(tmp_path, place / "model.safetensors"), task=task, out=tmp_path / "run", progress=False)
    expected = safetensors.torch.load_file(tmp_path / "run" / "model.safetensors")
    for name in ("manifest.json", "model.safetensors", "checkpoints/federated-private-0.json"):
        (tmp_path / "run" / name).unlink()
    shutil.copytree(tmp_path / "run", tmp_path / "other")

    fedsim.resume(tmp_path / "run", task=task, progress=False)
    found = safetensors.torch.load_file(tmp_path / "run" / "model.safetensors")
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)

    write_bert(place, seed=1)
    with pytest.raises(Mistake, match="expected the weights that the run was begun with"):
        fedsim.resume(tmp_path / "other", task=task, progress=False)


# A small network of layers that ONNX knows.


def load() -> Rows:
    target = np.arange(120) % 2
    inputs = np.random.default_rng(0).normal(size=(120, 4)) + target[:, None]
    sites = np.array(["north", "south", "west"]).repeat(40)
    return Rows(inputs.astype(np.float32), target.astype(np.float32), sites)


class Unused(nn.Module):
    """Has a layer that its outputs do not depend on."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.first = nn.Linear(features, 6)
        self.aside = nn.Linear(6, 6)
        self.last = nn.Linear(6, 1)

    def forward(self, rows: Tensor) -> Tensor:
        inner = self.first(rows).relu()
        self.aside(inner)
        return self.last(inner)


def network(features: int) -> nn.Module:
    return nn.Sequential(nn.Linear(features, 6), nn.ReLU(), nn.Linear(6, 1))


def task_with(model: Any) -> Task:
    return Task(title="Falls", outcome="a fall", source="made up", columns=(), model=model, load=load)


SHORT = ("seeds=1", "training.rounds=1", "training.expected_batch=20", 'arms=["federated"]')
PRIVATE = ("privacy.unit=record", "privacy.epsilon=50", "privacy.delta=1e-3", "privacy.noise_multiplier=1")


@pytest.mark.parametrize("privacy", [("privacy.unit=none",), PRIVATE], ids=["plain", "private"])
@pytest.mark.parametrize(
    "adapt",
    ["{ method = 'lora', rank = 2, modules = ['first', 'aside'] }", "{ method = 'head', modules = ['aside', 'last'] }"],
)
def test_what_the_outputs_do_not_depend_on_is_refused_before_the_first_round(
    privacy: tuple[str, ...], adapt: str, tmp_path: Path
):
    """Noise would move it, and nobody would notice."""
    changes = (*SHORT, *privacy, f"training.adapt={adapt}")
    with pytest.raises(Mistake, match=r"^training\.adapt: .* got aside, whose gradient is zero on every row"):
        fedsim.run("hospital-heart", *changes, task=task_with(Unused), out=tmp_path / "run", progress=False)


def test_a_round_in_which_no_adapter_moves_fails_the_training(tmp_path: Path):
    changes = (*SHORT, "privacy.unit=none", "training.optimizer.lr=1e-30")
    head = "training.adapt={ method = 'head' }"
    with pytest.raises(RunFailed, match=r"round 1: training\.adapt: no site changed 2:"):
        fedsim.run("hospital-heart", *changes, head, task=task_with(network), out=tmp_path / "run", progress=False)


def test_an_export_has_merged_adapters_and_the_names_of_the_tasks_own_model(tmp_path: Path):
    with torch.random.fork_rng():
        torch.manual_seed(3)
        base = network(4)
    safetensors.torch.save_file(base.state_dict(), tmp_path / "base.safetensors")
    adapt = (
        "training.adapt={ method = 'lora', rank = 2, modules = ['0'], also = ['2'], "
        f"base = '{tmp_path / 'base.safetensors'}' }}"
    )
    task = task_with(network)
    fedsim.run("hospital-heart", *SHORT, *PRIVATE, adapt, task=task, out=tmp_path / "run", progress=False)
    run = fedsim.load(tmp_path / "run", task=task)
    fedsim.export(run, tmp_path / "model")

    model = run.model()
    own = network(4)
    own.load_state_dict(safetensors.torch.load_file(tmp_path / "model" / "model.safetensors"))
    rows = torch.from_numpy(load().inputs)
    torch.testing.assert_close(own(rows), model(rows))
    assert not torch.equal(own[0].weight, base[0].weight)
    assert torch.equal(own[0].bias, base[0].bias)

    digest = hashlib.sha256((tmp_path / "base.safetensors").read_bytes()).hexdigest()
    card = (tmp_path / "model" / "README.md").read_text("utf-8")
    assert f"the frozen weights of base.safetensors, SHA-256 {digest}" in card
    assert "low-rank adapters (LoRA, rank 2) beside 0, merged into the weights here" in card
    assert f"Fine-tuned: {2 * 4 + 6 * 2 + 7} parameters were trained" in card


OF_MINILM = BertConfig(30_522, 384, 6, 12, 1536, 512)
MEASURED = """
import resource
import sys

import fedsim
from clients.text import BertConfig, comedies

task = comedies(sys.argv[1], most=9)
fedsim.run(sys.argv[2], "partition.sites=20", "training.rounds=1", "training.local_steps=1", task=task, out=sys.argv[3],
           progress=False)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
def test_twenty_sites_adapt_a_backbone_of_22_million_parameters_in_less_than_4_gib(tmp_path: Path):
    """Plainly and privately, with random weights in MiniLM's format; the real ones take the same memory."""
    folder = write_bert(tmp_path / "base", config=OF_MINILM)
    weights = safetensors.torch.load_file(folder / "model.safetensors")
    assert sum(value.numel() for value in weights.values()) > 22e6
    scenario = scenario_in(tmp_path, folder / "model.safetensors")
    command = [sys.executable, "-c", MEASURED, str(folder), str(scenario), str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    kib = int(done.stdout.splitlines()[-1])
    assert kib < 4 * 2**20

    traffic = pd.read_parquet(tmp_path / "run" / "traffic.parquet")
    models = traffic[traffic["record"] == "arrays"]
    numbers = 6 * 2 * 2 * (2 * 384) + 384 + 1  # layers, query and value, A and B of rank 2; the head
    assert (models["most"] >= 4 * numbers).all()
    assert (models["most"] < 4 * numbers + 10_000).all()
