"""Explain the models of a finished run, from its checkpoints and the rows of its scenario."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import torch

from fedsim.data import loading
from fedsim.data.federation import Federation
from fedsim.experiments.explanations import gradients
from fedsim.experiments.explanations.features import features_of
from fedsim.experiments.explanations.permutation import permutation_importance
from fedsim.experiments.trainings import Finished, finished_of, models_of
from fedsim.mistakes import Mistake
from fedsim.planning.trial import Trial, without_noise
from fedsim.results.evaluation import POOLED, evaluate
from fedsim.results.explained.table import GRADIENTS, PERMUTATION
from fedsim.results.run_directory import Run, Tensors
from fedsim.scenario.schema import Scenario

MOST_SITES = 200
_SAME = 1e-3  # by which a figure on another device may differ

_KINDS = ("binary", "classes", "number")
_OUTPUTS = {"binary": "log odds", "classes": "log odds"}


def explain(run: Run, progress: Callable[[str, int, int], None] | None = None) -> pd.DataFrame:
    """Return how much each feature drives the models of a run.

    Test rows are read again, and must give the figures that the run has.

    Args:
        run: The run.
        progress: Called with (the training, trainings done, trainings in all).

    Returns:
        A row for each method, arm, privacy, site and feature: the mean ``importance`` over seeds, its ``spread`` (the
        standard deviation over seeds; missing with one), the number of ``seeds`` and the ``unit``. The sites
        together are the row INSIDE.

    Raises:
        Mistake: Captum is not installed, the rows are no table, there are too many sites, or the rows or models are not
            those of the run.
    """
    gradients.check_installed()
    scenario = run.scenario
    loading.check_digest(scenario.data)
    if run.kind not in _KINDS:
        raise Mistake(f"explain: expected a run whose outcome is of the kind {', '.join(_KINDS)}, got {run.kind!r}")
    finished = finished_of(run.path, scenario)
    if not finished:
        raise Mistake(f"{run.path}: expected the models of its trainings in checkpoints, there are none")

    parts = []
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # sums in one order
    try:
        for number, training in enumerate(finished):
            if progress:
                progress(f"explain: {training.job.key}", number, len(finished))
            parts.append(_explained(run, scenario, training))
    finally:
        torch.set_num_threads(threads)
    return _over_seeds(pd.concat(parts, ignore_index=True))


def _explained(run: Run, scenario: Scenario, training: Finished) -> pd.DataFrame:
    """Explain the models of one training: a row for each method, site and feature."""
    job = training.job
    trial = Trial(scenario if job.private else without_noise(scenario), job.seed, job.arm)
    names = trial.tested.names
    if len(names) > MOST_SITES:
        raise Mistake(f"explain: expected at most {MOST_SITES} sites, got {len(names)}; take fewer, or test fewer "
                      "(evaluation.most_sites)")  # fmt: skip
    federation = Federation(tuple(trial.tested.sites), trial.federation.scale)
    features = features_of(trial.task, tuple(federation.sites[0].test.inputs.shape[1:]))
    parameters = _on_device(models_of(training, names), trial.device)
    _check_same_figures(run, trial, federation, parameters, training)

    model = trial.untried_model
    kind = trial.task.kind
    shuffled = permutation_importance(model, parameters, federation, features, kind, trial.task.range, job.seed)
    shuffled = shuffled[shuffled["site"] != POOLED]
    amount = trial.task.range.scale if trial.task.range else 1.0
    added = gradients.mean_contributions(model, parameters, federation, features, kind, amount, job.seed)

    unit = _OUTPUTS.get(kind, run.manifest["task"]["unit"])
    both = pd.concat([
        shuffled.assign(method=PERMUTATION, unit=run.metrics[0].label),
        added.assign(method=GRADIENTS, unit=unit),
    ])  # fmt: skip
    return both.assign(arm=job.arm, private=job.private, seed=job.seed)


def _on_device(models: dict[str, Tensors], device: str) -> dict[str, Tensors]:
    """Move models to a device; sites that share one still do, so that their rows go through it together."""
    moved = {id(held): {name: value.to(device) for name, value in held.items()} for held in models.values()}
    return {site: moved[id(held)] for site, held in models.items()}


def _check_same_figures(
    run: Run, trial: Trial, federation: Federation, parameters: dict[str, Tensors], training: Finished
) -> None:
    """Make sure that the models have the figures on these rows that the run has.

    Raises:
        Mistake: They have others.
    """
    kind = trial.task.kind
    now = evaluate(trial.untried_model, parameters, federation, "test", kind, range=trial.task.range)
    job = training.job
    then = run.sites[
        (run.sites["arm"] == job.arm) & (run.sites["private"] == job.private) & (run.sites["seed"] == job.seed)
    ]
    metrics = [metric.name for metric in run.metrics]
    before = then.set_index("site")[metrics].astype(float)
    again = now.set_index("site")[metrics].astype(float).reindex(before.index)
    same = np.isclose(before, again, rtol=_SAME, atol=_SAME, equal_nan=True)
    if not same.all():
        expected = f"expected the figures of {job.key} that the run has"
        hint = "explain it with the data and the version of fedsim that it was run with"
        raise Mistake(f"{run.path}: {expected}, its rows or its models give others now; {hint}")


def _over_seeds(table: pd.DataFrame) -> pd.DataFrame:
    """Return mean, spread and number of seeds of each importance."""
    keys = ["method", "arm", "private", "site", "feature", "unit"]
    by_key = table.groupby(keys, sort=False, dropna=False)["importance"]
    found = by_key.agg(importance="mean", spread="std", seeds="count").reset_index()
    return found[["method", "arm", "private", "site", "feature", "importance", "spread", "seeds", "unit"]]
