"""Tables and sentences about a run, for a terminal.

Like the command line, which imports it at once, it must not import anything heavy.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from fedsim import figures
from fedsim.privacy.tiers import caution

if TYPE_CHECKING:
    from fedsim.results.run_directory import Run
    from fedsim.strategy.contract_check import Finding

_SITE = "site"  # fedsim.data.task.SITE
_MOST_SITES = 40  # that are listed one by one


def arms_table(finished: "Run") -> Table:
    """Return the arms over all sites: a row for each, the figure inside sites first, the pooled one second."""
    compared = finished.comparison
    together = compared[compared["site"].isin([finished.headline, finished.POOLED])]
    first, *others = finished.metrics
    has_pooled_column = finished.pooled_differs and first.by_site
    place = "inside sites" if finished.headline != finished.POOLED else "pooled"

    table = _table(escape(finished.scenario.title))
    table.add_column("arm", no_wrap=True)
    table.add_column("epsilon", no_wrap=True)
    heading = f"{first.label}\n{place}" if first.by_site else first.label
    table.add_column(heading, justify="right", no_wrap=True)
    if has_pooled_column:
        table.add_column(f"{first.label}\npooled", justify="right", no_wrap=True)
    for metric in others:
        heading = f"{metric.label}\n{place}" if metric.by_site else metric.label.replace(" ", "\n")
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("vs.\ncentralized", justify="right", no_wrap=True)

    for (private, arm), rows in together.groupby(["private", "arm"], sort=False):
        by_place = {(row["site"], row["metric"]): row for row in rows.to_dict("records")}
        headline = by_place[finished.headline, first.name]
        cells = [
            str(arm),
            _most_spent(finished.epsilon(str(arm))) if private else "none",
            figures.margin(headline["mean"], headline["low"], headline["high"]),
        ]
        if has_pooled_column:
            cells.append(figures.figure(by_place[finished.POOLED, first.name]["mean"]))
        for metric in others:
            cells.append(figures.figure(by_place[finished.headline, metric.name]["mean"]))
        cells.append(_change(headline, "difference"))
        table.add_row(*cells)

    base = _base_cells(finished, has_pooled_column)
    if base:
        table.add_section()
        table.add_row(*base)
    references = list(_reference_cells(finished, has_pooled_column))
    if references:
        table.add_section()
    for cells in references:
        table.add_row(*cells)
    return table


def _base_cells(finished: "Run", has_pooled_column: bool) -> list[str]:
    """Return the row of the base rate, of always giving the same answer; nothing in runs that have none."""
    from fedsim.report.base_findings import base_answer, base_figures  # it needs what is heavy

    if base_answer(finished) is None:
        return []
    inside = base_figures(finished, finished.headline)
    pooled = base_figures(finished, finished.POOLED)
    first, *others = finished.metrics
    cells = ["base rate", figures.UNKNOWN, figures.figure(inside[first.name])]
    if has_pooled_column:
        cells.append(figures.figure(pooled[first.name]))
    for metric in others:
        cells.append(figures.figure(inside[metric.name]))
    return [*cells, figures.UNKNOWN]


def _reference_cells(finished: "Run", has_pooled_column: bool) -> Iterator[list[str]]:
    """Yield a row for each model of scikit-learn beside the arms; nothing in runs that have none."""
    from fedsim.report.references.words import named, references_of  # they need what is heavy

    means = finished.references
    first, *others = finished.metrics
    for reference, learned_from in references_of(finished):
        own = means[(means["reference"] == reference) & (means["learned_from"] == learned_from)]
        by_place = {(row["site"], row["metric"]): row for row in own.to_dict("records")}
        headline = by_place[finished.headline, first.name]
        cells = [
            named(reference, learned_from, finished.kind).replace(", ", ",\n"),
            "none",
            figures.margin(headline["mean"], headline["low"], headline["high"]),
        ]
        if has_pooled_column:
            cells.append(figures.figure(by_place[finished.POOLED, first.name]["mean"]))
        for metric in others:
            cells.append(figures.figure(by_place[finished.headline, metric.name]["mean"]))
        yield [*cells, figures.UNKNOWN]


def sites_table(finished: "Run") -> Table:
    """Return the headline inside each site: a row for each."""
    compared = finished.comparison
    metric = finished.metrics[0]
    at_sites = compared[~compared["site"].isin(finished.TOGETHER) & (compared["metric"] == metric.name)]
    columns = list(dict.fromkeys(zip(at_sites["private"], at_sites["arm"], strict=True)))
    sites = list(dict.fromkeys(at_sites["site"]))
    listed = _largest(finished)

    title = f"{metric.label[0].upper()}{metric.label[1:]} at each site"
    if len(listed) < len(sites):
        title = f"{title}, the {len(listed)} with the most test rows of {len(sites)}"
    table = _table(title)
    table.add_column("site", no_wrap=True)
    for private, arm in columns:
        table.add_column(f"{arm}\n{'private' if private else 'plain'}", justify="right")

    means = at_sites.set_index(["site", "private", "arm"])["mean"]
    for site in sites:
        if site in listed:
            cells = [figures.figure(means[site, private, arm]) for private, arm in columns]
            table.add_row(escape(site), *cells)
    return table


def groups_table(finished: "Run", arm: str, rate: str) -> Table:
    """Return how an arm treats each group by one rate: without and with privacy, against everyone else, and changes."""
    harm = finished.harm
    of_rate = harm[(harm["arm"] == arm) & (harm["metric"] == rate)]
    rows = {(row["attribute"], row["group"], row["private"]): row for row in of_rate.to_dict("records")}
    private = bool(of_rate["private"].any())

    table = _table(f"{rate} of each group, {arm} arm")
    table.add_column("group", overflow="fold")
    headings = ["of", "plain", "private", "to others", "by privacy"] if private else ["of", "plain", "to others"]
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)

    listed = _largest(finished)
    groups = dict.fromkeys((attribute, group) for attribute, group, _ in rows)
    protected_first = sorted(groups, key=lambda place: place[0] == _SITE)
    section = None
    for attribute, group in protected_first:
        if attribute == _SITE and group not in listed:
            continue
        if section not in (None, attribute):
            table.add_section()
        section = attribute

        row = rows[attribute, group, private]
        cells = [_row_count(row), figures.figure(rows[attribute, group, False]["mean"])]
        if private:
            cells.append(figures.figure(row["mean"]))
        cells.append(_change(row, "difference"))
        if private:
            cells.append(_change(row, "change"))
        table.add_row(escape(f"{attribute} {group}"), *cells)
    return table


def _row_count(row: dict[Any, Any]) -> str:
    """Return ``12-15 few``: of how many rows of a seed a rate was taken."""
    count = f"{row['least']}" if row["least"] == row["most"] else f"{row['least']}-{row['most']}"
    return f"{count} few" if row["few"] else count


def _change(row: dict[Any, Any], name: str) -> str:
    """Return a change with half of its interval: ``+0.014 ± 0.004``."""
    return figures.margin(row[name], row[f"{name}_low"], row[f"{name}_high"], signed=True)


def checks_table(strategy: str, findings: "Sequence[Finding]") -> Table:
    """Return the properties of a strategy: first those that all must have, then those that tell its kind."""
    broken = sum(finding.required and not finding.holds for finding in findings)
    kept = f"breaks {broken}" if broken else "keeps all"
    table = _table(f"{escape(strategy)}: {kept} of what every strategy must keep")
    table.add_column("")
    table.add_column("check", ratio=3)
    table.add_column("seen", ratio=2)

    was_required = True
    for finding in findings:
        if was_required and not finding.required:
            table.add_section()
        was_required = finding.required

        if finding.holds:
            mark = "yes"
        elif finding.required:
            mark = "[bold red]NO[/bold red]"
        else:
            mark = "no"
        table.add_row(mark, escape(finding.name), escape(finding.detail))
    return table


def _largest(finished: "Run") -> set[str]:
    """Return the sites that are listed one by one: all, or those with the most test rows."""
    at_sites = finished.sites[~finished.sites["site"].isin(finished.TOGETHER)]
    rows = at_sites.groupby("site")["rows"].mean().sort_values(ascending=False, kind="stable")
    return set(rows.index[:_MOST_SITES])


def _table(title: str) -> Table:
    """Return a table that fits 80 columns for six figures."""
    return Table(
        title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True
    )


def closing_lines(finished: "Run") -> Iterator[str]:
    """Yield the answer in words, then its terms: intervals, epsilon, what became of the rows, and notes."""
    from fedsim.report.base_findings import cautions  # these need what is heavy
    from fedsim.report.findings import in_short, rounds_kept

    yield from in_short(finished)
    yield from rounds_kept(finished)
    for text in cautions(finished):
        yield f"Take care: {text}"
    yield _about_seeds(finished)
    if finished.scenario.private:
        yield from _about_privacy(finished)
    else:
        yield "No privacy guarantee: nothing was clipped or noised."
    yield from _about_references(finished)
    if finished.ledger["ranges_fitted"]:
        yield "Ranges were taken from the data: no guarantee covers them. Declare public ranges for one that does."
    yield from _about_rows(finished.manifest["data"])
    for note in finished.manifest["notes"]:
        yield f"Note ({note['arm']}, seed {note['seed']}): {note['note']}"


def _about_references(finished: "Run") -> Iterator[str]:
    """Yield how the federated arm stands beside each model of scikit-learn, and that nothing protects these."""
    from fedsim.report.references.words import UNPROTECTED, lacks_of, named, references_of  # they need what is heavy

    found = references_of(finished)
    if not found:
        return
    metric = finished.metrics[0]
    table = finished.over_references
    federated = table[
        (table["arm"] == "federated") & (table["site"] == finished.headline) & (table["metric"] == metric.name)
    ]
    for reference, learned_from in found:
        own = federated[(federated["reference"] == reference) & (federated["learned_from"] == learned_from)]
        for row in own.to_dict("records"):
            privacy = " with privacy" if row["private"] else ""
            name = named(reference, learned_from, finished.kind)
            yield f"Federated{privacy} less {name}, in {metric.label}: {_change(row, 'difference')}."
    if finished.scenario.private:
        yield f"Take care: {UNPROTECTED}"
    for line in lacks_of(finished):
        yield f"Note: {line}"


def places_of(finished: "Run") -> dict[str, Path]:
    """Return where the run and its report are."""
    return {"run": finished.path, "report": finished.path / "report.html"}


def _about_seeds(finished: "Run") -> str:
    count = len(finished.scenario.all_seeds)
    if count == 1:
        return "Figures of one seed: one seed gives no interval and no verdict, and differences may be chance."
    if count == 2:
        return "Means over 2 seeds: two seeds give no verdict. Differences may be chance; take --seeds 5 or more."
    return f"Means over {count} seeds, ± half a 95 % interval {finished.asked}; differences are paired by seed."


def _about_privacy(finished: "Run") -> Iterator[str]:
    from fedsim.privacy.units import unit_of  # imports torch, which whoever has a finished run has

    protected = unit_of(finished.ledger["unit"]).promise.protected
    delta = figures.setting(finished.ledger["delta"])
    for arm in finished.scenario.private_arms:
        spent = finished.epsilon(arm)
        yield f"Epsilon of one {protected}, {arm}: {_at_sites(spent)} (delta {delta})."
        weak = caution(max(spent.values(), default=0.0))
        if weak:
            yield f"Take care: {weak}."


def _at_sites(spent: dict[str, float]) -> str:
    """Return ``2.00 at each site``, or each site with its epsilon where they differ."""
    texts = {site: figures.epsilon(value) for site, value in spent.items()}
    if not texts:
        return "nothing released"
    if len(set(texts.values())) == 1:
        return f"{next(iter(texts.values()))} at each site"
    return ", ".join(f"{site} {text}" for site, text in texts.items())


def _about_rows(data: dict[str, Any] | None) -> Iterator[str]:
    """Yield what became of the rows of one's own table."""
    if not data:
        return
    said = f"{data['file']}: {data['rows_in']} rows in, {data['rows_used']} used"
    for left_out in data["left_out"]:
        said += f", {left_out['rows']} left out: {left_out['reason']}, first in row {left_out['first']}"
    yield f"{said}."
    for note in data["notes"]:
        yield f"  {note}"


def _most_spent(spent: dict[str, float]) -> str:
    """Return the epsilon of the site that spent most."""
    return figures.epsilon(max(spent.values())) if spent else figures.UNKNOWN
