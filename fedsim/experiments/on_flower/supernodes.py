"""SuperNodes for the trainings of a run: a whole federation of Flower's on this machine, or one that is there already.

It is a rehearsal: SuperLink and SuperNodes are processes of their own, with TLS, and the SuperLink knows the key of
each SuperNode. They end with the run. The sites are simulated, as with every other engine.
"""

import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from fedsim.experiments.on_flower.ray_actors import told
from fedsim.flower.certificates import Certificates, make_certificates, make_node_key
from fedsim.flower.nodes import Nodes, at_hand
from fedsim.flower.relay import SECONDS_TO_COME, Relayed
from fedsim.mistakes import Mistake, RunFailed
from fedsim.scenario.schema import Scenario

CONNECTION = "rehearsal"
_HOST = "127.0.0.1"
_SECONDS_TO_START = 60.0
_SECONDS_TO_END = 10.0
_LINES_SHOWN = 8  # of a log, where something went wrong
_DIES_WITH_PARENT = 1  # PR_SET_PDEATHSIG

APP = """\
[project]
name = "fedsim-rehearsal"
version = "1.0.0"
description = "Hands bundles of messages on between fedsim and SuperNodes"
license = "Apache-2.0"
dependencies = []

[tool.flwr.app]
publisher = "fedsim"

[tool.flwr.app.components]
serverapp = "fedsim.flower.relay:app"
clientapp = "fedsim.site.node:app"

[tool.flwr.app.config]
relay = ""
nodes = 1
"""


@contextmanager
def supernodes_for(scenario: Scenario) -> Iterator[None]:
    """Have the SuperNodes that a scenario asks for at hand in the body of a ``with``.

    Raises:
        RunFailed: The SuperLink can't be started or reached, or its SuperNodes don't come.
    """
    wanted = scenario.superlink
    with tempfile.TemporaryDirectory(prefix="fedsim-") as folder, ExitStack() as running:
        work = Path(folder)
        connection = wanted.connection
        home = None
        superlink = None
        if connection is None:
            connection, home = CONNECTION, work / "home"
            superlink = running.enter_context(_federation(work, home, wanted.nodes))

        relay = socket.socket(socket.AF_UNIX)
        running.callback(relay.close)
        relay.bind(str(work / "relay"))
        relay.listen(1)
        relay.settimeout(SECONDS_TO_COME)
        _submit(work, connection, home, wanted.nodes)
        try:
            relayed = Relayed(relay, lambda: superlink is None or superlink.poll() is None)
        except TimeoutError:
            raise RunFailed(
                f"engine superlink: no ServerApp came within {SECONDS_TO_COME:g} seconds; it has to run on this machine"
                + _last_lines(work / "superlink.log")
            ) from None
        running.callback(relayed.close)
        ask = relayed.ask(told(scenario, wanted.inside), scenario.limits.round_seconds)
        with at_hand(Nodes(relayed.nodes, ask, wanted.inside)):
            yield


@contextmanager
def _federation(work: Path, home: Path, nodes: int) -> Iterator[subprocess.Popen[bytes]]:
    """Start a SuperLink with its SuperNodes, and end them with the body of a ``with``; yield the SuperLink."""
    home.mkdir()
    port, *own_ports = _free_ports(1 + nodes)
    address = f"{_HOST}:{port}"
    files = make_certificates(work, [_HOST, "localhost"])
    (home / "config.toml").write_text(
        f'[superlink.{CONNECTION}]\naddress = "{address}"\nroot-certificates = "{files.authority}"\n'
    )
    with ExitStack() as running:
        superlink = running.enter_context(_started(work, home, "superlink", _superlink(port, files)))
        _wait_until_it_listens(port, superlink, work)
        for number, own_port in enumerate(own_ports):
            private, public = make_node_key(work, f"node-{number}")
            _flwr(home, ["supernode", "register", str(public), CONNECTION])
            words = _supernode(address, own_port, files, private)
            running.enter_context(_started(work, home, f"supernode-{number}", words))
        yield superlink


