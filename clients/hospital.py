"""Hospitals predict heart disease, pneumonia, exercises done at home, and how long patients with cancer live."""

from pathlib import Path

import numpy as np
import pandas as pd

from clients.files import read_own, read_table
from clients.images import downloaded, read_medmnist, scaled
from clients.models import Views, convolutional, convolutional_in_time, linear, network
from clients.signals import read_recordings, views, windows_of
from clients.survival import (
    BREAST_CANCER,
    HALF_YEARS,
    LUNG_CANCER,
    QUARTERS,
    hazards,
    load_breast_cancer,
    load_lung_cancer,
    read_breast_cancer,
    read_lung_cancer,
)
from fedsim.data import Column, ImageForm, Levels, Number, Rows, TableForm, Task, encode
from fedsim.data.task import Given
from fedsim.mistakes import Mistake

SOURCE = (
    "UCI Heart Disease (Janosi, Steinbrunn, Pfisterer, Detrano 1988), four hospitals; "
    "see clients/data/README.md"
)  # fmt: skip
LICENCE = "CC BY 4.0"
OUTCOME = "coronary artery disease: a vessel narrowed by more than half"

# Ranges and levels are those of the measurement, not of these rows.
# `missing`: a hospital may not have taken the measurement.
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
EXERCISES = (
    "pendulum",
    "abduction",
    "forward elevation",
    "internal rotation",
    "external rotation",
    "trapezius extension",
    "upright row",
)
MOMENTS = 64  # of a window: 2.56 s, about one repetition of an exercise
MOSTLY_ABSENT = ("chol", "slope", "ca", "thal")
HEART_COMPLETE = tuple(column for column in HEART if column.name not in MOSTLY_ABSENT)


def read_heart() -> pd.DataFrame:
    """Read the 920 patients as published: site, 13 features, grade, target."""
    return read_table("heart_disease_4_hospitals.csv")


def load_heart() -> Rows:
    """Load all 920 patients."""
    return _rows(read_heart(), HEART)


def load_heart_complete() -> Rows:
    """Load the patients with every value, without four columns that are mostly absent."""
    return _rows(read_heart_complete(), HEART_COMPLETE)


def read_heart_complete() -> pd.DataFrame:
    """Read the patients with every value of ``HEART_COMPLETE``."""
    names = [column.name for column in HEART_COMPLETE]
    return read_heart().dropna(subset=names)


def read_own_heart(path: Path) -> Rows:
    """Read a hospital's own patients from a CSV file: 13 features and the target; its name of a site has no say."""
    return _of_one(read_own(path, [*(column.name for column in HEART), "target"]), HEART)


def read_own_heart_complete(path: Path) -> Rows:
    """Read the patients with every value, without four columns that are mostly absent."""
    names = [column.name for column in HEART_COMPLETE]
    return _of_one(read_own(path, [*names, "target"]).dropna(subset=names), HEART_COMPLETE)


def heart_tables() -> dict[str, pd.DataFrame]:
    """Return each hospital's patients, as a file of its own would have them."""
    return {str(site): own.drop(columns="site") for site, own in read_heart().groupby("site")}


def _of_one(frame: pd.DataFrame, columns: tuple[Column, ...]) -> Rows:
    return _rows(frame.assign(site="own"), columns)


def _rows(frame: pd.DataFrame, columns: tuple[Column, ...]) -> Rows:
    """Encode patients as rows."""
    return Rows(
        inputs=encode(frame, columns),
        target=frame["target"].to_numpy(dtype="float32"),
        site=frame["site"].to_numpy(dtype=str),
        groups={
            "sex": np.where(frame["sex"] == 1, "male", "female"),
            "age": np.where(frame["age"] < 55, "under 55", "55 and over"),
        },
    )


def load_xray(path: Path | None) -> Rows:
    """Load all chest X-rays of a file, which have no natural sites.

    Their order is that of the file: training, validation, test.

    Time is that order, so that the test rows are the file's last ones. A child may have several
    images, and the published split keeps them together.
    """
    images, labels = read_medmnist(path or downloaded("pneumoniamnist"))
    if not np.isin(labels, (0, 1)).all():
        raise Mistake(f"{path}: expected labels of 0 and 1, got {np.unique(labels)[:10].tolist()}")
    return Rows(
        inputs=scaled(images),
        target=labels.astype("float32"),
        site=np.full(len(labels), "hospital"),
        time=np.arange(len(labels), dtype=float),
    )


