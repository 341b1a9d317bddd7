"""A simulation speaks to nobody."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

# Put in front of Python's own start-up: notes every address that is connected to, bound, sent to or looked up.
WATCH = """
import ast, json, os, sys
NAMES = ("connect", "bind", "sendto", "sendmsg", "getaddrinfo", "gethostbyname")
WATCHED = {f"socket.{name}" for name in NAMES}
def note(event, arguments):
    if event in WATCHED:
        with open(os.environ["WATCHED"], "a") as file:
            file.write(json.dumps([event, repr(arguments[1:])]) + "\\n")
sys.addaudithook(note)
"""
LOCAL = ("'127.0.0.1'", "'::1'", "'localhost'", "/")  # the last: a socket in the file system


def watched(folder: Path, *command: str) -> tuple[subprocess.CompletedProcess[str], list[list[str]]]:
    """Run a Python command, without any of the tests' settings; return it and what it spoke to."""
    (folder / "sitecustomize.py").write_text(WATCH)
    log = folder / "log"
    log.touch()
    outside = {key: value for key, value in os.environ.items() if not key.startswith(("FLWR", "FEDSIM", "HF_"))}
    environment = {**outside, "PYTHONPATH": str(folder), "WATCHED": str(log)}
    done = subprocess.run([sys.executable, *command], cwd=folder, env=environment, capture_output=True, text=True)
    return done, [json.loads(line) for line in log.read_text().splitlines()]


def elsewhere(found: list[list[str]]) -> list[list[str]]:
    return [one for one in found if not any(place in one[1] for place in LOCAL)]


@pytest.mark.whole
def test_a_run_opens_no_connection(tmp_path: Path):
    """G5: a whole private run with a partition and its report, in a process of its own."""
    small = ["--set", "training.rounds=1", "--set", "privacy.noise_multiplier=4"]
    words = ["run", "hospital-heart", *small, "--seeds", "1", "--out", "run", "--set", "partition={by='iid',sites=3}",
             "--set", "training.expected_batch=30"]  # fmt: skip
    done, found = watched(tmp_path, "-m", "fedsim", *words)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "report.html").exists()
    assert elsewhere(found) == []


@pytest.mark.slow
def test_an_audit_opens_no_connection(tmp_path: Path):
    """G5."""
    words = ["audit", "hospital-heart", "--set", "privacy.noise_multiplier=4", "--trials", "20", "--shadows", "4"]
    done, found = watched(tmp_path, "-m", "fedsim", *words)
    assert done.returncode == 0, done.stderr
    assert elsewhere(found) == []


def test_a_connection_would_be_noticed(tmp_path: Path):
    """The teeth of G5; nothing is sent to this address, which is one of those for documentation."""
    code = "import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.connect(('192.0.2.1', 9))"
    _, found = watched(tmp_path, "-c", code)
    assert elsewhere(found)
