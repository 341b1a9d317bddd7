"""The pages, and what a stranger's run or a page elsewhere can't do with them."""

import json
import re
import shutil
from pathlib import Path
from urllib.parse import quote

import pytest
from starlette.applications import Starlette

from fedsim.experiments import journal
from fedsim.ui import views
from fedsim.ui.app import made
from tests.runs import BETTER
from tests.ui.visits import visit, write_run

SCRIPT = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two runs, a sweep and an interrupted run."""
    folder = tmp_path_factory.mktemp("runs")
    write_run(folder / "first", effects={("federated", True): BETTER})
    write_run(folder / "second", title="Two clinics without privacy", private=False)
    sweep = folder / "sweep"
    sweep.mkdir()
    (sweep / "sweep.html").write_text("<h1>The sweep</h1>")
    (sweep / "sweep.json").write_text(
        json.dumps({"scenario": "heart", "answers": ["Epsilon 2 is enough."], "seeds": 3})
    )
    (sweep / "frontier.png").write_bytes(b"png")
    (folder / "stopped").mkdir()
    shutil.copy(folder / "first" / "scenario.toml", folder / "stopped")
    return folder


@pytest.fixture(scope="module")
def app(root: Path) -> Starlette:
    return made(root)


def rows(page: str) -> list[str]:
    return re.findall(r'<th scope="row"><a href="/run/([^"]+)"', page)


def test_the_list_has_every_folder_with_its_state_and_its_first_figure(app: Starlette):
    page = visit(app, "/").text
    assert sorted(rows(page)) == ["first", "second", "stopped", "sweep"]
    assert "4 in this folder · 2 finished · 1 interrupted · 1 sweep" in page
    assert "<strong>0.881</strong>" in page  # 0.8 + 0.02 times the mean of 0 to 3, and 0.051
    assert "AUC inside sites, federated, with privacy" in page
    assert "AUC inside sites, federated, without privacy" in page
    assert "<span>8.00</span>" in page
    assert "Epsilon 2 is enough." in page


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("state=interrupted", ["stopped"]),
        ("q=without+PRIVACY", ["second"]),
        ("q=heart+enough", ["sweep"]),
        ("q=clinics&state=finished&order=figure", ["first", "second"]),
        ("q=clinics&state=finished&order=epsilon", ["first", "second"]),
        ("q=nothing-like-it", []),
        ("q=clinics&state=finished&order=title", ["first", "second"]),
    ],
)
def test_the_list_is_filtered_and_ordered(app: Starlette, query: str, expected: list[str]):
    assert rows(visit(app, "/", query).text) == expected


def test_a_run_has_its_arms_its_curves_and_its_report(app: Starlette):
    page = visit(app, "/run/first").text
    assert 'href="/file/first/report.html"' in page
    assert page.count('<svg class="curves"') == 2
    assert "as they were sealed" in page
    assert "federated, with privacy" in page
    assert "What do the figures say?" in page
    assert visit(app, "/file/first/report.html").text == "<h1>The report of first</h1>"


def test_runs_are_compared_with_their_settings(app: Starlette):
    answer = visit(app, "/compare", "run=first&run=second")
    assert answer.status == 200
    assert "privacy.unit" in answer.text
    assert "Differences between runs are not paired here" in answer.text
    assert answer.text.count('<svg class="bar') == 9  # six arms of the first, three of the second


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("run=first", "Choose two to 8 finished runs to compare; 1 were chosen."),
        ("run=first&run=first", "1 were chosen"),
        ("run=first&run=../first", "There is no run ../first."),
        ("run=first&run=sweep", "There is no run sweep."),
        ("run=first&run=stopped", "this run is not finished"),
    ],
)
def test_what_cannot_be_compared_is_said(app: Starlette, query: str, said: str):
    answer = visit(app, "/compare", query)
    assert answer.status == 400
    assert said in answer.text


def test_a_sweep_has_its_picture_and_its_page(app: Starlette):
    page = visit(app, "/run/sweep").text
    assert 'src="/file/sweep/frontier.png" alt="The privacy-utility frontier' in page
    assert 'href="/file/sweep/sweep.html"' in page
    assert visit(app, "/file/sweep/frontier.png").headers["content-type"] == "image/png"


def test_a_run_under_way_is_followed_until_it_ends(app: Starlette, root: Path, tmp_path: Path):
    runs = tmp_path / "runs"
    shutil.copytree(root / "stopped", runs / "now")
    followed = made(runs)
    with pytest.raises(KeyboardInterrupt), journal.kept_in(runs / "now") as noted:
        noted.begin(4, "auc", {"federated-plain-0": 0, "federated-private-0": 0})
        noted.round("federated-plain-0", 1, 0.61)
        noted.round("federated-plain-0", 2, 0.72)
        noted.over("federated-plain-0", None)
        noted.round("federated-private-0", 1, None)
        noted.over("federated-private-0", f"too few sites {SCRIPT}")
        page = visit(followed, "/run/now").text
        assert "id=live" in page
        assert '<script src="/live.js" defer></script>' in page
        assert "2 of 2" in page
        assert "0.720" in page
        assert "2 of 4" in page
        assert SCRIPT not in page
        assert rows(visit(followed, "/", "state=under+way").text) == ["now"]
        raise KeyboardInterrupt
    page = visit(followed, "/run/now").text
    assert "id=live" not in page
    assert "failed" in page
    assert visit(app, "/run/stopped").text.count("fedsim resume") == 1


@pytest.mark.whole
def test_what_a_stranger_wrote_is_escaped(tmp_path: Path):
    """Titles, names of folders, answers and reasons are text, and nothing else."""
    write_run(tmp_path / f"a{SCRIPT.replace('/', '')}", title=f"T{SCRIPT}")
    sweep = tmp_path / "sweep"
    sweep.mkdir()
    (sweep / "sweep.html").touch()
    (sweep / "sweep.json").write_text(json.dumps({"scenario": SCRIPT, "answers": [SCRIPT]}))
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "scenario.toml").write_text(f'title = "{SCRIPT}"\nnonsense = "{SCRIPT}"\n')
    app = made(tmp_path)
    name = f"a{SCRIPT.replace('/', '')}"
    visits = [("/", ""), (f"/run/{name}", ""), ("/", f"q={quote(SCRIPT)}"), ("/run/sweep", ""), ("/run/broken", ""),
              (f"/run/{SCRIPT}", ""), ("/compare", f"run={quote(SCRIPT)}&run=b")]  # fmt: skip
    pages = [visit(app, path, query) for path, query in visits]
    for page in pages:
        assert "<script" not in page.text
    assert "&lt;script" in pages[0].text
    assert pages[1].status == 200


@pytest.mark.parametrize(
    "path",
    [
        "/file/first/../../secret.html", "/file/../secret.html", "/file/first/..%2f..%2fsecret.html",
        "/file//etc/passwd", "/file/first/model.safetensors", "/file/first/.lock",
        "/file/first/checkpoints/x.json", "/file/first/", "/file/first", "/run/..", "/run/.", "/run/", "/run//",
        "/run/first/..", "/run/\x00", "/file/first/report.html\x00", "/nothing",
    ],
)  # fmt: skip
def test_no_path_leads_out_of_the_folder(app: Starlette, root: Path, path: str):
    (root.parent / "secret.html").write_text("secret")
    answer = visit(app, path)
    assert answer.status == 404
    assert b"secret" not in answer.content.replace(path.encode(), b"")
    assert "There is no such page here." in answer.text


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8765", "127.0.0.1.evil.example", "", "192.168.0.7:8765"]
)
@pytest.mark.parametrize("path", ["/", "/run/first", "/file/first/report.html", "/live.js"])
def test_a_name_of_somebody_else_is_refused(app: Starlette, host: str, path: str):
    """DNS rebinding: a page elsewhere names this machine, and would read on."""
    answer = visit(app, path, host=host)
    assert answer.status == 400
    assert b"clinics" not in answer.content.lower()
    assert visit(app, path, host="localhost:8765").status == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
@pytest.mark.parametrize("path", ["/", "/compare", "/run/first", "/file/first/report.html"])
def test_pages_can_be_read_and_nothing_else(app: Starlette, method: str, path: str):
    assert visit(app, path, method=method).status == 405


def test_nothing_is_written(app: Starlette, root: Path):
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    for path in ("/", "/run/first", "/run/stopped", "/run/sweep", "/file/first/report.html"):
        visit(app, path)
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before


def policy(answer: object) -> dict[str, list[str]]:
    text = answer.headers["content-security-policy"]  # type: ignore[attr-defined]
    return {name: values for name, *values in (part.split() for part in text.split(";"))}


@pytest.mark.parametrize("path", ["/", "/run/first", "/compare", "/nothing", "/live.js"])
def test_a_page_loads_nothing_from_elsewhere(app: Starlette, path: str):
    answer = visit(app, path)
    allowed = policy(answer)
    assert allowed["default-src"] == allowed["frame-ancestors"] == ["'none'"]
    assert allowed["script-src"] == allowed["connect-src"] == ["'self'"]
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert "http:" not in answer.text
    assert "//" not in re.sub(r"/\*.*?\*/|^//.*$", "", answer.text, flags=re.MULTILINE).replace("://", "")


@pytest.mark.parametrize("name", ["report.html", "scenario.toml", "manifest.json", "sites.parquet"])
def test_a_file_of_a_run_is_in_a_sandbox(app: Starlette, name: str):
    answer = visit(app, f"/file/first/{name}")
    assert answer.status == 200
    allowed = policy(answer)
    assert allowed["sandbox"] == []
    assert allowed["default-src"] == allowed["form-action"] == ["'none'"]
    assert "script-src" not in allowed
    is_page = name.endswith(".html")
    assert answer.headers["content-type"].startswith("text/html") == is_page


@pytest.mark.whole
def test_a_run_that_was_changed_or_has_a_link_is_named_and_the_others_are_shown(root: Path, tmp_path: Path):
    for name in ("good", "changed", "linked", "resealed"):
        shutil.copytree(root / "first", tmp_path / name)
    (tmp_path / "changed" / "ledger.json").write_text("{}")
    (tmp_path / "linked" / "notes").symlink_to("/etc/passwd")
    (tmp_path / "resealed" / "report.html").write_text("<h1>Forged</h1>")
    app = made(tmp_path)
    page = visit(app, "/").text
    assert "expected files of this folder, got a link" in page
    assert "the file has changed since it was made" in page
    assert rows(visit(app, "/", "state=finished").text) == ["good", "resealed"]
    forged = visit(app, "/run/resealed").text  # all files are hashed where a run is opened
    assert "report.html: expected SHA-256" in forged
    assert visit(app, "/compare", "run=good&run=resealed").status == 400
    assert visit(app, "/run/good").text.count("as they were sealed") == 1


def test_the_list_does_not_wait_for_all_runs(app: Starlette, root: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(views, "SECONDS_TO_READ", -1.0)
    page = visit(made(root), "/").text
    assert "4 have not been read yet." in page
    assert sorted(rows(page)) == ["first", "second", "stopped", "sweep"]
    monkeypatch.undo()
    assert "have not been read yet" not in visit(app, "/").text


@pytest.mark.whole
def test_a_run_is_read_anew_when_it_changes(tmp_path: Path):
    write_run(tmp_path / "run", title="Before")
    app = made(tmp_path)
    assert "Before" in visit(app, "/").text
    shutil.rmtree(tmp_path / "run")
    write_run(tmp_path / "run", title="Afterwards")
    assert "Afterwards" in visit(app, "/").text
    assert "Afterwards" in visit(app, "/run/run").text
    shutil.rmtree(tmp_path / "run")
    assert "There is no run here yet." in visit(app, "/").text
