"""Groups: rates against a naive computation, differences that are there and that are not, and what people see."""

import json
import math
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fedsim.cli import commands as cli
from fedsim.data.federation import federate
from fedsim.data.loading import rows_of
from fedsim.data.tables import Number
from fedsim.experiments.experiment import execute
from fedsim.mistakes import Mistake
from fedsim.outcomes import outcome_of
from fedsim.report.findings import findings
from fedsim.report.group_findings import blocks, treatment
from fedsim.results.comparison import AGREE, SAME, state
from fedsim.results.evaluation import POOLED, Answers
from fedsim.results.group_comparison import compare_groups, compare_widths
from fedsim.results.groups import FEW, tally
from fedsim.results.run_directory import Run, load
from fedsim.scenario.files import read
from fedsim.scenario.kinds import Kind
from tests.cases import others_whole
from tests.runs import SITES, make_run, one_seed, treated

QUESTION = "Are groups treated differently?"
SCORE = Number("score", 0, 40, "points")


def answers_of(kind: Kind, seed: int = 0) -> list[Answers]:
    """Make what a model said at three sites, of two protected attributes; one site has no old people."""
    random = np.random.default_rng(seed)
    found = []
    for number, site in enumerate(("a", "b", "c")):
        rows = 30 + 10 * number
        groups = {
            "sex": random.choice(["f", "m"], rows),
            "age": random.choice(["old", "young", "unknown"] if number else ["young"], rows),
        }
        if kind == "classes":
            logits = random.random((rows, 3))
            found.append(Answers(site, random.integers(0, 3, rows), logits / logits.sum(1, keepdims=True), groups))
        elif kind == "number":
            found.append(Answers(site, random.uniform(-1, 1, rows), random.uniform(-1, 1, rows), groups))
        else:
            found.append(Answers(site, (random.random(rows) < 0.4).astype(np.float32), random.random(rows), groups))
    return found


def naive(kind: Kind, rows: pd.DataFrame) -> dict[str, float]:
    """The rates of some rows, each from its definition."""
    if kind == "binary":
        positive, negative = rows[rows.target == 1], rows[rows.target == 0]
        return {
            "tpr": np.mean([said >= 0.5 for said in positive.said]) if len(positive) else math.nan,
            "fpr": np.mean([said >= 0.5 for said in negative.said]) if len(negative) else math.nan,
            "selection_rate": np.mean([said >= 0.5 for said in rows.said]),
            "calibration": rows.said.mean() - rows.target.mean(),
        }
    if kind == "classes":
        right = [int(np.argmax(said)) == true for said, true in zip(rows.said, rows.target, strict=True)]
        return {"accuracy": np.mean(right), "calibration": np.mean([max(said) for said in rows.said]) - np.mean(right)}
    error = 20 * (rows.said - rows.target)  # 20 points are one unit of the scaled outcome
    return {"error": error.mean(), "rmse": math.sqrt((error**2).mean())}


@pytest.mark.parametrize("kind", ["binary", "classes", "number"])
def test_rates_are_those_of_a_naive_computation(kind: Kind):
    answers = answers_of(kind)
    rows = pd.concat([
        pd.DataFrame({"site": one.site, "target": one.target, "said": list(one.said), **one.groups}) for one in answers
    ])  # fmt: skip
    table = tally(answers, kind, SCORE if kind == "number" else None)
    assert len(table) == 3 + (2 + 2 * 3) + (3 + 1 + 3 + 3)
    for row in table.to_dict("records"):
        own = rows[rows[row["attribute"]] == row["group"]]
        own = own if row["site"] == POOLED else own[own.site == row["site"]]
        assert row["rows"] == len(own)
        for name, value in naive(kind, own).items():
            assert row[name] == pytest.approx(value, rel=1e-6, nan_ok=True), (row, name)


