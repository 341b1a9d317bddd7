"""The default training of one's own table against scikit-learn, on the same rows.

Each public table is spread over five sites and trained by fedsim's defaults, federated and
centralized: once with ranges from the data, once with the wide ranges that an honest user would
declare. scikit-learn's linear model and small network (one hidden layer of 32 units, standardized
inputs) are trained and tested on the same rows. The figures are means over the seeds, of the AUC or
R² over the test rows of all sites, or of the accuracy where there are several classes.

Nothing was tuned on the tables of HELD_BACK: they were chosen by name before any figure of theirs
was known. Settings were chosen on those of DEVELOPMENT.

The data comes with packages of benchmarks/own_tables.txt and with scikit-learn. Run
``python benchmarks/own_tables.py`` for all tables, name some to run these only, and add
``--private`` for linear model and network at epsilon 1 and 8.
"""

import argparse
import io
import json
import sys
import tarfile
import tempfile
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import tomli_w
from sklearn import datasets
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.metrics import accuracy_score, r2_score, roc_auc_score
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.preprocessing import StandardScaler

from fedsim.data.federation import federate, sites_of, split_rows
from fedsim.data.settling import settled
from fedsim.experiments.arms import Job, run_job
from fedsim.results.evaluation import POOLED
from fedsim.scenario.files import read_own
from fedsim.scenario.schema import Scenario

RESULTS = Path(__file__).parent / "results"
SITES = 5
HIDDEN = (32,)
METRIC = {"binary": "auc", "classes": "accuracy", "number": "r2"}


@dataclass(frozen=True)
class PublicTable:
    """A public table.

    Attributes:
        read: Reads the rows, with the outcome in a column ``outcome``.
        kind: The kind of the outcome.
        wide: The widest honest range of each column of numbers; categories are listed as they are.
        source: The package and the file.
    """

    read: Callable[[], pd.DataFrame]
    kind: str
    wide: Mapping[str, tuple[float, float]]
    source: str


def _package(name: str) -> Path:
    spec = find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        sys.exit(f"expected the package {name}: pip install --no-deps -r benchmarks/own_tables.txt")
    return Path(next(iter(spec.submodule_search_locations)))


def _statsmodels(name: str) -> pd.DataFrame:
    path = _package("statsmodels") / "datasets" / name / f"{name}.csv"
    frame = pd.read_csv(path, sep=None, engine="python")
    return frame.rename(columns=lambda column: column.strip("'\" "))


def _pydataset(name: str) -> pd.DataFrame:
    with tarfile.open(_package("pydataset") / "resources.tar.gz") as archive:
        member = archive.extractfile(f"resources/rdata/csv/{name}.csv")
        content = member.read() if member else b""
    return pd.read_csv(io.BytesIO(content), index_col=0)


def _sample(frame: pd.DataFrame, rows: int) -> pd.DataFrame:
    return frame.sample(rows, random_state=0).reset_index(drop=True)


def _with_outcome(frame: pd.DataFrame, column: str) -> pd.DataFrame:
    return frame.rename(columns={column: "outcome"})


def _affairs() -> pd.DataFrame:
    frame = _statsmodels("fair")
    return frame.assign(outcome=(frame["affairs"] > 0).astype(int)).drop(columns="affairs")


def _biopsy() -> pd.DataFrame:
    frame = _pydataset("MASS/biopsy")
    outcome = (frame["class"] == "malignant").astype(int)
    return frame.assign(outcome=outcome).drop(columns=["class", "ID"])


def _mroz() -> pd.DataFrame:
    frame = _pydataset("car/Mroz")
    outcome = (frame["work"] == "yes").astype(int)
    return frame.assign(outcome=outcome).drop(columns=["work", "hoursw", "hearnw", "wagew"])


def _bundled(load: Callable[..., Any], **options: Any) -> pd.DataFrame:
    frame = load(as_frame=True, **options).frame.rename(columns={"target": "outcome"})
    return frame.rename(columns=lambda column: column.replace(" ", "_").replace("/", "_"))


def _price() -> pd.DataFrame:
    random = np.random.default_rng(7)
    area = random.uniform(30, 200, 1500)
    rooms = random.integers(1, 8, 1500)
    price = 3100 * area + 9000 * rooms + random.normal(0, 25_000, 1500)
    return pd.DataFrame({"area": area, "rooms": rooms, "outcome": price})


