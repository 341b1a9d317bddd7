"""Measure LoRA on a transformer of 22 million parameters, plain and private: time, most memory, and what is sent.

    python benchmarks/lora.py FOLDER

FOLDER has config.json, tokenizer.json and model.safetensors of all-MiniLM-L6-v2 (docs/fine-tuning.md). Twenty sites
train for three rounds. Writes results/lora.json.
"""

import json
import os
import resource
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd
import torch
from safetensors import safe_open

import fedsim
from clients.text import comedies

SITES = 20
ROUNDS = 3
SPEECHES = 32
"""Of a play, so that there are about fifty at a site."""

SCENARIO = f"""
title = "LoRA on MiniLM"
seeds = 1
arms = ["federated"]
[partition]
by = "iid"
sites = {SITES}
[split]
validation = 0.1
test = 0.2
[training]
rounds = {ROUNDS}
local_steps = 2
sampling_rate = 0.25
expected_batch = 8
[training.optimizer]
lr = 1.0
[training.adapt]
method = "lora"
rank = 8
modules = ["query", "value"]
also = ["head"]
base = BASE
[privacy]
unit = "record"
epsilon = 20.0
delta = 1e-4
noise_multiplier = 1.0
"""


def main() -> None:
    """Train with and without privacy, and write what it took."""
    folder = Path(sys.argv[1]).resolve()
    base = folder / "model.safetensors"
    with safe_open(base, "pt") as weights:
        parameters = sum(weights.get_tensor(name).numel() for name in weights.keys())  # noqa: SIM118  no mapping
    with tempfile.TemporaryDirectory() as place:
        scenario = Path(place) / "lora.toml"
        scenario.write_text(SCENARIO.replace("BASE", json.dumps(str(base))))
        run_dir = Path(place) / "run"
        task = comedies(folder, most=SPEECHES)
        start = time.perf_counter()
        fedsim.run(str(scenario), task=task, out=str(run_dir), progress=False)
        seconds = time.perf_counter() - start
        figures = {
            "parameters of the backbone": parameters,
            "sites": SITES,
            "rounds": ROUNDS,
            "cores": len(os.sched_getaffinity(0)),
            "torch": torch.__version__,
            "seconds in all": round(seconds, 1),
            "CPU seconds in all": round(time.process_time(), 1),
            "peak memory, GiB": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
            **of_run(run_dir),
        }
    text = json.dumps(figures, indent=2)
    print(text)
    (Path(__file__).parent / "results" / "lora.json").write_text(text + "\n")


def of_run(run_dir: Path) -> dict[str, object]:
    """Return the figures that a run's own files have."""
    manifest = json.loads((run_dir / "manifest.json").read_text())
    ledger = json.loads((run_dir / "ledger.json").read_text())
    traffic = pd.read_parquet(run_dir / "traffic.parquet")
    models = traffic[(traffic["direction"] == "from a site") & (traffic["record"] == "arrays")]
    rounds = pd.read_parquet(run_dir / "rounds.parquet")
    return {
        "seconds of each training": manifest["seconds_per_training"],
        "largest model in a message, bytes": int(models["most"].max()),
        "largest epsilon": round(max(ledger["trainings"][0]["epsilon"].values()), 2),
        "validation AUC by round": {
            "private" if private else "plain": [round(float(value), 3) for value in part["auc"]]
            for private, part in rounds.groupby("private")
        },
        "base": manifest["base_weights"],
    }


if __name__ == "__main__":
    main()
