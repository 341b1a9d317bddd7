"""Visits to the pages without a network, and run directories to visit."""

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from starlette.types import ASGIApp

from fedsim.results import run_directory as results
from fedsim.results.seal import seal
from tests.runs import Effects, make_run

HOST = "127.0.0.1:8765"


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    headers: dict[str, str]
    content: bytes

    @property
    def text(self) -> str:
        return self.content.decode()


def visit(app: ASGIApp, path: str, query: str = "", host: str = HOST, method: str = "GET") -> Answer:
    """Send one request just as it is: no client tidies its path up."""
    status, headers, content = 0, {}, b""

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        nonlocal status, headers, content
        if message["type"] == "http.response.start":
            status = message["status"]
            headers = {name.decode().lower(): value.decode() for name, value in message["headers"]}
        else:
            content += message.get("body", b"")

    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "scheme": "http",
        "path": path, "raw_path": quote(path).encode(), "query_string": query.encode(), "root_path": "",
        "headers": [(b"host", host.encode())], "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 8765),
    }  # fmt: skip
    asyncio.run(app(scope, receive, send))  # type: ignore[arg-type]
    return Answer(status, headers, content)


def write_run(folder: Path, title: str = "Two clinics", effects: Effects | None = None, private: bool = True) -> Path:
    """Write a hand-made run with a report, sealed."""
    run = make_run(folder, effects, private=private, title=title)
    folder.mkdir(parents=True)
    results.write_scenario(folder, run.scenario)
    for name in ("sites", "groups", "rounds"):
        results.write_table(folder / f"{name}.parquet", getattr(run, name))
    results.write_json(folder / "ledger.json", run.ledger)
    results.write_manifest(folder, {**run.manifest, "threads": 1})
    (folder / "report.html").write_text(f"<h1>The report of {folder.name}</h1>")
    seal(folder)
    return folder
