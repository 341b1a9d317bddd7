import copy
import itertools
import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from fedsim import charts, report
from fedsim.comparison import SAME
from fedsim.evaluation import POOLED
from fedsim.results import Run
from fedsim.scenario import parse

Effects = Mapping[tuple[str, bool], Sequence[float]]

ARMS = ("federated", "centralized", "local")
SITES = ("north", "south")
NOISE = (0.01, -0.01, 0.01, -0.01)  # for an effect that cannot be told from none
BETTER, WORSE = (0.05, 0.052, 0.05, 0.052), (-0.05, -0.052, -0.05, -0.052)
SEEDS = len(NOISE)
QUALITY, POOL, COST, JOIN, PROMISE = (
    "How good is the model they train together?",
    "Would pooling all records be better?",
    "What does privacy cost?",
    "Which site gains by joining?",
    "What is promised about privacy?",
)
FORBIDDEN = ("anonymous", "anonymised", "anonymized", "fully private", "guaranteed private")


def scores(effects: Effects, arms: Sequence[str], kinds: Sequence[bool], sites: Sequence[str]) -> pd.DataFrame:
    """Return a table of test scores; an effect is added to an arm's AUC, seed by seed."""
    rows = []
    for seed, private, arm in itertools.product(range(SEEDS), kinds, arms):
        for site in (*sites, POOLED):
            auc = 0.8 + 0.02 * seed + effects.get((arm, private), [0.0] * SEEDS)[seed]
            figures = {"rows": 20 + seed, "positives": 8, "auc": auc, "accuracy": auc - 0.1, "log_loss": 1.2 - auc}
            rows.append({"arm": arm, "private": private, "seed": seed, "site": site, **figures})
    return pd.DataFrame(rows)


def training(arm: str, seed: int, sites: Sequence[str], **changes: float) -> dict[str, Any]:
    mechanism = {"sampling_rate": 0.5, "noise_multiplier": 1.866, "clip": 1.0, "expected_batch": 60.0, "steps": 2}
    entries = [
        {"site": site, "round": number, "mechanism": mechanism | changes} for number in (1, 2, 3) for site in sites
    ]
    return {"arm": arm, "private": True, "seed": seed, "epsilon": dict.fromkeys(sites, 7.9951), "entries": entries}


def make_run(
    folder: Path,
    effects: Effects | None = None,
    private: bool = True,
    arms: Sequence[str] = ARMS,
    sites: Sequence[str] = SITES,
    title: str = "Two clinics",
) -> Run:
    kinds = (False, True) if private else (False,)
    table = scores(effects or {}, arms, kinds, sites)
    rounds = [
        table[table["site"] == POOLED].drop(columns=["site", "rows", "positives"]).assign(round=n) for n in (1, 2, 3)
    ]
    trainings = [
        training(arm, seed, ["pooled"] if arm == "centralized" else sites)
        for seed, arm in itertools.product(range(SEEDS), arms)
        if private
    ]
    unit = "record" if private else "none"
    scenario = parse(
        {
            "name": "two-clinics",
            "title": title,
            "task": "hospital/heart",
            "arms": list(arms),
            "seeds": SEEDS,
            "privacy": {"unit": unit, "epsilon": 8.0, "delta": 1e-4},
        }
    )
    return Run(
        path=folder,
        scenario=scenario,
        sites=table,
        rounds=pd.concat(rounds, ignore_index=True),
        ledger={
            "unit": unit,
            "neighbours": "add-or-remove-one",
            "delta": 1e-4,
            "budget": 8.0,
            "accountant": "PLD (dp-accounting 0.6.0)",
            "trainings": trainings,
        },
        manifest={
            "versions": {"fedsim-flower": "0.1.0", "torch": "2.13.0"},
            "git": None,
            "device": "cpu",
            "seeds": list(range(SEEDS)),
            "started": "2026-11-23T15:48:19+00:00",
            "seconds": 5.9,
            "seconds_per_training": {"federated-plain-0": 1.2},
            "notes": [],
        },
    )


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The page of a private run, with its charts."""
    return html_of(make_run(tmp_path_factory.mktemp("run")))


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the charts out: they are what takes the time."""
    for name in ("arms", "curves", "sites"):
        monkeypatch.setattr(charts, name, lambda *_: "<svg></svg>")


