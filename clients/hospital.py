"""Hospitals: which patients have heart disease?"""

from importlib.resources import files

import pandas as pd
from torch import nn

from fedsim.tables import Column, Levels, Number, encode
from fedsim.task import Rows, Task

SOURCE = (
    "UCI Heart Disease (Janosi, Steinbrunn, Pfisterer, Detrano 1988), four hospitals, CC BY 4.0; "
    "see clients/data/README.md"
)
OUTCOME = "coronary artery disease: a vessel narrowed by more than half"

# Ranges and levels are those of the measurement, not of these rows; `missing` says a hospital may not have taken it.
HEART: tuple[Column, ...] = (
    Number("age", 20, 100, "years"),
    Levels("sex", (0, 1), "female, male"),
    Levels("cp", (1, 2, 3, 4), "chest pain: typical angina, atypical angina, other pain, none"),
    Number("trestbps", 80, 220, "mm Hg, blood pressure at rest", missing=True),
    Number("chol", 80, 620, "mg/dl, serum cholesterol", missing=True),
    Levels("fbs", (0, 1), "fasting blood sugar above 120 mg/dl", missing=True),
    Levels("restecg", (0, 1, 2), "ECG at rest: normal, ST-T abnormality, hypertrophy", missing=True),
    Number("thalach", 60, 220, "beats/min, highest heart rate", missing=True),
    Levels("exang", (0, 1), "angina under exercise", missing=True),
    Number("oldpeak", -3, 7, "mm, ST depression under exercise", missing=True),
    Levels("slope", (1, 2, 3), "slope of the ST segment: up, flat, down", missing=True),
    Number("ca", 0, 3, "major vessels coloured by fluoroscopy", missing=True),
    Levels("thal", (3, 6, 7), "thallium scan: normal, fixed defect, reversible defect", missing=True),
)
MOSTLY_ABSENT = ("chol", "slope", "ca", "thal")
HEART_COMPLETE = tuple(column for column in HEART if column.name not in MOSTLY_ABSENT)


def read_heart() -> pd.DataFrame:
    """Return the 920 patients of the four hospitals as published: site, 13 features, grade, target."""
    with (files("clients") / "data" / "heart_disease_4_hospitals.csv").open("rb") as file:
        return pd.read_csv(file)


def load_heart() -> Rows:
    """Return all 920 patients."""
    return _rows(read_heart(), HEART)


def load_heart_complete() -> Rows:
    """Return the patients with every value, after four columns are dropped that some hospital hardly has."""
    return _rows(read_heart().dropna(subset=[column.name for column in HEART_COMPLETE]), HEART_COMPLETE)


def _rows(frame: pd.DataFrame, columns: tuple[Column, ...]) -> Rows:
    return Rows(
        inputs=encode(frame, columns),
        target=frame["target"].to_numpy(dtype="float32"),
        site=frame["site"].to_numpy(dtype=str),
    )


def logistic(inputs: int) -> nn.Module:
    """Return logistic regression, which starts at zero: every patient at even odds."""
    model = nn.Linear(inputs, 1)
    nn.init.zeros_(model.weight)
    nn.init.zeros_(model.bias)
    return model


heart = Task(
    title="Heart disease from 13 clinical measurements, four hospitals",
    outcome=OUTCOME,
    source=SOURCE,
    columns=HEART,
    load=load_heart,
    model=logistic,
)

heart_complete = Task(
    title="Heart disease, complete records only (9 measurements), four hospitals",
    outcome=OUTCOME,
    source=SOURCE,
    columns=HEART_COMPLETE,
    load=load_heart_complete,
    model=logistic,
)
