"""The page is served to this machine only, and ended by Ctrl-C."""

import re
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fedsim.mistakes import Mistake
from fedsim.ui.server import ADDRESS, opened
from tests.ui.visits import write_run


@contextmanager
def served(root: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Serve a folder in a process of its own; yield it and its address."""
    words = [sys.executable, "-m", "fedsim", "ui", str(root), "--port", "0"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            (address,) = re.findall(r"http://127\.0\.0\.1:\d+/", line)
            yield process, address
        finally:
            process.kill()


def test_a_port_that_is_taken_is_a_mistake():
    with opened(0) as first:
        port = first.getsockname()[1]
        assert first.getsockname()[0] == ADDRESS == "127.0.0.1"
        with pytest.raises(Mistake, match=f"--port: expected a free port, {port} is taken"):
            opened(port)


@pytest.mark.whole
def test_it_serves_this_machine_until_it_is_told_to_end(tmp_path: Path):
    write_run(tmp_path / "runs" / "mine")
    with served(tmp_path / "runs") as (process, address):
        with urllib.request.urlopen(address, timeout=30) as answer:
            assert b"Two clinics" in answer.read()
            assert answer.headers["Server"] is None
        port = int(address.rstrip("/").rpartition(":")[2])
        for path in ("/file/mine/../../../etc/passwd", "/file/mine/%2e%2e/%2e%2e/etc/passwd", "//etc/passwd"):
            with socket.create_connection((ADDRESS, port)) as raw:
                raw.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
                assert raw.makefile("rb").readline().split()[1] == b"404"
        elsewhere = listening_addresses(port)
        assert elsewhere == {"0100007F"}  # 127.0.0.1, as the kernel writes it
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=20)
        assert out.splitlines() == ["Ctrl-C ends it.", "Ended."]
        assert process.returncode == 0


def listening_addresses(port: int) -> set[str]:
    """Return the addresses on which something listens on a port."""
    found = set()
    for table in ("tcp", "tcp6"):
        path = Path("/proc/net") / table
        for line in path.read_text().splitlines()[1:] if path.exists() else ():
            address, number = line.split()[1].split(":")
            if int(number, 16) == port and line.split()[3] == "0A":
                found.add(address)
    return found
