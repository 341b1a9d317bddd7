"""Trainings that protect whole sites, run again with another site and the same randomness: what changes, and what not.

The outputs of the mechanism are frozen at those of the first run, so that what follows from them alone stays the same
byte for byte, the models included. What a unit does not cover is left out by name: see ``UNCOVERED``.
"""

import dataclasses
import hashlib
import json
import logging
import math
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from fedsim.cli.terminal import closing_lines
from fedsim.data import federation
from fedsim.data.federation import Examples, Federation, Site
from fedsim.engines import cohort
from fedsim.experiments import arms, experiment, trainings
from fedsim.experiments.arms import Job, Trained, run_job
from fedsim.flower.records import ARRAYS, CONFIG, MECHANISM, METRICS, REPORTED, ROUND, TOLD, WEIGHT
from fedsim.flower.secure import server
from fedsim.flower.secure.messages import ANSWERED, KEYS, MASKED, OWN_MASKS, SHARES, SITES
from fedsim.mistakes import Mistake
from fedsim.planning import misbehaviour, trial
from fedsim.planning.checks import refuse, strategy_faults
from fedsim.privacy import central, noise_shares
from fedsim.privacy.adaptive_clip import AdaptiveClip
from fedsim.privacy.central import CentralNoise, clipped_sum
from fedsim.privacy.ledger import OwnUpdate
from fedsim.privacy.noise_shares import NoiseShare, noisy
from fedsim.privacy.units import distributed, local
from fedsim.report.base_findings import cautions
from fedsim.report.findings import in_short
from fedsim.report.statement import statement
from fedsim.results.run_directory import Run
from fedsim.scenario import catalog
from fedsim.scenario.files import read
from fedsim.scenario.schema import Scenario
from fedsim.strategy.contract import WITHOUT_NOISE, needs_mean_only
from fedsim.strategy.make import strategy_of
from tests.privacy.watching import Messages, Watch

PRIVATE = Job("federated", True, 0)
SMALL = ("training.rounds=3", "training.expected_batch=60", "seeds=1", "arms=['federated']", "privacy.delta=1e-4",
         "privacy.epsilon=900", "privacy.noise_multiplier=2", "privacy.clip=0.1", "engine=serial")  # fmt: skip
UNITS = {
    "client": ["privacy.unit=client"],
    "local": ["privacy.unit=local"],
    "distributed": ["privacy.unit=distributed", "secure_aggregation={drop_outs=1}"],
}
UNCOVERED = {
    "client": " was left out: ",  # who answered: "The notes of this report name sites that were left out."
    "local": "no note at all is left out",
    "distributed": " was left out: ",
}
"""{unit: what marks a note that the statement leaves out}."""

GONE = "answers nothing"
REMOVED = {GONE, "a NaN"}  # counts as no change, and where bits are summed, as none
PARTS = ("train", "validation", "test")
CHANGES = ("other rows", "opposite labels", "many rows", "one row", "no rows", "a NaN", "1e38", GONE)
VARIANTS = {
    "client": ("client", []),
    "client, cohort": ("client", ["engine=cohort"]),
    "client, fedadam": ("client", ["strategy.name=fedadam"]),
    "client, ditto": ("client", ["strategy.name=ditto"]),
    "client, sites that join on their own": ("client", ["training.site_sampling_rate=0.6"]),
    "client, adaptive clip": ("client", ["privacy.adaptive_clip={quantile=0.5, bit_noise=1.5}"]),
    "client, correlated": ("client", ["privacy.correlated=true", "training.site_turns=2", "training.rounds=4"]),
    "local": ("local", []),
    "local, cohort": ("local", ["engine=cohort"]),
    "local, scaffold": ("local", ["strategy.name=scaffold"]),
    "local, median": ("local", ["strategy.name=median"]),
    "local, fedbuff": ("local", ["strategy={name='fedbuff', k=2}"]),
    "distributed": ("distributed", []),
    "distributed, cohort": ("distributed", ["engine=cohort"]),
    "distributed, fedadam": ("distributed", ["strategy.name=fedadam"]),
}


class Tape:
    """What a mechanism is given in every release, and what it gave for the first run: that it gives ever after.

    And the noise: what it would have given, less what it was given.
    """

    def __init__(self) -> None:
        self.runs = True
        self.given: dict[Hashable, Tensor] = {}
        self.noise: dict[Hashable, Tensor] = {}
        self._gave: dict[Hashable, Any] = {}

    def play(self, key: Hashable, given: Tensor, gave: Any) -> Any:
        if not self.runs:
            return gave
        self.given[key] = given
        return self._gave.setdefault(key, gave)


