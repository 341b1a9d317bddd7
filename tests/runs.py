"""Hand-made runs for tests: their scores, what their sites released, and the effects that privacy and joining have."""

import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fedsim.results.evaluation import INSIDE, POOLED, Answers
from fedsim.results.groups import tally
from fedsim.results.run_directory import Run
from fedsim.scenario.files import parse

Effects = Mapping[tuple[str, bool], Sequence[float]]

ARMS = ("federated", "centralized", "local")
FEWER_ARMS = [arms for count in (1, 2) for arms in itertools.combinations(ARMS, count)]
SITES = ("north", "south")
NOISE = (0.01, -0.01, 0.01, -0.01)  # for an effect that cannot be told from none
BETTER, WORSE = (0.05, 0.052, 0.05, 0.052), (-0.05, -0.052, -0.05, -0.052)
SEEDS = len(NOISE)


def scores(effects: Effects, arms: Sequence[str], kinds: Sequence[bool], sites: Sequence[str]) -> pd.DataFrame:
    """Return a table of test scores; an effect is added to an arm's AUC, seed by seed.

    Pooled, all AUCs are higher, and the local arm's the most: it knows how the sites differ.
    """
    rows = []
    for seed, private, arm in itertools.product(range(SEEDS), kinds, arms):
        for site in (*sites, INSIDE, POOLED):
            auc = 0.8 + 0.02 * seed + effects.get((arm, private), [0.0] * SEEDS)[seed]
            auc += 0.04 * (site == POOLED) + 0.01 * (site == POOLED and arm == "local")
            figures = {"rows": 20 + seed, "positives": 8, "auc": auc, "accuracy": auc - 0.1, "log_loss": 1.2 - auc}
            rows.append({"arm": arm, "private": private, "seed": seed, "site": site, **figures})
    return pd.DataFrame(rows)


@cache
def treated(
    arms: Sequence[str] = ARMS,
    kinds: Sequence[bool] = (False, True),
    sites: Sequence[str] = SITES,
    gap: float = 0.0,
    widening: float = 0.0,
    attribute: str | None = None,
    rows: int = 400,
    draw: int = 0,
) -> pd.DataFrame:
    """Return a table of groups; half of the positive rows are found, of women fewer by a gap that privacy widens."""
    parts = []
    for seed, private, arm in itertools.product(range(SEEDS), kinds, arms):
        random = np.random.default_rng([draw, seed, arms.index(arm), private])
        answers = []
        for site in sites:
            women, target = random.random(rows) < 0.5, (random.random(rows) < 0.5).astype(np.float32)
            found = random.random(rows) < 0.5 - women * (gap + private * widening)
            sex = {attribute: np.where(women, "female", "male")} if attribute else {}
            answers.append(Answers(site, target, np.where(found, 0.75, 0.25), sex))
        parts.append(tally(answers, "binary").assign(arm=arm, private=private, seed=seed))
    return pd.concat(parts, ignore_index=True)


def training(arm: str, seed: int, sites: Sequence[str], **changes: float) -> dict[str, Any]:
    mechanism = {"sampling_rate": 0.5, "noise_multiplier": 1.866, "clip": 1.0, "expected_batch": 60.0, "steps": 2}
    entries = [
        {"site": site, "round": number, "mechanism": mechanism | changes} for number in (1, 2, 3) for site in sites
    ]
    return {"arm": arm, "private": True, "seed": seed, "epsilon": dict.fromkeys(sites, 7.9951), "entries": entries}


