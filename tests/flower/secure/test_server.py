from collections.abc import Callable

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict
from scipy import stats

from fedsim.flower.grid import FIRST_NODE, node_of
from fedsim.flower.rounds import run_rounds
from fedsim.flower.secure import server as server_module
from fedsim.flower.secure.messages import MASKED
from fedsim.mistakes import RunFailed
from fedsim.privacy.fixed_point import FixedPoint
from fedsim.privacy.secure_aggregation import Refused
from tests.flower.secure.sites import SETTINGS, Sites, a_round, gone, mean, model_of, random_updates, server_of

EVERYONE = range(5)


def test_the_server_gets_the_weighted_mean_of_all():
    updates = random_updates()
    grid = Sites(updates)
    np.testing.assert_allclose(a_round(grid), mean(updates, grid.weights, EVERYONE), atol=1e-7)


@pytest.mark.parametrize("step", range(4))
@pytest.mark.parametrize("sites", [(2,), (0, 4)])
def test_sites_may_drop_out_at_any_step(step: int, sites: tuple[int, ...]):
    """Of five, three must answer. Who is gone before it has sent its vector does not count; who is gone after does."""
    updates = random_updates()
    grid = Sites(updates, gone({step: sites}))
    counted = [site for site in EVERYONE if step == 3 or site not in sites]
    np.testing.assert_allclose(a_round(grid), mean(updates, grid.weights, counted), atol=1e-7)


def test_sites_may_drop_out_at_different_steps():
    updates = random_updates(7)
    grid = Sites(updates, gone({0: [6], 2: [1]}), settings=SETTINGS.model_copy(update={"threshold": 0.51}))
    np.testing.assert_allclose(a_round(grid), mean(updates, grid.weights, [0, 2, 3, 4, 5]), atol=1e-7)


@pytest.mark.parametrize(("step", "did"), [*enumerate(["sent keys", "sent shares", "sent a vector", "sent shares of"])])
def test_below_the_threshold_the_round_is_refused(step: int, did: str):
    with pytest.raises(Refused, match=f"2 of 5 sites {did}.*, and 3 must; nothing was revealed"):
        a_round(Sites(random_updates(), gone({step: [0, 1, 2]})))


@pytest.mark.parametrize("step", range(3))
def test_a_refused_round_asks_for_no_unmasking(step: int):
    """What would take the masks off is never sent."""
    grid = Sites(random_updates(), gone({step: [0, 1, 2]}))
    with pytest.raises(Refused):
        a_round(grid)
    assert max(seen for seen, _ in grid.seen) == step


def test_after_a_refused_round_the_run_goes_on_with_the_model_as_it_was():
    updates, seen = random_updates(), []
    grid = Sites(updates)
    grid.change = lambda step, reply: (gone({2: [0, 1, 2]}) if len(seen) == 1 else gone({}))(step, reply)
    done = run_rounds(server_of(grid), grid, model_of(grid), 3, None, lambda n, model: seen.append(model))
    assert seen[0]["model"].data == seen[1]["model"].data != seen[2]["model"].data
    assert done.refused == {2: "2 of 5 sites sent a vector, and 3 must; nothing was revealed"}
    assert done.rounds == 3


def test_a_run_in_which_every_round_is_refused_has_failed():
    grid = Sites(random_updates(), gone({1: [0, 1, 2]}))
    with pytest.raises(RunFailed, match="every round was refused; round 2: 2 of 5 sites sent shares"):
        run_rounds(server_of(grid), grid, model_of(grid), 2, None, lambda number, model: None)


def _tamper(step: int, name: str, change: Callable[[dict[str, bytes]], dict[str, bytes]]):
    def tampered(content: RecordDict) -> None:
        content[name] = ConfigRecord(change(dict(content[name])))  # type: ignore[arg-type]

    return step, tampered


def _masked(array: np.ndarray):
    def tampered(content: RecordDict) -> None:
        content[MASKED] = ArrayRecord({MASKED: Array(array)})

    return 2, tampered


def _beside(content: RecordDict) -> None:
    content["metrics"] = MetricRecord({"loss": 0.5})


