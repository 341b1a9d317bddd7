import numpy as np
import pytest
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects

from fedsim.flower.grid import node_of
from fedsim.flower.records import CONFIG, ROUND, STAGES
from fedsim.flower.secure import site
from fedsim.flower.secure.messages import ANSWERED, SHARES, SITES, from_sites
from fedsim.privacy.fixed_point import OutOfRange
from fedsim.privacy.secure_aggregation import Refused
from tests.flower.secure.sites import SETTINGS, Sites, a_round, random_updates, server_of


def ask(step: int, number: int = 1, **records: ConfigRecord) -> Message:
    grid = Sites(random_updates())  # without a grid Flower makes no message
    config = ConfigRecord({ROUND: number, SITES: 5})
    message = Message(RecordDict({CONFIG: config, **records}), grid.get_node_ids()[0], STAGES[step])
    message.metadata.__dict__["_message_id"] = "m"
    return message


def after(step: int) -> tuple[Sites, Context]:
    """Return sites that have taken some steps of round 1, and the first one's context."""
    grid = Sites(random_updates())

    def lost(at: int, reply: Message) -> Message | None:
        if at == step:
            grid.seen.append((at, reply))
        return reply if at < step else None

    grid.change = lost
    with pytest.raises(Refused):
        a_round(grid)
    return grid, grid.context(node_of(0))


def shares_for_the_first(grid: Sites) -> ConfigRecord:
    sent = {r.metadata.src_node_id: r.content[SHARES] for step, r in grid.seen if step == 1}
    return ConfigRecord({str(n): record[str(node_of(0))] for n, record in sent.items() if n != node_of(0)})  # type: ignore


def test_secrets_are_thrown_away_when_a_round_is_over():
    grid = Sites(random_updates())
    a_round(grid)
    for node in grid.get_node_ids():
        assert {name: dict(record) for name, record in grid.context(node).state.items()} == {"secure-own": {"round": 1}}


def test_secrets_never_leave_in_the_clear():
    """No message holds a private key or the key of a mask of its own, in any record."""
    grid = Sites(random_updates())
    kept = {}
    grid.change = lambda step, reply: (
        kept.update({(reply.metadata.src_node_id, n): v for n, v in _own(grid, reply).items()}) or reply
    )
    a_round(grid)
    assert len(kept) == 15
    sent = b"".join(bytes(value) for _, reply in grid.seen for r in reply.content.config_records.values()
                    for value in r.values() if isinstance(value, bytes))  # fmt: skip
    for secret in kept.values():
        assert len(secret) == 32
        assert secret not in sent


def _own(grid: Sites, reply: Message) -> dict[str, bytes]:
    own = grid.context(reply.metadata.src_node_id).state["secure-own"]
    return {name: own[name] for name in ("channel", "mask", "own-mask") if name in own}  # type: ignore


@pytest.mark.parametrize("number", [1, 0])
def test_a_site_takes_part_in_a_round_once(number: int):
    """Or a server could have the same update twice, in sums over different sites, and subtract."""
    grid = Sites(random_updates())
    server = server_of(grid)
    a_round(grid, server, 1)
    with pytest.raises(Refused, match="0 of 5 sites sent keys"):
        a_round(grid, server, number)
    assert "no site takes part in one twice" not in str(server.set_aside)  # what a site says is the error's kind
    assert {one.reason.partition(" (")[0] for one in server.set_aside} == {"failed: Refused"}


def test_a_vector_is_masked_once():
    """Not a second time for a server that lists other survivors, and not under the same masks."""
    grid, context = after(2)
    message = ask(2, **{SHARES: shares_for_the_first(grid)})
    with pytest.raises(Refused, match="train once"):
        site.check_ready(message, context)
    with pytest.raises(Refused, match="each is taken once"):
        site.mask(message, context, SETTINGS, np.zeros(40), 1.0)


def test_masks_are_taken_off_once():
    grid = Sites(random_updates())
    a_round(grid)
    with pytest.raises(Refused, match="keys first"):
        site.unmask(ask(3, **{ANSWERED: from_sites([2, 3, 4])}), grid.context(node_of(0)))


def test_after_a_refusal_masks_stay_on():
    """A list that is refused is not a first try: its secrets are gone."""
    _, context = after(2)
    with pytest.raises(Refused, match="at least 3 sites"):
        site.unmask(ask(3, **{ANSWERED: from_sites([2, 3])}), context)
    with pytest.raises(Refused, match="keys first"):
        site.unmask(ask(3, **{ANSWERED: from_sites([2, 3, 4])}), context)


@pytest.mark.parametrize(("taken", "step"), [(-1, 1), (-1, 2), (-1, 3), (0, 2), (0, 3), (1, 3)])
def test_no_step_is_left_out(taken: int, step: int):
    grid, context = after(taken) if taken >= 0 else (Sites(random_updates()), None)
    context = context or grid.context(node_of(0))
    with pytest.raises((Refused, ValueError), match="expected"):
        if step == 1:
            site.share(ask(1), context)
        elif step == 2:
            site.check_ready(ask(2, **{SHARES: ConfigRecord()}), context)
        else:
            site.unmask(ask(3, **{ANSWERED: from_sites([2, 3, 4])}), context)


def test_the_secrets_of_one_round_are_of_no_use_in_the_next():
    _, context = after(1)
    with pytest.raises(Refused, match="keys first, in every round"):
        site.check_ready(ask(2, number=2, **{SHARES: ConfigRecord()}), context)


def test_training_needs_the_others_shares():
    _, context = after(1)
    with pytest.raises(ValueError, match="expected a ConfigRecord 'shares' of sites, got NoneType"):
        site.check_ready(ask(2), context)


def test_an_update_beyond_the_range_is_not_sent_and_leaves_the_site_ready():
    grid, context = after(1)
    message = ask(2, **{SHARES: shares_for_the_first(grid)})
    site.check_ready(message, context)
    with pytest.raises(OutOfRange):
        site.mask(message, context, SETTINGS, np.full(40, np.nan), 1.0)
    site.check_ready(message, context)


def test_a_spoiled_site_is_set_aside_and_named():
    updates = random_updates()
    updates[3][7] = np.inf
    grid = Sites(updates)
    server = server_of(grid)
    a_round(grid, server)
    assert [(one.node, one.reason.partition(" (")[0]) for one in server.set_aside] == [
        (node_of(3), "failed: OutOfRange")
    ]


@pytest.mark.parametrize("step", [0, 1, 2])
def test_what_a_site_keeps_survives_flowers_encoding(step: int):
    """A real node keeps its state as bytes between messages."""
    grid, context = after(step)
    objects = get_all_nested_objects(context.state)
    found = RecordDict.inflate(
        context.state.deflate(), {k: v for k, v in objects.items() if k != context.state.object_id}
    )
    assert {name: dict(record) for name, record in found.items()} == {
        name: dict(record) for name, record in context.state.items()
    }
    assert len(grid.seen) == 5 * (step + 1)