def freeze(monkeypatch: pytest.MonkeyPatch, tape: Tape, bits: Tape) -> None:
    """Freeze what leaves the mechanism of each unit: the noisy mean, the noisy update, the noisy sum, the noisy bits.

    Noise is drawn, and releases are charged, as ever.
    """
    release, learn, own, total = CentralNoise.release, AdaptiveClip.learn, local.noised, server.unmasked_sum
    sums: list[Tensor] = []

    def summed(*args: Any) -> tuple[Tensor, int]:
        found = clipped_sum(*args)
        sums.append(found[0])
        return found

    def released(self: CentralNoise, number: int, *args: Any) -> Tensor:
        mean = release(self, number, *args)
        tape.noise[number] = mean.double() * self.planned(number).denominator - sums[-1]
        return tape.play(number, sums[-1], mean)

    def learned(self: AdaptiveClip, noisy: float, sites: float) -> None:
        learn(self, bits.play(len(bits.given), torch.tensor(noisy), noisy), sites)

    def noised(center: Tensor, update: Tensor, did: OwnUpdate, words: Any) -> Tensor:
        given, _ = clipped_sum(center, update[None], torch.ones(1).double(), did.clip)
        sent = own(center, update, did, words)
        tape.noise[words.key] = sent.double() - center - given
        return tape.play(words.key, given, sent)

    def shared(update: Tensor, weight: float, share: NoiseShare, words: Any) -> np.ndarray:
        sent = noisy(update, weight, share, words)
        exact = weight * noise_shares.clipped(update, share.clip)
        tape.noise[words.key] = torch.from_numpy(sent - noise_shares._rounded(exact, share))
        return sent

    def unmasked(terms: Any, *args: Any) -> np.ndarray:
        found = total(terms, *args)
        return tape.play(terms.round, torch.from_numpy(found.view(np.int64)), found)

    monkeypatch.setattr(central, "clipped_sum", summed)
    monkeypatch.setattr(CentralNoise, "release", released)
    monkeypatch.setattr(AdaptiveClip, "learn", learned)
    monkeypatch.setattr(local, "noised", noised)
    monkeypatch.setattr(distributed, "noisy", shared)
    monkeypatch.setattr(server, "unmasked_sum", unmasked)


def scenario(unit: str, *changes: str) -> Scenario:
    return read("hospital-heart", [*SMALL, *UNITS[unit], *changes])


def neighbour_of(whole: Federation, change: str) -> Federation:
    """Return a federation whose first site is another one: all of its rows, those to test on too."""
    site, random = whole.sites[0], torch.Generator().manual_seed(0)

    def spoiled(rows: Examples, value: float) -> Examples:
        inputs = rows.inputs.clone()
        inputs[:20] = value
        return Examples(inputs, rows.target)

    def those(choose: Callable[[int], list[int]]) -> Site:
        parts = {name: getattr(site, name) for name in PARTS}
        kept = {name: choose(len(rows)) for name, rows in parts.items()}
        rows = {name: Examples(one.inputs[kept[name]], one.target[kept[name]]) for name, one in parts.items()}
        groups = {name: values[kept["test"]] for name, values in site.groups.items()}
        return dataclasses.replace(site, **rows, groups=groups)

    def other(rows: Examples) -> Examples:
        return Examples(1 - 2 * torch.rand(rows.inputs.shape, generator=random), 1 - rows.target)

    def trains_on(own: Site, rows: Examples) -> Site:
        return dataclasses.replace(own, train=rows)

    many, one = those(lambda count: 3 * [*range(count)]), those(lambda count: [0])
    changed = {
        "other rows": dataclasses.replace(site, **{name: other(getattr(site, name)) for name in PARTS}),
        "opposite labels": trains_on(site, Examples(site.train.inputs, 1 - site.train.target)),
        "many rows": many,
        "one row": one,
        "no rows": trains_on(one, Examples(one.train.inputs[:0], one.train.target[:0])),
        "a NaN": trains_on(site, spoiled(site.train, math.nan)),
        "many rows, a NaN": trains_on(many, spoiled(many.train, math.nan)),
        "1e38": trains_on(site, spoiled(site.train, 1e38)),
        GONE: site,
    }[change]
    return Federation((changed, *whole.sites[1:]))


