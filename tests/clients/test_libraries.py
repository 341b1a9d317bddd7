"""The centralized arm, plain, is as good as scikit-learn's model on the same split, for each kind of outcome.

The kinds ``binary``, ``classes`` and ``number`` have theirs in tests/experiments/test_reference.py, ``survival`` in
tests/clients/test_survival.py.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from fedsim.data.federation import Examples
from fedsim.data.settling import settled
from fedsim.experiments.arms import Job, run_job
from fedsim.outcomes import names, outcome_of
from fedsim.planning.trial import Trial
from fedsim.results.evaluation import POOLED
from fedsim.scenario.files import read
from tests.clients import libraries
from tests.clients.libraries import Part, Reference

SEEDS = range(5)
WITHIN = 0.02


@dataclass(frozen=True)
class Compared:
    """A kind of outcome, its scenario, scikit-learn's model, and what a model that learned nothing would get."""

    kind: str
    scenario: str
    reference: Reference
    guessing: float


COMPARED = [
    Compared("multi-label", "bank-late-months", libraries.one_against_rest, 0.5),
    Compared("numbers", "school-subjects", libraries.ridge, 0.0),
    Compared("reconstruction", "school-strokes", libraries.principal_components, 0.0),
    Compared("contrastive", "hospital-movements", libraries.nearest_by_components, 0.25),
    Compared("next-token", "school-shakespeare", libraries.characters_before, 0.16),
]
ELSEWHERE = {"binary", "classes", "number", "survival"}


def compared(case: Compared) -> Any:
    marks = pytest.mark.slow if case.kind == "next-token" else pytest.mark.whole
    return pytest.param(case, id=case.kind, marks=marks)


def test_each_kind_is_compared():
    assert {case.kind for case in COMPARED} | ELSEWHERE == set(names())


@pytest.mark.parametrize("case", [compared(case) for case in COMPARED])
def test_the_centralized_model_is_no_worse_than_scikit_learns(
    case: Compared, record_property: Callable[[str, object], None]
):
    """On the same pooled rows, in the mean over seeds; docs/results.md has the figures."""
    scenario = settled(read(case.scenario))
    assert scenario.seed == 0
    metric = outcome_of(case.kind).metrics[0].name

    ours = []
    theirs = []
    for seed in SEEDS:
        trial = Trial(scenario, seed, "centralized")
        assert trial.task.kind == case.kind
        pooled = trial.federation.pooled(range(len(trial.federation.sites)))
        theirs.append(case.reference(part(pooled.train), part(pooled.test)))
        trained = run_job(scenario, Job("centralized", False, seed), lambda number: None)
        ours.append(trained.scores.set_index("site").at[POOLED, metric])

    record_property("ours", float(np.mean(ours)))
    record_property("theirs", float(np.mean(theirs)))
    assert np.mean(theirs) > case.guessing + 0.1
    assert np.mean(ours) >= np.mean(theirs) - WITHIN


def part(examples: Examples) -> Part:
    return Part(examples.inputs.numpy(), examples.target.numpy())
