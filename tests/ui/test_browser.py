"""The pages in a browser: what is drawn, what a page of a stranger can't do, and how a run is followed."""

import json
import re
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import uvicorn
from PIL import Image
from starlette.types import Receive, Scope, Send

from fedsim.experiments import journal
from fedsim.ui.app import made
from fedsim.ui.server import opened
from tests.ui.visits import write_run

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed: apt install chromium"),
]


def browse(*words: str) -> str:
    """Let Chromium do something without a window; return what it writes."""
    command = [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", *words]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout


@contextmanager
def served(root: Path, before: Callable[[str], None] = str) -> Iterator[str]:
    """Serve a folder from this process; yield its address. Each path that is asked for is told to ``before``."""
    app = made(root)

    async def told(scope: Scope, receive: Receive, send: Send) -> None:
        before(scope["path"])
        await app(scope, receive, send)

    listening = opened(0)
    server = uvicorn.Server(
        uvicorn.Config(told, log_level="warning", lifespan="off", ws="none", timeout_graceful_shutdown=1)
    )
    thread = threading.Thread(target=server.run, args=([listening],))
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/"
    finally:
        server.should_exit = True
        thread.join()
        listening.close()


def drawn(address: str, picture: Path, *words: str) -> Image.Image:
    browse("--window-size=1200,900", f"--screenshot={picture}", *words, address)
    return Image.open(picture).convert("RGB")


def test_a_page_is_light_or_dark_as_the_reader_has_it(tmp_path: Path):
    write_run(tmp_path / "runs" / "mine")
    with served(tmp_path / "runs") as address:
        light = drawn(address, tmp_path / "light.png")
        dark = drawn(address, tmp_path / "dark.png", "--blink-settings=preferredColorScheme=0")
    assert light.getpixel((5, 5)) == (255, 255, 255)
    assert max(dark.getpixel((5, 5))) < 60  # type: ignore[type-var]
    assert len(set(light.get_flattened_data())) > 50  # there are words and a picture on it


@pytest.mark.parametrize("page", ["", "run/mine", "compare?run=mine&run=other", "run/sweep", "run/stopped"])
def test_nothing_is_wider_than_a_phone(tmp_path: Path, page: str):
    """The page says how wide it is in a window of 390 pixels: a frame, since no window is that narrow."""
    runs = tmp_path / "runs"
    write_run(runs / "mine", title="A title that is rather long for a phone " * 2)
    write_run(runs / "other")
    (runs / "sweep").mkdir()
    (runs / "sweep" / "sweep.html").touch()
    (runs / "sweep" / "sweep.json").write_text(json.dumps({"scenario": "heart", "answers": ["An answer. " * 20]}))
    (runs / "stopped").mkdir()
    shutil.copy(runs / "mine" / "scenario.toml", runs / "stopped")
    with served(runs) as address:
        text = browse("--dump-dom", f"{address}{page}")
    (tmp_path / "page.html").write_text(text)
    frame = '<iframe id="f" src="page.html" style="width:390px;height:3000px;border:0"></iframe><p id="w"></p>'
    measure = "f.onload = () => { w.textContent = 'width ' + f.contentDocument.documentElement.scrollWidth }"
    (tmp_path / "phone.html").write_text(f"{frame}<script>{measure}</script>")
    measured = browse("--allow-file-access-from-files", "--dump-dom", (tmp_path / "phone.html").as_uri())
    (width,) = re.findall(r"width (\d+)", measured)
    assert int(width) == 390


def test_a_script_in_a_strangers_report_does_not_run(tmp_path: Path):
    """Nor does it reach the other pages. The same page as a file of one's own does: the teeth of this test."""
    run = write_run(tmp_path / "runs" / "strange")
    page = run / "report.html"
    page.write_text(
        "<p id=mark>before</p><script>mark.textContent = 'it ran'</script><img src=x onerror=\"mark.id='y'\">"
    )
    with served(tmp_path / "runs") as address:
        text = browse("--dump-dom", f"{address}file/strange/report.html")
    assert '<p id="mark">before</p>' in text
    assert '<p id="y">it ran</p>' in browse("--dump-dom", page.as_uri())


def test_a_run_is_followed_without_loading_the_page_again(tmp_path: Path):
    """The script of the page puts the newest state in the place of the last one: a round more at each request."""
    runs = tmp_path / "runs"
    finished = write_run(tmp_path / "finished")
    (runs / "now").mkdir(parents=True)
    shutil.copy(finished / "scenario.toml", runs / "now")
    asked = []
    with journal.kept_in(runs / "now") as noted:

        def one_more(path: str) -> None:
            asked.append(path)
            noted.begin(50, "auc", {"federated-plain-0": asked.count("/run/now")})

        with served(runs, one_more) as address:
            out = browse("--virtual-time-budget=9000", "--dump-dom", f"{address}run/now")
    (done,) = re.findall(r"(\d+) of 50", out)
    assert int(done) >= 3
    assert f"<title>{2 * int(done)} % of " in out
    assert asked.count("/live.js") == 1
