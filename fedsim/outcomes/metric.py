"""Define a metric of a model, and a rate of a group of rows: how they are named, bounded and averaged."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Metric:
    """A metric: its name in tables, its label for people, its better direction and its bounds.

    ``by_site`` says whether the metric inside sites differs from the pooled metric. A mean over
    rows is the same in both. ``meaning`` is a sentence that explains it in reports, and
    ``meaning_inside`` the same of the metric inside sites, where that needs another one.
    """

    name: str
    label: str
    better: Literal["higher", "lower"]
    low: float
    high: float
    by_site: bool = False
    meaning: str = ""
    meaning_inside: str = ""


@dataclass(frozen=True)
class Rate:
    """A rate of a group: its name in tables, its label for people, its denominator and its bounds.

    ``of`` names the rows that the rate is a share or mean of. ``better`` is ``neither`` where a
    group is not worse off for a larger or smaller value by itself.
    """

    name: str
    label: str
    of: Literal["rows", "positives", "negatives"]
    better: Literal["higher", "lower", "neither"]
    low: float
    high: float