FIRST = str(node_of(0))
MALFORMED = {
    "no keys": (0, RecordDict.clear),
    "short keys": _tamper(0, "keys", lambda keys: {site: key[:40] for site, key in keys.items()}),
    "keys of another site": _tamper(0, "keys", lambda keys: {"9": next(iter(keys.values()))}),
    "keys as text": _tamper(0, "keys", lambda keys: dict.fromkeys(keys, "x" * 64)),  # type: ignore[arg-type]
    "keys of a small group": _tamper(0, "keys", lambda keys: dict.fromkeys(keys, bytes(64))),
    "no shares": (1, RecordDict.clear),
    "a share too few": _tamper(1, "shares", lambda shares: {s: v for s, v in shares.items() if s != FIRST}),
    "a short share": _tamper(1, "shares", lambda shares: {s: v[:-1] for s, v in shares.items()}),
    "shares for names": _tamper(1, "shares", lambda shares: {f"site {s}": v for s, v in shares.items()}),
    "no vector": (2, RecordDict.clear),
    "a vector too short": _masked(np.zeros(40, np.uint64)),
    "a vector of floats": _masked(np.zeros(41)),
    "a matrix": _masked(np.zeros((41, 1), np.uint64)),
    "metrics beside the vector": (2, _beside),
    "no own masks": (3, RecordDict.clear),
    "an own mask too few": _tamper(3, "own-masks", lambda held: {s: v for s, v in held.items() if s != FIRST}),
    "a long own mask": _tamper(3, "own-masks", lambda held: {s: v + b"x" for s, v in held.items()}),
    "keys of those who answered": _tamper(3, "keys", lambda held: {FIRST: bytes(66)}),
}


@pytest.mark.parametrize("kind", MALFORMED)
def test_malformed_replies_are_set_aside_and_named(kind: str):
    step, tamper = MALFORMED[kind]

    def change(at: int, reply: Message) -> Message:
        if at == step and reply.metadata.src_node_id == node_of(3):
            tamper(reply.content)
        return reply

    updates = random_updates()
    grid = Sites(updates, change)
    server = server_of(grid)
    counted = [site for site in EVERYONE if step == 3 or site != 3]
    np.testing.assert_allclose(a_round(grid, server), mean(updates, grid.weights, counted), atol=1e-7)
    assert [one.node for one in server.set_aside] == [node_of(3)]
    assert server.set_aside[0].reason


def test_a_site_that_fails_is_named_at_every_step():
    def change(step: int, reply: Message) -> Message:
        if reply.metadata.src_node_id != node_of(step):
            return reply
        failed = Message(Error(code=0, reason=f"broke at step {step}"), reply_to=reply)
        failed.metadata.__dict__["_src_node_id"] = node_of(step)
        failed.metadata.__dict__["_reply_to_message_id"] = reply.metadata.reply_to_message_id
        return failed

    grid = Sites(random_updates(12), change)
    server = server_of(grid)
    a_round(grid, server)
    assert [(one.node - FIRST_NODE, one.reason) for one in server.set_aside] == [
        (step, f"failed: broke at step {step}") for step in range(4)
    ]


def test_a_vector_that_is_none_of_a_site_is_noticed_by_its_weight():
    """An arbitrary vector under honest masks, or none at all: the sum of weights is public."""

    def change(step: int, reply: Message) -> Message:
        if step == 2 and reply.metadata.src_node_id == node_of(3):
            reply.content[MASKED] = ArrayRecord({MASKED: Array(np.arange(41, dtype=np.uint64))})
        return reply

    with pytest.raises(Refused, match="expected 15: a site sent something else"):
        a_round(Sites(random_updates(), change))


@pytest.mark.parametrize("step", [0, 1, 3])  # those in which the server asks itself, and not the round loop
def test_a_site_that_answers_under_another_id_takes_nobodys_place(step: int):
    """Its answer is set aside by the message that it answers, and the site it names is heard itself."""

    def change(at: int, reply: Message) -> Message:
        if at == step and reply.metadata.src_node_id == node_of(3):
            reply.metadata.__dict__["_src_node_id"] = node_of(2)
        return reply

    updates = random_updates()
    grid = Sites(updates, change)
    server = server_of(grid)
    counted = [site for site in EVERYONE if step == 3 or site != 3]
    np.testing.assert_allclose(a_round(grid, server), mean(updates, grid.weights, counted), atol=1e-7)
    assert [(one.node, one.reason) for one in server.set_aside] == [
        (node_of(3), f"answered under another site's id, that of node {node_of(2)}")
    ]


def test_a_wrong_share_is_noticed():
    def change(step: int, reply: Message) -> Message:
        if step == 3 and reply.metadata.src_node_id == node_of(3):
            own = {site: bytes(65) + b"\1" for site in reply.content["own-masks"]}
            reply.content["own-masks"] = ConfigRecord(own)  # type: ignore[arg-type]
        return reply

    with pytest.raises(Refused, match="shares of site 2's secrets"):
        a_round(Sites(random_updates(), change))


