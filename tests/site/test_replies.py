"""Who is asked is charged once a round, whatever comes back in whose name; what can't be is charged as planned."""

import math
from collections.abc import Callable
from dataclasses import asdict, replace

import pytest
from flwr.app import ConfigRecord, Message

from fedsim.engines.serial import execute
from fedsim.experiments import arms
from fedsim.experiments.arms import Job, run_job
from fedsim.flower.adapter import Adapter
from fedsim.flower.grid import InProcessGrid, node_of
from fedsim.flower.records import MECHANISM
from fedsim.flower.rounds import Budget, run_rounds
from fedsim.flower.screening import match
from fedsim.mistakes import Mistake, RunFailed
from fedsim.privacy.ledger import Ledger, Mechanism, OwnUpdate
from strategies.fedavg import FedAvg
from tests.nodes import arrays, good, grid_of

STEP = Mechanism(sampling_rate=1.0, noise_multiplier=2.0, clip=1.0, expected_batch=8.0, steps=4)
SITES = 4
NAMES = {node_of(site): f"site{site}" for site in range(SITES)}
Tamper = Callable[[list[Message]], list[Message]]


def says(reply: Message, sender: int) -> Message:
    """Let a reply name another sender."""
    reply.metadata.__dict__["_src_node_id"] = sender
    return reply


def claims(reply: Message, **values: object) -> Message:
    """Let a reply say that something else was done."""
    reply.content[MECHANISM] = ConfigRecord({**asdict(STEP), **values})  # type: ignore[arg-type]
    return reply


def swapped(replies: list[Message]) -> list[Message]:
    """Let the first two sites answer in each other's name."""
    first, second, *others = replies
    says(first, node_of(1))
    says(second, node_of(0))
    return [first, second, *others]


def under_another_id(replies: list[Message]) -> list[Message]:
    says(replies[0], node_of(1))
    return replies


def under_no_sites_id(replies: list[Message]) -> list[Message]:
    says(replies[0], 99)
    return replies


def twice(replies: list[Message]) -> list[Message]:
    return [*replies, *replies]


def without_the_first(replies: list[Message]) -> list[Message]:
    return replies[1:]


def none_at_all(replies: list[Message]) -> list[Message]:
    return []


def to_nothing_that_was_sent(replies: list[Message]) -> list[Message]:
    replies[0].metadata.__dict__["_reply_to_message_id"] = "another"
    return replies


def in_another_order(replies: list[Message]) -> list[Message]:
    return replies[::-1]


def in_place_of_another(replies: list[Message]) -> list[Message]:
    """The first site answers the second's message, in its own name, and before it does itself."""
    replies[0].metadata.__dict__["_reply_to_message_id"] = replies[1].metadata.reply_to_message_id
    return replies


FOREIGN = "answered under another site's id, that of"
OTHER, ODD = f"{FOREIGN} site1", f"{FOREIGN} node 99"
TAMPERED: dict[str, tuple[Tamper, list[tuple[int, str]], list[int]]] = {
    "swapped ids": (swapped, [(0, OTHER), (1, f"{FOREIGN} site0")], [2, 3]),
    "another site's id": (under_another_id, [(0, OTHER)], [1, 2, 3]),
    "an unknown id": (under_no_sites_id, [(0, ODD)], [1, 2, 3]),
    "duplicates": (twice, [(site, "replied twice") for site in range(SITES)], [0, 1, 2, 3]),
    "no reply of one": (without_the_first, [(0, "did not answer")], [1, 2, 3]),
    "a reply to nothing": (to_nothing_that_was_sent, [(0, "was not asked")], [1, 2, 3]),
    "in another's place": (in_place_of_another, [(1, f"{FOREIGN} site0"), (0, "did not answer")], [1, 2, 3]),
    "another order": (in_another_order, [], [0, 1, 2, 3]),
}
"""{kind: (what is done to the replies, (site, reason) of those that are set aside, the sites whose models count)}."""


def grid(tamper: Tamper) -> InProcessGrid:
    """Return a grid whose replies are tampered with on their way."""
    found = grid_of(lambda site: good(site, mechanism=asdict(STEP)), SITES)
    honest = found.send_and_receive

    def send_and_receive(messages, *, timeout=None):
        replies = [*honest(messages)]
        return tamper(replies) if replies else []

    found.send_and_receive = send_and_receive  # type: ignore[method-assign]
    return found


