"""The story in one command: one report of several privacy levels, and a refuted claim fails there too."""

import dataclasses
import html
import json
from pathlib import Path

import pytest

from fedsim.audits.finding import Finding
from fedsim.audits.story import levels, page
from fedsim.audits.story.levels import Story
from fedsim.audits.target import Effort
from tests.audits.test_audit import command

QUICK = ("--set", "training.rounds=2", "--set", "seeds=2", "--trials", "60", "--shadows", "4")


pytestmark = pytest.mark.whole  # one story, of three levels, for all of them


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> tuple[Story, Path]:
    folder = tmp_path_factory.mktemp("story")
    chosen = levels.scenarios("hospital-heart", ["training.rounds=2", "seeds=2"], "none,8,1")
    seen: list[tuple[int, int]] = []
    effort = Effort(trials=60, canaries=100, directions=50, size=500, shadows=4)
    found = levels.tell(chosen, folder / "runs", effort, lambda _, done, total: seen.append((done, total)))
    assert seen == sorted(seen)
    assert all(done <= total for done, total in seen)
    page.write(found, folder)
    return found, folder


def test_a_story_has_a_level_for_each_epsilon_computed_from_its_ledger(told):
    found, _ = told
    assert [level.name for level in found.levels] == ["none", "8", "1"]
    none, eight, one = found.levels
    assert none.audit.claim is None
    for level in (eight, one):
        assert level.audit.claim.epsilon == max(level.run.epsilon("federated").values()) <= float(level.name)
        assert {finding.training for finding in level.audit.findings} == {"private"}
        assert {"membership", "inversion"} <= {finding.attack for finding in level.audit.findings}
    assert not found.broken
    metric = none.run.metrics[0]
    assert none.mean(metric)["mean"] == eight.numbers.of("mean", False, "federated").mean  # the same training


def test_a_level_without_privacy_never_has_an_epsilon(told):
    """D8: it is no guarantee, not a number."""
    found, folder = told
    written = json.loads((folder / "story.json").read_text())
    assert written["levels"][0]["audit"]["claimed"] is None
    assert written["levels"][0]["audit"]["lower_bound"] is None
    rows = dict((name, cells) for _, group in page.groups(found) for name, _, cells in group)
    assert rows["Claimed"][0] == "no guarantee"
    assert rows["Proven by attacks"][0] == rows["The claim"][0] == "–"


def test_the_page_needs_nothing_else_and_says_all(told):
    found, folder = told
    text = (folder / "story.html").read_text()
    assert "http" not in text.replace("http-equiv", "")
    assert text.count("data:image/png;base64,") == 3
    for _, group in page.groups(found):
        for name, _, cells in group:
            assert name in text
            assert all(html.escape(cell) in text for cell in cells)
    assert "REFUTED" not in text
    for name in ("membership", "epsilon", "records"):
        assert (folder / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def held_against_less(finding: Finding) -> Finding:
    """Hold a finding against a claim that no mechanism could keep."""
    figures = [
        dataclasses.replace(figure, limit=-1.0) if figure.quantity == "epsilon" else figure
        for figure in finding.measured
    ]
    return dataclasses.replace(finding, measured=tuple(figures))


def test_a_refuted_level_is_said_first_and_titles_are_escaped(told, tmp_path):
    found, _ = told
    eight = found.levels[1]
    low = dataclasses.replace(eight.audit, findings=tuple(map(held_against_less, eight.audit.findings)))
    scenario = found.scenario.model_copy(update={"title": "<script>alert(1)</script>"})
    broken = Story(scenario, [found.levels[0], dataclasses.replace(eight, audit=low)])
    assert [level.name for level in broken.broken] == ["8"]
    page.write(broken, tmp_path)
    text = (tmp_path / "story.html").read_text()
    assert "<script>" not in text
    assert "A claim is refuted." in text
    assert text.index("A claim is refuted.") < text.index("Level by level")
    assert json.loads((tmp_path / "story.json").read_text())["broken"] is True


def test_the_command_fails_where_a_claim_is_refuted(monkeypatch, capsys, tmp_path):
    """The claim is lowered below what attacks prove: exit code 1, the level named, all files written."""
    monkeypatch.chdir(tmp_path)
    claimed = levels.claim_in
    monkeypatch.setattr(levels, "claim_in", lambda run: dataclasses.replace(claimed(run), epsilon=-1.0))
    code, out, err = command(monkeypatch, capsys, "hospital-heart", "--epsilon", "8", "--out", "told", *QUICK)
    assert code == 1
    assert "audit: epsilon 8: epsilon is at least" in err
    assert "REFUTED" in out
    assert (tmp_path / "told/story.html").exists()


@pytest.mark.parametrize("wrong", ["eight", "none,-1", "", "8,8", "nan", "none,inf", "1,2,3,4,5,6,7"])
def test_a_wrong_level_ends_in_one_line(monkeypatch, capsys, tmp_path, wrong: str):
    monkeypatch.chdir(tmp_path)
    code, out, err = command(monkeypatch, capsys, "hospital-heart", "--epsilon", wrong)
    assert code == 2
    assert err.startswith("fedsim: --epsilon: expected")
    assert err.count("\n") == 1
    assert not out
    assert not list(tmp_path.iterdir())


def test_a_level_that_releases_nothing_is_said_to(tmp_path):
    """Noise too small for the budget: the first round is refused, and there is nothing to attack."""
    chosen = levels.scenarios("hospital-heart", ["privacy.noise_multiplier=0.5", "seeds=1"], "0.1")
    found = levels.tell(chosen, tmp_path / "runs", Effort(trials=20, shadows=4))
    rows = dict((name, cells) for _, group in page.groups(found) for name, _, cells in group)
    assert rows["Claimed"] == ["nothing released"]
    page.write(found, tmp_path)
