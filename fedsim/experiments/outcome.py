"""What a run leaves in its directory: tables, ledger, model and manifest of the trainings that are finished."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
from torch import nn

from fedsim.data import loading
from fedsim.data.base_weights import base_digest
from fedsim.data.contents import persons_of
from fedsim.data.scale import Scale
from fedsim.experiments import begun
from fedsim.experiments.arms import Job
from fedsim.experiments.references.scores import reference_scores
from fedsim.experiments.trainings import OF_ALL, Failed, Finished, names_of
from fedsim.mistakes import Mistake
from fedsim.outcomes import outcome_of
from fedsim.planning.trial import Trial, without_noise
from fedsim.privacy.accounting import ACCOUNTANT
from fedsim.privacy.unit import Protected
from fedsim.privacy.units import unit_of
from fedsim.report.statement import random_of
from fedsim.results import run_directory as results
from fedsim.results.base_rates import base_rates
from fedsim.results.coefficients import coefficients
from fedsim.scenario.schema import Scenario
from fedsim.strategy.trainable import frozen, trainable, whole
from fedsim.training.model import best_device


def write_results(
    folder: Path,
    scenario: Scenario,
    finished: list[Finished],
    tell: Callable[[str], None] | None = None,
) -> None:
    """Write the tables, the ledger and the model of a run.

    Args:
        folder: The run directory.
        scenario: The scenario.
        finished: The trainings that are finished.
        tell: Is told which reference is being trained, where there are some.
    """

    def table(key: str) -> pd.DataFrame:
        return pd.DataFrame(rows_of(key))

    def rows_of(key: str) -> list[dict[str, Any]]:
        # Checkpoints of older versions lack some tables.
        return [{**names_of(one.job), **row} for one in finished for row in one.values.get(key, [])]

    results.write_table(folder / "sites.parquet", table("scores"))
    results.write_table(folder / "groups.parquet", table("groups"))
    results.write_table(folder / "rounds.parquet", table("curve"))
    traffic = rows_of("traffic")
    if traffic:
        results.write_table(folder / "traffic.parquet", pd.DataFrame(traffic))
    privacy = scenario.privacy
    trainings = [{**names_of(one.job), **one.values["ledger"]} for one in finished if one.values["ledger"]]
    results.write_json(
        folder / "ledger.json",
        {
            "unit": privacy.unit,
            "neighbours": privacy.relation,
            "delta": privacy.delta,
            "budget": privacy.epsilon,
            "accountant": ACCOUNTANT,
            "tuning": privacy.tuning.model_dump(),
            "ranges_fitted": intake.ranges_fitted if (intake := loading.intake_of(scenario)) else False,
            **_persons(scenario),
            "trainings": trainings,
        },
    )
    measured: dict[str, Any] = {
        "threshold": scenario.evaluation.threshold if loading.task_of(scenario).kind == "binary" else None,
        "base_rates": _base_rates(scenario),
        "calibration": rows_of("calibration"),
        "confusion": rows_of("confusion"),
        "coefficients": _coefficients(scenario, finished),
    }
    references = reference_scores(scenario, tell)
    if references:
        measured["references"] = references
    results.write_json(folder / "metrics.json", measured)
    product = _product(scenario)
    for one in finished:
        if one.job == product:
            # Where whole sites are protected, the models that sites keep are not private, and left out.
            whole = unit_of(scenario.privacy.unit).protects is Protected.SITE
            plain = {
                name.removeprefix(OF_ALL): value
                for name, value in one.tensors.items()
                if not whole or name.startswith(OF_ALL)
            }
            about = {"task": scenario.task_label or loading.task_of(scenario).title, "training": product.key}
            if scale := scale_of(scenario, product):
                about["scale"] = json.dumps(scale.as_json())
            # What was frozen is in no message and no checkpoint, and the same for all sites.
            unchanged = frozen(Trial(scenario, product.seed, product.arm).untried_model)
            results.write_tensors(folder / "model.safetensors", {**unchanged, **plain}, about)


def _persons(scenario: Scenario) -> dict[str, Any]:
    """Return how many persons the rows are of, for the ledger; nothing where nothing is known of persons."""
    persons = persons_of(scenario)
    return {} if persons is None else {"persons": asdict(persons)}


def write_manifest(
    folder: Path,
    scenario: Scenario,
    finished: Sequence[Finished],
    failed: Sequence[Failed],
    times: Mapping[str, Any],
) -> None:
    """Write the manifest, by which a run is finished.

    Args:
        folder: The run directory.
        scenario: The scenario.
        finished: The trainings that are finished.
        failed: Those that failed.
        times: When the run was started, and how many seconds it took.
    """
    intake = loading.intake_of(scenario)
    code = begun.own_code(scenario)
    notes = []
    chosen: dict[str, Any] = {}
    for one in finished:
        if "choice" in one.values:
            chosen.setdefault("chosen_rounds", []).append({**names_of(one.job), **one.values["choice"]})
        notes += [{**names_of(one.job), "note": note} for note in one.values["notes"]]
    results.write_manifest(
        folder,
        {
            "task": _about_task(scenario),
            "data": intake.as_json() if intake else None,
            "versions": _versions(scenario),
            "git": begun.git_revision(),
            "device": best_device(scenario.device),
            "threads": 1,
            "forced": begun.forced(folder),
            "cut_for_cores": begun.cores_of(folder),
            "rng": _random(finished),
            "seeds": scenario.all_seeds,
            "sites": len(Trial(scenario, scenario.seed, scenario.arms[0]).names),
            **times,
            "seconds_per_training": {one.job.key: one.values["seconds"] for one in finished},
            "failed": [{**names_of(one.job), "reason": one.reason} for one in failed],
            "notes": notes,
            **({"own_code": code} if code else {}),
            **_precision(scenario),
            **_base_weights(scenario),
            **chosen,
        },
    )


def _precision(scenario: Scenario) -> dict[str, str]:
    """Return the precision of products in training, where it is not float32."""
    precision = scenario.training.precision
    return {} if precision == "float32" else {"precision": precision}


def _base_weights(scenario: Scenario) -> dict[str, Any]:
    """Return the name and the digest of the file of weights that models began with; nothing where there is none."""
    adapt = scenario.training.adapt
    if adapt is None or adapt.base is None:
        return {}
    return {"base_weights": {"file": Path(adapt.base).name, "sha256": base_digest(adapt)}}


def _versions(scenario: Scenario) -> dict[str, str]:
    """Return the versions of the packages that decide about results; scikit-learn's where there are references."""
    if scenario.references:
        return {**begun.versions(), "scikit-learn": version("scikit-learn")}
    return begun.versions()


