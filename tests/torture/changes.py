"""Changes inside the files of a run, with digests made anew: a run that says something else is read or refused."""

import copy
import json
import math
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from fedsim.cli.commands import app
from fedsim.experiments.experiment import execute
from fedsim.results import run_directory as results
from fedsim.results.digests import sha256
from fedsim.results.seal import NAME, seal
from fedsim.scenario.files import read
from tests.torture.interruptions import SMALL
from tests.torture.trials import FORESEEN, Tried, chooser

ODD: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 3, 0.5, -0.5, 1.5, 1e308, -1e308, 1e-300, 10**15, 10**30, math.nan, math.inf,
    "", "x", "federated", "local", "(pooled)", "number", "2026-01-01", "\ud800", "\x1b[2J", "x" * 3000,
    [], {}, [[]], [0], [None], ["x"], {"x": None}, {"x": 1},
)  # fmt: skip
TABLES = ("sites.parquet", "groups.parquet", "rounds.parquet")
DOCUMENTS = ("manifest.json", "ledger.json", "metrics.json")
COMMANDS = (
    ["report"], ["report", "--json"], ["show", "run"], ["show", "run", "--json"], ["audit"],
)  # fmt: skip


def changes(count: int, seed: int, folder: Path) -> Tried:
    """Change a value, an entry or a column of a run's files and make all digests anew; then read the run, or go on."""
    tried = Tried("changed files")
    choices = chooser("changed files", seed)
    run = execute(read("hospital-heart", SMALL), folder / "run").path
    runner = CliRunner()
    accepted = 0

    for number in range(count):
        changed = folder / f"run-{number}"
        shutil.copytree(run, changed)
        kind = choices.choice(("document", "document", "table", "table", "training", "tensors"))
        said = _CHANGES[kind](changed, choices)

        def trial(changed: Path = changed, kind: str = kind) -> str | None:
            nonlocal accepted
            command = ["resume"] if kind in ("training", "tensors") else choices.choice(COMMANDS)
            ended = runner.invoke(app, [*command[:2], str(changed), *command[2:]])
            accepted += ended.exit_code == 0
            if ended.exception is not None and not isinstance(ended.exception, FORESEEN):
                raise ended.exception
            return None

        tried.attempt(f"change {number}: {said}", trial)
        shutil.rmtree(changed)
    tried.facts = {"accepted": accepted}
    return tried


def _change_document(run: Path, choices: random.Random) -> str:
    name = choices.choice(DOCUMENTS)
    values = json.loads((run / name).read_text())
    said = _change_value(values, choices)
    (run / name).write_text(json.dumps(values))
    _make_digests_anew(run, name)
    return f"{name}: {said}"


def _change_value(values: Any, choices: random.Random) -> str:
    """Change one value at any depth; return what was done."""
    holder, key = values, None
    path = []
    while True:
        keys = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
        if not keys:
            break
        key = choices.choice(keys)
        path.append(key)
        if not isinstance(holder[key], dict | list) or not holder[key] or choices.random() < 0.2:
            break
        holder = holder[key]
    place = ".".join(map(str, path))
    way = choices.random()
    if not path or key is None:
        return "nothing"
    if way < 0.15:
        del holder[key]
        return f"{place} removed"
    if way < 0.25 and isinstance(holder, list):
        holder.append(copy.deepcopy(holder[key]))
        return f"{place} twice"
    odd = choices.choice(ODD)
    holder[key] = odd
    return f"{place} = {odd!r:.40}"


def _change_table(run: Path, choices: random.Random) -> str:
    name = choices.choice(TABLES)
    table = pd.read_parquet(run / name)
    column = choices.choice(list(table.columns))
    way = choices.choice(("remove", "empty", "none", "odd", "odd", "odd", "one", "one", "one", "twice", "few"))
    odd = choices.choice([value for value in ODD if value != "\ud800" and value != 10**30])
    if way == "remove":
        table = table.drop(columns=column)
    elif way == "empty":
        table = table.iloc[:0]
    elif way == "none":
        table[column] = None
    elif way == "odd":
        table[column] = [odd] * len(table)
    elif way == "one":
        values = table[column].astype(object).tolist()
        values[choices.randrange(len(values))] = odd
        table[column] = values
    elif way == "twice":
        table = pd.concat([table, table.iloc[:1]])
    else:
        kept = choices.sample(range(len(table)), choices.randint(1, len(table)))
        table = table.iloc[kept]
    try:
        table.to_parquet(run / name, index=False)
    except (pyarrow.ArrowException, ValueError, OverflowError):  # Parquet can't hold every mixture
        table.astype(str).to_parquet(run / name, index=False)
    _make_digests_anew(run, name)
    return f"{name}: {column} {way} {odd!r:.40}"


def _change_tensors(run: Path, choices: random.Random) -> str:
    path = choices.choice(sorted((run / "checkpoints").glob("federated-*.safetensors")))
    tensors = load_file(path)
    name = choices.choice(list(tensors))
    way = choices.choice(("removed", "longer", "a number", "renamed", "one more", "none at all"))
    tensor = tensors.pop(name)
    if way == "longer":
        tensors[name] = torch.cat([tensor, tensor])
    elif way == "a number":
        tensors[name] = torch.tensor(1, dtype=torch.int64)
    elif way == "renamed":
        tensors[f"{name}.x"] = tensor
    elif way == "one more":
        tensors |= {name: tensor, "global/more": tensor.clone()}
    elif way == "none at all":
        tensors = {}
    save_file(tensors, path)

    document = path.with_suffix(".json")
    kept = json.loads(document.read_text()) | {"tensors": sha256(path.read_bytes())}
    document.write_text(json.dumps(kept))
    _take_back_end(run)
    return f"{path.name}: {name} {way}"


def _take_back_end(run: Path) -> None:
    """Remove what is written when all trainings are finished, so that the run goes on."""
    for name in ("manifest.json", NAME, "report.html"):
        (run / name).unlink()


def _change_training(run: Path, choices: random.Random) -> str:
    path = choices.choice(sorted((run / "checkpoints").glob("*.json")))
    kept = json.loads(path.read_text())
    values = json.loads(kept["body"])
    said = _change_value(values, choices) if choices.random() < 0.9 else _change_value(kept, choices)
    if "body" in kept and isinstance(kept["body"], str) and "values" in kept:
        kept["body"] = json.dumps(values)
        kept["values"] = sha256(kept["body"].encode())
    path.write_text(json.dumps(kept))
    _take_back_end(run)
    return f"{path.name}: {said}"


def _make_digests_anew(run: Path, name: str) -> None:
    manifest = json.loads((run / "manifest.json").read_text())
    if name != "manifest.json":
        manifest["files"][name] = sha256((run / name).read_bytes())
        results.write_json(run / "manifest.json", manifest)
    seal(run)


_CHANGES: dict[str, Callable[[Path, random.Random], str]] = {
    "document": _change_document,
    "table": _change_table,
    "training": _change_training,
    "tensors": _change_tensors,
}
