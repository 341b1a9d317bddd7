import pandas as pd
import pytest

from fedsim.experiments.tournament_findings import column_meanings, winners

AXES = ["scenario", "epsilon", "strategy"]


def ranked(*rows: tuple[str, str, int, float], validation: float = 0.5) -> pd.DataFrame:
    """Ranks of one scenario: epsilon, strategy, group and mean, in the order of the validation figures."""
    table = pd.DataFrame(rows, columns=["epsilon", "strategy", "group", "mean"])
    verdict = ["lower" if group > 1 else None for group in table["group"]]
    return table.assign(scenario="made", validation=validation, verdict=verdict)


def said(table: pd.DataFrame, seeds: int = 3) -> list[str]:
    return list(winners(table, AXES, "auc", seeds))


def test_one_strategy_wins_only_where_it_is_told_apart_from_all_others():
    table = ranked(("8", "krum", 1, 0.9), ("8", "median", 2, 0.8), ("8", "fedavg", 2, 0.7))
    assert said(table) == ["krum wins: with AUC 0.900 on test rows it is told apart from all others."]


def test_those_in_the_leaders_group_are_named_and_so_are_the_others():
    table = ranked(("8", "a", 1, 0.9), ("8", "b", 2, 0.8), ("8", "c", 1, 0.7))
    assert said(table) == [
        "a has the highest validation figure (AUC 0.900 on test rows); c cannot be told apart from it, and b is told "
        "to be lower."
    ]


def test_without_validation_rows_it_is_said_that_test_rows_chose():
    table = ranked(("8", "a", 1, 0.9), ("8", "c", 1, 0.7), validation=float("nan"))
    assert said(table)[0].startswith("a has the highest test figure")


def test_who_is_higher_on_test_rows_than_the_first_is_named():
    table = ranked(("8", "a", 1, 0.7), ("8", "b", 1, 0.9))
    table.loc[1, "verdict"] = "higher"
    assert said(table) == [
        "a has the highest validation figure (AUC 0.700 on test rows), but b is told to be higher on test rows, so "
        "there is no winner."
    ]


@pytest.mark.parametrize("seeds", [1, 2])
def test_there_is_no_winner_with_fewer_than_three_seeds(seeds: int):
    table = ranked(("8", "a", 1, 0.9), ("8", "b", 1, 0.8))
    assert "no winner; take 3 or more" in said(table, seeds)[0]


def test_there_is_no_winner_in_one_group_nor_alone():
    assert "no winner" in said(ranked(("8", "a", 1, 0.9), ("8", "b", 1, 0.8)))[0]
    assert "ran alone" in said(ranked(("8", "a", 1, 0.9)))[0]


def test_each_field_has_a_sentence_with_the_values_that_vary():
    table = ranked(("none", "a", 1, 0.9), ("none", "b", 2, 0.8), ("8", "b", 1, 0.7), ("8", "a", 2, 0.6))
    without, private = said(table)
    assert without.startswith("With no privacy: a wins")
    assert private.startswith("With epsilon 8: b wins")


def test_every_column_of_figures_has_a_meaning():
    heads = ["epsilon", "strategy", "group", "auc", "vs. first", "worst", "spread", "MB", "rounds", "time"]
    assert [name for name, _ in column_meanings(heads, "auc", 3)] == heads[2:]
