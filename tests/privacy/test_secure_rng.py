"""``privacy.rng = "secure"``: noise and batches that nobody can know, and results that say so."""

import base64
import json
import os
from itertools import count
from pathlib import Path

import pytest
import torch

from fedsim import arms, experiment, randomness, training
from fedsim.arms import Job, jobs, run_job
from fedsim.experiment import execute, resume
from fedsim.federation import federate
from fedsim.mistakes import Interrupted, Mistake
from fedsim.randomness import Normals, Words
from fedsim.results import Run
from fedsim.scenario_files import read
from fedsim.statement import statement
from fedsim.training import Streams, new_model
from tests.runs import make_run

SECURE = "privacy.rng=secure"
ENGINES = ["cohort", "serial"]
ARMS = ["federated", "centralized", "local"]


def weights(done: arms.Trained) -> torch.Tensor:
    return torch.cat([value.flatten() for model in done.models.values() for value in model.values()])


def kinds(done: arms.Trained) -> set[str]:
    assert done.ledger is not None
    return {entry.mechanism.rng for entry in done.ledger.entries}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("arm", ARMS)
def test_two_secure_trainings_differ_and_say_that_they_are_secure(scenario, engine: str, arm):
    one, other = (run_job(scenario(SECURE, f"engine={engine}"), Job(arm, True, 0), lambda: None) for _ in range(2))
    assert (weights(one) != weights(other)).any()
    assert kinds(one) == kinds(other) == {"secure"}
    assert kinds(run_job(scenario(f"engine={engine}"), Job(arm, True, 0), lambda: None)) == {"reproducible"}


def test_all_but_noise_and_batches_still_follows_from_the_seed(scenario):
    secure, usual = scenario(SECURE), scenario()
    first, second = federate(secure, 0), federate(usual, 0)
    assert all(torch.equal(a.test.inputs, b.test.inputs) for a, b in zip(first.sites, second.sites, strict=True))
    one, other = (new_model(chosen, first.sites[0], 0, "cpu") for chosen in (secure, usual))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize("arm", ARMS)
def test_trainings_without_privacy_stay_as_they_are(scenario, arm):
    found = [weights(run_job(scenario(*extra), Job(arm, False, 0), lambda: None)) for extra in ([SECURE], [], [SECURE])]
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
@pytest.mark.parametrize("arm", ARMS)
def test_the_operating_system_alone_decides(scenario, engine: str, arm, monkeypatch):
    """The same keys give the same model; under other keys every part of it is another."""
    chosen, found = scenario(SECURE, f"engine={engine}"), []
    for start in (1, 1, 10_000):
        keys_from(monkeypatch, start)
        found.append(weights(run_job(chosen, Job(arm, True, 0), lambda: None)))
    assert torch.equal(found[0], found[1])
    assert (found[0] != found[2]).all()


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


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Run:
    scenario = read("hospital-heart", ["training.rounds=1", "seeds=2", "privacy.noise_multiplier=3", SECURE])
    return execute(scenario, tmp_path_factory.mktemp("runs") / "secure")


def test_a_run_says_it_in_its_manifest_its_ledger_and_its_report(finished: Run):
    assert finished.manifest["rng"] == "secure"
    assert {e["mechanism"]["rng"] for t in finished.ledger["trainings"] for e in t["entries"]} == {"secure"}
    report = (finished.path / "report.html").read_text("utf-8")
    assert "Secure: noise and batches" in report
    assert "Reproducible: noise and batches" not in report


def test_the_keys_are_written_nowhere(tmp_path: Path, monkeypatch, capfd):
    keys = keys_from(monkeypatch, int.from_bytes(b"a key like those"))
    scenario = read("hospital-heart", ["training.rounds=1", "seeds=1", "privacy.noise_multiplier=3", SECURE])
    execute(scenario, tmp_path / "run")
    forms = {form for key in keys for form in (key, key.hex().encode(), base64.b64encode(key), repr(key).encode())}
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    printed = "".join(capfd.readouterr()).encode()
    assert len(keys) == 3 * (4 + 1 + 4)
    assert len(files) > 10
    for content in [printed, *(path.read_bytes() for path in files)]:
        assert not any(form in content for form in forms)


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


def test_an_interrupted_secure_run_keeps_what_was_finished_and_tells_of_the_rest(tmp_path: Path, monkeypatch):
    scenario = read("hospital-heart", ["training.rounds=1", "seeds=1", "privacy.noise_multiplier=3", SECURE])
    todo, begun = jobs(scenario), []

    def stop_in_the_fifth(scenario, job, observe):
        begun.append(job)
        if len(begun) == 5:
            raise KeyboardInterrupt
        return run_job(scenario, job, observe)

    monkeypatch.setattr(experiment, "run_job", stop_in_the_fifth)
    with pytest.raises(Interrupted):
        execute(scenario, tmp_path / "run")
    kept = {path: path.read_bytes() for path in (tmp_path / "run" / "checkpoints").glob("*.safetensors")}
    assert len(kept) == 4
    run = resume(tmp_path / "run")
    assert begun == [*todo[:5], *todo[4:]]
    assert todo[4].private
    assert all(path.read_bytes() == content for path, content in kept.items())
    (note,) = run.manifest["notes"]
    assert (note["arm"], note["private"]) == (todo[4].arm, True)
    assert note["note"].startswith("begun anew after an interruption")


def test_an_unknown_kind_is_refused(scenario):
    with pytest.raises(Mistake, match=r"privacy.rng: expected 'reproducible' or 'secure', got 'safe'"):
        scenario("privacy.rng=safe")


def test_the_mechanism_of_a_site_is_checked(scenario):
    done = run_job(scenario(SECURE), Job("federated", True, 0), lambda: None)
    values = json.loads(json.dumps(done.ledger.as_json()))["entries"][0]["mechanism"]  # type: ignore[union-attr]
    assert training.Mechanism(**values).rng == "secure"
    with pytest.raises(Mistake, match="rng: expected reproducible or secure, got 'mine'"):
        training.Mechanism(**values | {"rng": "mine"})
