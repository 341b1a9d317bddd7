"""Flower's programs, as processes of this machine: SuperLink, SuperNodes and the command ``flwr``."""

import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from fedsim.flower.certificates import Certificates
from fedsim.mistakes import Mistake, RunFailed

HOST = "127.0.0.1"
_SECONDS_TO_START = 60.0
_SECONDS_TO_END = 10.0
_LINES_SHOWN = 8  # of a log, where something went wrong
_DIES_WITH_PARENT = 1  # PR_SET_PDEATHSIG


def superlink_words(port: int, files: Certificates, host: str = HOST, database: Path | None = None) -> list[str]:
    """Return the command that starts a SuperLink which knows its SuperNodes by their keys.

    Args:
        port: Where it listens.
        files: Its certificates.
        host: The address that it listens at.
        database: The file of its state, which is read again when it is started anew; in memory without one.
    """
    certificates = ["--ssl-ca-certfile", files.authority, "--ssl-certfile", files.certificate]
    where = ["--host", host, "--port", port]
    how = ["--enable-supernode-auth", "--disable-runtime-dependency-installation"]
    kept = ["--database", database] if database else []
    return list(map(str, ["flower-superlink", *where, *certificates, "--ssl-keyfile", files.key, *how, *kept]))


def supernode_words(address: str, port: int, authority: Path, private: Path, node_config: str = "") -> list[str]:
    """Return the command that starts a SuperNode.

    Args:
        address: Of the SuperLink.
        port: Of its own, for processes of this machine that it starts itself.
        authority: The certificate that the SuperLink's is signed by.
        private: Its private key.
        node_config: What the ClientApp finds in its node config.
    """
    reached = ["--superlink", address, "--root-certificates", authority]
    who = ["--auth-supernode-private-key", private]
    own = ["--host", HOST, "--port", port]
    told = ["--node-config", node_config] if node_config else []
    return list(map(str, ["flower-supernode", *reached, *who, *own, *told]))


def flwr(home: Path | None, words: Sequence[str], folder: Path | None = None) -> None:
    """Call Flower's command line.

    Args:
        home: Its configuration; the user's own without one.
        words: What is typed after ``flwr``.
        folder: Where it is typed; here without one.

    Raises:
        RunFailed: It failed.
    """
    ended = subprocess.run(  # noqa: S603  Flower's own program
        [program("flwr"), *words], env=environment(home), cwd=folder, capture_output=True, text=True, check=False
    )
    if ended.returncode:
        said = " ".join((ended.stderr or ended.stdout).split())
        raise RunFailed(f"flwr {words[0]} failed: {said[:500]}")


@contextmanager
def started(work: Path, home: Path, name: str, words: Sequence[str]) -> Iterator[subprocess.Popen[bytes]]:
    """Start a program that writes into a log; end it, and what it started, with the body of a ``with``."""
    with (work / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(  # noqa: S603  Flower's own programs
            [program(words[0]), *words[1:]],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=work,
            env=environment(home),
            start_new_session=True,
            preexec_fn=_die_with_parent,
        )
    try:
        yield process
    finally:
        _end(process)


def wait_until_it_listens(port: int, superlink: subprocess.Popen[bytes], work: Path) -> None:
    """Wait until the SuperLink takes connections.

    Raises:
        RunFailed: It does not.
    """
    until = time.monotonic() + _SECONDS_TO_START
    while time.monotonic() < until and superlink.poll() is None:
        with socket.socket() as tried:
            if tried.connect_ex((HOST, port)) == 0:
                return
        time.sleep(0.1)
    raise RunFailed(f"engine superlink: the SuperLink did not start{last_lines(work / 'superlink.log')}")


def free_ports(count: int) -> list[int]:
    """Return ports that nobody listens on; another process may take one before it is used."""
    with ExitStack() as opened:
        sockets = [opened.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind((HOST, 0))
        return [one.getsockname()[1] for one in sockets]


def last_lines(log: Path) -> str:
    """Return the end of a log, for a message; nothing where there is none."""
    if not log.exists():
        return ""
    lines = log.read_text(errors="replace").splitlines()[-_LINES_SHOWN:]
    return "\n" + "\n".join(f"  {line}" for line in lines)


def program(name: str) -> str:
    """Return the path of a program of Flower's: beside this Python, or wherever the shell finds it."""
    beside = Path(sys.executable).with_name(name)
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        raise Mistake(f"the program {name} is needed, which comes with Flower; it is not on the path")
    return found


def environment(home: Path | None) -> dict[str, str]:
    """Return the environment of Flower's programs: this Python's modules, and nothing that is sent or looked up."""
    silent = {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1"}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    modules = os.pathsep.join(filter(None, sys.path))
    own = {"FLWR_HOME": str(home.absolute())} if home else {}
    return {**os.environ, **silent, **own, "PATH": path, "PYTHONPATH": modules}


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
