import json
import sys

import pytest

from fedsim import cli


def ask(monkeypatch, capsys, words: str) -> tuple[int, str, str]:
    """Run ``fedsim privacy``; return the exit code, what it printed, and what it complained of."""
    monkeypatch.setattr(sys, "argv", ["fedsim", "privacy", *words.split()])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    printed = capsys.readouterr()
    return int(stop.value.code or 0), printed.out, printed.err


def test_epsilon_of_a_noise_as_json(monkeypatch, capsys):
    code, out, _ = ask(monkeypatch, capsys, "--q .01 --sigma 1 --steps 1000 --delta 1e-5 --json")
    found = json.loads(out)
    assert code == 0
    assert found["epsilon"] == pytest.approx(1.828244, abs=1e-3)
    assert (found["delta"], found["neighbours"]) == (1e-5, "add-or-remove-one")
    assert "PLD" in found["accountant"]
    assert (found["sampling_rate"], found["noise_multiplier"], found["steps"]) == (0.01, 1.0, 1000)


def test_noise_of_an_epsilon_as_json(monkeypatch, capsys):
    _, out, _ = ask(monkeypatch, capsys, "--q .05 --epsilon 2 --steps 400 --delta 1e-5 --json")
    found = json.loads(out)
    assert found["noise_multiplier"] == pytest.approx(2.1875, rel=1e-3)
    assert found["target_epsilon"] - 0.02 <= found["epsilon"] <= found["target_epsilon"] == 2


def test_the_relation_is_asked_for(monkeypatch, capsys):
    words = "--q 1 --sigma 10 --steps 100 --delta 1e-5 --neighbours replace-one --json"
    assert json.loads(ask(monkeypatch, capsys, words)[1])["epsilon"] == pytest.approx(9.997, abs=1e-3)


def test_the_answer_fits_into_80_columns(monkeypatch, capsys):
    _, out, _ = ask(monkeypatch, capsys, "--q .01 --sigma 1 --steps 1000 --delta 1e-5")
    assert out.startswith("epsilon           1.82824  (an upper bound)\n")
    assert max(len(line) for line in out.splitlines()) <= 80


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--q .1 --steps 10 --delta 1e-5", "expected --sigma or --epsilon, got neither"),
        ("--q .1 --sigma 1 --epsilon 1 --steps 10 --delta 1e-5", "expected --sigma or --epsilon, got both"),
        ("--q 1.5 --sigma 1 --steps 10 --delta 1e-5", "sampling_rate: expected a number in (0, 1], got 1.5"),
        ("--q .1 --sigma nan --steps 10 --delta 1e-5", "noise_multiplier: expected a finite number > 0, got nan"),
        ("--q .1 --sigma 1 --steps 0 --delta 1e-5", "steps: expected a whole number >= 1, got 0"),
        ("--q .1 --epsilon 1 --steps 0 --delta 1e-5", "steps: expected a whole number >= 1, got 0"),
        ("--q .1 --epsilon 1 --steps 10 --delta 0", "delta: expected a number from 1e-12 to below 1, got 0"),
        ("--q .1 --sigma 1 --steps 10 --delta 1", "delta: expected a number from 1e-12 to below 1, got 1"),
        ("--q .5 --sigma .3 --steps 100000 --delta 1e-5", "promises something, got an epsilon above 2000"),
        ("--q .1 --sigma 1 --steps 10 --delta 1e-5 --neighbours both", "add-or-remove-one or replace-one, got 'both'"),
    ],
)
def test_a_nonsense_question_ends_in_one_line(monkeypatch, capsys, words: str, message: str):
    code, out, err = ask(monkeypatch, capsys, words)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert message in err
