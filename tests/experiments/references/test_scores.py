"""References learn from the rows of the arms and are scored as the arms are; they appear where they are asked for."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import fedsim
from fedsim.experiments import experiment
from fedsim.experiments.references import models, scores
from fedsim.experiments.references.scores import OWN_ROWS, POOLED_ROWS, reference_scores
from fedsim.planning.trial import Trial
from fedsim.results.run_directory import load
from fedsim.scenario.files import read
from tests.cases import others_whole

SMALL = ("training.rounds=1", "seeds=1")


@pytest.fixture(autouse=True)
def _few_candidates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "STRENGTHS", (0.1, 1.0))


def by_hand(settings: str, train, inputs: np.ndarray) -> np.ndarray:
    strength = float(settings.rpartition(" ")[2])
    model = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=5000))
    model.fit(train.inputs.numpy().astype(float), train.target.numpy())
    return model.predict_proba(inputs.astype(float))[:, 1]


@pytest.mark.parametrize("privacy", others_whole(["none", "record"], "none"))
def test_figures_are_those_of_scikit_learn_on_the_rows_of_the_arms(privacy: str):
    given = [*SMALL, "references=[linear]", f"privacy.unit={privacy}"]
    scenario = read("hospital-heart", given)
    table = pd.DataFrame(reference_scores(scenario))
    federation = Trial(scenario, scenario.seed, "federated").federation
    pooled = federation.pooled(range(len(federation.sites)))
    for site in federation.sites:
        for learned_from, train in ((POOLED_ROWS, pooled.train), (OWN_ROWS, site.train)):
            (row,) = table[(table["learned_from"] == learned_from) & (table["site"] == site.name)].to_dict("records")
            said = by_hand(row["settings"], train, site.test.inputs.numpy())
            assert row["auc"] == pytest.approx(roc_auc_score(site.test.target.numpy(), said))
            assert row["rows"] == len(site.test)
    everywhere = {*federation.names, "(inside sites)", "(pooled)"}
    assert set(table["site"]) == everywhere
    assert len(table) == 2 * len(everywhere)


@pytest.mark.whole
def test_they_follow_from_the_seed_alone():
    scenario = read("hospital-heart", [*SMALL, "references=[linear]"])
    torch.manual_seed(3)
    np.random.seed(3)  # noqa: NPY002
    assert reference_scores(scenario) == reference_scores(scenario)


def test_a_site_of_one_class_has_no_figure_and_is_named(monkeypatch: pytest.MonkeyPatch):
    lacking = models.Fitted("", "training rows of one class only", None, "binary", 1)
    fit = models.fit

    def fit_all_but_one(*args, **named):
        return lacking if args[-1] == "site switzerland" else fit(*args, **named)

    monkeypatch.setattr(models, "fit", fit_all_but_one)
    table = pd.DataFrame(reference_scores(read("hospital-heart", [*SMALL, "references=[linear]"])))
    alone = table[table["learned_from"] == OWN_ROWS].set_index("site")
    assert pd.isna(alone.loc["switzerland", "auc"])
    assert pd.isna(alone.loc["(pooled)", "log_loss"])
    assert "no model at switzerland" in str(alone.loc["(pooled)", "note"])
    assert alone.loc["cleveland", "auc"] > 0.5
    assert table[table["learned_from"] == POOLED_ROWS]["log_loss"].notna().all()


def test_none_are_trained_where_none_is_asked_for(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(scores, "_scores", lambda *_: pytest.fail("a reference was trained"))
    assert reference_scores(read("hospital-heart", [*SMALL])) == []


@pytest.mark.whole
@pytest.mark.usefixtures("charts_undrawn")
@pytest.mark.parametrize("asked", [False, True])
def test_a_private_run_has_references_only_where_they_are_asked_for(tmp_path: Path, asked: bool):
    changes = [*SMALL, "arms=[federated]", "privacy.epsilon=1"]
    if asked:
        changes.append("references=[linear]")
    run = experiment.execute(read("hospital-heart", changes), tmp_path / "run")
    measured = json.loads((run.path / "metrics.json").read_text("utf-8"))
    page = (run.path / "report.html").read_text("utf-8")
    assert ("references" in measured) == asked
    assert ("scikit-learn" in page) == asked
    assert ("nothing protects the records in them" in page) == asked
    assert ("scikit-learn" in run.manifest["versions"]) == asked
    assert load(run.path).references.empty == (not asked)


@pytest.mark.whole
@pytest.mark.usefixtures("charts_undrawn")
def test_python_takes_them_too_and_has_the_differences_of_arms_to_them(tmp_path: Path):
    small = [*SMALL, "privacy.unit=none", "training.local_steps=1"]
    table = fedsim.run("hospital-heart", *small, out=tmp_path / "run", references=["linear"], progress=False)
    run = load(table.attrs["run_dir"])
    over = run.over_references
    assert set(over["arm"]) == {"federated", "centralized", "local"}
    (row,) = over[
        (over["arm"] == "local") & (over["site"] == "(pooled)") & (over["metric"] == "auc")
        & (over["learned_from"] == OWN_ROWS)
    ].to_dict("records")  # fmt: skip
    arm = run.sites[(run.sites["arm"] == "local") & (run.sites["site"] == "(pooled)")]["auc"].iloc[0]
    assert row["difference"] == pytest.approx(arm - row["base"])
