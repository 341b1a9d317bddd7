"""A real site: what it gives to whom, how often, and what of its rows leaves."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import tomli_w
import torch
from flwr.app import ConfigRecord, Context, Message, RecordDict

from fedsim.data import real_sites
from fedsim.experiments.server_side import run_config
from fedsim.flower.grid import OF_A_SIMULATION, sent
from fedsim.flower.real_grid import TRAINING
from fedsim.flower.records import ARRAYS, CONFIG, MECHANISM, METRICS, Flat, Layout, flatten
from fedsim.mistakes import Mistake
from fedsim.planning.trial import Trial
from fedsim.privacy.accounting import Segment, epsilon
from fedsim.scenario.schema import Scenario
from fedsim.site import own_ledger, real
from tests.real_sites import FREE, PLAIN, POLICY, PRIVATE, scenario, settle, through_bytes

SITE = "cleveland"
FAILED = "the site could not answer, its log says why"
EXACT_MEMORY = ('strategy={name="scaffold"}', "training.local_steps=1", "training.sampling_rate=1.0")
TOKEN = "f" * 32


@pytest.fixture
def sites(tmp_path: Path) -> Path:
    return settle(tmp_path, POLICY, [SITE])


def allow(folder: Path, **changes: Any) -> None:
    (folder / SITE / "site-policy.toml").write_text(tomli_w.dumps({**POLICY, **changes}))


def message(
    told: Scenario, number: int = 1, token: str = TOKEN, what: str = "train", shift: float = 0.0, **more: Any
) -> Message:
    trial = Trial(told, 0, "federated")
    record: dict[str, Any] = {"training": token, **run_config(trial), **more}
    content = RecordDict({
        ARRAYS: Flat(trial.start + shift, Layout.of(trial.model)),
        CONFIG: ConfigRecord({"server-round": number, "part": "test"}),
        TRAINING: ConfigRecord({key: value for key, value in record.items() if value is not None}),
    })  # fmt: skip
    with OF_A_SIMULATION.taken():
        return sent(Message(content, 2, what), number)


def ask(folder: Path, asked: Message, **config: str) -> Message:
    node = {"site": SITE, "data": str(folder / SITE / "rows.csv"), **config}
    return through_bytes(real.app(through_bytes(asked), Context(1, 2, node, RecordDict(), {})))


def refused(reply: Message) -> str:
    assert reply.has_error()
    return reply.error.reason


def lines(folder: Path) -> list[dict[str, Any]]:
    text = (folder / SITE / "fedsim-ledger" / own_ledger.NAME).read_text()
    return [json.loads(line) for line in text.splitlines()[1:]]


def model_in(reply: Message) -> torch.Tensor:
    return flatten(reply.content[ARRAYS])  # type: ignore[arg-type]


def test_what_leaves_is_noisy_charged_and_nothing_else(sites: Path):
    reply = ask(sites, message(scenario(*PRIVATE)))
    assert set(reply.content) == {ARRAYS, METRICS, MECHANISM}
    assert dict(reply.content[METRICS]) == {"num-examples": 90.0}  # public
    (line,) = lines(sites)
    assert line["mechanism"] == dict(reply.content[MECHANISM])
    assert line["mechanism"]["rng"] == "secure"
    assert (line["training"], line["round"], line["what"]) == (TOKEN, 1, "train")


def test_it_is_charged_before_a_row_is_read(sites: Path, monkeypatch: pytest.MonkeyPatch):
    def fails(*_: object) -> None:
        assert len(lines(sites)) == 1
        raise MemoryError

    monkeypatch.setattr(real_sites, "own_site", fails)
    assert refused(ask(sites, message(scenario(*PRIVATE)))) == FAILED
    assert len(lines(sites)) == 1


def test_a_round_is_answered_once(sites: Path):
    """The same message gets the very same answer, in another process, too; another one gets none."""
    asked = message(scenario(*PRIVATE))
    first = ask(sites, asked)
    again = ask(sites, asked)
    assert torch.equal(model_in(first), model_in(again))
    other = refused(ask(sites, message(scenario(*PRIVATE), shift=0.1)))
    assert "refused by the site: round 1 of this training was asked for before, on 20" in other
    assert "a round is answered once" in other
    assert len(lines(sites)) == 1


@pytest.mark.whole
def test_a_failure_is_the_answer_and_is_not_tried_again(sites: Path, monkeypatch: pytest.MonkeyPatch):
    asked = message(scenario(*PRIVATE))
    with monkeypatch.context() as patched:
        patched.setattr(real_sites, "own_site", lambda *_: 1 / 0)
        assert refused(ask(sites, asked)) == FAILED
    assert refused(ask(sites, asked)) == FAILED
    assert not ask(sites, message(scenario(*PRIVATE), 2)).has_error()


def test_a_training_goes_on_as_it_began(sites: Path):
    """Else what a site remembers of one unit, which is exact, would leave under another."""
    ask(sites, message(scenario(*PRIVATE, *EXACT_MEMORY, "privacy.unit=local"), 1))
    for changes in (("privacy.unit=record", "privacy.clip=1e-12"), ("training.optimizer.lr=0.3", "privacy.unit=local")):
        reason = refused(ask(sites, message(scenario(*PRIVATE, *EXACT_MEMORY, *changes), 2)))
        assert "expected the scenario, seed and noise with which this training began" in reason
    assert len(lines(sites)) == 1


@pytest.mark.parametrize("value", [math.nan, math.inf, -1e30, 1.1e6])
def test_models_that_could_fail_or_overflow_by_what_the_rows_are_are_refused(sites: Path, value: float):
    asked = message(scenario(*PRIVATE), shift=value)
    assert "arrays: expected numbers from -1e+06 to 1e+06" in refused(ask(sites, asked))
    assert lines(sites) == []


def test_noise_that_float32_would_lose_can_not_be_asked_for():
    with pytest.raises(Mistake, match=r"privacy\.clip: expected a number >= 1e-12"):
        scenario(*PRIVATE, "privacy.clip=1e-40")


@pytest.mark.whole
def test_the_trial_of_a_model_does_not_look_at_rows(sites: Path):
    """Opacus is tried on made-up rows and targets, with public parameters: whether it fails tells no label."""
    told = scenario(*PRIVATE, "task=hospital/heart-network")
    for label in (0, 1):
        path = sites / SITE / "rows.csv"
        rows = pd.read_csv(path)
        rows["target"] = label
        rows.to_csv(path, index=False)
        trial = Trial(told, 0, "federated")
        start = torch.zeros_like(trial.start)
        start[-65:] = 1e6  # so that the outputs are far beyond what a sigmoid tells apart
        asked = message(told, token=f"{label}" * 32)
        asked.content[ARRAYS] = Flat(start, Layout.of(trial.model))
        assert not ask(sites, asked).has_error()


def test_trainings_and_rounds_are_counted(sites: Path):
    told = scenario(*PRIVATE)
    allow(sites, most_trainings=1, most_rounds=3)
    assert not ask(sites, message(told)).has_error()
    assert "at most the 1 trainings" in refused(ask(sites, message(told, token="a" * 32)))
    allow(sites, most_rounds=2)
    assert "training.rounds: expected at most 2, got 3" in refused(ask(sites, message(told, 2)))
    allow(sites, most_steps=1)
    assert "training.local_steps: expected at most 1, got 2" in refused(ask(sites, message(told, 2)))


@pytest.mark.whole
def test_a_claim_for_replaced_rows_has_to_fit_as_such(sites: Path):
    """Though the policy asks for rows that come or go only."""
    allow(sites, epsilon=epsilon([Segment(0.5, 3.0, 6)], 1e-4) + 1e-6)
    wider = epsilon([Segment(0.5, 3.0, 6)], 1e-4, "replace-one")
    reason = refused(ask(sites, message(scenario(*PRIVATE, "privacy.neighbours=replace-one"))))
    assert f"its 3 rounds would take this site's epsilon to {wider:.4g}" in reason


def test_an_answer_that_has_left_is_not_made_anew(sites: Path):
    told = scenario(*PRIVATE)
    ask(sites, message(told, 1))
    ask(sites, message(told, 2))
    assert "round 1 of this training was answered on" in refused(ask(sites, message(told, 1)))
    assert [line["round"] for line in lines(sites)] == [1, 2]


def test_what_was_charged_and_never_left_is_done_without_another_charge(sites: Path, monkeypatch: pytest.MonkeyPatch):
    """As when the site loses power in the middle of its work."""
    asked = message(scenario(*PRIVATE))
    with monkeypatch.context() as patched:
        patched.setattr(real.OwnLedger, "keep", lambda *_: (_ for _ in ()).throw(OSError("no space")))
        assert ask(sites, asked).has_error()
    assert not ask(sites, asked).has_error()
    assert len(lines(sites)) == 1


@pytest.mark.whole
def test_another_training_is_charged_on_top(sites: Path):
    told = scenario(*PRIVATE)
    for token in "ab":
        assert not ask(sites, message(told, token=token * 32)).has_error()
    with own_ledger.opened(sites / SITE / "fedsim-ledger", SITE) as ledger:
        assert ledger.epsilon(1e-4, "add-or-remove-one") == epsilon([Segment(0.5, 3.0, 4)], 1e-4)


@pytest.mark.whole
def test_the_budget_is_the_sites_and_does_not_come_back(sites: Path):
    """Whatever the scenario promises; a training that does not fit in whole is not begun."""
    told = scenario(*PRIVATE)
    one_training = epsilon([Segment(0.5, 3.0, 6)], 1e-4)
    allow(sites, epsilon=one_training + 1e-6)
    for number in (1, 2, 3):
        assert not ask(sites, message(told, number)).has_error()
    reason = refused(ask(sites, message(told, token="a" * 32)))
    assert f"its 3 rounds would take this site's epsilon to {epsilon([Segment(0.5, 3.0, 12)], 1e-4):.4g}" in reason
    assert f"where {one_training + 1e-6:g} is allowed and {one_training:.4g} spent" in reason
    assert len(lines(sites)) == 3

    allow(sites, epsilon=one_training - 1e-6)
    assert "its 3 rounds" in refused(ask(sites, message(told, token="b" * 32)))


@pytest.mark.whole
def test_a_server_that_asks_for_more_rounds_than_it_said_is_stopped_by_the_budget(sites: Path):
    told = scenario(*PRIVATE, "training.rounds=1")
    allow(sites, epsilon=epsilon([Segment(0.5, 3.0, 4)], 1e-4) + 1e-6)
    assert not ask(sites, message(told, 1)).has_error()
    assert not ask(sites, message(told, 2)).has_error()
    assert "one round more would take this site's epsilon to" in refused(ask(sites, message(told, 3)))


REFUSED: dict[str, tuple[Callable[[], Message], str]] = {
    "a server that asks for no noise": (
        lambda: message(scenario(*PRIVATE), **{"noise-multiplier": None}),
        "noise multiplier: expected at least 0.5, got none",
    ),
    "a scenario without privacy": (lambda: message(scenario("privacy.unit=none")), "the server asks for no noise"),
    "exact figures beside privacy": (
        lambda: message(scenario(*PRIVATE), what="evaluate"),
        "would be a release without noise",
    ),
    "exact figures": (
        lambda: message(scenario("privacy.unit=none"), what="evaluate"),
        "exact figures on the site's rows are not allowed",
    ),
    "a scenario without this site": (
        lambda: message(scenario(*PRIVATE, 'deployment.sites=["a", "b", "c", "d"]', "training.expected_batch=32")),
        "deployment.sites: expected cleveland among them",
    ),
    "an attack": (
        lambda: message(scenario(*PRIVATE, "attack={name='sign-flip', share=0.25}")),
        "attack, faults: expected none",
    ),
    "another arm": (lambda: message(scenario(*PRIVATE), arm="local"), "arm: expected 'federated'"),
    "no scenario": (lambda: message(scenario(*PRIVATE), scenario="{}"), "expected a scenario, got something else"),
    "no name of a training": (lambda: message(scenario(*PRIVATE), token="../x"), "training: expected a name of 32"),
    "round 0": (lambda: message(scenario(*PRIVATE), 0), "expected the number of a round"),
    "noise below the policy's": (
        lambda: message(scenario(*PRIVATE), **{"noise-multiplier": 0.4}),
        "noise multiplier: expected at least 0.5, got 0.4",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_is_said_in_a_line_and_costs_nothing(sites: Path, name: str):
    asked, said = REFUSED[name]
    reason = refused(ask(sites, asked()))
    assert reason.startswith("refused by the site: ")
    assert said in reason
    assert "\n" not in reason
    assert lines(sites) == []


def test_of_what_fails_at_the_site_the_server_is_told_the_kind_only(sites: Path):
    path = sites / SITE / "rows.csv"
    rows = pd.read_csv(path)
    rows.loc[0, "cp"] = 4711
    rows.to_csv(path, index=False)
    reason = refused(ask(sites, message(scenario(*PRIVATE))))
    assert reason == FAILED


def test_a_site_that_is_not_set_up_answers_nothing_and_says_so(sites: Path):
    asked = message(scenario(*PRIVATE))
    (sites / SITE / "site-policy.toml").unlink()
    assert refused(ask(sites, asked)) == FAILED
    allow(sites)
    assert refused(ask(sites, asked, site="")) == FAILED
    assert refused(ask(sites, asked, state=str(sites / "elsewhere"))) == FAILED
    assert not ask(sites, asked).has_error()


def test_exact_models_and_figures_leave_where_the_policy_lets_them_and_are_written_down(sites: Path):
    allow(sites, **{key: FREE[key] for key in ("plain", "evaluation")})
    told = scenario(*PLAIN)
    assert set(ask(sites, message(told)).content) == {ARRAYS, METRICS}
    measured = ask(sites, message(told, what="evaluate")).content[METRICS]
    assert set(measured) == {"num-examples", "auc", "accuracy", "log_loss"}
    assert [line["kind"] for line in lines(sites)] == [own_ledger.EXACT, own_ledger.FIGURES]


def test_what_was_done_is_what_was_charged_or_nothing_leaves(sites: Path, monkeypatch: pytest.MonkeyPatch):
    answer = real.SiteApp.answer

    def tells_less(self: real.SiteApp, *args: Any) -> Message:
        reply = answer(self, *args)
        reply.content[MECHANISM]["noise_multiplier"] = 2.9
        return reply

    monkeypatch.setattr(real.SiteApp, "answer", tells_less)
    assert refused(ask(sites, message(scenario(*PRIVATE)))) == FAILED


def test_it_answers_no_bundles(sites: Path):
    """A bundle would be answered from the rows of all sites, with memories that the server sends."""
    with OF_A_SIMULATION.taken():
        asked = Message(RecordDict({"bundle": ConfigRecord({"bundle": b""})}), 2, "query.bundle")
    with pytest.raises(ValueError, match="query"):
        real.app(asked, Context(1, 2, {"site": SITE}, RecordDict(), {}))
