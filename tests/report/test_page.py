import math
import re
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest

from fedsim.report import charts, group_charts
from fedsim.report.findings import findings, headline
from fedsim.report.page import write
from fedsim.report.statement import statement
from fedsim.results.run_directory import Run
from tests.runs import (
    BETTER,
    FEWER_ARMS,
    SEEDS,
    WORSE,
    by_time,
    first_seeds,
    make_run,
    nothing_released,
    older,
    one_seed,
    only_north_gains,
    without_auc,
)

FORBIDDEN = ("anonymous", "anonymised", "anonymized", "fully private", "guaranteed private")


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The page of a private run, with its charts."""
    return html_of(make_run(tmp_path_factory.mktemp("run")))


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the charts out: they are what takes the time."""
    for name in ("arms", "curves", "sites"):
        monkeypatch.setattr(charts, name, lambda *_: "<svg></svg>")
    monkeypatch.setattr(group_charts, "groups", lambda *_: "<svg></svg>")


def html_of(run: Run) -> str:
    return write(run).read_text("utf-8")


@pytest.mark.whole
def test_a_site_gains_only_where_the_interval_leaves_out_zero(tmp_path: Path) -> None:
    page = html_of(only_north_gains(make_run(tmp_path, private=False)))
    assert re.search(
        r"<small class=\"verdict\">gains</small>.*<small class=\"verdict\">not dist", page, flags=re.DOTALL
    )
    assert re.search(r"\+0\.051 \(\+0\.0\d+ to \+0\.0\d+\)", page)  # beside the site in the chart


@pytest.mark.whole
@pytest.mark.usefixtures("undrawn")
def test_one_seed_has_no_interval_and_proves_nothing(tmp_path: Path) -> None:
    page = html_of(one_seed(make_run(tmp_path, {("federated", True): BETTER})))
    assert "One seed: there are no intervals" in page
    assert "nan" not in page.lower()


@pytest.mark.whole
@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("arms", FEWER_ARMS)
def test_some_arms_are_enough_for_a_page(tmp_path: Path, arms: tuple[str, ...]) -> None:
    assert "<svg" in html_of(make_run(tmp_path, arms=arms))


@pytest.mark.whole
def test_without_privacy_there_is_no_guarantee_and_no_number(tmp_path: Path) -> None:
    page = html_of(make_run(tmp_path, private=False))
    shown = re.sub(r"<details>.*?</details>", "", page, flags=re.DOTALL)  # the scenario's unused values are in there
    assert "no privacy guarantee" in shown
    assert not re.search(r"epsilon|sigma|delta", shown, re.IGNORECASE)
    assert "with privacy" not in shown
    assert "had no effect: the unit is none" in page