def test_a_wrong_share_of_a_key_is_noticed():
    drops = gone({2: [0]})

    def change(step: int, reply: Message) -> Message | None:
        if step == 3:
            reply.content["keys"] = ConfigRecord({FIRST: bytes(65) + b"\1"})
        return drops(step, reply)

    with pytest.raises(Refused, match="expected shares of site 2's key, got others"):
        a_round(Sites(random_updates(), change))


def test_the_sum_is_exact_in_the_ring(monkeypatch: pytest.MonkeyPatch):
    """Bit for bit the sum modulo 2^64 of what the sites wrote down."""
    totals = []
    whole = server_module.unmasked_sum
    monkeypatch.setattr(server_module, "unmasked_sum", lambda *args: totals.append(whole(*args)) or totals[-1])
    updates = random_updates()
    grid = Sites(updates, gone({2: [1]}))
    a_round(grid)
    fixed = FixedPoint(SETTINGS.bits, SETTINGS.range)
    written = [fixed.encode(updates[site], grid.weights[site]) for site in (0, 2, 3, 4)]
    np.testing.assert_array_equal(totals[0], np.sum(written, axis=0, dtype=np.uint64))


@pytest.mark.parametrize("bits", [8, 16, 32])
def test_the_mean_is_right_up_to_the_resolution(bits: int):
    updates = random_updates()
    grid = Sites(updates, settings=SETTINGS.model_copy(update={"bits": bits}))
    error = np.abs(a_round(grid) - mean(updates, grid.weights, EVERYONE)).max()
    assert error <= 5 * 2.0**-bits / 2 / sum(grid.weights) + 1e-6
    assert bits > 8 or error > 1e-4  # the rounding is there


@pytest.mark.parametrize("dropped", [0, 1, 2])
def test_under_privacy_the_denominator_is_that_of_all_asked_sites(dropped: int):
    """M5, as without masks: who does not answer makes the others count no more."""
    updates = [np.ones(40) for _ in EVERYONE]
    grid = Sites(updates, gone({2: range(dropped)}), weights=[1.0] * 5)
    found = a_round(grid, server_of(grid, fixed_denominator=True))
    np.testing.assert_allclose(found, 0.5 + (5 - dropped) / 5, rtol=1e-6)


def test_what_arrives_from_one_site_is_uniform():
    """Chi-square over the bytes of all vectors of updates of zeros, 256 bins: p > 1e-6 for each site."""
    grid = Sites([np.zeros(20_000) for _ in EVERYONE])
    a_round(grid)
    vectors = [reply.content[MASKED][MASKED].numpy() for step, reply in grid.seen if step == 2]  # type: ignore[index]
    assert len(vectors) == 5
    for vector in vectors:
        assert stats.chisquare(np.bincount(vector.view(np.uint8), minlength=256)).pvalue > 1e-6
    assert np.abs(np.corrcoef([vector / 2**64 for vector in vectors]) - np.eye(5)).max() < 6 / np.sqrt(20_000)


def test_keys_and_masks_are_new_in_every_round():
    grid = Sites([np.zeros(40) for _ in EVERYONE])
    server = server_of(grid)
    a_round(grid, server, 1)
    a_round(grid, server, 2)
    keys = [bytes(next(iter(reply.content["keys"].values()))) for step, reply in grid.seen if step == 0]  # type: ignore
    vectors = [reply.content[MASKED][MASKED].data for step, reply in grid.seen if step == 2]  # type: ignore[index]
    assert len(set(keys)) == len(set(vectors)) == 10


def test_it_runs_under_flowers_own_loop():
    updates = random_updates()
    grid = Sites(updates)
    result = server_of(grid).start(grid=grid, initial_arrays=model_of(grid), num_rounds=2)
    expected = 0.5 + 2 * (mean(updates, grid.weights, EVERYONE) - 0.5)
    np.testing.assert_allclose(result.arrays["model"].numpy(), expected, atol=1e-6)


def test_replies_in_any_order_give_the_same_bits():
    updates = random_updates()
    forward, backward = Sites(updates), Sites(updates)
    honest = backward.send_and_receive
    backward.send_and_receive = lambda messages, **more: [*honest(messages, **more)][::-1]  # type: ignore
    assert a_round(forward).tobytes() == a_round(backward).tobytes()


def test_who_replies_twice_or_unasked_counts_once():
    updates = random_updates()
    grid = Sites(updates)
    honest = grid.send_and_receive
    grid.send_and_receive = lambda messages, **more: [r for r in honest(messages, **more) for _ in range(2)]  # type: ignore
    server = server_of(grid)
    np.testing.assert_allclose(a_round(grid, server), mean(updates, grid.weights, EVERYONE), atol=1e-7)
    assert {one.reason for one in server.set_aside} == {"replied twice"}