def _superlink(port: int, files: Certificates) -> list[str]:
    certificates = [
        "--ssl-ca-certfile",
        files.authority,
        "--ssl-certfile",
        files.certificate,
        "--ssl-keyfile",
        files.key,
    ]
    where = ["--host", _HOST, "--port", port]
    how = ["--enable-supernode-auth", "--disable-runtime-dependency-installation"]
    return list(map(str, [_program("flower-superlink"), *where, *certificates, *how]))


def _supernode(address: str, port: int, files: Certificates, private: Path) -> list[str]:
    reached = ["--superlink", address, "--root-certificates", files.authority]
    who = ["--auth-supernode-private-key", private]
    # The port of its own is for processes of this machine that it starts itself.
    own = ["--host", _HOST, "--port", port]
    return list(map(str, [_program("flower-supernode"), *reached, *who, *own]))


def _program(name: str) -> str:
    """Return the path of a program of Flower's: beside this Python, or wherever the shell finds it."""
    beside = Path(sys.executable).with_name(name)
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        raise Mistake(f"engine: 'superlink' needs the program {name}, which comes with Flower; it is not on the path")
    return found


def _environment(home: Path | None) -> dict[str, str]:
    """Return the environment of Flower's programs: this Python's modules, and nothing that is sent or looked up."""
    silent = {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1"}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    modules = os.pathsep.join(filter(None, sys.path))
    own = {"FLWR_HOME": str(home)} if home else {}
    return {**os.environ, **silent, **own, "PATH": path, "PYTHONPATH": modules}


@contextmanager
def _started(work: Path, home: Path, name: str, words: Sequence[str]) -> Iterator[subprocess.Popen[bytes]]:
    """Start a program that writes into a log; end it, and what it started, with the body of a ``with``."""
    with (work / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(  # noqa: S603  Flower's own programs
            words,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=work,
            env=_environment(home),
            start_new_session=True,
            preexec_fn=_die_with_parent,
        )
    try:
        yield process
    finally:
        _end(process)


def _die_with_parent() -> None:
    """Let the system end this process when the one that started it ends, however that may be (on Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_DIES_WITH_PARENT, signal.SIGTERM)


def _end(process: subprocess.Popen[bytes]) -> None:
    for how in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, how)
        except ProcessLookupError:
            break
        try:
            process.wait(_SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            continue
    process.wait()


def _wait_until_it_listens(port: int, superlink: subprocess.Popen[bytes], work: Path) -> None:
    """Wait until the SuperLink takes connections.

    Raises:
        RunFailed: It does not.
    """
    until = time.monotonic() + _SECONDS_TO_START
    while time.monotonic() < until and superlink.poll() is None:
        with socket.socket() as tried:
            if tried.connect_ex((_HOST, port)) == 0:
                return
        time.sleep(0.1)
    raise RunFailed(f"engine superlink: the SuperLink did not start{_last_lines(work / 'superlink.log')}")


def _submit(work: Path, connection: str, home: Path | None, nodes: int) -> None:
    """Submit the app that hands bundles on."""
    folder = work / "app"
    folder.mkdir()
    (folder / "pyproject.toml").write_text(APP)
    _flwr(home, ["run", str(folder), connection, "--run-config", f'relay="{work / "relay"}" nodes={nodes}'])


def _flwr(home: Path | None, words: Sequence[str]) -> None:
    """Call Flower's command line.

    Raises:
        RunFailed: It failed.
    """
    ended = subprocess.run(  # noqa: S603  Flower's own program
        [_program("flwr"), *words], env=_environment(home), capture_output=True, text=True, check=False
    )
    if ended.returncode:
        said = " ".join((ended.stderr or ended.stdout).split())
        raise RunFailed(f"engine superlink: flwr {words[0]} failed: {said[:500]}")


def _free_ports(count: int) -> list[int]:
    """Return ports that nobody listens on; another process may take one before it is used."""
    with ExitStack() as opened:
        sockets = [opened.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind((_HOST, 0))
        return [one.getsockname()[1] for one in sockets]


def _last_lines(log: Path) -> str:
    if not log.exists():
        return ""
    lines = log.read_text(errors="replace").splitlines()[-_LINES_SHOWN:]
    return "\n" + "\n".join(f"  {line}" for line in lines)
