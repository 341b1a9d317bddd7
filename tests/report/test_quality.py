"""The parts of a page about probabilities, mistakes and coefficients: right figures, and a page that is well formed."""

import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fedsim.report.page import write
from fedsim.report.quality import coefficients_of, quality_of
from fedsim.results.calibration import reliability
from fedsim.results.confusion import confusion
from fedsim.results.evaluation import Answers
from fedsim.results.measured import Measured
from fedsim.results.run_directory import Run
from fedsim.scenario.kinds import Kind
from tests.report.test_page import Tags, Text
from tests.runs import ARMS, SEEDS, make_run, one_seed

COEFFICIENTS = pd.DataFrame(
    [
        {"output": 0, "input": "intercept", "unit": "", "per_input": 0.5, "per_unit": None},
        {"output": 0, "input": "age", "unit": "years", "per_input": 0.8, "per_unit": 0.02},
        {"output": 0, "input": "<b>sex</b> = f", "unit": "", "per_input": -0.1, "per_unit": None},
    ]
)


def measured(kind: Kind = "binary", private: bool = True, seeds: int = SEEDS) -> Measured:
    """Return what made-up predictions give: right in three of four rows, and as sure as that."""
    calibration = []
    matrices = []
    for seed in range(seeds):
        for noisy in (False, True)[: 1 + private]:
            for arm in ARMS:
                target = np.tile([0, 1], 20)
                named = np.where(np.arange(40) % 8 < 2, 1 - target, target)
                said = np.where(named == 1, 0.75, 0.25)
                if kind == "classes":
                    said = np.stack([1 - said, said], axis=1)
                names = {"arm": arm, "private": noisy, "seed": seed}
                answers = [Answers("north", target, said, {})]
                calibration.append(reliability(answers, kind).assign(**names))
                matrices.append(confusion(answers, kind, 0.5).assign(**names))
    return Measured(
        threshold=0.5 if kind == "binary" else None,
        calibration=pd.concat(calibration, ignore_index=True),
        confusion=pd.concat(matrices, ignore_index=True),
        coefficients=COEFFICIENTS.assign(private=private),
    )


def run_of(folder: Path, kind: Kind = "binary", private: bool = True) -> Run:
    run = make_run(folder, private=private)
    manifest = run.manifest | {"task": run.manifest["task"] | {"kind": kind}}
    return replace(run, manifest=manifest, measured=measured(kind, private))


@pytest.mark.whole
def test_a_model_as_sure_as_it_is_right_has_no_error_and_rates_of_three_in_four(tmp_path: Path):
    quality = quality_of(run_of(tmp_path), ARMS)
    assert quality is not None
    assert [label for label, _ in quality.groups] == ["without privacy", "with privacy"]
    for _, lines in quality.groups:
        assert [line.arm for line in lines] == list(ARMS)
        for line in lines:
            assert line.error.mean == 0
            assert (line.said, line.seen) == ("0.500", "0.500")
            assert line.counts == [[15 * SEEDS, 5 * SEEDS], [5 * SEEDS, 15 * SEEDS]]
            assert [rate.value() for rate in line.rates] == ["0.750"] * 3


@pytest.mark.whole
def test_a_class_has_its_rates_against_the_rest(tmp_path: Path):
    quality = quality_of(run_of(tmp_path, "classes"), ARMS)
    assert quality is not None
    line = quality.groups[0][1][0]
    assert line.rates == []
    assert line.class_rates == [["0.750"] * 3] * 2


@pytest.mark.whole
def test_the_chart_is_xml_with_the_same_bytes_each_time(tmp_path: Path):
    run = run_of(tmp_path)
    first, second = quality_of(run, ARMS), quality_of(run, ARMS)
    assert first is not None
    assert second is not None
    assert first.chart == second.chart
    words = [element.text for element in ET.fromstring(first.chart).iter("{http://www.w3.org/2000/svg}text")]
    for word in (*ARMS, "as predicted", "predicted probability", "share that is positive", "test rows"):
        assert word in words


@pytest.mark.whole
@pytest.mark.parametrize("private", [False, True])
def test_a_page_of_a_binary_outcome_is_well_formed_and_says_all(tmp_path: Path, private: bool):
    page = write(run_of(tmp_path, private=private)).read_text()
    assert not Tags.of(page).open
    text = " ".join(Text.of(page).split())
    assert "A row is called positive from a probability of 0.5 on." in text
    assert "not chosen by looking at test rows" in text
    assert "Expected calibration error 10 bins" in text
    assert ("They are noisy: the noise that protects the record is in every one of them" in text) == private
    assert ("from exact test rows, which the simulator has: no epsilon covers them" in text) == private
    assert "age years +0.0200 1.0202 +0.800" in " ".join(Text.of(page.replace("<", " <")).split())
    assert "&lt;b&gt;sex&lt;/b&gt; = f" in page


@pytest.mark.whole
def test_one_seed_has_no_intervals(tmp_path: Path):
    run = replace(one_seed(run_of(tmp_path)), measured=measured(seeds=1))
    quality = quality_of(run, ARMS)
    assert quality is not None
    assert all(not line.error.below() for _, lines in quality.groups for line in lines)


def test_many_inputs_are_listed_by_the_size_of_their_coefficients(tmp_path: Path):
    inputs = pd.DataFrame(
        {
            "output": 0,
            "input": ["intercept", *(f"gene {number}" for number in range(200))],
            "unit": "",
            "per_input": [0.0, *(float(number % 100) for number in range(200))],
            "per_unit": None,
            "private": False,
        }
    )
    listed = coefficients_of(replace(make_run(tmp_path), measured=Measured(coefficients=inputs)))
    assert listed is not None
    names = [row["name"] for row in listed["rows"]]
    assert (len(names), listed["left"]) == (61, 140)
    assert names[:2] == ["intercept", "gene 70"]
    assert all(int(name.split()[1]) % 100 >= 70 for name in names[1:])


def test_older_runs_and_numbers_have_neither(tmp_path: Path):
    run = make_run(tmp_path)
    assert quality_of(run, ARMS) is None
    assert coefficients_of(run) is None
