"""``privacy.rng = "secure"``: noise, and what else a promise rests on, that nobody can know; results that say so."""

import base64
import json
import os
from dataclasses import asdict, replace
from html import unescape
from itertools import count
from pathlib import Path

import pytest
import torch

from fedsim import randomness
from fedsim.data.federation import federate
from fedsim.experiments import arms, trainings
from fedsim.experiments.arms import Job, jobs, run_job
from fedsim.experiments.experiment import execute, resume
from fedsim.flower.adapter import Adapter
from fedsim.flower.records import from_mechanism, to_mechanism
from fedsim.mistakes import Interrupted, Mistake
from fedsim.planning import misbehaviour, trial
from fedsim.planning.participation import joining_of, sites_of_round
from fedsim.planning.whole_sites import noise_words
from fedsim.privacy.ledger import Mechanism, OwnUpdate, SiteUpdate
from fedsim.privacy.noise_shares import NoiseShare
from fedsim.privacy.units import released_in
from fedsim.randomness import Normals, Words
from fedsim.report.statement import statement
from fedsim.results.run_directory import Run
from fedsim.scenario.files import read
from fedsim.scenario.schema import Scenario, Training
from fedsim.training import steps as training
from fedsim.training.model import new_model
from fedsim.training.work import Streams
from tests.cases import others_whole
from tests.runs import make_run

SECURE = "privacy.rng=secure"
ENGINES = ["cohort", "serial"]
ARMS = ["federated", "centralized", "local"]
UNITS = {
    "record": ("hospital-heart", "training.rounds=2"),
    "client": ("synthetic-whole-sites", "training.rounds=4", "partition.sites=12", "training.site_sampling_rate=0.4"),
    "local": ("hospital-heart", "training.rounds=2", "privacy.unit=local"),
    "distributed": ("synthetic-untrusted-server", "training.rounds=2", "partition.sites=7", "faults.drop_out=0",
                    "secure_aggregation={drop_outs=2, colluding=1}"),
}  # fmt: skip
KEYS = {"record": 3 * 4 * 2, "client": 2 * 4, "local": 4 * 2, "distributed": 7 * 2}
"""How many keys the operating system is asked for in all rounds: of noise, batches and dropout, or who joins."""
WHOLE = [unit for unit in UNITS if unit != "record"]
PRIVATE = Job("federated", True, 0)
each_unit, each_whole = (pytest.mark.parametrize("unit", units) for units in (list(UNITS), WHOLE))


def of_unit(unit: str, *overrides: str) -> Scenario:
    name, *settings = UNITS[unit]
    small = ("training.local_steps=2", "seeds=1", "arms=['federated']", "privacy.noise_multiplier=3",
             "privacy.epsilon=900")  # fmt: skip
    return read(name, [*settings, *small, *overrides])


def chosen_otherwise(**how: int) -> dict[str, Training]:
    """Return a change of a scenario of the unit client: how the sites of a round are chosen."""
    return {"training": of_unit("client").training.model_copy(update={"site_sampling_rate": None, **how})}


def trained(chosen: Scenario) -> arms.Trained:
    return run_job(chosen, PRIVATE, lambda number: None)


def weights(done: arms.Trained) -> torch.Tensor:
    return torch.cat([value.flatten() for model in done.models.values() for value in model.values()])


def differ(one: torch.Tensor, other: torch.Tensor) -> float:
    """Return the share of numbers that differ; on a grid, a few of thousands agree by chance."""
    return float((one != other).float().mean())


def kinds(done: arms.Trained) -> set[str]:
    assert done.ledger is not None
    return {entry.mechanism.rng for entry in done.ledger.entries}


@pytest.mark.whole
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("arm", ARMS)
def test_two_secure_trainings_differ_and_say_that_they_are_secure(scenario, engine: str, arm):
    one, other = (
        run_job(scenario(SECURE, f"engine={engine}"), Job(arm, True, 0), lambda number: None) for _ in range(2)
    )
    assert (weights(one) != weights(other)).any()
    assert kinds(one) == kinds(other) == {"secure"}
    assert kinds(run_job(scenario(f"engine={engine}"), Job(arm, True, 0), lambda number: None)) == {"reproducible"}


