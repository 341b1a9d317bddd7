"""The answers for a data-protection officer: what may be said of a run, and which of its models may leave.

Nothing here claims more than the privacy statement, which it repeats in short.
"""

from dataclasses import dataclass

from fedsim import figures
from fedsim.privacy.promise import most_spent, random_of
from fedsim.privacy.tiers import WEAK
from fedsim.privacy.unit import Protected
from fedsim.privacy.units import unit_of
from fedsim.report.statement import promised_arm
from fedsim.results.run_directory import Run

NO, UNDER_CONDITIONS = "no", "under conditions"


@dataclass(frozen=True)
class Leaves:
    """Whether a kind of model may leave.

    Attributes:
        models: The kind of model.
        answer: ``NO`` or ``UNDER_CONDITIONS``; nothing here is a plain yes, since that is not for a program to say.
        why: The reason, and the conditions.
    """

    models: str
    answer: str
    why: str


def may_be_said(run: Run) -> list[str]:
    """Return the sentences that this run supports, to be said to a data-protection officer."""
    if not run.ledger["trainings"]:
        return [
            "This is a simulation without privacy: it shows how good models would be, and protects nobody's records.",
            "Nothing here bounds what a model tells of a record that it was trained on. That no record is sent is no "
            "such bound: models and updates can tell of records.",
        ]
    spent = run.epsilon(promised_arm(run))
    if not spent:
        return ["Nothing was released under privacy: the first private round would have exceeded the budget."]

    promise = unit_of(run.ledger["unit"]).promise
    arm = promised_arm(run)
    delta = figures.setting(run.ledger["delta"])
    said = [
        f"One {promise.protected} is protected by differential privacy: a deployment that trains once like the {arm} "
        f"arm, with secret seeds, spends at most epsilon {figures.epsilon(max(spent.values()))} at delta {delta}.",
        "That is an upper bound for any attacker, computed from the noise that was added; audits by attack give lower "
        "bounds and can't prove privacy.",
        f"It protects one {promise.protected} and nothing larger. {promise.unit.partition('.')[0]}.",
        "It is a bound on probabilities and no legal finding: whether a model counts as personal data is for the "
        "officer to judge.",
    ]
    if max(spent.values()) > WEAK:
        said.append(f"An epsilon above {figures.setting(WEAK)} is a weak formal guarantee, and should be called that.")
    if run.ledger["ranges_fitted"]:
        said.append("Ranges of the columns were taken from the records without noise: no epsilon covers that.")
    if run.ledger["tuning"]["runs"] is None:
        said.append("By how many trainings the settings were chosen is not declared, and not covered.")
    return said


def models(run: Run) -> list[Leaves]:
    """Return which models of this run may leave the institutions, by the promise of its privacy unit."""
    ledger = run.ledger
    unit = unit_of(ledger["unit"])
    promised = [training for training in ledger["trainings"] if training["entries"]]
    rows = []
    for arm in ("federated", "local", "centralized"):
        own = [training for training in promised if training["arm"] == arm]
        if own:
            rows.append(_private(run, arm, own))

    if "federated" in run.scenario.arms:
        if promised and unit.protects is Protected.SITE:
            why = "What a site keeps for itself has no noise where whole sites are protected: it stays there."
        else:
            why = "No sentence of the statement is about models that single sites keep: they stay where they are."
        rows.append(Leaves("personal models, where a strategy makes any", NO, why))

    without_privacy = ~run.sites["private"].astype(bool)
    plain = sorted(set(run.sites["arm"][without_privacy]))
    if plain:
        why = "Trained without noise: nothing bounds what they tell of a record."
        if promised:
            why += " They are for comparison only, and lie in checkpoints/; the epsilon does not cover them."
        rows.append(Leaves(f"models without privacy ({', '.join(plain)})", NO, why))
    return rows


def _private(run: Run, arm: str, own: list[dict[str, object]]) -> Leaves:
    """Judge the private models of an arm."""
    unit = unit_of(run.ledger["unit"])
    spent = figures.epsilon(max(most_spent(own).values()))
    name = f"{arm} model with privacy" if arm != "local" else "each site's own model with privacy"
    claim = f"epsilon {spent} for one {unit.promise.protected}"
    if random_of(own) != "secure":
        return Leaves(
            name,
            NO,
            f"Its noise follows from a seed that this report prints, so that nothing is promised of this very file. A "
            f'deployment with secret seeds has {claim}; so has a run with privacy.rng = "secure".',
        )
    if run.ledger["ranges_fitted"]:
        return Leaves(name, NO, "Ranges were taken from the records without noise: the epsilon does not cover them.")
    weak = " This is a weak formal guarantee." if max(most_spent(own).values()) > WEAK else ""
    several = ""
    if len(own) > 1:
        several = f" That is one of {len(own)} seeds; of several together, see Repetition in the statement."
    return Leaves(name, UNDER_CONDITIONS, f"It has {claim}, if the trust model of the statement holds.{weak}{several}")
