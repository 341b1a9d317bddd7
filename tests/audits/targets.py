"""Targets made up for tests: a model and rows in place of a scenario's."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cache

from torch import nn

from fedsim.audits.claims import Claim
from fedsim.audits.target import Effort, Target, TargetSite, targets_of
from fedsim.data.federation import Examples
from fedsim.engines.cohort import train_all
from fedsim.privacy.ledger import Mechanism
from fedsim.scenario.files import read
from fedsim.scenario.kinds import Kind
from fedsim.training.losses import RowLosses, binary
from fedsim.training.work import Plan
from tests.works import vector


@cache
def _base() -> Target:
    scenario = read("hospital-heart", ["privacy.unit=none", "training.rounds=1", "seeds=1"])
    (target,) = targets_of(scenario, None, Effort())
    return target


def target_of(
    model: nn.Module,
    rows: Examples,
    plan: Plan,
    losses: RowLosses = binary,
    kind: Kind = "binary",
    sites: Sequence[tuple[Examples, Plan]] = (),
    known: Examples | None = None,
    delta: float = 1e-5,
    **effort: int,
) -> Target:
    """Make a target of one site that trains a model on rows, unless other sites are given."""
    claim = None
    if plan.noise is not None:
        mechanism = Mechanism(
            plan.sampling_rate, plan.noise.multiplier, plan.noise.clip, plan.expected_batch, plan.steps
        )
        claim = Claim(mechanism, 1.0, delta, "add-or-remove-one")
    return replace(
        _base(),
        training="plain" if claim is None else "private",
        claim=claim,
        effort=Effort(**effort),
        model=model,
        start=vector(model),
        losses=losses,
        train_all=train_all,
        plan=plan,
        rows=rows,
        sites=tuple(TargetSite(*site) for site in sites or [(rows, plan)]),
        known=rows if known is None else known,
        kind=kind,
    )
