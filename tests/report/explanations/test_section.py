"""The report draws the features that matter most, and says what the figures are not; without a table, nothing."""

import itertools
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fedsim.report.explanations.chart import MOST_FEATURES, features, top_features
from fedsim.report.explanations.section import LIMITS, NOT_COVERED, section_of
from fedsim.results.evaluation import INSIDE
from fedsim.results.explained.table import GRADIENTS, PERMUTATION, write
from tests.runs import SITES, make_run

NAMES = [f"feature <{number}>" for number in range(14)]


def explained(kinds: tuple[bool, ...] = (False, True)) -> pd.DataFrame:
    """Let features matter the more the later they come."""
    rows = []
    for method, arm, private, site in itertools.product(
        (PERMUTATION, GRADIENTS), ("local", "federated"), kinds, (INSIDE, *SITES)
    ):
        for number, name in enumerate(NAMES):
            rows.append({
                "method": method, "arm": arm, "private": private, "site": site, "feature": name,
                "importance": number / 100, "spread": np.nan if number == 3 else 0.01, "seeds": 2, "unit": "AUC",
            })  # fmt: skip
    return pd.DataFrame(rows)


def test_the_largest_come_first():
    table = explained()
    assert top_features(table[table["arm"] == "federated"]) == NAMES[::-1][:MOST_FEATURES]


@pytest.mark.whole
def test_the_picture_names_features_sites_and_both_kinds_and_escapes_them():
    picture = features(explained(), "federated")
    assert "<13>" not in picture
    assert "feature &lt;13&gt;" in picture
    for text in (*SITES, "with privacy", "without privacy", 'role="img"'):
        assert text in picture


@pytest.mark.whole
def test_the_same_figures_give_the_same_bytes():
    assert features(explained((True,)), "local") == features(explained((True,)), "local")


@pytest.mark.whole
@pytest.mark.parametrize("private", [False, True])
@pytest.mark.usefixtures("charts_undrawn")
def test_the_section_says_what_the_figures_are_not(tmp_path: Path, private: bool):
    run = make_run(tmp_path, private=private)
    assert section_of(run) is None
    write(tmp_path, explained((False, True) if private else (False,)))
    section = section_of(run)
    assert section is not None
    assert section.arm == "federated"
    assert section.limits == LIMITS
    assert section.not_covered == (NOT_COVERED if private else "")
    assert len(section.arms) == (4 if private else 2)
    _, _, lines = section.arms[0]
    assert lines[0] == ("feature <13>", "+0.130", "0.010", "0.130")
