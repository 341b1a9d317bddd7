"""The table of what leaves each site says what was counted, and what protects it."""

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from fedsim.flower.traffic import DOWN, UP
from fedsim.report.leaving import table
from fedsim.results.run_directory import Run
from tests.runs import make_run

SENT = {"arm": "federated", "message": "train", "messages": 6, "rounds": 3, "most": 100}


@pytest.fixture
def run(tmp_path: Path) -> Run:
    rows = []
    for private, seed in ((False, 0), (False, 1), (True, 0), (True, 1)):
        training = SENT | {"private": private, "seed": seed, "bytes": 600 + seed}
        rows.append(training | {"direction": UP, "record": "arrays", "fields": "weight"})
        rows.append(training | {"direction": DOWN, "record": "arrays", "fields": "weight"})
    return replace(make_run(tmp_path), traffic=pd.DataFrame(rows))


def test_sizes_are_a_mean_over_trainings_and_the_largest_message(run: Run) -> None:
    first = table.lines(run)[0]
    assert (first.direction, first.training) == (UP, table.PRIVATE)
    assert first.in_all == 600.5
    assert first.in_a_round == 100
    assert first.messages == 6


def test_the_control_is_that_of_the_ledger_and_of_private_trainings_only(run: Run) -> None:
    control = {line.training: line.control for line in table.lines(run) if line.direction == UP}
    assert "clip 1" in control[table.PRIVATE]
    assert "1.866" in control[table.PRIVATE]
    assert control[table.PLAIN] == "none"


def test_a_run_that_was_not_counted_says_so(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    assert table.lines(run) == []
    assert table.why_none(run) == table.NOT_COUNTED
    assert table.why_none(make_run(tmp_path, arms=["local"])) == table.NO_MESSAGES


def test_the_pool_gets_every_row(run: Run) -> None:
    assert any("every training row" in line for line in table.beside(run))


def test_masks_hide_the_model_of_a_site(run: Run) -> None:
    assert run.traffic is not None
    masked = run.traffic.assign(record=run.traffic["record"].where(run.traffic["direction"] == DOWN, "masked"))
    sent = next(line for line in table.lines(replace(run, traffic=masked)) if line.direction == UP)
    assert "nobody alone" in sent.seen_by
    assert "masks" in sent.control
