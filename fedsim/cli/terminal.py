"""What a run looks like in a terminal, and as the document that ``--json`` prints.

Like the command line, which imports it at once, it must not import anything heavy.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from fedsim.privacy.tiers import caution

if TYPE_CHECKING:
    from fedsim.results.run_directory import Run
    from fedsim.strategy.contract_check import Finding

_DASH = "–"
_SITE = "site"  # fedsim.data.task.SITE
_MOST_SITES = 40  # that are listed one by one
_LEAST_SHOWN = 0.0005  # half of an interval that three digits would show as zero
_ENDS = ("low", "high")
_CHANGES = (
    "difference",
    *(f"difference_{end}" for end in _ENDS),
    *(f"difference_here_{end}" for end in _ENDS),
    "gain",
    *(f"gain_{end}" for end in _ENDS),
    *(f"gain_here_{end}" for end in _ENDS),
)
_VERDICTS = ("verdict", "here_verdict", "gain_verdict", "gain_here_verdict")


def as_document(finished: "Run") -> dict[str, Any]:
    """Return the document that ``--json`` prints."""
    compared = finished.comparison
    first = compared[compared["site"] == finished.headline]
    keys = ["arm", "private", "metric"]
    pooled = compared[compared["site"] == finished.POOLED]
    seconds = {tuple(row[name] for name in keys): row for row in pooled.to_dict("records")}
    at_sites: dict[tuple[Any, ...], dict[str, float | None]] = {}
    for row in compared[~compared["site"].isin(finished.TOGETHER)][[*keys, "site", "mean"]].to_dict("records"):
        at_sites.setdefault(tuple(row[name] for name in keys), {})[row["site"]] = _number(row["mean"])
    arms = []
    for row in first.to_dict("records"):
        key = tuple(row[name] for name in keys)
        about = {"arm": row["arm"], "private": row["private"], "metric": row["metric"], "over": row["site"]}
        arms.append({**about, **_figures(row), "pooled": _figures(seconds[key]), "sites": at_sites[key]})
    return {
        "run_dir": str(finished.path),
        "scenario": finished.scenario.name,
        "kind": finished.kind,
        "data": finished.manifest["data"],
        "seeds": finished.scenario.all_seeds,
        "arms": arms,
        "intervals": {
            "low, high": finished.asked,
            "here_low, here_high": finished.HERE,
        },
        "delta": finished.ledger["delta"],
        "epsilon": next(filter(None, map(finished.epsilon, finished.scenario.arms)), {}),
    }


def _figures(row: Mapping[Any, Any]) -> dict[str, Any]:
    """Return what a document holds of a row of the comparison."""
    numbers = {name: _number(row[name]) for name in ("mean", "low", "high", *_CHANGES)}
    return {**numbers, **{name: _word(row[name]) for name in _VERDICTS}, "why": row["why"] or None}


def arms_table(finished: "Run") -> Table:
    """Return the arms over all sites: a row for each, the figure inside sites first, the pooled one second."""
    compared = finished.comparison
    shown = compared[compared["site"].isin([finished.headline, finished.POOLED])]
    first, *others = finished.metrics
    twice = finished.pooled_differs and first.by_site
    place = "inside sites" if finished.headline != finished.POOLED else "pooled"
    table = _table(escape(finished.scenario.title))
    table.add_column("arm", no_wrap=True)
    table.add_column("epsilon", no_wrap=True)
    table.add_column(f"{first.label}\n{place}" if first.by_site else first.label, justify="right", no_wrap=True)
    if twice:
        table.add_column(f"{first.label}\npooled", justify="right", no_wrap=True)
    for metric in others:
        label = f"{metric.label}\n{place}" if metric.by_site else metric.label.replace(" ", "\n")
        table.add_column(label, justify="right", no_wrap=True)
    table.add_column("vs.\ncentralized", justify="right", no_wrap=True)
    for (private, arm), rows in shown.groupby(["private", "arm"], sort=False):
        own = {(row["site"], row["metric"]): row for row in rows.to_dict("records")}
        headline = own[finished.headline, first.name]
        table.add_row(
            str(arm),
            _spent(finished.epsilon(str(arm))) if private else "none",
            _with_margin(headline["mean"], headline["low"], headline["high"]),
            *([_figure(own[finished.POOLED, first.name]["mean"])] if twice else []),
            *(_figure(own[finished.headline, metric.name]["mean"]) for metric in others),
            _with_margin(headline["difference"], headline["difference_low"], headline["difference_high"], sign="+"),
        )
    return table


def sites_table(finished: "Run") -> Table:
    """Return the headline inside each site: a row for each."""
    compared, metric = finished.comparison, finished.metrics[0]
    inside = compared[~compared["site"].isin(finished.TOGETHER) & (compared["metric"] == metric.name)]
    columns = dict.fromkeys(zip(inside["private"], inside["arm"], strict=True))
    table = _table(f"{metric.label[0].upper()}{metric.label[1:]} at each site")
    table.add_column("site", no_wrap=True)
    for private, arm in columns:
        table.add_column(f"{arm}\n{'private' if private else 'plain'}", justify="right")
    means = inside.set_index(["site", "private", "arm"])["mean"]
    shown = _largest(finished)
    if len(shown) < inside["site"].nunique():
        table.title = f"{table.title}, the {len(shown)} with the most test rows of {inside['site'].nunique()}"
    for site in dict.fromkeys(inside["site"]):
        if site not in shown:
            continue
        table.add_row(escape(site), *(_figure(means[site, private, arm]) for private, arm in columns))
    return table


def groups_table(finished: "Run", arm: str, rate: str) -> Table:
    """Return how an arm treats each group by one rate: without and with privacy, against everyone else, and changes."""
    harm = finished.harm
    own = harm[(harm["arm"] == arm) & (harm["metric"] == rate)]
    rows = {(row["attribute"], row["group"], row["private"]): row for row in own.to_dict("records")}
    private = bool(own["private"].any())
    table = _table(f"{rate} of each group, {arm} arm")
    for name in ("group", "of", "plain", *(["private"] if private else []), "to others", *(["by privacy"] * private)):
        left = name == "group"
        table.add_column(name, justify="left" if left else "right", no_wrap=not left, overflow="fold")
    attribute, largest = None, _largest(finished)
    places = dict.fromkeys((row["attribute"], row["group"]) for row in rows.values())
    for name, group in sorted(places, key=lambda place: place[0] == _SITE):  # protected groups first
        if name == _SITE and group not in largest:
            continue
        if attribute not in (None, name):
            table.add_section()
        attribute, last = name, rows[name, group, private]
        shown = [_figure(rows[name, group, kind]["mean"]) for kind in ([False, True] if private else [False])]
        of = f"{last['least']}" if last["least"] == last["most"] else f"{last['least']}-{last['most']}"
        few = " few" if last["few"] else ""
        changes = [
            _with_margin(last[one], last[f"{one}_low"], last[f"{one}_high"], "+")
            for one in ("difference", "change")[: 1 + private]
        ]
        table.add_row(escape(f"{name} {group}"), of + few, *shown, *changes)
    return table


def checks_table(strategy: str, found: "Sequence[Finding]") -> Table:
    """Return what a strategy keeps: first what all must keep, then what tells its kind."""
    broken = sum(one.required and not one.holds for one in found)
    table = _table(
        f"{escape(strategy)}: {f'breaks {broken}' if broken else 'keeps all'} of what every strategy must keep"
    )
    table.add_column("")
    table.add_column("check", ratio=3)
    table.add_column("seen", ratio=2)
    for number, one in enumerate(found):
        if number and one.required < found[number - 1].required:
            table.add_section()
        mark = "yes" if one.holds else "[bold red]NO[/bold red]" if one.required else "no"
        table.add_row(mark, escape(one.name), escape(one.detail))
    return table


def _largest(finished: "Run") -> set[str]:
    """Return the sites that are listed one by one: all, or those with the most test rows."""
    inside = finished.sites[~finished.sites["site"].isin(finished.TOGETHER)]
    rows = inside.groupby("site")["rows"].mean().sort_values(ascending=False, kind="stable")
    return set(rows.index[:_MOST_SITES])


def _table(title: str) -> Table:
    """Return a table that fits 80 columns for six figures."""
    return Table(
        title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True
    )


def closing_lines(finished: "Run") -> Iterator[str]:
    """Yield what came out, and what else is to be known: intervals, epsilon, notes, and where the run is."""
    from fedsim.report.findings import in_short  # it needs what is heavy

    yield from in_short(finished)
    count = len(finished.scenario.all_seeds)
    if count > 2:
        yield f"Means over {count} seeds, ± half a 95 % interval {finished.asked}; differences are paired by seed."
    elif count == 2:
        yield "Means over 2 seeds: two seeds give no verdict."
    if not finished.scenario.private:
        yield "No privacy guarantee: nothing was clipped or noised."
    from fedsim.privacy.units import unit_of  # imports torch, which whoever has a finished run has

    what = unit_of(finished.ledger["unit"]).promise.protected if finished.scenario.private else ""
    for arm in finished.scenario.private_arms:
        epsilon = finished.epsilon(arm)
        spent = {_spent({site: value}) for site, value in epsilon.items()}
        each = f"{spent.pop()} at each site" if len(spent) == 1 else _by_site(epsilon)
        yield f"Epsilon of one {what}, {arm}: {each or 'nothing released'} (delta {finished.ledger['delta']:g})."
        if weak := caution(max(epsilon.values(), default=0.0)):
            yield f"Take care: {weak}."
    if finished.ledger["ranges_fitted"]:
        yield "Ranges were taken from the data: no guarantee covers them. Declare public ranges for one that does."
    yield from _account(finished.manifest["data"])
    for note in finished.manifest["notes"]:
        yield f"Note ({note['arm']}, seed {note['seed']}): {note['note']}"
    yield f"run:    {finished.path}"
    yield f"report: {finished.path / 'report.html'}"


def _account(data: dict[str, Any] | None) -> Iterator[str]:
    """Yield what became of the rows of one's own table."""
    if not data:
        return
    reasons = (f", {one['rows']} left out: {one['reason']}, first in row {one['first']}" for one in data["left_out"])
    yield f"{data['file']}: {data['rows_in']} rows in, {data['rows_used']} used{''.join(reasons)}."
    for note in data["notes"]:
        yield f"  {note}"


def _by_site(values: dict[str, float]) -> str:
    return ", ".join(f"{site} {_spent({site: value})}" for site, value in values.items())


def _spent(epsilon: dict[str, float]) -> str:
    """Return the most that was spent, rounded up."""
    return f"{math.ceil(100 * max(epsilon.values()) - 1e-9) / 100:.2f}" if epsilon else _DASH


def _with_margin(value: float, low: float, high: float, sign: str = "") -> str:
    if math.isnan(value):
        return _DASH
    if math.isnan(high):
        return f"{value:{sign}.3f}"
    half = max(high - value, value - low)  # one of them is cut where the metric ends
    return f"{value:{sign}.3f} ± {half:.3f}" if half >= _LEAST_SHOWN else f"{value:{sign}.3f} ± <0.001"


def _figure(value: float) -> str:
    return _DASH if math.isnan(value) else f"{value:.3f}"


def _word(value: object) -> str | None:
    return value if isinstance(value, str) else None  # pandas makes a NaN of a missing word


def _number(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
