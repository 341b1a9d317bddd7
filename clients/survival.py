"""Patients whose time until an event is known, or how long they were seen without one."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from clients.files import read_table
from fedsim.data import Column, Levels, Number, Rows, encode
from fedsim.data.follow_up import FollowUp

BREAST_CANCER: tuple[Column, ...] = (
    Number("age", 20, 100, "years"),
    Levels("menopause", (0, 1), "before, after"),
    Levels("size", (0, 1, 2), "tumour up to 20 mm, up to 50 mm, above"),
    Levels("grade", (1, 2, 3), "grade of the tumour"),
    Number("nodes_plus_1", 1, 60, "positive lymph nodes, plus 1", log=True),
    Number("pgr_plus_1", 1, 5000, "fmol/l, progesterone receptors, plus 1", log=True),
    Number("er_plus_1", 1, 5000, "fmol/l, oestrogen receptors, plus 1", log=True),
    Levels("hormone", (0, 1), "hormonal therapy"),
)
LUNG_CANCER: tuple[Column, ...] = (
    Number("age", 20, 100, "years"),
    Levels("sex", (0, 1), "male, female"),
    Number("ecog", 0, 4, "score by the physician, from no symptoms to bedbound", missing=True),
    Number("karnofsky_physician", 0, 100, "score by the physician, 100 is well", missing=True),
    Number("karnofsky_patient", 0, 100, "score by the patient, 100 is well", missing=True),
    Number("calories", 0, 4000, "kcal at meals", missing=True),
    Number("weight_loss", -40, 80, "pounds in six months", missing=True),
)
HALF_YEARS = FollowUp(tuple(182.5 * number for number in range(1, 11)), "days")
"""Half-years up to five years, the usual horizon of breast cancer."""
QUARTERS = FollowUp(tuple(90.0 * number for number in range(1, 7)), "days")
"""Quarters up to 18 months."""
_USUAL_LOGIT = -2.0  # a hazard of 12 %, to begin with


class Hazards(nn.Module):
    """A risk that is linear in the inputs, added to the log odds of an event in each interval.

    It maps (rows, inputs) to (rows, intervals). The inputs move the odds of all intervals by the same factor, as in
    Cox's model those of all moments.
    """

    def __init__(self, inputs: int, intervals: int) -> None:
        super().__init__()
        self.risk = nn.Linear(inputs, 1, bias=False)
        nn.init.zeros_(self.risk.weight)
        self.baseline = nn.Parameter(torch.full((intervals,), _USUAL_LOGIT))

    def forward(self, inputs: Tensor) -> Tensor:
        """Compute the logits of the hazards, (rows, intervals)."""
        return self.risk(inputs) + self.baseline


def hazards(follow_up: FollowUp) -> Callable[[int], nn.Module]:
    """Return a function that makes the model of hazards for a number of inputs."""
    return lambda inputs: Hazards(inputs, len(follow_up.ends))


def read_breast_cancer() -> pd.DataFrame:
    """Read the 3 668 patients, with three counts plus one."""
    frame = read_table("survival_rotterdam_gbsg.csv.gz")
    counts = frame[["nodes", "pgr", "er"]] + 1
    return frame.join(counts.add_suffix("_plus_1"))


def read_lung_cancer() -> pd.DataFrame:
    """Read the 227 patients as published."""
    return read_table("survival_lung_18_institutions.csv.gz")


def load_breast_cancer() -> Rows:
    """Load the patients of the Rotterdam tumour bank and of the GBSG's trial."""
    frame = read_breast_cancer()
    groups = {"age": np.where(frame["age"] < 50, "under 50", "50 and over")}
    return _rows(frame, BREAST_CANCER, HALF_YEARS, groups)


def load_lung_cancer() -> Rows:
    """Load the patients of 18 institutions."""
    frame = read_lung_cancer()
    groups = {
        "sex": np.where(frame["sex"] == 0, "male", "female"),
        "age": np.where(frame["age"] < 65, "under 65", "65 and over"),
    }
    return _rows(frame, LUNG_CANCER, QUARTERS, groups)


def _rows(
    frame: pd.DataFrame,
    columns: tuple[Column, ...],
    follow_up: FollowUp,
    groups: dict[str, np.ndarray],
) -> Rows:
    return Rows(
        inputs=encode(frame, columns),
        target=follow_up.intervals(frame["time"].to_numpy(), frame["event"].to_numpy()),
        site=frame["site"].to_numpy(dtype=str),
        groups=groups,
    )
