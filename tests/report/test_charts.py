import itertools
import math
import re
import xml.etree.ElementTree as ET

import matplotlib
import pandas as pd
import pytest

from fedsim.outcomes.kinds.binary import AUC, LOG_LOSS
from fedsim.report import charts
from fedsim.results.comparison import HERE, compare
from fedsim.results.evaluation import INSIDE, POOLED
from fedsim.scenario.schema import Split

SITES = ("north", "$5 and $6", "<south>")


@pytest.fixture
def comparison() -> pd.DataFrame:
    rows = [
        {"arm": arm, "private": private, "seed": seed, "site": site}
        | {"auc": 0.7 + 0.05 * seed + 0.02 * private, "accuracy": 0.7, "log_loss": 0.5}
        for seed, private, arm, site in itertools.product(
            range(3), (False, True), charts.ARMS, (*SITES, INSIDE, POOLED)
        )
    ]
    return compare(pd.DataFrame(rows), Split().overlap)


@pytest.fixture
def rounds() -> pd.DataFrame:
    rows = [
        {"arm": arm, "private": private, "seed": seed, "round": number, "auc": 0.7, "log_loss": 1 / number}
        for seed, private, arm, number in itertools.product(range(3), (False, True), charts.ARMS, (1, 2, 3, 4))
    ]
    return pd.DataFrame(rows)


def arms(comparison: pd.DataFrame) -> str:
    return charts.arms(comparison, AUC, INSIDE, "inside sites")


def words(svg: str) -> list[str]:
    return [element.text or "" for element in ET.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]


def test_every_arm_has_a_colour_a_marker_and_a_line_of_its_own() -> None:
    looks = list(charts.ARMS.values())
    for field in ("colour", "marker", "line", "shape"):
        assert len({str(getattr(look, field)) for look in looks}) == len(looks)


@pytest.mark.whole
def test_charts_are_xml_with_the_same_bytes_each_time(comparison: pd.DataFrame, rounds: pd.DataFrame) -> None:
    labels = {site: site for site in SITES}
    for draw in (
        lambda: arms(comparison),
        lambda: charts.curves(rounds, [AUC, LOG_LOSS]),
        lambda: charts.sites(comparison, AUC, labels, {(True, "north"): "+0.100"}, HERE),
    ):
        chart = draw()
        panels = list(ET.fromstring(chart))
        assert len(panels) >= 2
        for panel in panels:
            assert panel.tag == "{http://www.w3.org/2000/svg}svg"
            assert panel.get("aria-label")
        assert chart == draw()


def test_drawing_leaves_matplotlib_as_it_was(comparison: pd.DataFrame) -> None:
    before = dict(matplotlib.rcParams)
    arms(comparison)
    assert dict(matplotlib.rcParams) == before


def test_names_are_written_as_they_are(comparison: pd.DataFrame) -> None:
    """A dollar sign is no formula and an angle bracket is no tag."""
    found = words(
        charts.sites(comparison, AUC, {site: f"{site} (20 rows)" for site in SITES}, {(False, "<south>"): "+0.1"}, HERE)
    )
    for site in SITES:
        assert found.count(f"{site} (20 rows)") == 2
    assert found.count("+0.1") == 1


def test_a_name_in_a_script_the_font_lacks_is_no_warning(
    comparison: pd.DataFrame, recwarn: pytest.WarningsRecorder
) -> None:
    assert "病院" in words(charts.sites(comparison, AUC, {"north": "病院"}, {}, HERE))
    assert not recwarn.list


def test_long_names_are_cut_in_the_middle(comparison: pd.DataFrame) -> None:
    assert f"St {'x' * 15}…{'x' * 23} 7" in words(
        charts.sites(comparison, AUC, {"north": f"St {'x' * 200} 7"}, {}, HERE)
    )


@pytest.mark.whole
def test_only_what_was_run_is_drawn(comparison: pd.DataFrame, rounds: pd.DataFrame) -> None:
    plain = ~comparison["private"].astype(bool)
    assert not [text for text in words(arms(comparison[plain])) if "with privacy" in text]
    alone = comparison["arm"] == "local"
    assert not [text for text in words(arms(comparison[alone].assign(difference=float("nan")))) if "Diff" in text]
    assert "federated" not in words(charts.curves(rounds[rounds["arm"] != "federated"], [AUC, LOG_LOSS]))
    assert "federated" not in words(charts.sites(comparison[alone], AUC, {"north": "north"}, {}, HERE))


def test_an_interval_ends_where_the_auc_does(comparison: pd.DataFrame) -> None:
    """Without the cut the axis would run up to 40."""
    wide = comparison.assign(high=40.0, low=-40.0, difference_low=-9.0, difference_high=9.0)
    ticks = [text.replace("−", "-") for text in words(arms(wide))]
    numbers = [float(text) for text in ticks if re.fullmatch(r"-?\d+\.\d+", text)]
    assert numbers
    assert max(numbers) <= 1.25
    assert min(numbers) >= -1.25


@pytest.mark.whole
def test_each_row_for_all_sites_has_a_chart_that_says_which_it_is(comparison: pd.DataFrame) -> None:
    """With ids of its own, since both are in one page."""
    first, second = arms(comparison), charts.arms(comparison, AUC, POOLED, "pooled over the sites")
    assert "AUC inside sites" in words(first)
    assert "AUC pooled over the sites" in words(second)
    ids = [set(re.findall(r' id="([^"]+)"', chart)) for chart in (first, second)]
    assert not ids[0] & ids[1]


@pytest.mark.whole
def test_a_difference_is_drawn_with_an_interval_for_each_question(comparison: pd.DataFrame) -> None:
    """A thick line for these records, a thin one beyond it."""
    ends = {"difference_low": -0.3, "difference_high": 0.3, "difference_here_low": -0.1, "difference_here_high": 0.1}
    federated = comparison["arm"] == "federated"
    drawn = comparison.assign(difference=0.0, **{end: math.nan for end in ends})
    without = arms(drawn).count("stroke-width: 4")
    drawn.loc[federated, list(ends)] = list(ends.values())
    assert arms(drawn).count("stroke-width: 4") == without + 2


def test_a_key_is_hollow_with_privacy() -> None:
    assert f'fill="{charts.ARMS["local"].colour}"' in charts.key("local", private=False)
    assert 'fill="#fff"' in charts.key("local", private=True)