@pytest.mark.whole
@pytest.mark.usefixtures("undrawn")
def test_every_finding_and_every_item_of_the_statement_is_in_the_page(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    page = Text.of(html_of(run))
    for term, text in findings(run) + statement(run):
        assert term in page
        assert text in page


@pytest.mark.whole
@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize(("epsilon", "weak"), [(10.0, False), (10.001, True), (5000.0, True)])
def test_a_weak_epsilon_is_called_that_in_four_places(tmp_path: Path, epsilon: float, weak: bool) -> None:
    run = make_run(tmp_path)
    run.ledger["trainings"][0]["epsilon"]["south"] = epsilon
    assert html_of(run).count("weak formal guarantee") == 4 * weak


@pytest.mark.whole
@pytest.mark.usefixtures("undrawn")
def test_private_trainings_that_released_nothing_have_a_page(tmp_path: Path) -> None:
    assert html_of(nothing_released(make_run(tmp_path)))


@pytest.mark.whole
@pytest.mark.parametrize("private", [True, False])
@pytest.mark.usefixtures("undrawn")
def test_nothing_is_promised_that_cannot_be_kept(tmp_path: Path, private: bool) -> None:
    run = make_run(tmp_path, private=private)
    for text in (html_of(run), headline(run), str(statement(run))):
        assert not [word for word in FORBIDDEN if word in text.lower()]


@pytest.mark.whole
def test_the_same_run_gives_the_same_bytes(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    path = write(run)
    first = path.read_bytes()
    assert path == tmp_path / "report.html"
    assert write(run).read_bytes() == first


@pytest.mark.whole
def test_the_page_loads_nothing(full: str) -> None:
    page, seen = full, Tags.of(full)
    assert not seen.names & {"script", "link", "iframe", "img", "object", "embed", "base", "image", "video", "audio"}
    for name, value in seen.attributes:
        if name in ("src", "srcset", "href", "xlink:href", "data", "action", "poster"):
            assert value.startswith("#"), (name, value)
    assert "@import" not in page
    assert all(target.startswith("#") for target in re.findall(r"url\(\s*['\"]?([^)'\"]*)", page))
    addresses = {value for value in re.findall(r"https?://[^\s\"'<]+", page)}
    assert addresses == {"http://www.w3.org/1999/xlink", "http://www.w3.org/2000/svg"}  # XML namespaces, not loaded


@pytest.mark.whole
def test_every_picture_is_told_in_words_and_has_the_colours_of_the_theme(full: str) -> None:
    pictures = re.findall(r'<svg class="chart"[^>]*>', full)
    assert len(pictures) >= 8
    assert all(re.search(r'role="img" aria-label="[^"]{20,}"', picture) for picture in pictures)
    assert "prefers-color-scheme: dark" in full
    assert "fill: #24303c" not in full.lower()
    assert "var(--ink, #24303c)" in full


@pytest.mark.whole
def test_on_a_phone_each_cell_of_the_deciding_tables_has_its_heading(full: str) -> None:
    """There a table has no columns: each row is a card, whose lines are named by the cells themselves."""
    tables = re.findall(r'<table class="[^"]*cards[^"]*">.*?</table>', full, flags=re.DOTALL)
    assert len(tables) >= 4
    for table in tables:
        cells = re.findall(r"<td[^>]*>", table)
        assert cells
        assert all("data-label=" in cell for cell in cells), table[:200]


@pytest.mark.whole
def test_the_first_screen_comes_first(full: str) -> None:
    text = full[full.index("<body>") :]
    places = [text.index(part) for part in ('class="lead"', 'class="tiles"', "<svg", 'class="officer"', "in full")]
    assert places == sorted(places)


@pytest.mark.whole
def test_the_page_is_well_formed(full: str) -> None:
    seen = Tags.of(full)
    assert not seen.open
    ids = Counter(value for name, value in seen.attributes if name == "id")
    assert ids
    assert max(ids.values()) == 1
    targets = {value[1:] for name, value in seen.attributes if name == "xlink:href"}
    assert targets <= set(ids)


@pytest.mark.whole
def test_what_comes_from_files_is_escaped(tmp_path: Path) -> None:
    bad = "<script>alert(1)</script>"
    run = make_run(tmp_path, sites=[f"a{bad}", '"$b$--><img src=x>'], title=f"T {bad}")
    run.manifest["notes"] = [{"arm": "federated", "private": False, "seed": 0, "note": f"round 1: {bad}"}]
    run.manifest["versions"][bad] = bad
    run.ledger["accountant"] = bad
    page = html_of(run)
    seen = Tags.of(page)
    assert not seen.names & {"script", "img"}
    assert not seen.open
    text = Text.of(page)
    assert f"T {bad}" in text
    assert f"round 1: {bad}" in text
    gains, _, groups = text.partition("Are groups treated differently?")
    assert gains.count('"$b$--><img src=x>') == 4  # in a sentence, in the table and in both panels of the chart
    assert groups.count('"$b$--><img src=x>') >= 7  # in a chart and in the table of each arm


@pytest.mark.whole
@pytest.mark.usefixtures("undrawn")
def test_without_validation_rows_there_are_no_curves(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    assert "Learning curves" in html_of(run)
    assert "Learning curves" not in html_of(replace(run, rounds=pd.DataFrame()))
    nothing = run.rounds.assign(auc=math.nan, log_loss=math.nan)
    assert "Learning curves" not in html_of(replace(run, rounds=nothing))


@pytest.mark.whole
@pytest.mark.parametrize("seeds", [[0], list(range(SEEDS))], ids=["one seed", "all seeds"])
def test_a_site_whose_auc_is_missing_is_shown_without_it(tmp_path: Path, seeds: list[int]) -> None:
    page = html_of(without_auc(make_run(tmp_path), "south", seeds))
    assert f">{SEEDS - len(seeds)} of {SEEDS}</td>" in page
    assert "nan" not in page.lower()


@pytest.mark.whole
@pytest.mark.usefixtures("undrawn")
def test_an_auc_that_is_missing_everywhere_is_shown_without_it(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    run.sites["auc"] = None  # as Parquet gives it back: a column of objects
    assert "nan" not in html_of(run).lower()


@pytest.mark.whole
@pytest.mark.usefixtures("undrawn")
def test_the_table_says_better_by_the_sense_of_each_metric(tmp_path: Path) -> None:
    """The higher AUC of the federated arm is its lower log loss, and both are better: by four figures, twice each."""
    page = html_of(make_run(tmp_path, {("federated", False): BETTER}, private=False))
    assert page.count('<small class="verdict">better</small>') == 8
    assert '<small class="verdict">worse</small>' not in page
    page = html_of(make_run(tmp_path, {("federated", False): WORSE}, private=False))
    assert page.count('<small class="verdict">worse</small>') == 8


@pytest.mark.whole
@pytest.mark.usefixtures("undrawn")
def test_the_table_has_the_figure_inside_sites_before_the_pooled_one(tmp_path: Path) -> None:
    page = Text.of(html_of(make_run(tmp_path)))
    heads = [page.index(text) for text in ("AUC inside sites higher", "AUC pooled higher", "Accuracy higher")]
    assert heads == sorted(heads)
    assert "Accuracy and log loss are means over rows, and so the same inside sites and pooled." in page
    alone = Text.of(html_of(make_run(tmp_path, sites=["north"])))
    assert "AUC pooled" not in alone


@pytest.mark.whole
@pytest.mark.usefixtures("undrawn")
def test_an_older_run_has_a_page_that_says_its_figures_are_pooled(tmp_path: Path) -> None:
    page = Text.of(html_of(older(make_run(tmp_path))))
    assert "This run is older than the figures inside sites: its figures are pooled over the sites" in page
    assert "AUC inside sites" not in page
    assert "AUC pooled over the sites" in page


@pytest.mark.whole
@pytest.mark.usefixtures("undrawn")
def test_the_table_names_the_question_of_each_interval(tmp_path: Path) -> None:
    run = make_run(tmp_path, {("federated", True): (-0.01, -0.03, -0.012, -0.028)})
    page = html_of(run)
    assert re.search(
        r'<small>on these records <span>−0\.0\d+ to −0\.0\d+</span></small><small class="verdict">worse</small>'
        r'<small>at institutions like these <span>−0\.0\d+ to \+0\.0\d+</span></small><small class="verdict">not dist',
        page,
    )
    assert "mean, 95 % interval at institutions like these" in page
    timed = html_of(by_time(run))
    assert "mean, 95 % interval on these records" in timed
    assert "<small>at institutions like these" not in timed


@pytest.mark.whole
@pytest.mark.usefixtures("undrawn")
def test_two_seeds_have_no_interval(tmp_path: Path) -> None:
    page = Text.of(html_of(first_seeds(make_run(tmp_path, {("federated", True): WORSE}), 2)))
    assert "Two seeds: two seeds give no verdict" in page
    assert "95 % interval −" not in page
    assert "worse" not in page


@pytest.mark.whole
@pytest.mark.usefixtures("undrawn")
def test_notes_and_few_seeds_are_pointed_out(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    note = {"arm": "federated", "private": True, "seed": 2, "note": "round 3: south was left out: failed"}
    page = Text.of(html_of(replace(run, manifest=run.manifest | {"notes": [note] * 70})))
    assert "see the 70 notes at the end" in page
    assert "federated, with privacy, seed 2: round 3: south was left out: failed" in page
    assert "and 10 more, in manifest.json" in page
    assert "Only 4 seeds" in page
    assert "notes at the end" not in html_of(run)


@pytest.mark.whole
@pytest.mark.usefixtures("undrawn")
def test_many_sites_are_not_all_drawn(tmp_path: Path) -> None:
    page = html_of(make_run(tmp_path, sites=[f"site-{n:02}" for n in range(60)]))
    assert "The 40 sites with the most test rows are shown, of 60." in page


class Tags(HTMLParser):
    """The tags and attributes of a page, and those that were not closed."""

    VOID = frozenset({"meta", "br"})

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.attributes: list[tuple[str, str]] = []
        self.open: list[str] = []

    @classmethod
    def of(cls, page: str) -> "Tags":
        parser = cls()
        parser.feed(page)
        parser.close()
        return parser

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.add(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open
        assert self.open.pop() == tag


class Text(HTMLParser):
    """The text of a page."""

    @classmethod
    def of(cls, page: str) -> str:
        parser = cls()
        parser.parts = []
        parser.feed(page)
        parser.close()
        return "".join(parser.parts)

    parts: list[str]

    def handle_data(self, data: str) -> None:
        self.parts.append(data)