def test_a_rate_of_no_rows_and_what_is_not_finite_is_missing():
    groups = {"sex": np.array(["f", "f", "m", "m"])}
    said = np.array([0.9, np.nan, 0.1, 0.8])
    table = tally([Answers("a", np.array([1.0, 1.0, 0.0, 0.0]), said, groups)], "binary").set_index(["group", "site"])
    assert pd.isna(table.loc[("f", POOLED), "tpr"])  # one of the two is not known
    assert pd.isna(table.loc[("m", POOLED), "tpr"])  # nobody is positive
    assert table.loc[("m", POOLED), "fpr"] == 0.5
    assert table.loc[("f", POOLED), ["rows", "positives"]].tolist() == [2, 2]


@pytest.mark.parametrize("kind", others_whole(["binary", "classes", "number"], "classes"))
def test_a_difference_is_to_everyone_else_and_its_width_from_lowest_to_highest(kind: Kind):
    """Against a naive computation on the rows of everyone else, for a group of three, seed by seed."""
    seeds = range(3)
    parts = [tally(answers_of(kind, seed), kind).assign(arm="local", private=False, seed=seed) for seed in seeds]
    harm = compare_groups(pd.concat(parts), kind, 0.0).set_index(["attribute", "group", "metric"])
    widths = compare_widths(pd.concat(parts), kind, 0.0).set_index(["attribute", "metric"])
    for metric in (rate.name for rate in outcome_of(kind).rates):
        differences, ranges = [], []
        for seed in seeds:
            rows = pd.concat([
                pd.DataFrame({"target": one.target, "said": list(one.said), **one.groups})
                for one in answers_of(kind, seed)
            ])  # fmt: skip
            unit = 1 / 20 if kind == "number" else 1
            by_group = {name: unit * naive(kind, own)[metric] for name, own in rows.groupby("sex")}
            ranges.append(max(by_group.values()) - min(by_group.values()))
            old, rest = (naive(kind, rows[(rows.age == "old") == own])[metric] for own in (True, False))
            differences.append(unit * (old - rest))
        assert harm.loc[("age", "old", metric), "difference"] == pytest.approx(np.mean(differences))
        assert widths.loc[("sex", metric), "width"] == pytest.approx(np.mean(ranges))


@pytest.mark.whole
def test_a_planted_gap_is_found():
    """Women who are ill are found less often, by 0.1 without privacy and by 0.4 with it."""
    found = compare_groups(treated(gap=0.1, widening=0.3, attribute="sex"), "binary", 1 / 3)
    row = found.query("arm == 'federated' and private and group == 'female' and metric == 'tpr'").iloc[0]
    assert (row["difference_verdict"], row["widening_verdict"], row["change_verdict"]) == ("lower",) * 3
    assert row["difference_low"] < -0.4 < row["difference_high"]
    assert row["widening_low"] < -0.3 < row["widening_high"]
    plain = found.query("group == 'female' and metric == 'tpr' and not private")
    assert plain["widening"].isna().all()


@pytest.mark.whole
def test_where_there_is_no_gap_one_is_found_about_one_time_in_twenty():
    """The seeds here are independent, so that the plain t interval is exact: 5 % of 30, above 6 with 0.3 %."""
    verdicts: list[str] = []
    for draw in range(30):
        table = treated(("federated",), attribute="sex", rows=100, draw=draw)
        own = compare_groups(table, "binary", 0.0).query("group == 'female' and metric == 'tpr' and private").iloc[0]
        verdicts += [own["difference_verdict"], own["widening_verdict"]]
    assert verdicts[::2].count(SAME) >= 24
    assert verdicts[1::2].count(SAME) >= 24


def test_gaps_speak_of_other_institutions_and_changes_by_privacy_of_these_records():
    """Their intervals are those of ``comparison.state`` for each question, of the same values."""
    table = treated(("federated",), gap=0.1, widening=0.3, attribute="sex")
    rate = table.query("site == '(pooled)' and group == 'female'").pivot(index="seed", columns="private", values="tpr")
    row = compare_groups(table, "binary", 1 / 3).query("group == 'female' and metric == 'tpr' and private").iloc[0]
    here, wide = state(rate[True] - rate[False], 0.0), state(rate[True], 1 / 3)
    assert (row["change_low"], row["change_high"]) == pytest.approx((here.low, here.high))
    assert (row["low"], row["high"]) == pytest.approx((wide.low, wide.high))


