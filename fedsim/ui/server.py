"""Serve the application to this machine, until it is stopped."""

import errno
import socket
from pathlib import Path

import uvicorn

from fedsim.mistakes import Mistake, Terminated
from fedsim.ui.app import made

ADDRESS = "127.0.0.1"
"""The only address: nothing else in the network reaches the page."""

_SECONDS_TO_END = 1


def opened(port: int) -> socket.socket:
    """Return a socket that listens on a port of this machine; 0 for any free one.

    Raises:
        Mistake: It is taken, or may not be used.
    """
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((ADDRESS, port))
        listening.listen()
    except OSError as error:
        listening.close()
        if error.errno == errno.EADDRINUSE:
            raise Mistake(f"--port: expected a free port, {port} is taken; take another, or 0 for any") from None
        raise Mistake(f"--port: expected a port that can be opened, got {port}: {error.strerror}") from None
    return listening


def serve(root: Path, listening: socket.socket) -> None:
    """Serve a folder of runs until Ctrl-C.

    Raises:
        Terminated: The system asked the process to end.
    """
    settings = uvicorn.Config(
        made(root),
        log_level="warning",
        access_log=False,
        server_header=False,
        lifespan="off",
        ws="none",
        proxy_headers=False,
        timeout_graceful_shutdown=_SECONDS_TO_END,
    )
    try:
        uvicorn.Server(settings).run(sockets=[listening])
    except Terminated:
        raise
    except KeyboardInterrupt:
        return
    finally:
        listening.close()