class Replay:
    """Runs one scenario again and again on other federations, with the same randomness; says what was seen of each."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
    ) -> None:
        self._patch, self._log, self._screen = monkeypatch, caplog, capsys
        self.tape, self.bits = Tape(), Tape()
        self.noise, self.messages = Watch(monkeypatch), Messages(monkeypatch)
        freeze(monkeypatch, self.tape, self.bits)

    def begin(self, own: Federation, gone: bool = False) -> None:
        """Forget the run before; the next is on this federation, whose first site may answer nothing."""
        self.keys = keys = []
        watched = (self.noise.shapes, self.noise.digests, self.messages.sent, self.messages.replies)
        for kept in (*watched, self.tape.given, self.tape.noise, self.bits.given):
            kept.clear()
        self._log.clear()
        self._patch.setattr(cohort, "_told", set())  # what is said once may be said again

        def urandom(size: int) -> bytes:
            keys.append(size)
            return hashlib.shake_128(str(len(keys)).encode()).digest(size)

        self._patch.setattr("fedsim.flower.secure.site.urandom", urandom)
        self._patch.setattr(misbehaviour, "_drops_out", lambda seed, number, site, share: gone and not site)
        self._patch.setattr(trial, "federate", lambda *args, **alone: own)

    def on(self, chosen: Scenario, own: Federation, gone: bool = False) -> tuple[Trained, dict[str, Any]]:
        """Train; return what came of it, and what was seen of it."""
        self.begin(own, gone)
        with self._log.at_level(logging.DEBUG, "fedsim"):
            done = run_job(chosen, PRIVATE, lambda number: None)
        seen = {
            "draws of noise": (list(self.noise.shapes), list(self.noise.digests)),
            "draws of keys": self.keys,
            "ledger": done.ledger.as_json() if done.ledger else None,
            "notes": [note for note in done.notes if UNCOVERED[chosen.privacy.unit] not in note],
            "lines": self.lines(),
            "messages": list(self.messages.sent),
            "replies": list(self.messages.replies),
            "model": {name: value.numpy().tobytes() for name, value in done.models[arms.GLOBAL].items()},
        }
        return done, seen

    def execute(self, chosen: Scenario, own: Federation, folder: Path) -> Run:
        """Run the whole scenario; what is trained without privacy is not frozen."""

        def train(scenario: Scenario, job: Job, *more: Any) -> Trained:
            self.tape.runs = job.private
            return run_job(scenario, job, *more)

        self.begin(own)
        self._patch.setattr(trainings, "run_job", train)
        with self._log.at_level(logging.DEBUG, "fedsim"):
            return experiment.execute(chosen, folder)

    def lines(self) -> tuple[list[str], str, str]:
        """Return what was logged and printed."""
        return list(self._log.messages), *self._screen.readouterr()


@pytest.fixture
def replay(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr("fedsim.engines.cohort._in_threads", lambda tasks, device: iter([task() for task in tasks]))
    return Replay(monkeypatch, caplog, capsys)


def covered(unit: str, seen: dict[str, Any]) -> dict[str, Any]:
    """Return what a unit's promise is about.

    client: the server is trusted, so not what it is sent. distributed: not the masked vector of a reply, only its kind.
    """
    found = {name: value for name, value in seen.items() if unit != "client" or name != "replies"}
    if unit == "distributed":
        place = f"{MASKED}/{MASKED}"
        found["replies"] = [
            {key: value[:3] if key == place else value for key, value in reply.items()} for reply in seen["replies"]
        ]
    return found


@pytest.mark.whole
@pytest.mark.parametrize("name", VARIANTS)
def test_another_site_changes_only_what_goes_into_the_mechanism(replay: Replay, name: str):
    """B6, B12, B5, M25, M6: all that is not noised, and all that follows from what is, is the same byte for byte."""
    unit, more = VARIANTS[name]
    chosen = scenario(unit, *more, "faults.drop_out=0.1")  # who drops out is decided below
    whole = federation.federate(chosen, 0)
    done, seen = replay.on(chosen, whole)
    assert seen["draws of noise"][1]
    assert seen["messages"]
    assert seen["replies"]
    given, noise, bits = dict(replay.tape.given), dict(replay.tape.noise), dict(replay.bits.given)
    declared = sensitivity(done)
    rounding = 1e-3 if "cohort" in name else 1e-6  # a batch's other rows move the last bits of a sum
    worst = 0.0
    for change in CHANGES:
        if change == GONE and unit != "client":
            continue  # that it did not answer is not covered, and it shows in who is asked next
        _, again = replay.on(chosen, neighbour_of(whole, change), gone=change == GONE)
        for part, value in covered(unit, seen).items():
            assert covered(unit, again)[part] == value, f"{change}: {part}"
        assert replay.tape.given.keys() == given.keys()
        assert replay.bits.given.keys() == bits.keys()
        torch.testing.assert_close(replay.tape.noise, noise, rtol=0, atol=1e-5)  # float32 on the way out
        distance = max(
            float((replay.tape.given[key] - before).double().norm()) / declared(key) for key, before in given.items()
        )
        nothing = unit != "local" and change in {*REMOVED, "no rows"}
        assert (0.9 if nothing else 0) < distance <= (1 if nothing else 2) * (1 + rounding), change
        worst = max(worst, distance)
        for key, before in bits.items():
            assert abs(float(replay.bits.given[key] - before)) <= (0.5 if change in REMOVED else 1.0) + 1e-6
    assert worst > 1.8  # a pair that is nearly as far apart as may be, or the bound is not tested
    assert bool(bits) == ("adaptive" in name)
    assert all(2 * float(value) % 1 for value in bits.values())  # there is noise on them


def sensitivity(done: Trained) -> Callable[[Hashable], float]:
    """Return what was declared for a release: how far a site that is removed moves what the mechanism is given."""
    assert done.ledger is not None
    spent = {entry.round: entry.mechanism for entry in done.ledger.entries}
    one = spent[1]
    if isinstance(one, NoiseShare):  # the sum is given in steps of the grid
        return lambda key: one.sensitivity / one.grid.resolution
    return lambda key: spent[key if isinstance(key, int) else 1].clip  # of each round, where the clip moves


def test_the_promise_of_shares_holds_where_a_site_answers_nothing(replay: Replay):
    """B6, distributed: who answered is not covered, so its reply, the list of those that did and the sum are let be."""
    chosen, replay.tape.runs = scenario("distributed", "faults.drop_out=0.1", "training.rounds=1"), False
    whole = federation.federate(chosen, 0)
    (_, seen), (_, again) = replay.on(chosen, whole), replay.on(chosen, whole, gone=True)
    for part in ("draws of noise", "draws of keys", "ledger", "notes", "lines"):
        assert again[part] == seen[part], part
    asked = [[one for one in each["messages"] if ANSWERED not in one] for each in (seen, again)]
    assert asked[0] == asked[1]
    before, after = (
        [one for one in covered("distributed", each)["replies"] if one["src_node_id"] != 2 and OWN_MASKS not in one]
        for each in (seen, again)
    )
    assert before == after


def shown(run: Run, unit: str) -> dict[str, Any]:
    """Return what of a run directory, and of what is said of it, does not hold figures of a model.

    Left out by name: the metrics, row counts and numbers of positives (``sites``, ``groups``, ``rounds``, the report
    and its pictures, the answers in words on the terminal, of which there must be as many, and the cautions that
    compare a test figure with that of a constant answer), the models of trainings without privacy, times, and in the
    notes who was left out.
    """
    files = sorted(path.relative_to(run.path) for path in run.path.rglob("*"))
    notes = [one for one in run.manifest["notes"] if one["private"] and UNCOVERED[unit] not in one["note"]]
    times = ("started", "seconds", "seconds_per_training", "notes", "files")  # of files, what follows says which
    checkpoint = json.loads((run.path / "checkpoints" / f"{PRIVATE.key}.json").read_text("utf-8"))
    answers = list(in_short(run))
    of_test_figures = [*answers, *(f"Take care: {text}" for text in cautions(run))]
    return {
        "names": files,
        "scenario": (run.path / "scenario.toml").read_bytes(),
        "ledger": (run.path / "ledger.json").read_bytes(),
        "model": (run.path / "model.safetensors").read_bytes(),
        "sizes": {path.name: path.stat().st_size for path in (run.path / "checkpoints").glob("*.safetensors")},
        "manifest": {key: value for key, value in run.manifest.items() if key not in times},
        "notes": notes,
        "statement": statement(run),
        "closing lines": [
            line
            for line in closing_lines(run)
            if str(run.path) not in line and not line.startswith("Note (") and line not in of_test_figures
        ],
        "answers": len(answers),
        "checkpoint": {key: value for key, value in checkpoint.items() if key in ("ledger", "scenario")},
        "rounds": run.rounds[["arm", "private", "round"]].to_dict("list"),
    }


@pytest.mark.whole
@pytest.mark.parametrize("unit", UNITS)
def test_another_site_changes_no_file_and_no_line(replay: Replay, tmp_path: Path, unit: str):
    """B6: ledger, notes, names of files, sizes of models, the model, the statement, what is printed and logged."""
    chosen, seen = scenario(unit), []
    whole = federation.federate(chosen, 0)
    for number, own in enumerate((whole, neighbour_of(whole, "many rows, a NaN"))):
        run = replay.execute(chosen, own, tmp_path / str(number))
        seen.append({**shown(run, unit), "lines": replay.lines(), "draws": list(replay.noise.digests)})
    for part, value in seen[0].items():
        assert seen[1][part] == value, part
    plain = [(tmp_path / str(number) / "checkpoints/federated-plain-0.safetensors").read_bytes() for number in (0, 1)]
    assert plain[0] != plain[1]  # the site was there


SEVEN = ("task='hospital/heart-network'", "partition={by='iid',sites=7}", "training.rounds=1")
NODES = range(2, 9)
NO_NORMS = {"fedbn"}  # keeps layers at the site that no model of a hospital has
ANY_SITE = {f"{record}/{node}" for record in (KEYS, SHARES, OWN_MASKS) for node in NODES}  # but a site's own
SENT_MASKED = ANY_SITE | {f"{CONFIG}/{SITES}", f"{ANSWERED}/{SITES}"}


def fields_of(kind: type) -> set[str]:
    """Return the fields of a site's declaration of what it did."""
    return {f"{MECHANISM}/{field.name}" for field in dataclasses.fields(kind)}


