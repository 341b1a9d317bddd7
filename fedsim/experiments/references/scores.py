"""Train the references of a scenario on the rows of the arms, and score them on the same test rows."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from fedsim.data.federation import Examples, Federation, Site
from fedsim.outcomes import outcome_of
from fedsim.planning.references import check_installed
from fedsim.planning.trial import Trial, without_noise
from fedsim.results import run_directory as results
from fedsim.results.evaluation import TOGETHER, Answers, scores_of
from fedsim.scenario.schema import Reference, Scenario

if TYPE_CHECKING:
    from fedsim.experiments.references.models import Fitted

POOLED_ROWS = "all sites"
OWN_ROWS = "each site alone"
"""What a reference learns from."""

_LISTED = 5  # sites that a note names


def reference_scores(scenario: Scenario, tell: Callable[[str], None] | None = None) -> list[dict[str, Any]]:
    """Train and score all references that a scenario asks for, under each of its seeds.

    They see the rows that the arms without privacy see, of the same sites and splits, with the same inputs: nothing is
    clipped or noised, and no epsilon covers them.

    Args:
        scenario: The scenario.
        tell: Is told what is being trained.

    Returns:
        Rows as JSON holds them; none where none is asked for. There is one for each reference, what it learned from,
        seed and row of the table that ``evaluate`` returns: ``reference, learned_from, seed, settings, note`` and the
        columns of that table. ``settings`` are those of the model for the row's site, and empty for the sites together
        where each has its own. ``note`` says why a figure is missing, where it is for want of a model.

    Raises:
        Mistake: scikit-learn is not installed.
    """
    if not scenario.references:
        return []
    check_installed()
    plain = without_noise(scenario)
    rows: list[dict[str, Any]] = []
    for seed in scenario.all_seeds:
        for reference in scenario.references:
            if tell:
                tell(f"reference: {reference}, seed {seed}")
            for learned_from in (POOLED_ROWS, OWN_ROWS):
                rows += _scores(plain, seed, reference, learned_from)
    return rows


def _scores(scenario: Scenario, seed: int, reference: Reference, learned_from: str) -> list[dict[str, Any]]:
    """Train a reference under one seed, and score it."""
    from fedsim.experiments.references.models import Rows, fit  # it needs scikit-learn

    def rows_of(part: Examples) -> Rows:
        return Rows(part.inputs.cpu().numpy().astype(np.float64), part.target.cpu().numpy())

    trial = Trial(scenario, seed, "local" if learned_from == OWN_ROWS else "centralized")
    kind = trial.task.kind
    classes = _classes(trial)

    def trained(site: Site, place: str) -> "Fitted":
        return fit(reference, kind, classes, rows_of(site.train), rows_of(site.validation), seed, place)

    tested = trial.tested
    if learned_from == POOLED_ROWS:
        of_all = trained(_pool(trial.federation), POOLED_ROWS)
        models = dict.fromkeys(tested.names, of_all)
    else:
        models = {site.name: trained(site, f"site {site.name}") for site in tested.sites}

    predictions = []
    for site in tested.sites:
        test = rows_of(site.test)
        target = test.target
        predicted = models[site.name].said(test.inputs)
        if site.scale is not None and outcome_of(kind).has_range:
            target = site.scale.encoded_target(target)
            predicted = site.scale.encoded_target(predicted)
        predictions.append(Answers(site.name, target, predicted, {}))

    scores = scores_of(predictions, kind, range=trial.task.range)
    needed = {name: models[name] for name in scores.loc[scores["rows"] > 0, "site"] if name not in TOGETHER}
    told = [_told(str(site), models, needed) for site in scores["site"]]
    about = {
        "reference": reference,
        "learned_from": learned_from,
        "seed": seed,
        "settings": [settings for settings, _ in told],
        "note": [note for _, note in told],
    }
    return results.as_rows(scores.assign(**about))


def _pool(federation: Federation) -> Site:
    return federation.pooled(range(len(federation.names)))


def _classes(trial: Trial) -> int:
    """Return the number of classes that the arms' model tells apart; 1 for other kinds of outcomes."""
    if trial.task.kind != "classes":
        return 1
    row = trial.federation.sites[0].train.inputs[:1]
    model = trial.untried_model.eval()
    with torch.no_grad():
        return int(model(row).shape[1])


def _told(site: str, models: Mapping[str, "Fitted"], needed: Mapping[str, "Fitted"]) -> tuple[str, str]:
    """Return settings and note of a row of scores, of one site or of all together.

    Args:
        site: The row.
        models: {site: its model}.
        needed: The same of the sites that have test rows.
    """
    if site not in TOGETHER:
        return models[site].settings, models[site].note

    different = {(model.settings, model.note) for model in models.values()}
    if len(different) == 1:
        return next(iter(different))
    lacking = [name for name, model in needed.items() if model.estimator is None]
    if not lacking:
        return "", ""
    named = ", ".join(lacking[:_LISTED])
    if len(lacking) > _LISTED:
        named += f" and {len(lacking) - _LISTED} more"
    return "", f"no figure over all sites, since there is no model at {named}"
