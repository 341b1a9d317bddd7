"""Hospitals that keep their rows to themselves, each with a file, a policy and a ledger of its own, for tests."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import tomli_w
from flwr.app import Context, Error, Message, RecordDict
from flwr.common.serde import message_from_proto, message_to_proto

from clients.hospital import heart_tables
from fedsim.experiments.on_flower.deployed import deploy
from fedsim.flower.grid import CLIENT_APP_RAISED, OF_A_SIMULATION, InProcessGrid
from fedsim.scenario.files import read
from fedsim.scenario.schema import Scenario
from fedsim.site import own_ledger, real

SITES = ["cleveland", "hungarian", "switzerland", "va_long_beach"]
POLICY: dict[str, Any] = {
    "units": ["record", "local"],
    "epsilon": 100.0,
    "delta": 1e-4,
    "smallest_noise": 0.5,
    "fewest_sites": 3,
    "strategies": ["fedavg", "scaffold", "ditto"],
}
FREE: dict[str, Any] = {**POLICY, "plain": True, "evaluation": True}
ROUNDS = ("training.rounds=3", "seeds=1", 'arms=["federated"]', "engine=serial", "limits.round_seconds=60")
PRIVATE = ("privacy.noise_multiplier=3.0", "privacy.epsilon=900", "privacy.rng=secure")
PLAIN = ("privacy.unit=none", "deployment.evaluation=true")


def scenario(*changes: str) -> Scenario:
    """Return hospital-heart for four real sites."""
    named = f"deployment.sites={SITES!r}".replace("'", '"')
    return read("hospital-heart", [*ROUNDS, named, *changes])


def settle(folder: Path, policy: Mapping[str, Any] = POLICY, sites: Iterable[str] = SITES) -> Path:
    """Write each site's rows, policy and ledger into a folder of its own."""
    tables = heart_tables()
    for site in sites:
        own = folder / site
        own.mkdir(parents=True)
        tables[site].to_csv(own / "rows.csv", index=False)
        (own / "site-policy.toml").write_text(tomli_w.dumps(dict(policy)))
        own_ledger.begin(own / "fedsim-ledger", site)
    return folder


Meddle = Callable[[str, Message], Message | None]


class Hospitals(InProcessGrid):
    """A SuperLink with a SuperNode at each site, but for the processes: what is said goes through as bytes.

    Args:
        folder: Where the sites have their folders.
        sites: Those that are there.
        on_the_way: From a site and its reply to what arrives of it; None if it is lost.
    """

    def __init__(
        self, folder: Path, sites: Iterable[str] = SITES, on_the_way: Meddle = lambda site, reply: reply
    ) -> None:
        self.names = list(sites)
        self.folder = folder
        self.on_the_way = on_the_way
        self.asked: list[tuple[str, str]] = []  # each message, by site and type
        super().__init__(self._answer, len(self.names), {})

    def _answer(self, messages: Any, contexts: Any) -> list[Any]:
        return [self._answer_of(message) for message in messages]

    def _answer_of(self, message: Message) -> Message | None:
        site = self.names[message.metadata.dst_node_id - 2]
        self.asked.append((site, message.metadata.message_type))
        came = through_bytes(message)
        config = {"site": site, "data": str(self.folder / site / "rows.csv")}
        context = Context(1, message.metadata.dst_node_id, config, RecordDict(), {})
        try:
            reply = real.app(came, context)
        except Exception as error:  # as a SuperNode tells of it
            reply = Message(Error(CLIENT_APP_RAISED, f"{type(error)}:<'{error}'>"), reply_to=came)
        return self.on_the_way(site, through_bytes(reply))


def through_bytes(message: Message) -> Message:
    """Return what arrives of a message."""
    with OF_A_SIMULATION.taken():
        return message_from_proto(message_to_proto(message))


def train(told: Scenario, grid: InProcessGrid, folder: Path) -> Path:
    """Train at real sites; return the server's directory."""
    return deploy(told, grid, OF_A_SIMULATION, folder)