def fields_in(messages: list[dict[str, Any]]) -> set[str]:
    """Return the fields of some messages, without those that all of Flower's have."""
    return {key for one in messages for key in one if "/" in key or key == "error"}


@pytest.mark.whole
@pytest.mark.parametrize("unit", UNITS)
def test_whatever_the_strategy_the_listed_fields_are_all_that_leaves(replay: Replay, unit: str):
    """B12, M6: the allow-list of a round. No loss, no accuracy, no number of rows; who needs more is refused.

    What a server tells its sites beside the model is what its strategy keeps, which follows from noisy models.
    """
    refused = set()
    for strategy in catalog.titles("strategies"):
        chosen = scenario(unit, *SEVEN, f"strategy={{name='{strategy}'}}")
        trial_of = trial.Trial(chosen, 0, "federated")
        whole, model = trial_of.federation, trial_of.model
        try:
            refuse(strategy_faults(chosen, len(whole.sites), model))
        except Mistake:
            refused.add(strategy)
            continue
        _, seen = replay.on(chosen, whole)
        sent, replied = fields_in(seen["messages"]), fields_in(seen["replies"])
        own = {f"{ARRAYS}/{name}" for name, _ in model.named_parameters()}
        told = {f"{TOLD}/{name}" for name in strategy_of(chosen).tells}
        listed = {
            "client": own | {f"{METRICS}/{WEIGHT}"},
            "local": own | {f"{METRICS}/{WEIGHT}"} | fields_of(OwnUpdate),
            "distributed": ANY_SITE | {f"{MASKED}/{MASKED}"} | fields_of(NoiseShare),
        }[unit]
        masked = SENT_MASKED if unit == "distributed" else set()
        assert sent <= own | {f"{CONFIG}/{ROUND}"} | told | masked, strategy
        assert listed - ANY_SITE <= replied <= listed | {f"{METRICS}/{REPORTED['steps']}"}, strategy
        for reply in seen["replies"]:
            assert reply.get(f"{METRICS}/{REPORTED['steps']}", 2) == 2
            assert reply.get(f"{METRICS}/{WEIGHT}", 60.0) == 60.0
    assert refused == {name for name in catalog.titles("strategies") if not possible(name, unit)}


def possible(strategy: str, unit: str) -> bool:
    """Whether a unit lets a strategy work: under ``local`` if it needs no loss, else if it needs the mean only."""
    chosen = strategy_of(scenario(unit, *SEVEN, f"strategy={{name='{strategy}'}}"), 7)
    may = needs_mean_only(chosen) if unit != "local" else not set(chosen.reports) & set(WITHOUT_NOISE)
    return may and strategy not in NO_NORMS