@pytest.mark.whole
@pytest.mark.parametrize("engine", ENGINES)
@each_unit
def test_secure_trainings_differ_in_what_is_released_and_agree_in_what_is_public(unit: str, engine: str):
    """Who is charged for what, and so the noise and the budget, does not depend on anything secret."""
    secure = [trained(of_unit(unit, SECURE, f"engine={engine}")) for _ in range(2)]
    usual = trained(of_unit(unit, f"engine={engine}"))
    assert differ(*map(weights, secure)) > 0.99
    assert [kinds(done) for done in (*secure, usual)] == [{"secure"}, {"secure"}, {"reproducible"}]
    for done in secure:
        public = [replace(e, mechanism=replace(e.mechanism, rng="reproducible")) for e in done.ledger.entries]
        assert public == [*usual.ledger.entries]
        assert done.ledger.as_json()["epsilon"] == usual.ledger.as_json()["epsilon"]


@each_unit
def test_a_training_asks_for_one_key_for_each_thing_that_is_secret(unit: str, monkeypatch):
    """No two releases share one, and who joins a round is drawn once."""
    keys = keys_from(monkeypatch, 1)
    trained(of_unit(unit, SECURE))
    assert len(keys) == KEYS[unit]


def test_rounds_with_correlated_noise_have_keys_of_their_own(monkeypatch):
    privacy = of_unit("client", SECURE).privacy.model_copy(update={"correlated": True})
    chosen = of_unit("client").model_copy(update={"privacy": privacy, **chosen_otherwise(site_turns=3)})
    keys = keys_from(monkeypatch, 1)
    assert kinds(trained(chosen)) == {"secure"}
    assert len(keys) == 4  # nothing is claimed from who joins


def asked(monkeypatch: pytest.MonkeyPatch, chosen: Scenario) -> list[list[int]]:
    """Train; return the nodes that were asked in each round."""
    rounds, configure = [], Adapter.configure_train

    def watching(self, *args):
        messages = list(configure(self, *args))
        rounds.append([message.metadata.dst_node_id for message in messages])
        return messages

    with monkeypatch.context() as patch:
        patch.setattr(Adapter, "configure_train", watching)
        trained(chosen)
    return rounds


def test_who_joins_is_secret_where_a_promise_rests_on_it(monkeypatch):
    one, other = (asked(monkeypatch, of_unit("client", SECURE)) for _ in range(2))
    usual, again = (asked(monkeypatch, of_unit("client")) for _ in range(2))
    assert len(one) == 4
    assert one != other != usual != one
    assert usual == again


@pytest.mark.whole
def test_who_joins_is_public_where_no_promise_rests_on_it(monkeypatch):
    for update in (chosen_otherwise(site_turns=3), chosen_otherwise(sites_per_round=3)):
        found = [asked(monkeypatch, of_unit("client", *how).model_copy(update=update)) for how in ([SECURE], [])]
        assert found[0] == found[1]
    for unit in ("record", "local"):
        found = [asked(monkeypatch, of_unit(unit, "training.site_sampling_rate=0.5", *how)) for how in ([SECURE], [])]
        assert found[0] == found[1]


def test_a_training_that_asks_twice_who_joins_is_told_the_same():
    chosen, names = of_unit("client", SECURE), [f"site {number}" for number in range(50)]
    one, other = joining_of(chosen, 0), joining_of(chosen, 0)
    first = [sites_of_round(chosen, 0, names, number, one) for number in (1, 2, 1)]
    assert first[0] == first[2] != first[1]
    assert first[0] != sites_of_round(chosen, 0, names, 1, other)
    assert one(1).secret


@each_whole
def test_noise_that_follows_from_a_name_is_called_reproducible(unit: str, monkeypatch):
    """Whatever the scenario asks for: what counts is what was drawn."""

    def by_name(scenario, seed, purpose, *place):
        return Words.of(seed, purpose, *place)

    for room in ("fedsim.site.app", "fedsim.planning.whole_sites"):
        monkeypatch.setattr(f"{room}.noise_words", by_name)
    assert kinds(trained(of_unit(unit, SECURE))) == {"reproducible"}