def _thyroid() -> pd.DataFrame:
    """Make values like those of a thyroid clinic: the sick have a TSH far above or below."""
    random = np.random.default_rng(7)
    state = random.choice(3, 2500, p=[0.88, 0.06, 0.06])
    centre = np.array([0.4, 3.6, -3.5])[state]
    tsh = np.exp(centre + random.normal(0, 1, 2500) * np.array([0.6, 1.0, 1.0])[state])
    t4 = np.array([107, 60, 180])[state] + 25 * random.normal(0, 1, 2500)
    sick = (state > 0) ^ (random.random(2500) < 0.01)
    return pd.DataFrame(
        {
            "age": random.normal(55, 18, 2500).clip(1, 95),
            "tsh": tsh.clip(0.005, 530),
            "t4": t4.clip(2, 430),
            "t3": random.normal(2, 0.6, 2500).clip(0.05, 10),
            "outcome": sick.astype(int),
        }
    )


_SCORES = dict.fromkeys([f"V{number}" for number in range(1, 10)], (0, 100))
HELD_BACK: dict[str, PublicTable] = {
    "anes96": PublicTable(
        lambda: _with_outcome(_statsmodels("anes96"), "vote"),
        "binary",
        {"popul": (0, 40_000), "TVnews": (0, 100), "selfLR": (0, 100), "ClinLR": (0, 100),
         "DoleLR": (0, 100), "PID": (0, 100), "age": (0, 150), "educ": (0, 100),
         "income": (0, 1000)},
        "statsmodels, anes96: the vote for president in 1996",
    ),
    "fair": PublicTable(
        _affairs,
        "binary",
        {"rate_marriage": (0, 100), "age": (0, 150), "yrs_married": (0, 150), "children": (0, 100),
         "religious": (0, 100), "educ": (0, 100), "occupation": (0, 100),
         "occupation_husb": (0, 100)},
        "statsmodels, fair: whether a wife reports an affair",
    ),
    "Housing": PublicTable(
        lambda: _with_outcome(_pydataset("Ecdat/Housing"), "price"),
        "number",
        {"outcome": (0, 10_000_000), "lotsize": (0, 1_000_000), "bedrooms": (0, 100),
         "bathrms": (0, 100), "stories": (0, 100), "garagepl": (0, 100)},
        "pydataset, Ecdat/Housing: prices of houses in Windsor",
    ),
    "diamonds": PublicTable(
        lambda: _with_outcome(_sample(_pydataset("ggplot2/diamonds"), 5000), "price"),
        "number",
        {"outcome": (0, 1_000_000), "carat": (0, 1000), "depth": (0, 1000), "table": (0, 1000),
         "x": (0, 1000), "y": (0, 1000), "z": (0, 1000)},
        "pydataset, ggplot2/diamonds: 5000 prices of diamonds",
    ),
    "randhie": PublicTable(
        lambda: _with_outcome(_sample(_statsmodels("randhie"), 5000), "mdvis"),
        "number",
        {"outcome": (0, 1000), "lncoins": (0, 100), "idp": (0, 1), "lpi": (0, 100),
         "fmde": (0, 100), "physlm": (0, 1), "disea": (0, 1000), "hlthg": (0, 1), "hlthf": (0, 1),
         "hlthp": (0, 1)},
        "statsmodels, randhie: 5000 numbers of visits to a doctor",
    ),
    "biopsy": PublicTable(
        _biopsy, "binary", _SCORES, "pydataset, MASS/biopsy: tumours that are malignant"
    ),
}  # fmt: skip
DEVELOPMENT: dict[str, PublicTable] = {
    "price": PublicTable(
        _price,
        "number",
        {"outcome": (0, 10_000_000), "area": (0, 10_000), "rooms": (0, 1000)},
        "made up: prices of flats",
    ),
    "thyroid": PublicTable(
        _thyroid,
        "binary",
        {"age": (0, 150), "tsh": (0, 10_000), "t4": (0, 10_000), "t3": (0, 1000)},
        "made up: TSH from .005 to 530",
    ),
    "diabetes": PublicTable(
        lambda: _bundled(datasets.load_diabetes, scaled=False),
        "number",
        {"outcome": (0, 10_000), "age": (0, 150), "sex": (0, 10), "bmi": (0, 1000),
         "bp": (0, 1000), **{f"s{number}": (0, 10_000) for number in range(1, 7)}},
        "scikit-learn, diabetes",
    ),
    "cancer": PublicTable(
        lambda: _bundled(datasets.load_breast_cancer),
        "binary",
        {},
        "scikit-learn, breast cancer; wide ranges are a hundred times the largest value",
    ),
    "wine": PublicTable(
        lambda: _bundled(datasets.load_wine),
        "classes",
        {},
        "scikit-learn, wine; wide ranges are a hundred times the largest value",
    ),
    "Boston": PublicTable(
        lambda: _with_outcome(_pydataset("MASS/Boston"), "medv"),
        "number",
        {},
        "pydataset, MASS/Boston; wide ranges are a hundred times the largest value",
    ),
    "Mroz": PublicTable(
        _mroz,
        "binary",
        {},
        "pydataset, car/Mroz; wide ranges are a hundred times the largest value",
    ),
    "Wages": PublicTable(
        lambda: _with_outcome(_pydataset("plm/Wages"), "lwage"),
        "number",
        {},
        "pydataset, plm/Wages; wide ranges are a hundred times the largest value",
    ),
}  # fmt: skip


