"""``fedsim sweep`` as it is typed: sentences, files, and nothing trained twice."""

import json
from pathlib import Path

import pandas as pd
import pytest

WORDS = ["sweep", "hospital-heart", "--epsilon", "2,none", "--seeds", "3", "--quiet", "--set", "training.rounds=2"]
VARIED = ["--vary", "training.optimizer.lr=0.5,2", "--out", "here"]


@pytest.mark.whole
def test_it_answers_in_sentences_and_leaves_files_and_trains_nothing_twice(fedsim):
    ran = fedsim(*WORDS, *VARIED)
    assert ran.code == 0, ran.err
    assert "In the federated arm, epsilon 2 gives AUC" in ran.out
    assert "No privacy instead: " in ran.out
    assert "At epsilon 2, the federated arm has AUC" in ran.out
    assert "were chosen for each arm, epsilon and seed by the validation rows of that seed" in ran.out
    assert "All 18 private trainings on the records of hospital-heart come to epsilon" in ran.out
    tables = {f"{name}.csv" for name in ("points", "by-epsilon", "by-arm", "trainings", "scores", "curves")}
    written = {path.name for path in Path("here").iterdir()}
    assert written == {*tables, "sweep.json", "sweep.html", "frontier.png", "frontier.svg"}

    document = json.loads(Path("here/sweep.json").read_text())
    assert len(document["points"]) == 6
    assert document["privacy"][0]["trainings"] == 18
    page = Path("here/sweep.html").read_text()
    assert all(sentence in page for sentence in document["answers"])
    assert "fedsim sweep hospital-heart --epsilon 2,none" in page
    assert "http" not in page.replace("http://www.w3.org", "")
    trainings = pd.read_csv("here/trainings.csv")
    assert len(trainings) == 36
    assert trainings["chosen"].sum() == 18

    before = {path: path.stat().st_mtime_ns for path in Path("runs/cache").iterdir()}
    again = fedsim(*WORDS, *VARIED, "--json")
    assert again.code == 0
    assert json.loads(again.out) == {"out": "here", **document}
    assert {path: path.stat().st_mtime_ns for path in Path("runs/cache").iterdir()} == before


def test_mistakes_are_said_before_anything_is_trained(fedsim):
    Path("run").mkdir()
    Path("run/scenario.toml").write_text("")
    ran = fedsim("sweep", "hospital-heart", "--out", "run")
    assert ran.code == 2
    assert "--out: run: expected a folder of its own, a run is in it" in ran.err
    ran = fedsim("sweep", "hospital-heart", "--metric", "beauty")
    assert ran.code == 2
    assert "--metric: expected one of auc, accuracy, got 'beauty'" in ran.err
    Path("file").touch()
    ran = fedsim("sweep", "hospital-heart", "--cache", "file", "--seeds", "1")
    assert (ran.code, ran.err) == (
        2,
        "fedsim: --cache: file: expected a folder that can be written, got: File exists\n",
    )