@pytest.mark.parametrize("seeds", [1, 2])
def test_groups_have_no_verdict_below_three_seeds(seeds: int):
    table = treated(gap=0.3, attribute="sex").query(f"seed < {seeds}")
    found = compare_groups(table, "binary", 1 / 3)
    assert found[["difference_verdict", "change_verdict", "widening_verdict"]].isna().all().all()
    assert found[["low", "difference_low"]].isna().all().all()


@pytest.mark.whole
def test_a_rate_that_is_the_same_in_all_seeds_has_no_interval():
    table = treated(attribute="sex")
    table = table.assign(found=table["positives"].astype(float), tpr=1.0)
    row = compare_groups(table, "binary", 1 / 3).query("group == 'female' and metric == 'tpr'").iloc[0]
    assert (row["mean"], row["why"], row["difference_why"]) == (1.0, AGREE, AGREE)
    assert np.isnan(row["low"])
    assert pd.isna(row["difference_verdict"])


@pytest.mark.whole
def test_groups_with_few_rows_are_marked_and_left_out_of_the_width():
    table = treated(attribute="sex", rows=40)
    men = (table["group"] == "male") & (table["seed"] == 0)
    few = table.assign(positives=table["positives"].where(~men, FEW - 1))
    harm = compare_groups(few, "binary", 0.0).set_index(["group", "metric", "arm", "private"])["few"]
    assert harm["male", "tpr", "federated", False]
    assert not harm["male", "selection_rate", "federated", False]
    assert not harm["female", "tpr", "federated", False]
    widths = compare_widths(few, "binary", 0.0).query("attribute == 'sex'")
    assert set(widths["metric"]) == {"selection_rate", "fpr", "calibration"}


def test_a_group_that_a_seed_has_no_row_of_is_marked():
    table = treated(attribute="sex")
    absent = table[~((table["group"] == "male") & (table["seed"] == 1))]
    row = compare_groups(absent, "binary", 0.0).query("group == 'male' and metric == 'tpr'").iloc[0]
    assert (row["least"], row["few"]) == (0, True)


def run_with(folder: Path, private: bool = True, **changes: float) -> Run:
    kinds = (False, True) if private else (False,)
    return replace(make_run(folder, private=private), groups=treated(kinds=kinds, attribute="sex", **changes))


@pytest.mark.whole
def test_findings_name_a_gap_and_what_privacy_does_to_it(tmp_path: Path):
    said = dict(findings(run_with(tmp_path, gap=0.1, widening=0.3)))[QUESTION]
    assert (
        "The true positive rate is lower for sex female than for everyone else at institutions like these: −0.39"
        in said
    )
    assert (
        "On these records, privacy makes the difference in true positive rate of sex female to everyone else larger"
        in said
    )
    assert "On these records, privacy makes the true positive rate lower for sex female (−0.2" in said
    said = dict(findings(run_with(tmp_path)))[QUESTION]
    assert said.startswith("No difference in true positive rate or selection rate between groups of sex can be told")
    assert SAME in said
    said = dict(findings(run_with(tmp_path, private=False, gap=0.2)))[QUESTION]
    assert "rivacy" not in said
    assert "Take care with sex" in treatment(run_with(tmp_path, rows=15), "federated")
    assert "it cannot be told" in treatment(one_seed(run_with(tmp_path, gap=0.2)), "federated")
    assert QUESTION not in dict(findings(make_run(tmp_path)))  # no protected group: nothing is said of any


@pytest.mark.whole
def test_the_table_has_protected_groups_first_and_says_how_far_they_are_apart(tmp_path: Path):
    sex, site = blocks(run_with(tmp_path, gap=0.2), "federated", True, [SITES[0]])
    assert (sex.attribute, site.attribute) == ("sex", "site")
    assert [line.group for line in sex.lines] == ["female", "male"]
    assert [line.group for line in site.lines] == [SITES[0]]
    assert sex.apart[0].endswith("apart; worst female")


def test_test_rows_keep_their_groups_and_no_one_is_told_of_them():
    """Each site's groups are those of its own test rows, in order; training rows have none."""
    scenario = read("hospital-heart")
    federation, rows = federate(scenario, 1), rows_of(scenario)
    for site in federation.sites:
        own = rows.site == site.name
        known = {tuple(row): group for row, group in zip(rows.inputs[own], rows.groups["sex"][own], strict=True)}
        assert [known[tuple(row.tolist())] for row in site.test.inputs.numpy()] == site.groups["sex"].tolist()
        assert not hasattr(site.train, "groups")