def main() -> None:
    """Run the tables that are named, or all; print and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tables", nargs="*")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--private", action="store_true")
    given = parser.parse_args()
    warnings.simplefilter("ignore", ConvergenceWarning)

    rows = []
    for name in given.tables or [*HELD_BACK, *DEVELOPMENT]:
        table = (HELD_BACK | DEVELOPMENT)[name]
        measure = _private if given.private else _plain
        with tempfile.TemporaryDirectory() as folder:
            for row in measure(name, table, Path(folder), given.seeds):
                rows.append(row)
                print(_line(row), flush=True)
    if not given.tables:
        file = "own_tables_private.json" if given.private else "own_tables.json"
        (RESULTS / file).write_text(json.dumps(rows, indent=2) + "\n")


def _line(row: Mapping[str, Any]) -> str:
    texts = []
    for key, value in row.items():
        if key not in ("source", "held_back", "seeds"):
            texts.append(f"{key} {value:.3f}" if isinstance(value, float) else f"{key} {value}")
    return "  ".join(texts)


def _plain(name: str, table: PublicTable, folder: Path, seeds: int) -> list[dict[str, Any]]:
    """Compare the default training with scikit-learn, for both kinds of ranges."""
    frame = _written(table, folder)
    reference: dict[str, float] | None = None
    rows = []
    for ranges in ("from-data", "wide"):
        scenario = _scenario(table, frame, folder, ranges)
        if reference is None:  # its rows don't depend on the ranges
            reference = _scikit_learn(scenario, table.kind, frame, seeds)
        better = max(reference.values())
        federated = _fedsim(scenario, table.kind, "federated", seeds)
        rows.append(
            {
                "table": name,
                "ranges": ranges,
                "rows": len(frame),
                "metric": METRIC[table.kind],
                "federated": federated,
                "centralized": _fedsim(scenario, table.kind, "centralized", seeds),
                **reference,
                "behind": better - federated,
                "seeds": seeds,
                "held_back": name in HELD_BACK,
                "source": table.source,
            }
        )
    return rows


def _private(name: str, table: PublicTable, folder: Path, seeds: int) -> list[dict[str, Any]]:
    """Compare linear model and network under privacy of records, with wide ranges.

    Ranges alone, and with a mean and a spread that are publicly known: here rounded to one digit.
    """
    frame = _written(table, folder)
    rows = []
    for known in (False, True):
        for epsilon in ("1", "8"):
            row: dict[str, Any] = {
                "table": name,
                "rows": len(frame),
                "mean and spread": "declared" if known else "none",
                "epsilon": epsilon,
                "metric": METRIC[table.kind],
            }
            for model in ("linear", "mlp"):
                privacy = ["privacy.unit=record", f"privacy.epsilon={epsilon}"]
                changes = [*privacy, "privacy.delta=1e-4", f"data.model={model}"]
                scenario = _scenario(table, frame, folder, "wide", changes, known)
                for arm in ("federated", "centralized"):
                    row[f"{model} {arm}"] = _fedsim(scenario, table.kind, arm, seeds)
            rows.append({**row, "seeds": seeds})
    return rows


def _written(table: PublicTable, folder: Path) -> pd.DataFrame:
    """Write a table as CSV, spread over the sites at random."""
    frame = table.read().reset_index(drop=True)
    site = np.random.default_rng(99).integers(0, SITES, len(frame))
    frame = frame.assign(hospital=[f"site {number}" for number in site])
    frame.to_csv(folder / "table.csv", index=False)
    return frame


def _scenario(
    table: PublicTable,
    frame: pd.DataFrame,
    folder: Path,
    ranges: str,
    changes: list[str] | None = None,
    known: bool = False,
) -> Scenario:
    """Return the scenario that a command with the defaults makes."""
    chosen = ranges
    if ranges == "wide":
        chosen = str(folder / "wide.toml")
        entries = _entries(table, frame, known)
        Path(chosen).write_text(tomli_w.dumps(entries))
    return settled(
        read_own(
            [
                f"data.path={folder / 'table.csv'}",
                "data.target=outcome",
                "data.site=hospital",
                f"data.ranges={chosen}",
                *(changes or []),
            ]
        )
    )


def _entries(table: PublicTable, frame: pd.DataFrame, known: bool) -> dict[str, Any]:
    """Return the wide ranges of all columns, and the categories of those of text."""
    entries: dict[str, Any] = {}
    for column, values in frame.drop(columns="hospital").items():
        name = str(column)
        is_outcome = name == "outcome"
        if is_outcome and table.kind == "binary":
            continue
        if not pd.api.types.is_numeric_dtype(values):
            entries[name] = {"levels": sorted(values.dropna().unique())}
        elif is_outcome and table.kind == "classes":
            entries[name] = {"levels": sorted(map(int, values.unique()))}
        else:
            largest = float(values.abs().max())
            least = -100 * largest if values.min() < 0 else 0.0
            low, high = table.wide.get(name, (least, 100 * largest))
            entries[name] = {"low": low, "high": high}
            if known:
                entries[name] |= {"mean": _rounded(values.mean()), "spread": _rounded(values.std())}
    return entries


def _rounded(value: float) -> float:
    return float(f"{value:.0e}")


def _fedsim(scenario: Scenario, kind: str, arm: Any, seeds: int) -> float:
    """Train an arm under each seed; return the mean figure over the test rows of all sites."""
    values = []
    for seed in range(seeds):
        trained = run_job(scenario, Job(arm, scenario.private, seed), lambda number: None)
        pooled = trained.scores[trained.scores["site"] == POOLED].iloc[0]
        values.append(float(pooled[METRIC[kind]]))
    return float(np.mean(values))


def _scikit_learn(scenario: Scenario, kind: str, frame: pd.DataFrame, seeds: int) -> dict[str, float]:
    """Train scikit-learn's models on the same rows; return their mean figures."""
    features = pd.get_dummies(frame.drop(columns=["outcome", "hospital"])).astype(float)
    target = frame["outcome"].to_numpy()
    values: dict[str, list[float]] = {"linear": [], "network": []}
    for seed in range(seeds):
        train, test = _same_rows(scenario, kind, target, seed)
        known = features.fillna(features.iloc[train].median()).to_numpy()
        scaler = StandardScaler().fit(known[train])
        inputs = scaler.transform(known[train])
        tested = scaler.transform(known[test])
        if kind == "number":
            mean = target[train].mean()
            spread = target[train].std()
            network = MLPRegressor(hidden_layer_sizes=HIDDEN, max_iter=500, random_state=seed)
            for name, model in (("linear", LinearRegression()), ("network", network)):
                model.fit(inputs, (target[train] - mean) / spread)
                predicted = model.predict(tested) * spread + mean
                values[name].append(float(r2_score(target[test], predicted)))
            continue

        network = MLPClassifier(hidden_layer_sizes=HIDDEN, max_iter=500, random_state=seed)
        for name, model in (("linear", LogisticRegression(max_iter=2000)), ("network", network)):
            model.fit(inputs, target[train])
            if kind == "binary":
                area = roc_auc_score(target[test], model.predict_proba(tested)[:, 1])
                values[name].append(float(area))
            else:
                accuracy = accuracy_score(target[test], model.predict(tested))
                values[name].append(float(accuracy))
    return {f"scikit-learn {name}": float(np.mean(figures)) for name, figures in values.items()}


def _same_rows(scenario: Scenario, kind: str, target: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the numbers of the rows that fedsim trains and tests on under a seed."""
    federation = federate(scenario, seed)
    train = []
    test = []
    for place, (site, numbers) in enumerate(sites_of(scenario).items()):
        labels = np.zeros(len(numbers)) if kind == "number" else target[numbers]
        parts = split_rows(labels, scenario.split.validation, scenario.split.test, seed, site)
        train.append(numbers[parts["train"]])
        test.append(numbers[parts["test"]])

        # A row here must be the row there: the outcomes tell.
        there = federation.sites[place].test.target.numpy()
        here = target[test[-1]]
        if len(here) != len(there) or np.corrcoef(here, there)[0, 1] < 0.999:
            raise RuntimeError(f"expected the test rows of {site} as fedsim has them")
    return np.concatenate(train), np.concatenate(test)


if __name__ == "__main__":
    main()