@pytest.mark.parametrize(("rate", "kind"), [(0.4, "reproducible"), (1.0, "secure")])
def test_a_draw_of_who_joins_that_follows_from_a_name_counts_where_it_is_claimed(rate: float, kind: str, monkeypatch):
    monkeypatch.setattr(trial, "joining_of", lambda scenario, seed: lambda number: Words.of(seed, "joining", number))
    assert kinds(trained(of_unit("client", SECURE, f"training.site_sampling_rate={rate}"))) == {kind}


@pytest.mark.parametrize("unit", others_whole(["record", "local", "distributed"], "record"))
def test_a_site_that_fails_is_charged_as_planned(unit: str, monkeypatch):
    """Nothing of it was released under another key."""
    monkeypatch.setattr(misbehaviour, "_drops_out", lambda seed, number, site, share: site == 0)
    failing, well = (trained(of_unit(unit, SECURE, *how)) for how in (["faults.drop_out=0.1"], []))
    assert kinds(failing) == {"secure"}
    assert failing.ledger.entries == well.ledger.entries


def test_all_but_noise_and_batches_still_follows_from_the_seed(scenario):
    secure, usual = scenario(SECURE), scenario()
    first, second = federate(secure, 0), federate(usual, 0)
    assert all(torch.equal(a.test.inputs, b.test.inputs) for a, b in zip(first.sites, second.sites, strict=True))
    one, other = (new_model(chosen, first.sites[0], 0, "cpu") for chosen in (secure, usual))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize("arm", others_whole(ARMS, "federated"))
def test_trainings_without_privacy_stay_as_they_are(scenario, arm):
    found = [
        weights(run_job(scenario(*extra), Job(arm, False, 0), lambda number: None))
        for extra in ([SECURE], [], [SECURE])
    ]
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


def keys_from(monkeypatch: pytest.MonkeyPatch, start: int) -> list[bytes]:
    """Let the operating system draw 1, 2, 3 and so on; return the list that the keys are added to."""
    drawn, numbers = [], count(start)

    def draw(size: int) -> bytes:
        drawn.append(next(numbers).to_bytes(size, "big"))
        return drawn[-1]

    monkeypatch.setattr(os, "urandom", draw)
    return drawn


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("arm", others_whole(ARMS, "federated"))
def test_the_operating_system_alone_decides(scenario, engine: str, arm, monkeypatch):
    """The same keys give the same model; under other keys every part of it is another."""
    chosen, found = scenario(SECURE, f"engine={engine}"), []
    for start in (1, 1, 10_000):
        keys_from(monkeypatch, start)
        found.append(weights(run_job(chosen, Job(arm, True, 0), lambda number: None)))
    assert torch.equal(found[0], found[1])
    assert (found[0] != found[2]).all()


@each_whole
def test_the_operating_system_alone_decides_of_whole_sites_too(unit: str, monkeypatch):
    found = []
    for start in (1, 1, 10_000):
        keys_from(monkeypatch, start)
        found.append(weights(trained(of_unit(unit, SECURE))))
    assert torch.equal(found[0], found[1])
    assert differ(found[0], found[2]) > 0.99


def test_each_site_has_keys_of_its_own_in_each_round(scenario, monkeypatch):
    keys, chosen = keys_from(monkeypatch, 1), scenario(SECURE)
    streams = [Streams.of(chosen, 0, "federated", site, number) for site in "ab" for number in (1, 2, 2)]
    assert {stream.kind for stream in streams} == {"secure"}
    used = [stream.key for one in streams for stream in (one.noise, one.batches)]
    assert len(set(used)) == len(used) == 12
    assert set(used) <= set(keys)
    assert len({one.layers for one in streams}) == 6


def test_nothing_secret_follows_from_a_name(scenario, monkeypatch):
    """The hash of names is not even asked."""
    chosen = scenario(SECURE)

    def asked(*args):
        raise AssertionError(f"the stream of {args} was derived")

    monkeypatch.setattr(randomness, "_digest", asked)
    Streams.of(chosen, 0, "federated", "a", 1)
    for unit in WHOLE:
        assert noise_words(of_unit(unit, SECURE), 0, "noise", "federated", 1).secret
    assert joining_of(of_unit("client", SECURE), 0)(1).secret


@each_whole
def test_how_a_site_trains_is_no_secret_where_whole_sites_are_protected(unit: str):
    """The noise covers any change of the model."""
    secure, usual = (Streams.of(of_unit(unit, *how), 0, "federated", "a", 1) for how in ([SECURE], []))
    assert secure.kind == "reproducible"
    assert (secure.batches.key, secure.layers) == (usual.batches.key, usual.layers)