def load_exercises() -> Rows:
    """Load windows of 2.56 s of the 140 recordings; a site is a person, with a watch of their own.

    Windows don't overlap. Time is where a window stands in its recording, from 0 to 1, so that the test rows are each
    recording's last ones: neighbouring windows look alike, and a random split would test on what was nearly seen.
    """
    recordings = read_recordings()
    windows = [windows_of(signals, MOMENTS) for signals in recordings.signals]
    counts = [len(of_recording) for of_recording in windows]
    return Rows(
        inputs=np.concatenate(windows),
        target=np.repeat(recordings.exercise.astype(np.int64), counts),
        site=np.repeat(recordings.site, counts),
        time=np.concatenate([np.arange(count) / count for count in counts]),
        groups={"arm": np.repeat(np.where(recordings.is_right, "right", "left"), counts)},
    )


def load_views() -> Given:
    """Load seconds of exercises, each beside the next one and three of other exercises; a site is a person.

    Time is where a row stands in its recordings, as in ``load_exercises``.
    """
    inputs, person, time = views()
    return Given(inputs, None, person, time)


heart = Task(
    title="Heart disease from 13 clinical measurements, four hospitals",
    outcome=OUTCOME,
    source=SOURCE,
    licence=LICENCE,
    columns=HEART,
    load=load_heart,
    model=linear,
    read=read_own_heart,
    tables=heart_tables,
    form=TableForm(read_heart, HEART),
)

heart_network = Task(
    title="Heart disease from 13 measurements, by a network of 64 units",
    outcome=OUTCOME,
    source=SOURCE,
    licence=LICENCE,
    columns=HEART,
    load=load_heart,
    model=network,
    read=read_own_heart,
    tables=heart_tables,
    form=TableForm(read_heart, HEART),
)

heart_complete = Task(
    title="Heart disease, complete records only (9 measurements), four hospitals",
    outcome=OUTCOME,
    source=SOURCE,
    licence=LICENCE,
    columns=HEART_COMPLETE,
    load=load_heart_complete,
    model=linear,
    read=read_own_heart_complete,
    tables=heart_tables,
    form=TableForm(read_heart_complete, HEART_COMPLETE),
)

xray = Task(
    title="Pneumonia in chest X-rays of 28 x 28, from a file in the format of MedMNIST",
    outcome="pneumonia",
    source="PneumoniaMNIST (Yang et al. 2023; Kermany et al. 2018), not part of fedsim: give data.path",
    licence="CC BY 4.0",
    columns=(),
    load=load_xray,
    model=lambda channels, height, width: convolutional(1),
    by_time=True,
    needs_path=True,
    form=ImageForm(),
)

breast_cancer = Task(
    title="Years without relapse of breast cancer, a tumour bank and a trial",
    outcome="relapse or death, in half-years up to five years",
    source="Rotterdam tumour bank (Foekens et al. 2000) and GBSG (Schumacher et al. 1994); see clients/data/README.md",
    licence="LGPL (>= 2)",
    columns=BREAST_CANCER,
    load=load_breast_cancer,
    model=hazards(HALF_YEARS),
    kind="survival",
    follow_up=HALF_YEARS,
    form=TableForm(read_breast_cancer, BREAST_CANCER),
)

lung_cancer = Task(
    title="Survival with advanced lung cancer, 18 institutions",
    outcome="death, in quarters up to 18 months",
    source="NCCTG (Loprinzi et al. 1994), 18 institutions; see clients/data/README.md",
    licence="LGPL (>= 2)",
    columns=LUNG_CANCER,
    load=load_lung_cancer,
    model=hazards(QUARTERS),
    kind="survival",
    follow_up=QUARTERS,
    form=TableForm(read_lung_cancer, LUNG_CANCER),
)

exercises = Task(
    title="Which shoulder exercise a patient does, from the signals of a smartwatch, ten persons",
    outcome="the exercise of physiotherapy",
    source="Smartwatch signals of shoulder exercises (Burns et al. 2018), of seglearn; see clients/data/README.md",
    licence="BSD 3-Clause",
    columns=(),
    load=load_exercises,
    model=lambda signals, moments: convolutional_in_time(signals, len(EXERCISES)),
    kind="classes",
    by_time=True,
    classes=EXERCISES,
)

movements = Task(
    title="Which second of a smartwatch is of the same exercise, ten persons",
    outcome="the second of the same exercise among four",
    source="Smartwatch signals of shoulder exercises (Burns et al. 2018), of seglearn; see clients/data/README.md",
    licence="BSD 3-Clause",
    columns=(),
    load=load_views,
    model=lambda seen, signals, moments: Views(convolutional_in_time(signals, 8)),
    kind="contrastive",
    by_time=True,
)
