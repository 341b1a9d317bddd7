"""The tasks with a time until an event, and their models against a logistic regression of scikit-learn's."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from clients import survival
from fedsim.data import Number
from fedsim.data.federation import Site, federate
from fedsim.experiments.arms import jobs, run_job
from fedsim.outcomes.measure import score
from fedsim.results.evaluation import POOLED
from fedsim.scenario.files import read


@pytest.mark.parametrize(
    ("read_frame", "columns"),
    [
        (survival.read_breast_cancer, survival.BREAST_CANCER),
        (survival.read_lung_cancer, survival.LUNG_CANCER),
    ],
)
def test_public_ranges_hold_the_data(read_frame, columns):
    frame = read_frame()
    for column in columns:
        if isinstance(column, Number):
            values = frame[column.name].dropna()
            assert values.between(column.low, column.high).mean() > 0.999, column.name


def test_events_are_those_up_to_the_horizon():
    frame = survival.read_breast_cancer()
    event = survival.load_breast_cancer().target[:, 1]
    assert event.sum() == ((frame["event"] == 1) & (frame["time"] <= 1825)).sum()
    frame = survival.read_lung_cancer()
    event = survival.load_lung_cancer().target[:, 1]
    assert event.sum() == ((frame["event"] == 1) & (frame["time"] <= 540)).sum()


def by_scikit_learn(pooled: Site, intervals: int) -> np.ndarray:
    """Fit a logistic regression to a line for each row and interval; return what it says of the test rows."""
    marks = np.eye(intervals)
    inputs, happened = [], []
    for row, (survived, event) in zip(
        pooled.train.inputs.numpy(), pooled.train.target.numpy().astype(int), strict=True
    ):
        for interval in range(survived + event):
            inputs.append(np.concatenate([row, marks[interval]]))
            happened.append(event and interval == survived)
    model = LogisticRegression(C=100, fit_intercept=False, max_iter=5000).fit(np.array(inputs), np.array(happened))
    test = pooled.test.inputs.numpy()
    hazards = [
        model.predict_proba(np.concatenate([test, np.tile(marks[interval], (len(test), 1))], 1))[:, 1]
        for interval in range(intervals)
    ]
    return np.cumprod(1 - np.stack(hazards, 1), 1)


@pytest.mark.whole
@pytest.mark.parametrize(("name", "intervals", "seeds"), [("hospital-breast-cancer", 10, 1), ("hospital-lung", 6, 5)])
def test_the_centralized_model_is_as_good_as_scikit_learns(name: str, intervals: int, seeds: int):
    """On the same rows, in the mean over seeds: 68 test rows of lung cancer are too few for a single split."""
    scenario = read(name, [f"seeds={seeds}"])
    expected, found = [], []
    for job in jobs(scenario):
        if job.arm != "centralized" or job.private:
            continue
        federation = federate(scenario, job.seed)
        pooled = federation.pooled(range(len(federation.names)))
        said = by_scikit_learn(pooled, intervals)
        expected.append(score("survival", pooled.test.target.numpy(), said))
        found.append(run_job(scenario, job, lambda number: None).scores.set_index("site").loc[POOLED])
    assert len(found) == seeds
    for metric in ("concordance", "integrated_brier"):
        ours = np.mean([of_seed[metric] for of_seed in found])
        theirs = np.mean([of_seed[metric] for of_seed in expected])
        assert ours == pytest.approx(theirs, abs=0.02), metric
        assert metric != "concordance" or theirs > 0.6
