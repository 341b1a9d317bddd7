"""``fedsim ui`` as it is typed."""

import webbrowser
from pathlib import Path

import pytest

from fedsim.ui import server


@pytest.fixture
def ended_at_once(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Let the server end as soon as it is asked to serve; return the folders that it was to serve."""
    served: list[Path] = []

    def serve(root: Path, listening: object) -> None:
        served.append(root)
        listening.close()  # type: ignore[attr-defined]

    monkeypatch.setattr(server, "serve", serve)
    return served


@pytest.fixture
def browsed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the addresses that a browser was to open."""
    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", opened.append)
    return opened


def test_it_says_where_the_page_is_and_how_to_end_it(fedsim, ended_at_once: list[Path], browsed: list[str]):
    Path("runs").mkdir()
    ran = fedsim("ui", "--port", "0")
    assert ran.code == 0, ran.err
    first, *rest = ran.out.splitlines()
    assert first.startswith("Showing runs at http://127.0.0.1:")
    assert rest == ["Ctrl-C ends it.", "Ended."]
    assert ended_at_once == [Path("runs")]
    assert browsed == []
    ran = fedsim("ui", "--port", "0", "--open")
    assert browsed == [ran.out.split()[3]]


def test_mistakes_are_a_line_each(fedsim, ended_at_once: list[Path]):
    ran = fedsim("ui")
    assert (ran.code, ran.err) == (
        2,
        "fedsim: runs: expected a folder of runs, there is none; fedsim run makes one\n",
    )
    Path("runs").mkdir()
    with server.opened(0) as taken:
        port = taken.getsockname()[1]
        ran = fedsim("ui", "--port", str(port))
    assert (ran.code, ran.err) == (
        2,
        f"fedsim: --port: expected a free port, {port} is taken; take another, or 0 for any\n",
    )
    assert fedsim("ui", "--port", "70000").code == 2
    assert fedsim("ui", "--host", "0.0.0.0").code == 2  # there is no such option
    assert ended_at_once == []
