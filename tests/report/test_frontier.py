"""The picture of a metric against epsilon."""

import re
import xml.etree.ElementTree as ET

import pandas as pd
import pytest

from fedsim.report import frontier


def frame(*epsilons: float | None) -> pd.DataFrame:
    rows = [{"arm": "federated", "epsilon": epsilon, "mean": 0.8, "low": 0.7, "high": 0.9} for epsilon in epsilons]
    return pd.DataFrame(rows)


def words(chart: str) -> list[str]:
    return [element.text or "" for element in ET.fromstring(chart).iter("{http://www.w3.org/2000/svg}text")]


def test_each_epsilon_is_named_and_what_is_not_private_stands_apart() -> None:
    found = words(frontier.draw(frame(0.5, 8.0, None), "AUC"))
    assert {"0.5", "8", "federated", "AUC against epsilon"} <= set(found)
    assert "private" in found
    assert "private" not in words(frontier.draw(frame(0.5, 8.0), "AUC"))


def test_it_can_be_read_aloud_and_written_to_files() -> None:
    chart = frontier.draw(frame(1.0, None), "AUC inside sites")
    assert re.search('aria-label="AUC inside sites of every arm against epsilon', chart)
    files = chart.files()
    assert set(files) == {"frontier.svg", "frontier.png"}
    assert files["frontier.png"].startswith(b"\x89PNG")
    assert b"var(--" not in files["frontier.svg"]  # colours that stand alone


def test_nothing_is_no_picture() -> None:
    with pytest.raises(ValueError, match="got none"):
        frontier.draw(frame().reindex(columns=["arm", "epsilon", "mean", "low", "high"]), "AUC")