def html_of(run: Run) -> str:
    return report.write(run).read_text("utf-8")


def said(run: Run) -> dict[str, str]:
    return dict(report.findings(run))


def terms(run: Run) -> dict[str, str]:
    """Return {term: its definitions, one a line}."""
    found: dict[str, str] = {}
    for term, text in report.statement(run):
        found[term] = f"{found[term]}\n{text}" if term in found else text
    return found


def one_seed(run: Run) -> Run:
    return replace(
        run,
        scenario=run.scenario.model_copy(update={"seeds": 1}),
        sites=run.sites[run.sites["seed"] == 0],
        rounds=run.rounds[run.rounds["seed"] == 0],
        manifest=run.manifest | {"seeds": [0]},
    )


@pytest.mark.parametrize("effect", [BETTER, WORSE, NOISE], ids=["better", "worse", "noise"])
def test_a_difference_is_not_distinguishable_exactly_when_its_interval_holds_zero(
    tmp_path: Path, effect: tuple[float, ...]
) -> None:
    run = make_run(tmp_path, {("federated", True): effect})
    row = run.comparison.query("arm == 'federated' and private and metric == 'auc' and site == @POOLED").iloc[0]
    holds_zero = bool(row["difference_low"] <= 0 <= row["difference_high"])
    assert holds_zero == (effect == NOISE)
    answers = said(run)
    for question in (POOL, COST, JOIN):
        assert (SAME in answers[question]) == holds_zero, question
    assert (SAME in report.headline(run)) == holds_zero


def test_the_headline_says_which_way_a_difference_goes(tmp_path: Path) -> None:
    better = said(make_run(tmp_path, {("federated", True): BETTER}))
    assert "better by +0.051 (95 % interval +0.0" in better[POOL]
    assert "no cost is visible" in better[COST]
    assert "gain" in better[JOIN]
    assert "lose" not in better[JOIN]
    worse = said(make_run(tmp_path, {("federated", True): WORSE}))
    assert "worse: the difference is −0.051" in worse[POOL]
    assert "privacy lowers it" in worse[COST]
    assert "north (−0.051, 95 % interval −0.05" in worse[JOIN]
    assert "lose." in worse[JOIN]


@pytest.mark.usefixtures("undrawn")
def test_a_site_gains_only_where_the_interval_leaves_out_zero(tmp_path: Path) -> None:
    run = make_run(tmp_path, private=False)
    table = run.sites
    table.loc[(table["arm"] == "federated") & (table["site"] == "north"), "auc"] += list(BETTER)
    table.loc[(table["arm"] == "federated") & (table["site"] == "south"), "auc"] += list(NOISE)
    answer = said(run)[JOIN]
    assert re.search(r"north \(\+0\.051, [^)]*\) gains;", answer)
    assert "for south a gain or loss cannot be told apart from chance" in answer
    assert re.search(
        r"<small class=\"verdict\">gains</small>.*<small class=\"verdict\">not dist", html_of(run), re.DOTALL
    )


@pytest.mark.usefixtures("undrawn")
def test_one_seed_has_no_interval_and_proves_nothing(tmp_path: Path) -> None:
    run = one_seed(make_run(tmp_path, {("federated", True): BETTER}))
    assert "interval 0" not in report.headline(run)
    assert "±" not in report.headline(run)
    for question in (POOL, COST):
        assert "one seed gives no interval, so it may be chance" in said(run)[question]
    assert "for none of the sites can a gain or loss be told apart from chance with one seed" in said(run)[JOIN]
    assert SAME not in report.headline(run)
    assert "One seed: there are no intervals" in html_of(run)
    assert "nan" not in html_of(run).lower()


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("arms", [arms for n in (1, 2) for arms in itertools.combinations(ARMS, n)])
def test_arms_that_were_not_run_are_not_spoken_of(tmp_path: Path, arms: tuple[str, ...]) -> None:
    run = make_run(tmp_path, arms=arms)
    answers = said(run)
    if "federated" not in arms:
        assert "The federated arm was not run" in report.headline(run)
        assert not {POOL, COST, JOIN} & set(answers)
    else:
        assert ("cannot be told: the centralized arm was not run" in answers[POOL]) == ("centralized" not in arms)
        assert ("cannot be told: the local arm" in answers[JOIN]) == ("local" not in arms)
    assert terms(run)["Epsilon"].startswith("8.00")
    assert "<svg" in html_of(run)