def run(tamper: Tamper, rounds: int = 2):
    spend = Budget(Ledger(1e-5, "add-or-remove-one"), 100.0, {node: (NAMES[node], STEP) for node in NAMES}, rounds)
    return spend.ledger, run_rounds(
        Adapter(FedAvg()), grid(tamper), arrays(), rounds, spend, lambda number, model: None, names=NAMES
    )


@pytest.mark.parametrize("kind", TAMPERED)
def test_everybody_who_was_asked_is_charged_once_a_round_and_what_is_foreign_is_set_aside(kind: str):
    tamper, reasons, used = TAMPERED[kind]
    ledger, finished = run(tamper)
    assert [(entry.round, entry.site, entry.mechanism) for entry in ledger.entries] == [
        (number, NAMES[node], STEP) for number in (1, 2) for node in NAMES
    ]
    for number in (1, 2):
        assert [(one.node, one.reason) for one in finished.rejected.get(number, [])] == [
            (node_of(site), reason) for site, reason in reasons
        ]
        assert number not in finished.doubted
    models = [site + 1 for site in used]  # site k answers with k + 1
    assert finished.arrays["b"].numpy() == pytest.approx(sum(models) / len(models))


def test_if_nothing_comes_back_everybody_has_paid_and_is_named():
    ledger = Ledger(1e-5, "add-or-remove-one")
    spend = Budget(ledger, 100.0, {node: (NAMES[node], STEP) for node in NAMES}, 1)
    with pytest.raises(RunFailed, match="round 1: no site sent a usable model"):
        run_rounds(Adapter(FedAvg()), grid(none_at_all), arrays(), 1, spend, lambda number, model: None, names=NAMES)
    assert [entry.site for entry in ledger.entries] == [*NAMES.values()]


def test_the_reasons_of_a_failed_run_name_sites():
    def all_under_one_id(replies: list[Message]) -> list[Message]:
        return [says(reply, 99) for reply in replies]

    with pytest.raises(RunFailed, match=r"site0 and 3 more: answered under another site's id, that of node 99"):
        run(all_under_one_id)


IMPOSSIBLE = {
    "steps": [10**9, 5, 0, -1, 2.0, True, "4", [4]],
    "noise_multiplier": [math.nan, -1.0, 0.0, math.inf, 1e-300, 1e300, "2", [2.0], b"2"],
    "sampling_rate": [math.nan, 0.0, -0.5, 1.5, 1e-300, "all"],
    "clip": [math.nan, -1.0, 0.0, math.inf, "1"],
    "expected_batch": [math.nan, 0.0, math.inf, True],
    "rng": ["dice", 4],
    "asked": [4],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, given in IMPOSSIBLE.items() for value in given])
def test_an_impossible_claim_is_charged_as_planned_and_named(name: str, value: object):
    def tamper(replies: list[Message]) -> list[Message]:
        claims(replies[2], **{name: value})
        return replies

    ledger, finished = run(tamper)
    assert {(entry.site, entry.mechanism) for entry in ledger.entries} == {(site, STEP) for site in NAMES.values()}
    assert len(ledger.entries) == 2 * SITES
    assert all(list(finished.doubted[number]) == [node_of(2)] for number in (1, 2))
    assert "it says it did can't be" in finished.doubted[1][node_of(2)]
    assert ledger.epsilon("site2") == ledger.epsilon("site1")


def test_a_claim_of_another_kind_of_mechanism_is_charged_as_planned():
    def tamper(replies: list[Message]) -> list[Message]:
        replies[0].content[MECHANISM] = ConfigRecord(asdict(OwnUpdate(100.0, 1.0)))
        del replies[1].content[MECHANISM]
        return replies

    ledger, finished = run(tamper, rounds=1)
    assert {entry.mechanism for entry in ledger.entries} == {STEP}
    assert set(finished.doubted[1]) == {node_of(0), node_of(1)}
    assert finished.doubted[1][node_of(1)] == "it does not say what it did"


@pytest.mark.parametrize(
    "told", [{"steps": 1}, {"steps": 4}, {"noise_multiplier": 1.0}, {"noise_multiplier": 3.0}, {"clip": 0.5}]
)
def test_a_possible_claim_is_taken_as_told(told: dict):
    """A straggler takes fewer steps; less noise costs more."""

    def tamper(replies: list[Message]) -> list[Message]:
        claims(replies[2], **told)
        return replies

    ledger, finished = run(tamper, rounds=1)
    assert ledger.entries[2].mechanism == replace(STEP, **told)
    assert finished.doubted == {}
    dearer = told.get("noise_multiplier", 2.0) < 2.0
    assert (ledger.epsilon("site2") > ledger.epsilon("site1")) == dearer