def test_half_a_secret_is_none():
    assert Streams(Words.unknown(), Words.of(0, "noise")).kind == "reproducible"
    assert Streams(Words.of(0, "batches"), Words.unknown()).kind == "reproducible"
    assert Words.unknown().again().secret


def test_a_stream_starts_again_where_it_began():
    """As where memory runs out and a stack is trained in halves: nothing had been released yet."""
    words = Words.unknown()
    assert words.draw(5).tolist() == words.again().draw(5).tolist()


def test_secret_noise_never_comes_from_the_generator_of_a_device(monkeypatch):
    """CUDA's Philox is no cipher. The streams of one stack are all secret or all not."""
    monkeypatch.setattr(torch, "Generator", None)
    secret, expected, found = Words(bytes(16), secret=True), torch.empty(1, 9), torch.empty(1, 9)
    Normals([secret.again()], torch.device("cpu")).fill(expected)
    Normals([secret], torch.device("cuda")).fill(found)
    assert torch.equal(found, expected)


def protected(unit: str) -> list[str]:
    """Return the arms in which a unit has a meaning."""
    return ARMS if unit == "record" else ["federated"]


@pytest.fixture(scope="module", params=UNITS)
def finished(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Run:
    scenario = of_unit(request.param, "training.rounds=1", f"arms={protected(request.param)}", SECURE)
    return execute(scenario, tmp_path_factory.mktemp("runs") / "secure")


SAID = {
    "record": ("Secure: noise and batches come from AES", "splits and initial weights, and other noise and batches."),
    "client": ("Secure: the noise comes from AES", "under a key of its own."),
    "local": ("Secure: the noise on each update comes from AES", "initial weights and batches, and other noise."),
    "distributed": ("Secure: each site's share of the noise comes from", "weights and batches, and other noise."),
}


@pytest.mark.whole
def test_a_run_says_it_in_its_manifest_its_ledger_and_its_report(finished: Run):
    assert finished.manifest["rng"] == "secure"
    assert {e["mechanism"]["rng"] for t in finished.ledger["trainings"] for e in t["entries"]} == {"secure"}
    report = unescape((finished.path / "report.html").read_text("utf-8"))
    assert all(words in report for words in SAID[finished.ledger["unit"]])
    assert "Reproducible: noise and batches" not in report


@pytest.mark.whole
@pytest.mark.parametrize("weak", [{"rng": "reproducible"}, {}])
def test_a_seed_is_presumed_secret_where_there_is_one(finished: Run, weak: dict):
    """Also of ledgers of earlier versions, which do not say."""
    assert "seed" not in dict(statement(finished))["Trust model"]
    ledger = json.loads(json.dumps(finished.ledger))
    did = ledger["trainings"][0]["entries"][0]["mechanism"]
    del did["rng"]
    did.update(weak)
    said = dict(statement(replace(finished, ledger=ledger)))
    assert said["Random numbers"].startswith("Reproducible: ")
    assert "Presumed is also a noise seed that nobody knows" in said["Trust model"]


ASKED = {"record": 3 * (4 + 1 + 4), "client": 2, "local": 4, "distributed": 7}


@pytest.mark.whole
@pytest.mark.parametrize(("unit", "count"), ASKED.items())
def test_the_keys_are_written_nowhere(unit: str, count: int, tmp_path: Path, monkeypatch, capfd):
    keys = keys_from(monkeypatch, int.from_bytes(b"a key like those"))
    execute(of_unit(unit, "training.rounds=1", f"arms={protected(unit)}", SECURE), tmp_path / "run")
    forms = {form for key in keys for form in (key, key.hex().encode(), base64.b64encode(key), repr(key).encode())}
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    printed = "".join(capfd.readouterr()).encode()
    assert len(keys) == count
    assert len(files) > 10
    for content in [printed, *(path.read_bytes() for path in files)]:
        assert not any(form in content for form in forms)


@pytest.mark.whole
@pytest.mark.parametrize("weak", [None, {"rng": "reproducible"}, {}])
def test_the_statement_follows_what_ran(tmp_path: Path, weak: dict | None):
    """One step whose randomness was not secret, or not said to be, and the whole is called reproducible."""
    run = make_run(tmp_path)
    entries = [entry for one in run.ledger["trainings"] for entry in one["entries"]]
    for entry in entries:
        entry["mechanism"] = entry["mechanism"] | {"rng": "secure"}
    if weak is not None:
        entries[0]["mechanism"] = {key: value for key, value in entries[0]["mechanism"].items() if key != "rng"} | weak
    said = dict(statement(run))["Random numbers"]
    assert said.startswith("Secure: " if weak is None else "Reproducible: ")
    assert ("no guarantee" in said) == (weak is not None)


@pytest.mark.whole
@each_unit
def test_an_interrupted_secure_run_keeps_what_was_finished_and_tells_of_the_rest(
    unit: str, tmp_path: Path, monkeypatch
):
    """The round that was interrupted has left its noise, though no model was kept: it is charged, too."""
    scenario = of_unit(unit, "training.rounds=1", "seeds=2", SECURE)
    todo, begun = jobs(scenario), []

    def interrupt(number: int) -> None:
        raise KeyboardInterrupt

    last = max(number for number, job in enumerate(todo) if job.private)

    def stop_in_the_last(scenario, job, observe, *more):
        begun.append(job)
        stops = len(begun) == last + 1
        return run_job(scenario, job, interrupt if stops else observe, *more)

    monkeypatch.setattr(trainings, "run_job", stop_in_the_last)
    with pytest.raises(Interrupted):
        execute(scenario, tmp_path / "run")
    kept = {path: path.read_bytes() for path in (tmp_path / "run" / "checkpoints").glob("*.safetensors")}
    assert len(kept) == last
    run = resume(tmp_path / "run")
    assert begun == [*todo[: last + 1], *todo[last:]]
    assert todo[last].private
    assert all(path.read_bytes() == content for path, content in kept.items())
    (note,) = run.manifest["notes"]
    assert (note["arm"], note["private"]) == (todo[last].arm, True)
    assert note["note"].startswith("round 1 was begun once before and interrupted: what may have left until then is")
    whole, twice = [one for one in run.ledger["trainings"] if one["arm"] == todo[last].arm]
    assert twice["entries"] == [*whole["entries"], *whole["entries"]]
    assert all(twice["epsilon"][site] > epsilon for site, epsilon in whole["epsilon"].items())


def test_an_unknown_kind_is_refused(scenario):
    with pytest.raises(Mistake, match=r"privacy.rng: expected 'reproducible' or 'secure', got 'safe'"):
        scenario("privacy.rng=safe")


def test_the_mechanism_of_a_site_is_checked(scenario):
    done = run_job(scenario(SECURE), Job("federated", True, 0), lambda number: None)
    values = json.loads(json.dumps(done.ledger.as_json()))["entries"][0]["mechanism"]  # type: ignore[union-attr]
    assert training.Mechanism(**values).rng == "secure"
    with pytest.raises(Mistake, match="rng: expected reproducible or secure, got 'mine'"):
        training.Mechanism(**values | {"rng": "mine"})


@pytest.mark.parametrize(
    "release",
    [
        Mechanism(0.5, 1.0, 1.0, 60.0, 2, rng="secure"),
        SiteUpdate(0.5, 1.0, 1.0, 30.0, 4.0, rng="secure"),
        OwnUpdate(1.0, 1.0, rng="secure"),
        NoiseShare(1.0, 1.0, 10, 7, 2, 1, rng="secure"),
    ],
)
def test_every_kind_of_release_says_it_and_one_that_was_saved_before_does_not(release):
    tagged = {"kind": release.kind, "mechanism": asdict(release)}
    for entry in (tagged, {"mechanism": asdict(release)}):  # earlier versions wrote no kind
        written = json.loads(json.dumps(entry))
        assert released_in(written) == release
        written["mechanism"]["rng"] = "mine"
        with pytest.raises(Mistake, match="rng: expected reproducible or secure, got 'mine'"):
            released_in(written)
        del written["mechanism"]["rng"]
        assert released_in(written) == replace(release, rng="reproducible")

    if not isinstance(release, SiteUpdate):  # which is written down where it is made
        assert to_mechanism(from_mechanism(release), type(release)) == release