def make_run(
    folder: Path,
    effects: Effects | None = None,
    private: bool = True,
    arms: Sequence[str] = ARMS,
    sites: Sequence[str] = SITES,
    title: str = "Two clinics",
) -> Run:
    table = scores(effects or {}, arms, (False, True) if private else (False,), sites)
    first = table[table["site"] == INSIDE].drop(columns=["site", "rows", "positives"])
    privacy = {"unit": "record" if private else "none", "epsilon": 8.0, "delta": 1e-4}
    about = {"name": "two-clinics", "title": title, "task": "hospital/heart", "seeds": SEEDS}
    return Run(
        path=folder,
        scenario=parse({**about, "arms": list(arms), "privacy": privacy}),
        sites=table,
        groups=treated(tuple(arms), (False, True) if private else (False,), tuple(sites), rows=40).copy(),
        rounds=pd.concat([first.assign(round=number) for number in (1, 2, 3)], ignore_index=True),
        ledger={
            "unit": privacy["unit"],
            "neighbours": "add-or-remove-one",
            "delta": 1e-4,
            "budget": 8.0,
            "ranges_fitted": False,
            "tuning": {"runs": None, "charged": False},
            "accountant": "PLD (dp-accounting 0.6.0)",
            "trainings": [
                training(arm, seed, ["pooled"] if arm == "centralized" else sites)
                for seed, arm in itertools.product(range(SEEDS), arms)
                if private
            ],
        },
        manifest={
            "task": {
                "name": "hospital/heart",
                "title": "Heart disease",
                "outcome": "disease",
                "source": "made up",
                "licence": "CC BY 4.0",
                "kind": "binary",
                "by_time": False,
                "unit": "",
            },
            "data": None,
            "versions": {"fedsim-flower": "0.1.0", "torch": "2.13.0"},
            "git": None,
            "device": "cpu",
            "seeds": list(range(SEEDS)),
            "started": "2026-11-23T15:48:19+00:00",
            "seconds": 5.9,
            "seconds_per_training": {"federated-plain-0": 1.2},
            "notes": [],
        },
    )


def one_seed(run: Run) -> Run:
    return first_seeds(run, 1)


def first_seeds(run: Run, count: int) -> Run:
    return replace(
        run,
        scenario=run.scenario.model_copy(update={"seeds": count}),
        sites=run.sites[run.sites["seed"] < count],
        groups=run.groups[run.groups["seed"] < count],
        rounds=run.rounds[run.rounds["seed"] < count],
        manifest=run.manifest | {"seeds": list(range(count))},
    )


def older(run: Run) -> Run:
    """Leave the figures inside sites out, which runs had none of once."""
    return replace(run, sites=run.sites[run.sites["site"] != INSIDE])


def by_time(run: Run) -> Run:
    """Let all seeds have the same rows."""
    return replace(run, manifest=run.manifest | {"task": run.manifest["task"] | {"by_time": True}})


def only_north_gains(run: Run) -> Run:
    sites = run.sites.copy()
    for site, effect in (("north", BETTER), ("south", NOISE)):
        sites.loc[(sites["arm"] == "federated") & (sites["site"] == site), "auc"] += list(effect)
    return replace(run, sites=sites)


def without_auc(run: Run, site: str, seeds: Sequence[int]) -> Run:
    sites = run.sites.copy()
    sites.loc[(sites["site"] == site) & sites["seed"].isin(seeds), "auc"] = None
    return replace(run, sites=sites)


def nothing_released(run: Run) -> Run:
    return _each_training(run, lambda _: {"entries": [], "epsilon": {}})


def spending(run: Run, epsilon: float) -> Run:
    """Let every site of every private training spend this epsilon."""
    return _each_training(run, lambda one: {"epsilon": dict.fromkeys(one["epsilon"], epsilon)})


def _each_training(run: Run, change: Callable[[dict[str, Any]], dict[str, Any]]) -> Run:
    trainings = [one | change(one) for one in run.ledger["trainings"]]
    return replace(run, ledger=run.ledger | {"trainings": trainings})


def unsealed(folder: Path) -> Path:
    """Take the seal off a run directory, as older ones have none: what else is checked is met then."""
    (folder / "SHA256SUMS").unlink()
    manifest = json.loads((folder / "manifest.json").read_text("utf-8"))
    del manifest["sealed"]
    (folder / "manifest.json").write_text(json.dumps(manifest), "utf-8")
    return folder
