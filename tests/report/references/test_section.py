"""The report says how arms stand beside scikit-learn, and that nothing protects these models; else nothing of them."""

import itertools
import math
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from fedsim.report.references.section import group_of, section_of
from fedsim.report.references.words import UNPROTECTED, lacks_of, named
from fedsim.report.statement import statement
from fedsim.results.measured import Measured
from fedsim.results.run_directory import Run
from tests.cases import others_whole
from tests.runs import SEEDS, SITES, make_run

ALONE, POOL = "each site alone", "all sites"


def with_references(run: Run, auc: float = 0.7, note: str = "") -> Run:
    """Let a logistic regression have this AUC everywhere, under every seed as much better as the arms are."""
    rows = []
    for seed, learned_from, site in itertools.product(range(SEEDS), (POOL, ALONE), (*SITES, *run.TOGETHER)):
        figures = {"auc": auc + 0.02 * seed, "accuracy": 0.7, "log_loss": 0.6}
        if note and site == "south" and learned_from == ALONE:
            figures = dict.fromkeys(figures, None)
        rows.append({
            "reference": "linear", "learned_from": learned_from, "seed": seed, "site": site, "rows": 20 + seed,
            "positives": 8, "settings": "logistic regression, C 1", **figures,
            "note": note if figures["auc"] is None else "",
        })  # fmt: skip
    return replace(run, measured=Measured.of({"threshold": 0.5, "references": rows}, "metrics.json"))


@pytest.mark.parametrize("private", [False, True])
def test_a_run_without_references_says_nothing_of_them(tmp_path: Path, private: bool):
    run = make_run(tmp_path, private=private)
    assert section_of(run, run.scenario.arms) is None
    assert group_of(run, [(run.metrics[0], run.headline)]) == []
    assert not any("scikit-learn" in text for _, text in statement(run))


@pytest.mark.parametrize("private", others_whole([False, True], True))
def test_where_there_are_some_the_statement_says_that_nothing_protects_them(tmp_path: Path, private: bool):
    run = with_references(make_run(tmp_path, private=private))
    assert ("Not covered", UNPROTECTED) in statement(run)
    section = section_of(run, run.scenario.arms)
    assert section is not None
    assert section.unprotected == (UNPROTECTED if private else "")
    (group,) = group_of(run, [(run.metrics[0], run.headline)])
    assert group["terms"] == "no privacy guarantee"


def test_the_difference_is_the_arms_less_the_references(tmp_path: Path):
    run = with_references(make_run(tmp_path))
    section = section_of(run, run.scenario.arms)
    assert section is not None
    assert section.names == [f"logistic regression, {POOL}", f"logistic regression, {ALONE}"]
    for _, lines in section.groups:
        for _, _, cells in lines:
            assert [cell["value"] for cell in cells] == ["+0.100", "+0.100"]  # 0.8 less 0.7
    over = run.over_references
    assert set(over["arm"]) == set(run.scenario.arms)
    inside = over[(over["site"] == run.headline) & (over["metric"] == "auc")]
    assert inside["difference"].tolist() == pytest.approx([0.1] * len(inside))


def test_settings_are_counted_by_model(tmp_path: Path):
    section = section_of(with_references(make_run(tmp_path)), ["federated"])
    assert section is not None
    counts = [chosen for _, chosen in section.settings]
    assert counts == [[("logistic regression, C 1", SEEDS)], [("logistic regression, C 1", SEEDS * len(SITES))]]


def test_a_missing_model_is_named_with_its_seeds(tmp_path: Path):
    run = with_references(make_run(tmp_path), note="one class only")
    assert lacks_of(run) == [f"logistic regression, {ALONE}, south, seeds 0, 1, 2, 3: one class only"]
    means = run.references
    lacking = means[(means["site"] == "south") & (means["learned_from"] == ALONE) & (means["metric"] == "auc")]
    assert math.isnan(lacking["mean"].iloc[0])


def test_a_number_has_a_ridge_regression():
    assert named("linear", POOL, "number") == "ridge regression, all sites"
    assert pd.Series([named("boosting", POOL, kind) for kind in ("binary", "classes", "number")]).nunique() == 1  # type: ignore[arg-type]
