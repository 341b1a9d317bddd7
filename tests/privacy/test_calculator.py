import json
import sys

import numpy as np
import pytest

from fedsim.cli import commands as cli


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


@pytest.mark.whole
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
        ("--q .1 --steps 10 --delta 1e-5", "expected --noise-multiplier or --epsilon, got neither"),
        ("--q .1 --sigma 1 --epsilon 1 --steps 10 --delta 1e-5", "expected --noise-multiplier or --epsilon, got both"),
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


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--q .01 --epsilon 1e6 --steps 100 --delta 1e-5", "epsilon: expected at most 2000, above which nothing"),
        (
            "--q .01 --epsilon 1 --steps 100 --delta 1e-5 --neighbours auto",
            "add-or-remove-one or replace-one, got 'auto'",
        ),
        (
            "--q 1 --epsilon 1 --steps 100 --delta 1e-5 --neighbours auto",
            "add-or-remove-one or replace-one, got 'auto'",
        ),
        ("--q 1 --sigma 1e-200 --steps 1 --delta 1e-5", "noise_multiplier: expected a number from 1e-12 to 1e+12"),
        ("--q 1 --sigma 1e200 --steps 1 --delta 1e-5", "noise_multiplier: expected a number from 1e-12 to 1e+12"),
        ("--q 1e-300 --sigma 1 --steps 1 --delta 1e-5", "sampling_rate: expected at least 1e-12, got 1e-300"),
        (
            f"--q 1 --sigma 1 --steps 1{400 * '0'} --delta 1e-5",
            "steps: expected at most 2^53, got a number of more than",
        ),
    ],
)
def test_what_ended_in_a_traceback_is_one_line_now(monkeypatch, capsys, words: str, message: str):
    code, out, err = ask(monkeypatch, capsys, words)
    assert (code, out) == (2, "")
    assert message in err
    assert len(err.splitlines()) == 1


ODD = {
    "--q": ["0", "-1", "nan", "inf", "1e308", "1e-320", "1", "0.5", "1.0000001", "many"],
    "--sigma": ["0", "-1", "nan", "inf", "1e308", "1e-320", "1", "1e-12", "1e12", "4", "much"],
    "--epsilon": ["0", "-1", "nan", "inf", "1e308", "1e-320", "1", "2000", "2001", "0.01", "much"],
    "--steps": ["0", "-1", "nan", "inf", "1.5", "1", "90", str(2**53), str(2**53 + 1), "9" * 300, "9" * 5000, "ten"],
    "--delta": ["0", "-1", "nan", "inf", "1e308", "1e-320", "1e-12", "1e-5", "0.5", "0.9999999999999999", "1", "no"],
    "--neighbours": ["auto", "add-or-remove-one", "replace-one", "", "ADD-OR-REMOVE-ONE", "7"],
    "--runs": ["0", "-1", "nan", "1", "3", "9" * 300, "-" + "9" * 4000, "two"],
}
PLAIN = {"--q": "0.5", "--sigma": "4", "--steps": "10", "--delta": "1e-5", "--neighbours": "add-or-remove-one"}


def odd_questions() -> list[list[str]]:
    """Return every odd value alone, for a noise and for an epsilon, and 300 questions odd in several places."""
    questions = [{**PLAIN, name: value} for name, values in ODD.items() for value in values if name != "--epsilon"]
    aimed = {name: value for name, value in PLAIN.items() if name != "--sigma"} | {"--epsilon": "1", "--q": "1"}
    questions += [{**aimed, name: value} for name, values in ODD.items() for value in values if name != "--sigma"]
    random = np.random.default_rng(11)
    for _ in range(300):
        question = dict(PLAIN if random.random() < 0.5 else aimed)
        for name in random.choice([*ODD], random.integers(2, 6), replace=False):
            question[str(name)] = str(random.choice(ODD[str(name)]))
        questions.append(question)
    return [[f"{name}={value}" for name, value in question.items()] for question in questions]


@pytest.mark.whole
def test_no_question_ends_in_a_traceback(monkeypatch, capsys):
    """A few hundred odd ones: an answer, or words on what was expected; nothing else, and none takes long."""
    complaints = 0
    for words in odd_questions():
        monkeypatch.setattr(sys, "argv", ["fedsim", "privacy", *words])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        printed = capsys.readouterr()
        code = stop.value.code or 0
        assert code in (0, 2), words
        assert "Traceback" not in printed.out + printed.err, words
        assert "nan" not in printed.out, words
        if code == 0:
            assert printed.out.startswith("epsilon"), words
            continue
        assert printed.out == "", words
        if "Usage:" not in printed.err:  # which words typer itself does not take
            assert len(printed.err.splitlines()) == 1, (words, printed.err)
            assert "expected" in printed.err or "needs more noise" in printed.err, (words, printed.err)
            complaints += 1
    assert complaints > 200