def test_a_strategy_that_asks_a_site_twice_is_refused_under_privacy():
    class Twice(Adapter):
        def configure_train(self, *args):
            messages = [*super().configure_train(*args)]
            again = Message(messages[0].content, dst_node_id=node_of(0), message_type="train")
            return [*messages, again]

    spend = Budget(Ledger(1e-5, "add-or-remove-one"), 100.0, {node: (NAMES[node], STEP) for node in NAMES}, 1)
    with pytest.raises(Mistake, match="asks each site once under privacy, got one that asks 5 times 4 sites"):
        run_rounds(Twice(FedAvg()), grid(lambda replies: replies), arrays(), 1, spend, lambda number, model: None)
    assert not spend.ledger.entries


def test_replies_are_matched_by_the_message_they_answer():
    found = grid_of(good)
    messages = [*Adapter(FedAvg()).configure_train(1, arrays(), ConfigRecord(), found)]
    replies = [*found.send_and_receive(messages)]
    says(replies[3], node_of(2))
    answers, rejected = match(messages, [*reversed(replies), replies[0]])
    assert answers == [*replies[:3], None]
    assert [(one.node, one.reason) for one in rejected] == [
        (node_of(3), f"{FOREIGN} node {node_of(2)}"),
        (node_of(0), "replied twice"),
    ]


def tampering(monkeypatch: pytest.MonkeyPatch, tamper: Tamper) -> None:
    """Tamper with what the engine of a run returns."""

    class Engine:
        @staticmethod
        def execute(app, cohort_size="auto"):
            honest = execute(app, cohort_size)
            return lambda messages, contexts: tamper(honest(messages, contexts))

    monkeypatch.setattr(arms.engines, "load", lambda name: Engine)


FIXED = ["privacy.noise_multiplier=3.0", "privacy.epsilon=9"]


def charges(scenario, monkeypatch: pytest.MonkeyPatch, tamper: Tamper, *overrides: str):
    tampering(monkeypatch, tamper)
    done = run_job(scenario(*FIXED, *overrides), Job("federated", True, 0), lambda number: None)
    assert done.ledger is not None
    sites = ["cleveland", "hungarian", "switzerland", "va_long_beach"]
    assert [(entry.round, entry.site) for entry in done.ledger.entries] == [(n, site) for n in (1, 2) for site in sites]
    return {site: done.ledger.epsilon(site) for site in sites}, done.notes


@pytest.mark.parametrize("unit", ["record", "local"])
def test_on_the_whole_path_swapped_ids_cost_both_the_same(scenario, monkeypatch, unit: str):
    how = [] if unit == "record" else ["privacy.unit=local", "arms=['federated']", "privacy.delta=1e-2"]
    usual, _ = charges(scenario, monkeypatch, lambda replies: replies, *how)
    spent, notes = charges(scenario, monkeypatch, swapped, *how)
    assert spent == usual
    assert notes == [
        f"round {number}: {site} was left out: {FOREIGN} {other}"
        for number in (1, 2)
        for site, other in (("cleveland", "hungarian"), ("hungarian", "cleveland"))
    ]


def test_on_the_whole_path_an_impossible_claim_is_named_and_does_not_end_the_run(scenario, monkeypatch):
    def tamper(replies: list[Message]) -> list[Message]:
        did = replies[1].content[MECHANISM]
        replies[1].content[MECHANISM] = ConfigRecord({**did, "steps": 10**9})  # type: ignore[dict-item]
        return replies

    usual, _ = charges(scenario, monkeypatch, lambda replies: replies)
    spent, notes = charges(scenario, monkeypatch, tamper)
    assert spent == usual
    assert notes == [
        f"round {number}: hungarian was charged as planned: what it says it did can't be "
        "(steps: expected at most the 2 that were asked for, got 1000000000)"
        for number in (1, 2)
    ]


def test_on_the_whole_path_a_reply_of_nobody_we_know_is_named_by_its_number(scenario, monkeypatch):
    def tamper(replies: list[Message]) -> list[Message]:
        says(replies[0], 77)
        replies[0].metadata.__dict__["_reply_to_message_id"] = "another"
        return replies

    usual, _ = charges(scenario, monkeypatch, lambda replies: replies)
    spent, notes = charges(scenario, monkeypatch, tamper)
    assert spent == usual
    assert notes == [
        f"round {number}: {reason}"
        for number in (1, 2)
        for reason in ("node 77 was left out: was not asked", "cleveland was left out: did not answer")
    ]