def test_without_privacy_there_is_no_guarantee_and_no_number(tmp_path: Path) -> None:
    run = make_run(tmp_path, private=False)
    assert "no privacy guarantee" in report.headline(run)
    assert "no privacy guarantee" in terms(run)["Guarantee"]
    page = html_of(run)
    shown = re.sub(r"<details>.*?</details>", "", page, flags=re.DOTALL)  # the scenario's unused values are in there
    assert "no privacy guarantee" in shown
    for text in (report.headline(run), str(report.statement(run)), shown):
        assert not re.search(r"epsilon|sigma|delta", text, re.IGNORECASE)
    assert "with privacy" not in shown
    assert "had no effect: the unit is none" in page


Edit = Callable[[dict[str, Any]], None]


def change(field: str, value: float) -> Edit:
    """Return an edit of a ledger: what the site ``north`` did in all federated trainings."""

    def edit(ledger: dict[str, Any]) -> None:
        for entry in (e for t in ledger["trainings"] if t["arm"] == "federated" for e in t["entries"]):
            if entry["site"] == "north":
                entry["mechanism"] = entry["mechanism"] | {field: value}

    return edit


def put(**values: object) -> Edit:
    return lambda ledger: ledger.update(values)


LEDGER: dict[str, tuple[str, Edit, str]] = {
    "Neighbours": ("add or remove one", put(neighbours="replace-one"), "replace one"),
    "Epsilon": (
        "8.00 at every site; an upper bound for one federated training, the most over 4 seeds. The budget was 8;",
        lambda ledger: ledger["trainings"][0]["epsilon"].update(north=9.001),
        "north: 9.01; south: 8.00",
    ),
    "Delta": ("0.0001:", put(delta=1e-6), "1e-06:"),
    "Accountant": ("PLD (dp-accounting 0.6.0).", put(accountant="RDP 2"), "RDP 2."),
    "Sampling": ("Poisson: each row joins a step with probability 0.5 at every site", change("sampling_rate", 0.25),
                 "north: 0.25; south: 0.5"),
    "Noise multiplier": ("sigma = 1.866 at every site", change("noise_multiplier", 2.5), "north: 2.5; south: 1.866"),
    "Clip": ("1 at every site", change("clip", 0.3), "north: 0.3; south: 1"),
    "Denominator": ("60 at every site", change("expected_batch", 90.0), "north: 90; south: 60"),
    "Steps": ("3 rounds × 2 steps = 6 steps at every site", change("steps", 5),
              "north: 3 rounds × 5 steps = 15 steps; south: 3 rounds × 2 steps = 6 steps"),
}  # fmt: skip


@pytest.mark.parametrize("term", LEDGER)
def test_the_statement_says_what_is_in_the_ledger(tmp_path: Path, term: str) -> None:
    before, edit, after = LEDGER[term]
    run = make_run(tmp_path)
    assert before in terms(run)[term]
    changed = copy.deepcopy(run.ledger)
    edit(changed)
    assert after in terms(replace(run, ledger=changed))[term]


