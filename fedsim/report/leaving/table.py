"""The table of what leaves each site, and of what each site gets: for the statement of a trusted research environment.

Kinds, fields and sizes are of the messages that passed between server and sites in the federated trainings; who sees
them and what protects them follows from the scenario's privacy unit and from the ledger.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from fedsim import figures
from fedsim.flower.records import ARRAYS, CONFIG, MECHANISM, METRICS, TOLD
from fedsim.flower.traffic import DOWN, ERROR, UP
from fedsim.privacy.unit import Place
from fedsim.privacy.units import unit_of
from fedsim.results.run_directory import Run

PRIVATE, PLAIN = "with privacy", "without privacy"
NOT_COUNTED = (
    "The messages of this run were not counted: it is of a version that did not, or none of its federated trainings "
    "was counted from the first round on. Run it again to get the table."
)
NO_MESSAGES = "Nothing is sent between sites and a server: the run has no federated arm."
_EVERYTHING = "every training row"
_SUM = "nobody alone: the server learns the sum of the round's sites"
_SERVER = "the server"
_EXACT = "none"
_FORGOTTEN = "not kept: in memory during the round, and in checkpoints/ while a training is under way"


@dataclass(frozen=True)
class Line:
    """A kind of message.

    Attributes:
        direction: ``UP`` or ``DOWN``.
        training: ``with privacy`` or ``without privacy``.
        name: What it is.
        fields: What is in it, by the names of its records.
        in_a_round: Its size in a message, which is that of one site in one round, in bytes: the largest.
        in_all: The size of all such messages of a training, the mean over seeds, in bytes.
        messages: How many there were in a training, the mean over seeds.
        seen_by: Who sees it.
        control: What protects it: clip, noise, masks.
        kept: Where it is kept.
    """

    direction: str
    training: str
    name: str
    fields: str
    in_a_round: int
    in_all: float
    messages: float
    seen_by: str
    control: str
    kept: str


def lines(run: Run) -> list[Line]:
    """Return what left the sites, and then what they got; nothing if it was not counted."""
    if run.traffic is None:
        return []
    found = []
    for direction in (UP, DOWN):
        for private in (True, False):
            own = run.traffic[
                (run.traffic["direction"] == direction) & (run.traffic["private"].astype(bool) == private)
            ]
            for (message, record), rows in own.groupby(["message", "record"], sort=False):
                found.append(_line(run, direction, private, str(message), str(record), rows))
    return found


def why_none(run: Run) -> str:
    """Return why there is no table; nothing if there is one."""
    if run.traffic is not None:
        return ""
    return NOT_COUNTED if "federated" in run.scenario.arms else NO_MESSAGES


def beside(run: Run) -> list[str]:
    """Return what leaves, or stays, without a message."""
    said = []
    if "federated" in run.scenario.arms:
        said.append("Records, labels and the models that sites keep for themselves: never in a message.")
    if run.scenario.data.scale == "learned":
        said.append(
            "Sums and counts of columns for the learned scale: the simulator takes them itself, exactly and once, so "
            "that they are no message above; at real sites they would leave, without noise."
        )
    if "centralized" in run.scenario.arms:
        said.append(f"Centralized arm: {_EVERYTHING} of each site goes to the pool, once, without a control.")
    if "local" in run.scenario.arms:
        said.append("Local arm: nothing leaves, unless a site hands its model on.")
    said.append(
        "Figures of this report: the simulator computes them from exact rows; in a deployment they would be messages "
        "of their own."
    )
    return said


def size(count: float) -> str:
    """Write a size in bytes: ``390 bytes``, ``3.1 kB``."""
    for unit, step in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= step:
            return f"{count / step:.3g} {unit}"
    return f"{count:.0f} bytes"


def frame(run: Run) -> pd.DataFrame:
    """Return the lines as a table, for a file."""
    return pd.DataFrame([line.__dict__ for line in lines(run)], columns=list(Line.__dataclass_fields__))


def _line(run: Run, direction: str, private: bool, message: str, record: str, rows: pd.DataFrame) -> Line:
    seeds = rows["seed"].nunique()
    about = _sent(run, private, message, record) if direction == UP else _got(message, record)
    return Line(
        direction=direction,
        training=PRIVATE if private else PLAIN,
        name=about[0],
        fields=str(rows["fields"].iloc[0]),
        in_a_round=int(rows["most"].max()),
        in_all=float(rows["bytes"].sum()) / seeds,
        messages=float(rows["messages"].sum()) / seeds,
        seen_by=about[1],
        control=about[2],
        kept=about[3],
    )


_About = tuple[str, str, str, str]
"""Name, who sees it, what protects it, where it is kept."""

_SECURE: Mapping[tuple[str, str], _About] = {
    ("query.keys", "keys"): ("public keys of the round", "the server and the round's sites", "public by nature", "no"),
    ("query.shares", "shares"): (
        "shares of the site's secrets, sealed for one site each",
        "one other site each; the server relays what it can't read",
        "encrypted; too few of them say nothing",
        "no",
    ),
    ("query.unmask", "own-masks"): (
        "shares that open the masks of the sum, of sites that answered",
        _SERVER,
        "opens the sum, and no site's change",
        "no",
    ),
}


def _sent(run: Run, private: bool, message: str, record: str) -> _About:
    """Say what a record from a site is."""
    if record == ERROR:
        return "the kind of an error", _SERVER, _EXACT, "in the notes of the run"
    if record == MECHANISM:
        return "settings of its mechanism, which are public", _SERVER, "holds no figure of a row", "in ledger.json"
    if message == "train" and record == ARRAYS:
        return "the model as its training left it", _SERVER, _control(run, private), _FORGOTTEN
    if message == "train" and record == "masked":
        control = "masks of the round"
        if private:
            control += f"; {_control(run, private)}"
        return "its change of the model, under masks", _SUM, control, _FORGOTTEN
    if message == "train" and record == METRICS:
        public = "public: expected batch, steps"
        if any(name in _fields_of(run, message, record) for name in ("train_loss", "cluster")):
            public = "its weight is public; what a strategy asks for beside it is exact"
        return "its weight, and what the strategy asks for", _SERVER, public, "no"
    if message == "evaluate":
        return "figures of the model on its rows", _SERVER, "none: exact", "no"
    if message.startswith("query."):
        return _SECURE.get((message, record), ("a step of secure aggregation", _SERVER, "see secure aggregation", "no"))
    return f"{record}, of a strategy or site of one's own", _SERVER, "not known", "not known"


def _got(message: str, record: str) -> _About:
    """Say what a record to a site is."""
    if record == ARRAYS:
        return (
            "the joint model",
            "the sites asked",
            "as the statement says of the model",
            "the last one, in checkpoints/",
        )
    if record == TOLD:
        return "what the strategy tells beside the model", "the sites asked", "follows from what sites sent", "no"
    if record == CONFIG:
        return "the round, and settings", "the sites asked", "holds no figure of a row", "in scenario.toml"
    return f"{record} ({message})", "the sites asked", "relayed, see from a site", "no"


def _control(run: Run, private: bool) -> str:
    """Return clip and noise of the federated trainings, from the ledger."""
    if not private:
        return _EXACT
    mechanisms = [
        entry["mechanism"]
        for training in run.ledger["trainings"]
        if training["arm"] == "federated"
        for entry in training["entries"]
    ]
    clip = _values(mechanisms, "clip")
    noise = _values(mechanisms, "noise_multiplier")
    bounded = f"clip {clip}" if clip else "clipped"
    noisy = f"noise sigma {noise} times the clip" if noise else "noise"
    unit = unit_of(run.ledger["unit"])
    gradient = "the sum of each person's gradients" if unit.persons else "each row's gradient"
    return {
        Place.NOWHERE: _EXACT,
        Place.IN_STEPS: f"{gradient}: {bounded}; in each step {noisy}",
        Place.ON_UPDATES: f"the site's change: {bounded}, {noisy}, at the site",
        Place.IN_SHARES: f"the site's change: {bounded}; a share of the noise, which in all is {noisy}",
        Place.AT_SERVER: f"none before it leaves: the server clips ({clip or 'see the statement'}) and adds the "
        f"{noisy} to the sum, and is trusted",
    }[unit.place]


def _values(mechanisms: list[Mapping[str, Any]], name: str) -> str:
    """Write a value of the releases, or the least and the greatest."""
    values = sorted({float(one[name]) for one in mechanisms if name in one})
    if not values:
        return ""
    least, most = figures.setting(values[0]), figures.setting(values[-1])
    return least if least == most else f"{least} to {most}"


def _fields_of(run: Run, message: str, record: str) -> str:
    traffic = run.traffic
    if traffic is None:
        return ""
    own = traffic[(traffic["direction"] == UP) & (traffic["message"] == message) & (traffic["record"] == record)]
    return ", ".join(own["fields"])