def _product(scenario: Scenario) -> Job:
    """Return the training whose model is handed on: the federated one of the first seed."""
    return Job("federated", scenario.private, scenario.seed)


def _base_rates(scenario: Scenario) -> list[dict[str, Any]]:
    """Return the base rates of every seed: what always giving the same answer would score."""
    rows = []
    for seed in scenario.all_seeds:
        trial = Trial(scenario, seed, scenario.arms[0])
        table = base_rates(trial.tested, trial.task.kind, trial.task.range)
        rows += results.as_rows(table.assign(seed=seed))
    return rows


def _coefficients(scenario: Scenario, finished: list[Finished]) -> list[dict[str, Any]]:
    """Return the coefficients of the model that is handed on, if it is linear and its inputs have names."""
    product = _product(scenario)
    for one in finished:
        if one.job != product:
            continue
        trial = Trial(scenario, product.seed, product.arm)
        shared = {name.removeprefix(OF_ALL): value for name, value in one.tensors.items() if name.startswith(OF_ALL)}
        check_fits(trial.untried_model, shared, f"the checkpoint {product.key}.safetensors")
        values = whole(trial.untried_model, shared)
        table = coefficients(trial.untried_model, values, trial.task, scale_of(scenario, product))
        return results.as_rows(table.assign(private=product.private)) if len(table) else []
    return []


def check_fits(model: nn.Module, parameters: results.Tensors, place: str) -> None:
    """Make sure that parameters that were read back are those of a model.

    Raises:
        Mistake: They are of another one.
    """
    shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    needed = set(trainable(model))
    found = {name: tuple(value.shape) for name, value in parameters.items()}
    wrong = [name for name, shape in found.items() if shapes.get(name) != shape]
    wrong += sorted(needed - set(found))
    if wrong:
        raise Mistake(f"{place}: expected the parameters of the scenario's model, got others: {', '.join(wrong[:3])}; "
                      "delete the checkpoint's two files to train that part again")  # fmt: skip


def scale_of(scenario: Scenario, job: Job) -> Scale | None:
    """Return the scale of a model's inputs and outputs; None where they are those of the public ranges."""
    if loading.task_of(scenario).load is None:
        return None  # sites that are made up have no scale of their own
    trial = Trial(scenario if job.private else without_noise(scenario), job.seed, job.arm)
    return trial.federation.scale


def _random(finished: Sequence[Finished]) -> str | None:
    """Return the kind of the private trainings' randomness, as it was reported with what they released."""
    ledgers = [one.values["ledger"] for one in finished if one.values["ledger"]]
    return random_of(ledgers) if ledgers else None


def _about_task(scenario: Scenario) -> dict[str, Any]:
    """Return what a report says of the task, so that a run directory can be read without it."""
    task = loading.task_of(scenario)
    facts = ("title", "outcome", "source", "licence", "kind", "by_time")
    unit = task.range.unit if task.range else ""
    about: dict[str, Any] = {"name": scenario.task_label, "unit": unit, **{fact: getattr(task, fact) for fact in facts}}
    declared = outcome_of(task.kind).declares()
    return about | {"declared": declared} if declared else about