@pytest.mark.whole
def test_a_run_leaves_its_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """In a file, from Python and on the command line, for a real scenario."""
    scenario = read("hospital-heart", ["training.rounds=1", "seeds=2", "privacy.noise_multiplier=4"])
    run = execute(scenario, tmp_path / "run")
    table = load(run.path).groups
    assert set(table["attribute"]) == {"site", "sex", "age"}
    assert len(table.groupby(["arm", "private", "seed"])) == 12
    inside = table[table["site"] != POOLED].groupby(["arm", "private", "seed", "attribute", "group"])["rows"].sum()
    whole = table[table["site"] == POOLED].set_index(["arm", "private", "seed", "attribute", "group"])["rows"]
    assert (inside == whole[inside.index]).all()

    def ask(*words: str) -> str:
        monkeypatch.setattr(sys, "argv", ["fedsim", "groups", str(run.path), *words])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        assert not stop.value.code, capsys.readouterr().err
        return capsys.readouterr().out

    shown = ask("--rate", "fpr", "--arm", "local")
    assert shown.startswith("fpr of each group, local arm")
    assert shown.index("sex female") < shown.index("site cleveland")
    assert max(map(len, shown.splitlines()[:-2])) <= 80
    found = json.loads(ask("--json"))
    assert len(found["groups"]) == 3 * 2 * (2 + 2 + 4) * 4
    monkeypatch.setattr(sys, "argv", ["fedsim", "groups", str(run.path), "--rate", "rmse"])
    with pytest.raises(SystemExit):
        cli.main()
    assert "--rate: expected one of tpr, selection_rate, fpr, calibration, got 'rmse'" in capsys.readouterr().err


TABLE = "age,sex,ward,ill\n" + "\n".join(
    f"{20 + number},{('f', 'm', '')[number % 3]},{'ab'[number % 2]},{number // 2 % 2}" for number in range(60)
)


def test_columns_of_ones_own_table_are_groups(tmp_path: Path):
    """A column that is left out of learning can still be compared, and groups change no noise."""
    path = tmp_path / "people.csv"
    path.write_text(TABLE)
    settings = [f"data.path={path}", "data.target=ill", "data.site=ward"]
    ranges = 'data.ranges={ age = [0, 120], sex = "leave out" }'
    from fedsim.scenario.files import read_own

    scenario = read_own([*settings, ranges, 'data.groups=["sex"]'])
    rows = rows_of(scenario)
    assert set(rows.groups["sex"]) == {"f", "m", "unknown"}
    assert rows.inputs.shape[1] == 2  # age, and whether it is missing
    assert scenario.release == read_own([*settings, ranges]).release


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ('["sxe"]', "data.groups: expected columns of people.csv, got 'sxe'; did you mean 'sex'"),
        ('["ward"]', "data.groups: expected columns to compare beside the sites, each once, got the site, 'ward'"),
        ('["ill"]', "got the outcome, 'ill'"),
        ('["sex", "sex"]', "got 'sex' twice"),
        ('["age"]', "column age: expected at most 20 values of a group, got 60; put bands into a column of their own"),
        ("[]", "data.groups: expected"),
        ("3", "data.groups: expected"),
    ],
)
def test_columns_that_make_no_groups_are_refused(tmp_path: Path, groups: str, message: str):
    from fedsim.scenario.files import read_own

    path = tmp_path / "people.csv"
    path.write_text(TABLE)
    with pytest.raises(Mistake) as caught:
        rows_of(read_own([f"data.path={path}", "data.target=ill", "data.site=ward", "data.ranges=from-data",
                          f"data.groups={groups}"]))  # fmt: skip
    assert message in str(caught.value)


def test_a_task_with_columns_of_its_own_takes_no_groups():
    with pytest.raises(Mistake, match=r"data.groups: expected none beside a task"):
        read("hospital-heart", ['data.groups=["sex"]'])