def test_the_statement_comes_from_the_ledger_not_from_the_scenario(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    privacy = run.scenario.privacy.model_copy(update={"epsilon": 0.123, "clip": 77.0, "neighbours": "replace-one"})
    asked = run.scenario.model_copy(update={"privacy": privacy})
    assert report.statement(replace(run, scenario=asked)) == report.statement(run)
    nothing = run.scenario.model_copy(update={"privacy": privacy.model_copy(update={"unit": "none"})})
    assert report.statement(replace(run, scenario=nothing)) == report.statement(run)


@pytest.mark.usefixtures("undrawn")
def test_every_item_of_the_statement_is_in_the_page(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    wanted = {"In plain words", "Unit", *LEDGER, "Mechanism", "Released", "Trust model", "Not covered",
              "Random numbers", "Arithmetic", "Other arms"}  # fmt: skip
    assert set(terms(run)) == wanted
    page = Text.of(html_of(run))
    for term, text in report.statement(run):
        assert term in page
        assert text in page


def test_the_statement_names_what_is_not_covered(tmp_path: Path) -> None:
    gaps = terms(make_run(tmp_path))["Not covered"]
    for gap in ("test metrics", "hyperparameters", "choosing among seeds", "Splitting", "repeats the training",
                "two sites", "centralized arm", "without noise"):  # fmt: skip
        assert gap in gaps
    assert "who knows the seed there is no guarantee" in terms(make_run(tmp_path))["Random numbers"]
    assert "not hardened" in terms(make_run(tmp_path))["Arithmetic"]
    assert "neither the server nor the other sites need to be trusted" in terms(make_run(tmp_path))["Trust model"]


def test_values_that_differ_within_a_site_are_all_shown(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    mechanism = run.ledger["trainings"][0]["entries"][0]["mechanism"]
    run.ledger["trainings"][0]["entries"][0]["mechanism"] = mechanism | {"noise_multiplier": 3.25, "steps": 1}
    assert "north: 3.25 or 1.866; south: 1.866" in terms(run)["Noise multiplier"]
    assert "1 rounds × 1 steps + 2 rounds × 2 steps = 5 steps or 3 rounds × 2 steps = 6 steps" in terms(run)["Steps"]


def test_other_private_arms_are_stated_too(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    for one in run.ledger["trainings"]:
        if one["arm"] == "centralized":
            one["epsilon"] = {"pooled": 3.0}
            one["entries"] = training("centralized", 0, ["pooled"], noise_multiplier=4.5)["entries"]
    centralized, local = terms(run)["Other arms"].splitlines()
    assert centralized.startswith("centralized: epsilon 3.00; sampling rate 0.5; sigma 4.5; clip 1; denominator 60;")
    assert local.startswith("local: epsilon 8.00 at every site;")


def test_epsilon_is_explained_by_its_factor_and_its_ceiling(tmp_path: Path) -> None:
    """The ceiling is (e^epsilon - 1 + 2 delta) / (e^epsilon + 1), as a share of right guesses at even odds."""
    run = make_run(tmp_path)
    right = 50 * (1 + (math.exp(8) - 1 + 2e-4) / (math.exp(8) + 1))
    assert "epsilon 8.00 that is a factor of about 2,981, a loose bound" in terms(run)["In plain words"]
    assert f"{math.ceil(right * 100) / 100} %" in terms(run)["In plain words"]
    for one in run.ledger["trainings"]:
        one["epsilon"] = dict.fromkeys(one["epsilon"], 1.0)
    assert "epsilon 1.00 that is a factor of about 2.72. " in terms(run)["In plain words"]
    assert "73.11 %" in terms(run)["In plain words"]


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize(("epsilon", "weak"), [(10.0, False), (10.001, True), (5000.0, True)])
def test_an_epsilon_above_ten_is_called_weak(tmp_path: Path, epsilon: float, weak: bool) -> None:
    run = make_run(tmp_path)
    run.ledger["trainings"][0]["epsilon"]["south"] = epsilon
    assert ("weak formal guarantee" in said(run)[PROMISE]) == weak
    assert ("weak formal guarantee" in terms(run).get("Warning", "")) == weak
    assert html_of(run).count("weak formal guarantee") == 3 * weak


@pytest.mark.parametrize(("delta", "warned"), [(1 / 65, False), (1 / 64, True)])
def test_a_delta_that_is_not_below_one_over_the_rows_is_warned_of(tmp_path: Path, delta: float, warned: bool) -> None:
    """A site has 20 to 23 test rows, 21.5 on average, at a share of 20 %: it trains on 60 % of 107.5, that is 64.5."""
    run = make_run(tmp_path)
    run.ledger["delta"] = delta
    assert ("Delta" in terms(run).get("Warning", "")) == warned


def test_an_epsilon_is_never_rounded_down(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    for one in run.ledger["trainings"]:
        one["epsilon"] = dict.fromkeys(one["epsilon"], 0.5312)
    assert "epsilon 0.54" in report.headline(run)
    assert terms(run)["Epsilon"].startswith("0.54")


@pytest.mark.usefixtures("undrawn")
def test_private_trainings_that_released_nothing_are_called_that(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    for one in run.ledger["trainings"]:
        one["entries"], one["epsilon"] = [], {}
    assert "Nothing was released" in terms(run)["Guarantee"]
    assert "Nothing was released" in said(run)[PROMISE]
    assert html_of(run)


@pytest.mark.parametrize("private", [True, False])
@pytest.mark.usefixtures("undrawn")
def test_nothing_is_promised_that_cannot_be_kept(tmp_path: Path, private: bool) -> None:
    run = make_run(tmp_path, private=private)
    for text in (html_of(run), report.headline(run), str(report.statement(run))):
        assert not [word for word in FORBIDDEN if word in text.lower()]


def test_the_same_run_gives_the_same_bytes(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    path = report.write(run)
    first = path.read_bytes()
    assert path == tmp_path / "report.html"
    assert report.write(run).read_bytes() == first


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


def test_the_page_is_well_formed(full: str) -> None:
    seen = Tags.of(full)
    assert not seen.open
    ids = Counter(value for name, value in seen.attributes if name == "id")
    assert ids
    assert max(ids.values()) == 1
    targets = {value[1:] for name, value in seen.attributes if name == "xlink:href"}
    assert targets <= set(ids)


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
    assert text.count('"$b$--><img src=x>') == 3  # in the table and in both panels of the chart


@pytest.mark.usefixtures("undrawn")
def test_without_validation_rows_there_are_no_curves(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    assert "Learning curves" in html_of(run)
    assert "Learning curves" not in html_of(replace(run, rounds=pd.DataFrame()))
    nothing = run.rounds.assign(auc=math.nan, log_loss=math.nan)
    assert "Learning curves" not in html_of(replace(run, rounds=nothing))


@pytest.mark.parametrize("seeds", [[0], list(range(SEEDS))], ids=["one seed", "all seeds"])
def test_a_site_whose_auc_is_missing_is_shown_without_it(tmp_path: Path, seeds: list[int]) -> None:
    run = make_run(tmp_path)
    run.sites.loc[(run.sites["site"] == "south") & run.sites["seed"].isin(seeds), "auc"] = None
    page = html_of(run)
    assert f"<td>{SEEDS - len(seeds)} of {SEEDS}</td>" in page
    assert "nan" not in page.lower()
    assert "a gain or loss" in said(run)[JOIN]


@pytest.mark.usefixtures("undrawn")
def test_an_auc_that_is_missing_everywhere_is_unknown(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    run.sites["auc"] = None  # as Parquet gives it back: a column of objects
    assert "an AUC of unknown" in report.headline(run)
    assert "nan" not in html_of(run).lower()


def test_a_sentence_does_not_list_many_sites(tmp_path: Path) -> None:
    run = make_run(tmp_path, {("federated", True): BETTER}, sites=[f"site-{n}" for n in range(9)])
    run.sites.loc[run.sites["site"] == "site-8", "auc"] = 0.7
    assert re.search(r"site-4 \([^)]*\) and 3 more gain; for site-8 a gain", said(run)[JOIN])


@pytest.mark.usefixtures("undrawn")
def test_the_table_says_better_by_the_sense_of_each_metric(tmp_path: Path) -> None:
    """The higher AUC of the federated arm is its lower log loss, and both are better."""
    page = html_of(make_run(tmp_path, {("federated", False): BETTER}, private=False))
    assert page.count('<small class="verdict">better</small>') == 3
    assert '<small class="verdict">worse</small>' not in page
    page = html_of(make_run(tmp_path, {("federated", False): WORSE}, private=False))
    assert page.count('<small class="verdict">worse</small>') == 3


def test_an_interval_is_cut_where_the_metric_ends(tmp_path: Path) -> None:
    run = make_run(tmp_path, {(arm, False): (0.19, -0.3, 0.1, -0.4) for arm in ARMS}, private=False)
    assert run.comparison.query("metric == 'auc'")["high"].max() > 1
    assert "to 1.000)" in said(run)[QUALITY]


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
