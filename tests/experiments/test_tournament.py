"""Tournaments: the grid, what is kept, ranks and groups, and the tutorial from an empty file to a table."""

import json
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import t

from fedsim.cli import commands as cli
from fedsim.experiments import ranking, tournament, tournament_files
from fedsim.experiments.arms import Job, Trained, run_job
from fedsim.experiments.deciding import kept
from fedsim.experiments.tournament import Axes, Played, cells, play
from fedsim.mistakes import Mistake
from fedsim.privacy.accounting import Neighbours, Segment, epsilon
from fedsim.results.evaluation import HEADLINE, POOLED
from fedsim.scenario.files import read
from fedsim.scenario.schema import Scenario, Split
from fedsim.strategy.contract_check import examine

QUICK = ["training.rounds=2", "privacy.epsilon=1"]
ROOT = Path(__file__).parents[2]


@pytest.fixture
def fedsim(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.chdir(tmp_path)

    def call(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["fedsim", *words])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        return int(stop.value.code or 0), *capsys.readouterr()

    return call


def test_everything_is_crossed_with_everything():
    grid = cells(
        Axes(
            ["hospital-heart"],
            ["fedavg", "krum:f=0"],
            ["none", "alie:z=1"],
            ["none", "2"],
            ["attack.share=0.5,1"],
            QUICK,
            3,
        )
    )
    assert len(grid) == 2 * 2 * 2 * 2
    one = next(c for c in grid if [*c.place.values()] == ["hospital-heart", "alie:z=1", "2", "0.5", "krum:f=0"])
    scenario = one.scenario
    assert (scenario.strategy.name, scenario.strategy.model_extra) == ("krum", {"f": 0})
    assert (scenario.attack.name, scenario.attack.model_extra, scenario.attack.share) == ("alie", {"z": 1}, 0.5)
    assert (scenario.privacy.epsilon, scenario.training.rounds, scenario.seeds, one.private) == (2, 2, 3, True)
    assert all(c.private == (c.place["epsilon"] != "none") for c in grid)


def test_what_is_asked_for_twice_is_named():
    """Two rows of one name can't be told from each other."""
    with pytest.raises(Mistake, match="each field of the grid once, got hospital-heart, none, none, krum twice"):
        cells(Axes(["hospital-heart"], ["krum", "fedavg", "krum"]))


def test_the_scenarios_own_attack_stays_unless_another_is_named():
    assert cells(Axes(["synthetic-attacked"], ["fedavg"]))[0].scenario.attack.name == "sign-flip"
    assert cells(Axes(["synthetic-attacked"], ["fedavg"], ["none"]))[0].scenario.attack.name == "none"
    assert cells(Axes(["synthetic-attacked"], ["fedavg"], ["ipm"]))[0].scenario.attack.share == 0.2


def test_what_has_run_is_not_run_again_and_what_changed_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    ran = []
    whole = kept.run_job
    monkeypatch.setattr(
        kept, "run_job", lambda scenario, job, *more: ran.append(job.seed) or whole(scenario, job, *more)
    )
    axes = Axes(["hospital-heart"], ["fedavg"], changes=QUICK, seeds=2)
    first = play(cells(axes), tmp_path)
    again = play(cells(axes), tmp_path)
    assert ran == [0, 1]
    pd.testing.assert_frame_equal(first.scores, again.scores)
    play(cells(Axes(["hospital-heart"], ["fedavg"], changes=QUICK, seeds=3)), tmp_path)
    assert ran == [0, 1, 2]
    play(cells(Axes(["hospital-heart"], ["fedavg"], changes=[*QUICK, "training.optimizer.lr=0.4"], seeds=1)), tmp_path)
    assert ran == [0, 1, 2, 0]
    monkeypatch.setattr(kept, "_code", lambda: "another version")
    play(cells(axes), tmp_path)
    assert ran == [0, 1, 2, 0, 0, 1]


def test_a_changed_file_is_another_strategy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """It is imported and trained anew, in the same process too, and at once where Python keeps bytecode."""
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    path, found = tmp_path / "mine.py", []
    for factor in (0.0, 1.0, 0.0):
        path.write_text(
            "from dataclasses import dataclass\n@dataclass(frozen=True)\nclass Mine:\n"
            "    def aggregate(self, center, updates, weights, state):\n"
            f"        return center + {factor} * (updates.mean(0) - center), state\n"
        )
        os.utime(path, (0, 0))  # as if within a second
        played = play(cells(Axes(["hospital-heart"], [str(path)], changes=QUICK, seeds=1)), tmp_path / "cache")
        found.append(played.scores[played.scores["site"] == POOLED]["log_loss"].iloc[0])
    assert found[0] == found[2] == pytest.approx(np.log(2))
    assert found[1] < 0.65
    assert len(list((tmp_path / "cache").iterdir())) == 2


@pytest.mark.whole
def test_a_cached_training_is_that_of_a_run(tmp_path: Path):
    """The same figures as fedsim run gives for the arm."""
    import fedsim

    played = play(cells(Axes(["hospital-heart"], ["scaffold"], changes=QUICK, seeds=2)), tmp_path / "cache")
    own = played.scores[played.scores["site"] == HEADLINE]["auc"].mean()
    run = fedsim.run(
        "hospital-heart",
        *QUICK,
        "privacy.unit=none",
        'arms=["federated"]',
        seeds=2,
        out=tmp_path / "run",
        strategy="scaffold",
    )
    assert run[run["metric"] == "auc"]["mean"].iloc[0] == pytest.approx(own)


def test_what_can_not_be_run_is_listed_and_the_rest_goes_on(tmp_path: Path):
    played = play(
        cells(Axes(["hospital-heart"], ["krum", "qfedavg", "fedavg"], ["none"], ["1"], changes=QUICK, seeds=1)),
        tmp_path,
    )
    assert set(played.scores["strategy"]) == {"fedavg"}
    reasons = dict(zip(played.refused["strategy"], played.refused["reason"], strict=True))
    assert "n >= 2 f + 3 = 5" in reasons["krum"]
    assert "without losses under privacy" in reasons["qfedavg"]


FAILS = """
calls = 0

class Fails:
    def aggregate(self, center, updates, weights, state):
        global calls
        calls += 1
        if calls == 4:
            WHAT
        return updates.mean(0), {}
"""


@pytest.mark.whole
@pytest.mark.parametrize(
    ("what", "reason"),
    [
        ("raise KeyError('moon')", r"seed 1: KeyError: 'moon' \(fails\.py:9\)"),
        ("raise SystemExit(0)", r"seed 1: SystemExit: 0 \(fails\.py:9\)"),
        ("import time; time.sleep(600)", r"seed 1: round 1 took more than the 2 seconds of limits\.round_seconds"),
    ],
)
def test_a_training_that_fails_ends_no_other(what: str, reason: str, tmp_path: Path):
    """The first call is the trial of the strategy, two are the rounds of seed 0."""
    path = tmp_path / "fails.py"
    path.write_text(FAILS.replace("WHAT", what))
    changes = [*QUICK, "training.rounds=2", "limits.round_seconds=2"]
    played = play(cells(Axes(["hospital-heart"], [str(path), "fedavg"], changes=changes, seeds=2)), tmp_path / "cache")
    assert set(played.scores["strategy"]) == {"fedavg"}
    assert re.fullmatch(f"{reason}.*", played.refused["reason"][0])


WITHOUT_EFFECT = {
    "--set seeds=4": "--set seeds: expected --seeds",
    "--set strategy={name='median'}": "--set strategy: expected --strategy",
    "--set arms=['local']": "--set arms: expected --arms",
    "--vary seeds=3,4": "--vary seeds: expected --seeds",
    "--vary arms=a": "--vary arms: expected --arms",
    "--vary strategy.name=fedavg,median": "--vary strategy.name: expected --strategy",
    "--vary training.rounds=1 --vary training.rounds=2": "--vary training.rounds: expected once",
    "--reach nan": "--reach: expected a finite number, got nan",
    "--strategy nope.py": "nope.py: expected a Python file, there is none",
    "--strategy fedavg,flwr.serverapp.strategy:Nope": "Nope",
}


@pytest.mark.parametrize("words", WITHOUT_EFFECT)
def test_what_would_have_no_effect_is_refused(fedsim, words: str):
    code, _, err = fedsim(
        "compare", "hospital-heart", *(["--strategy", "fedavg"] * ("--strategy" not in words)), *words.split(" ")
    )
    assert code == 2
    assert WITHOUT_EFFECT[words] in err
    assert "Traceback" not in err


def test_the_command_ends_with_the_exit_code_of_a_failure(fedsim, tmp_path: Path):
    path = tmp_path / "fails.py"
    path.write_text(FAILS.replace("WHAT", "raise KeyError('moon')").replace("== 4", "== 2"))
    settings = ["--set", "privacy.unit=none", "--set", "training.rounds=2", "--seeds", "1"]
    code, out, _ = fedsim("compare", "hospital-heart", "--strategy", f"{path},fedavg", *settings)
    assert code == 1
    assert "KeyError" in out


@pytest.mark.whole
def test_a_training_that_was_interrupted_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    axes = Axes(["hospital-heart"], ["fedavg"], changes=["training.rounds=4", "checkpoints.every_rounds=1"], seeds=1)
    whole = play(cells(axes), tmp_path / "whole")
    rounds: list[int] = []

    def stopped(scenario: Scenario, job: Job, tell: Callable[[int], None], *more: Any) -> Trained:
        def stop(number: int) -> None:
            rounds.append(number)
            if len(rounds) == 3:
                raise KeyboardInterrupt
            tell(number)

        return run_job(scenario, job, stop, *more)

    monkeypatch.setattr(kept, "run_job", stopped)
    with pytest.raises(KeyboardInterrupt):
        play(cells(axes), tmp_path / "cache")
    again = play(cells(axes), tmp_path / "cache")
    assert rounds == [1, 2, 3, 3, 4]
    pd.testing.assert_frame_equal(again.scores, whole.scores)
    pd.testing.assert_frame_equal(again.curves, whole.curves)
    assert [path.suffix for path in (tmp_path / "cache").iterdir()] == [".json"]


FEW = ["partition.sites=7", "training.rounds=2", "training.local_steps=1", "training.site_sampling_rate=1.0"]
SHARED = ["partition.sites=7", "training.rounds=2", "training.local_steps=1", "secure_aggregation.drop_outs=1",
          "secure_aggregation.colluding=1", "faults.drop_out=0"]  # fmt: skip


@pytest.mark.parametrize(
    ("scenario", "changes", "unit"),
    [
        ("hospital-heart-complete", ["privacy.delta=1e-4"], "record"),  # it has none of its own
        ("hospital-heart", [], "record"),
        ("hospital-heart", ["privacy.unit=local"], "local"),
        ("synthetic-whole-sites", FEW, "client"),
        ("synthetic-untrusted-server", SHARED, "distributed"),
    ],
)
def test_a_budget_is_for_the_scenarios_own_unit_and_without_one_for_records(scenario: str, changes: list, unit: str):
    plain, private = cells(Axes([scenario], ["fedavg"], epsilons=["none", "3"], changes=changes))
    assert (plain.scenario.privacy.unit, plain.private) == ("none", False)
    assert plain.scenario.secure_aggregation.colluding == 0
    assert (private.scenario.privacy.unit, private.scenario.privacy.epsilon, private.private) == (unit, 3.0, True)
    assert plain.scenario.secure_aggregation.on == private.scenario.secure_aggregation.on == (unit == "distributed")


def lines_of(played: Played) -> str:
    names = ranking.axes_of(played.scores)
    fields = played.costs[[name for name in names if name != "strategy"]].itertuples(index=False, name=None)
    ranked = ranking.rank(played, "accuracy", dict.fromkeys(fields, Split().overlap))
    return " ".join(tournament_files.lines(played, ranked, names, "auc", 1))


@pytest.mark.parametrize(
    ("scenario", "changes", "relation"),
    [
        ("synthetic-whole-sites", FEW, "add-or-remove-one"),
        pytest.param(
            "synthetic-whole-sites",
            [*FEW, "privacy.neighbours=replace-one"],
            "replace-one",
            marks=pytest.mark.whole,
        ),
        pytest.param(
            "synthetic-label-skew",
            [*FEW[1:3], "privacy.unit=local", "privacy.delta=1e-4"],
            "replace-one",
            marks=pytest.mark.whole,
        ),
        pytest.param("synthetic-untrusted-server", SHARED, "add-or-remove-one", marks=pytest.mark.whole),
    ],
)
def test_trainings_that_protect_whole_sites_are_composed_for_a_whole_site(
    scenario: str, changes: list, relation: Neighbours, tmp_path: Path
):
    """Two strategies of two rounds; one that a unit can't have is refused, with its reason."""
    strategies = ["fedavg", "fedadam", "qfedavg"]
    changes = [*changes, "privacy.noise_multiplier=4", "privacy.epsilon=1000"]
    played = play(cells(Axes([scenario], strategies, epsilons=["900"], changes=changes, seeds=1)), tmp_path)
    assert list(played.refused["strategy"]) == ["qfedavg"]
    assert re.search("mean of the updates|without losses", played.refused["reason"][0])
    (one,) = played.released
    assert (one.trainings, one.protected) == (2, "whole site")
    assert one.epsilon == epsilon([Segment(1.0, 4.0, 2 * 2)], 1e-4, relation)
    assert f"for one whole site (privacy.unit {one.units[0]}; composition" in lines_of(played)
    assert "Epsilon is that of one training, for one whole site;" in lines_of(played)


@pytest.mark.whole
def test_trainings_of_several_units_are_composed_for_one_record_that_replaces_its_sites_update(tmp_path: Path):
    """An oracle with numbers: what protects a whole site counts twice the clip for one record."""
    changes = [*QUICK, "privacy.noise_multiplier=4", "training.expected_batch=60"]
    axes = Axes(["hospital-heart"], ["fedavg"], epsilons=["900"], varied=["privacy.unit=record,client"],
                changes=changes, seeds=1)  # fmt: skip
    (one,) = play(cells(axes), tmp_path).released
    assert (list(one.units), one.protected) == (["client", "record"], "record")
    records, updates = [Segment(0.5, 4.0, 4)], [Segment(1.0, 4.0, 2)]
    assert one.epsilon == epsilon([*records, *updates], 1e-4, "replace-one")
    assert one.epsilon > epsilon([*records, *updates], 1e-4)
    assert one.epsilon > epsilon([*records, Segment(1.0, 2.0, 2)], 1e-4)  # only the sites' updates count twice


def test_whole_sites_that_are_not_the_same_sites_are_composed_for_one_record(tmp_path: Path):
    changes = [*FEW, "privacy.noise_multiplier=4"]
    axes = Axes(["synthetic-whole-sites"], ["fedavg"], epsilons=["900"], varied=["partition.sites=7,8"],
                changes=changes, seeds=1)  # fmt: skip
    played = play(cells(axes), tmp_path)
    (one,) = played.released
    assert (one.trainings, one.protected) == (2, "record")
    assert one.epsilon == epsilon([Segment(1.0, 4.0, 4)], 1e-4, "replace-one")
    assert "for one record (privacy.unit client; composition" in lines_of(played)


@pytest.mark.whole
def test_each_scenario_is_said_to_protect_its_own_unit(tmp_path: Path):
    small = {"hospital-heart": QUICK, "synthetic-whole-sites": FEW}
    axes = [
        Axes([name], ["fedavg"], epsilons=["900"], changes=[*changes, "privacy.noise_multiplier=4"], seeds=1)
        for name, changes in small.items()
    ]
    played = play([cell for one in axes for cell in cells(one)], tmp_path)
    said = lines_of(played)
    assert "Epsilon is that of one training, for one record in hospital-heart, for one whole site in synth" in said


def made_up(figures: dict[str, list[float]]) -> Played:
    """Return a tournament of one field: {strategy: pooled test value of each seed}; sites are a tenth up and down."""
    scores, curves = [], []
    for strategy, values in figures.items():
        for seed, value in enumerate(values):
            place = {"scenario": "s", "strategy": strategy, "seed": seed}
            for site, shift in ((POOLED, 0.0), ("a", 0.1), ("b", -0.1)):
                scores.append({**place, "site": site, "rows": 200, "positives": 100, "auc": value + shift})
            for number in (1, 2, 3, 4):
                curve = {
                    "scenario": "s",
                    "strategy": strategy,
                    "seed": seed,
                    "round": number,
                    "auc": value * number / 4,
                }
                curves.append(curve)
    costs = pd.DataFrame([{"scenario": "s", "strategy": name, "megabytes": 1.5} for name in figures])
    return Played(pd.DataFrame(scores), pd.DataFrame(curves), costs, pd.DataFrame())


FOLDS = {("s",): Split().overlap}
SAME_ROWS = {("s",): 0.0}


def test_ranks_groups_and_fairness_are_what_they_say():
    noise = np.array([0.0, 0.01, -0.01, 0.005])
    played = made_up({
        "worst": list(0.5 + noise[[2, 0, 1, 3]]),
        "best": list(0.8 + noise),
        "close": list(0.799 + noise[::-1]),
        "second": list(0.7 + noise[[1, 2, 3, 0]]),
    })  # fmt: skip
    table = ranking.rank(played, "auc", FOLDS, target=0.55).set_index("strategy")
    assert list(table.index) == ["best", "close", "second", "worst"]
    assert dict(table["group"]) == {"best": 1, "close": 1, "second": 2, "worst": 3}
    assert table["verdict"]["close"] == "not distinguishable"
    assert table["verdict"]["second"] == "lower"
    assert table["difference"]["second"] == pytest.approx(-0.1)
    assert table["difference_low"]["second"] < -0.1 < table["difference_high"]["second"] < 0
    assert table["worst"]["best"] == pytest.approx(np.mean(0.7 + noise))
    assert table["spread"]["best"] == pytest.approx(0.1)
    assert table["rounds"]["best"] == 3  # 0.8 * 3 / 4 = 0.6
    assert np.isnan(table["rounds"]["worst"])
    assert set(table["megabytes"]) == {1.5}
    assert (table["reached"]["best"], table["reached"]["worst"]) == (1.0, 0.0)


@pytest.mark.whole
def test_the_interval_the_verdict_and_the_groups_say_the_same():
    """In 50 tournaments of strategies that are a little apart, whose groups are found again in the pairs."""
    random, said = np.random.default_rng(3), set()
    for _ in range(50):
        figures = 0.7 + random.normal(0, 0.01, 5) + random.normal(0, 0.006, (6, 5))
        played = made_up({f"s{number}": list(column) for number, column in enumerate(figures.T)})
        ranked = ranking.rank(played, "auc", SAME_ROWS)
        pairs = ranking.pairs(played, "auc", SAME_ROWS)
        for row in ranked[1:].to_dict("records"):
            assert (row["difference_high"] < 0) == (row["verdict"] == "lower") == (row["group"] > 1)
            said.add(row["verdict"])
        told = {(one.strategy, one.other): one.verdict == "lower" for one in pairs.itertuples()}
        leaders = ranked.drop_duplicates("group")
        for row in ranked.to_dict("records"):
            for leader in leaders.to_dict("records"):
                if leader["group"] < row["group"]:
                    assert told[row["strategy"], leader["strategy"]]
                if leader["group"] == row["group"] and leader["strategy"] != row["strategy"]:
                    assert not told[row["strategy"], leader["strategy"]]
    assert said == {"lower", "not distinguishable"}


def test_with_two_seeds_nobody_is_put_lower():
    """Far apart, and nearly the same at both seeds: still no verdict, no interval, one group."""
    played = made_up({"best": [0.9, 0.901], "worst": [0.5, 0.502], "copy": [0.9, 0.901]})
    table = ranking.rank(played, "auc", SAME_ROWS)
    assert set(table["group"]) == {1}
    assert table[["low", "high", "difference_low", "difference_high", "verdict"]].isna().all().all()
    assert "It takes 3 seeds" in " ".join(tournament_files.lines(played, table, ["scenario", "strategy"], "auc", 2))


def test_a_difference_that_never_varies_is_no_certainty_and_copies_share_a_group():
    played = made_up({
        "best": [0.8, 0.82, 0.81, 0.8],
        "copy": [0.8, 0.82, 0.81, 0.8],
        "below": [0.7, 0.72, 0.71, 0.7],
        "far": [0.51, 0.5, 0.52, 0.5],
    })  # fmt: skip
    table = ranking.rank(played, "auc", SAME_ROWS).set_index("strategy")
    assert dict(table["group"]) == {"best": 1, "copy": 1, "below": 1, "far": 2}
    assert table["verdict"]["copy"] == "not distinguishable"
    assert pd.isna(table["verdict"]["below"])
    assert table.loc[["copy", "below"], ["difference_low", "difference_high"]].isna().all().all()
    said = " ".join(tournament_files.lines(played, table.reset_index(), ["scenario", "strategy"], "auc", 4))
    assert said.count("No verdict: s, below: the difference to the best is −0.100 and does not vary") == 1
    assert said.count("No verdict") == 1
    _, rows = tournament_files._cells(table.reset_index(), ["strategy"], "auc")
    assert [row[3] for row in rows] == ["–", "0.000", "−0.100", "−0.300 ± 0.044"]


def test_what_all_seeds_share_is_said_of_the_scenario_where_it_is_so():
    """The page speaks of training again on the same rows, or of other records."""
    table = ranking.rank(made_up({"a": [0.8, 0.7, 0.9], "b": [0.7, 0.8, 0.75]}), "auc", SAME_ROWS)
    other = ranking.rank(made_up({"a": [0.8, 0.7, 0.9], "b": [0.7, 0.8, 0.75]}), "auc", FOLDS).assign(scenario="t")
    nothing = Played(pd.DataFrame(), pd.DataFrame(), pd.DataFrame(), pd.DataFrame())

    def said(ranked: pd.DataFrame) -> str:
        return " ".join(tournament_files.lines(nothing, ranked, ["scenario", "strategy"], "auc", 3))

    assert "All seeds have the same rows" in said(table)
    assert "Each seed tests other rows" in said(other)
    assert "same rows" not in said(other)
    both = said(pd.concat([other, table]))
    assert "All seeds of s have the same rows" in both
    assert "Each seed of the others tests other rows" in both


def test_three_seeds_that_differ_by_the_same_row_are_no_certainty():
    """Ten strategies of accuracy on 183 to 185 test rows, up to four rows apart; copies two by two."""
    rows = np.array([183, 184, 185])
    played = made_up({f"s{number}": list((160 - number // 2) / rows) for number in range(10)})
    scores = played.scores.rename(columns={"auc": "accuracy"})
    scores["rows"] = scores["seed"].map(dict(enumerate(rows)))
    played = Played(scores, played.curves, played.costs, played.refused)
    table = ranking.rank(played, "accuracy", SAME_ROWS)
    assert set(table["group"]) == {1}
    error = np.sqrt((np.std(4 / rows, ddof=1) ** 2 + 1 / 183**2 / 6) / 3)
    reach = table["difference_high"].iloc[-1] - table["difference"].iloc[-1]
    assert reach == pytest.approx(t.ppf(1 - 0.025 / 45, 2) * error)


def test_a_step_of_the_auc_is_one_pair_of_rows():
    played = made_up({"a": [0.8, 0.81, 0.8], "b": [0.7, 0.71, 0.72]})
    (field,) = ranking._fields(played, "auc", FOLDS)
    assert field.step == pytest.approx(1 / (100 * 100))


def test_each_field_has_the_overlap_of_its_own_scenario():
    """The first scenario of a tournament does not decide for the others."""
    grid = cells(Axes(["hospital-heart", "bank-volatility"], ["fedavg", "median"], varied=["split.test=0.1,0.2"]))
    assert ranking.overlaps_of(grid) == {
        ("hospital-heart", "none", "none", "0.1"): pytest.approx(0.1 / 0.7),
        ("hospital-heart", "none", "none", "0.2"): pytest.approx(0.2 / 0.6),
        ("bank-volatility", "none", "none", "0.1"): 0.0,
        ("bank-volatility", "none", "none", "0.2"): 0.0,
    }


def test_a_strategy_that_failed_at_a_later_seed_does_not_compete():
    """It has scores of the seeds before, but no costs; else it could lead unseen, and all others be told from it."""
    played = made_up({"best": [0.8, 0.82, 0.81], "other": [0.8, 0.81, 0.82], "failed": [0.99, 0.98, 0.99]})
    costs = played.costs[played.costs["strategy"] != "failed"]
    table = ranking.rank(Played(played.scores, played.curves, costs, played.refused), "auc", FOLDS)
    assert list(table["strategy"]) == ["best", "other"]
    assert set(table["group"]) == {1}


def test_one_strategy_alone_has_a_rank_and_no_pair():
    played = made_up({"alone": [0.8, 0.82, 0.81]})
    assert list(ranking.rank(played, "auc", FOLDS)["group"]) == [1]
    assert ranking.pairs(played, "auc", FOLDS).empty


def test_time_to_the_target_is_counted_where_sites_differ_in_speed():
    played = made_up({"waits": [0.8] * 3, "goes on": [0.79] * 3})
    took = {"waits": [7.0, 8.0, 12.0], "goes on": [1.0, 2.0, 3.0]}
    played.curves["time"] = [took[one.strategy][one.seed] * one.round for one in played.curves.itertuples()]
    table = ranking.rank(played, "auc", FOLDS, target=0.55).set_index("strategy")
    assert dict(table["rounds"]) == {"waits": 3, "goes on": 3}
    assert dict(table["time"]) == {"waits": 24.0, "goes on": 6.0}
    heads, rows = tournament_files._cells(table.reset_index(), ["strategy"], "auc")
    assert heads[-2:] == ["rounds", "time"]
    assert [row[-2:] for row in rows] == [["3", "24"], ["3", "6"]]


def test_bytes_are_models_there_and_back_and_what_the_server_tells():
    grid = cells(Axes(["hospital-heart"], ["fedavg", "scaffold"], changes=QUICK))
    costs = [tournament._megabytes(cell) for cell in grid]
    assert costs == [2 * 4 * 2 * 4 * 31 / 1e6, 2 * 4 * 3 * 4 * 31 / 1e6]


def test_a_metric_that_is_not_there_is_named():
    with pytest.raises(Mistake, match="--metric: expected one of auc, accuracy, got 'f1'"):
        ranking.metric_of(read("hospital-heart"), "f1")


@pytest.mark.whole
def test_the_command_prints_ranks_and_leaves_files(fedsim, tmp_path: Path):
    words = ["compare", "hospital-heart", "--strategy", "fedavg,median,krum", "--attack", "none,sign-flip:factor=3"]
    words += ["--seeds", "2", "--set", "training.rounds=2", "--out", "here", "--target", "0.6"]
    code, out, err = fedsim(*words)
    assert (code, err) == (0, "")
    assert re.search(r"sign-flip:factor=3 +median +\d", out)
    assert "No figures: hospital-heart, krum: strategy krum: Krum: expected n >= 2 f + 3 = 5 updates" in out
    names = {path.name for path in (tmp_path / "here").iterdir()}
    assert names == {
        "ranks.csv", "pairs.csv", "scores.csv", "curves.csv", "tournament.json", "tournament.html", "attack.png",
    }  # fmt: skip
    assert (tmp_path / "here" / "attack.png").read_bytes().startswith(b"\x89PNG")
    page = (tmp_path / "here" / "tournament.html").read_text()
    assert page.count("data:image/png;base64,") == 1
    assert not re.search(r"https?://", page)
    assert len(pd.read_csv(tmp_path / "here" / "ranks.csv")) == 4
    code, out, _ = fedsim(*words, "--json")
    document = json.loads(out)
    assert document == {"out": "here", **json.loads((tmp_path / "here" / "tournament.json").read_text())}
    assert len(document["ranks"]) == 4
    assert len(document["refused"]) == 2


def test_nothing_at_all_that_can_be_run_is_a_mistake(fedsim):
    code, out, err = fedsim("compare", "hospital-heart", "--strategy", "krum", "--seeds", "1")
    assert (code, out) == (2, "")
    assert "expected n >= 2 f + 3" in err


@pytest.mark.whole
def test_the_tutorial_goes_from_an_empty_file_to_a_table_in_two_commands(fedsim, tmp_path: Path):
    """The file and the two commands are those of docs/strategies.md."""
    text = (ROOT / "docs" / "strategies.md").read_text("utf-8")
    code = re.search(r"```python\n(# my_strategy.py\n.*?)```", text, re.DOTALL)[1]  # type: ignore[index]
    assert len([line for line in code.splitlines() if line.strip()]) <= 25
    (tmp_path / "my_strategy.py").write_text(code)
    check, compare = re.search(r"```sh\nfedsim (check .*)\nfedsim (compare .*)\n```", text).groups()  # type: ignore[union-attr]
    code, out, err = fedsim(*check.split())
    assert (code, err) == (0, "")
    assert "keeps all of what every strategy must keep" in out
    code, out, err = fedsim(*compare.split(), "--set", "training.rounds=3")
    assert (code, err) == (0, "")
    assert re.search(r"sign-flip \(own\) +my_strategy.py:factor=0.5 +\d ", out)
    assert re.search(r"sign-flip \(own\) +fedavg +\d ", out)


def test_check_says_what_a_strategy_breaks(fedsim, tmp_path: Path):
    (tmp_path / "rash.py").write_text(
        "import torch\nclass Rash:\n    def aggregate(self, center, updates, weights, state):\n"
        "        updates[0] = 0\n        return updates[-1] + torch.rand(()), {}\n"
    )
    code, out, _ = fedsim("check", "rash.py", "--json")
    found = json.loads(out)
    broken = {one["name"] for one in found["checks"] if one["required"] and not one["holds"]}
    assert (code, found["passes"]) == (1, False)
    assert broken == {
        "It is a frozen dataclass", "What comes in is left as it was", "The same updates give the same model twice",
        "The order of the sites does not matter", "Its state survives save and load",
    }  # fmt: skip
    code, out, _ = fedsim("check", "rash.py")
    assert (code, "breaks 5 of what every strategy must keep" in out) == (1, True)


@pytest.mark.parametrize(
    ("body", "broken"),
    [
        ("return center.double(), state", "The new model has the old one's shape and type, and finite numbers"),
        ("return center[:3], state", "The new model has the old one's shape and type, and finite numbers"),
        (
            "return updates.nan_to_num(1e9).mean(0), state",
            "A NaN in one update is kept out or can be seen; the server stops",
        ),
        ("raise ValueError('too few')", "One update is enough, or a ValueError says how many are needed"),
        ("return updates[0], {**state, 'n': state.get('n', center * 0) + 1}", "The order of the sites does not matter"),
        ("return center / 0 * 0, state", "The new model has the old one's shape and type, and finite numbers"),
    ],
)
def test_every_guard_of_the_contract_can_fail(body: str, broken: str):
    space: dict = {}
    exec(
        "from dataclasses import dataclass\n@dataclass(frozen=True)\nclass Odd:\n"
        f"    def aggregate(self, center, updates, weights, state):\n        {body}\n",
        space,
    )
    found = [one.name for one in examine(space["Odd"]()) if one.required and not one.holds]
    assert any(name.startswith(broken) for name in found), found


def test_the_order_is_that_of_the_validation_figures():
    """Test rows choose nothing: the second on validation rows is second, whatever its test figure is."""
    place = {"scenario": "made", "epsilon": "none"}
    scores, curves, costs = [], [], []
    for strategy, validated, tested in (("a", 0.7, 0.9), ("b", 0.8, 0.6)):
        costs.append({**place, "strategy": strategy, "megabytes": 1.0})
        for seed in range(3):
            row = {**place, "strategy": strategy, "seed": seed}
            for site in (HEADLINE, POOLED, "x"):
                scores.append({**row, "site": site, "rows": 100, "positives": 50, "auc": tested + seed / 100})
            curves.append({**row, "round": 1, "auc": 1.0 - validated})
            curves.append({**row, "round": 2, "auc": validated})
    played = Played(*map(pd.DataFrame, (scores, curves, costs)), refused=pd.DataFrame())
    ranked = ranking.rank(played, "auc", {("made", "none"): 0.25})
    assert ranked["strategy"].tolist() == ["b", "a"]
    assert ranked["validation"].tolist() == pytest.approx([0.8, 0.7])
    without = Played(played.scores, played.curves[["scenario", "epsilon", "strategy", "seed", "round"]], played.costs,
                     played.refused)  # fmt: skip
    assert ranking.rank(without, "auc", {("made", "none"): 0.25})["strategy"].tolist() == ["a", "b"]


def test_the_other_arms_compete_too_and_are_trained_once_for_all_strategies(tmp_path: Path):
    axes = Axes(["hospital-heart"], ["fedavg", "median"], changes=QUICK, seeds=1, arms=["federated", "local"])
    grid = cells(axes)
    assert [cell.place["strategy"] for cell in grid] == ["fedavg", "median", "(local)"]
    played = play(grid, tmp_path)
    assert len(list(tmp_path.glob("*.json"))) == 3
    sent = dict(zip(played.costs["strategy"], played.costs["megabytes"], strict=True))
    assert sent["(local)"] == 0 < sent["fedavg"]
    trained = run_job(grid[2].scenario, Job("local", False, 0), lambda number: None)
    own = played.scores[played.scores["strategy"] == "(local)"]
    assert own["auc"].tolist() == pytest.approx(trained.scores["auc"].tolist(), nan_ok=True)


def test_a_strategy_without_the_arm_that_has_one_is_refused(fedsim):
    code, _, err = fedsim("compare", "hospital-heart", "--strategy", "krum", "--arms", "local")
    assert code == 2
    assert "--strategy krum: expected the federated arm among --arms" in err
    code, _, err = fedsim("compare", "hospital-heart", "--arms", "federated,everyone")
    assert code == 2
    assert "--arms: expected some of federated, centralized, local, each once, got 'federated,everyone'" in err


@pytest.mark.whole
def test_the_page_says_how_to_make_it_again(fedsim, tmp_path: Path):
    axes = Axes(
        ["hospital-heart"], ["fedavg", "krum:f=1"], ["none"], ["8"], ["attack.share=0.1,0.2"], QUICK, 2, ["local"]
    )
    assert tournament.command_of(axes, "auc", 0.8) == (
        "fedsim compare hospital-heart --strategy fedavg,krum:f=1 --attack none --epsilon 8 "
        "--vary attack.share=0.1,0.2 --set training.rounds=2 --set privacy.epsilon=1 --arms local --seeds 2 "
        "--metric auc --reach 0.8"
    )
    code, *_ = fedsim("compare", "hospital-heart", "--set", "training.rounds=1", "--seeds", "1", "--out", "here")
    assert code == 0
    page = (tmp_path / "here" / "tournament.html").read_text()
    assert "<pre>fedsim compare hospital-heart --strategy fedavg --attack own --epsilon none" in page
