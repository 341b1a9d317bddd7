"""The page about a training at real sites: what was promised, what each site gave, and what can't be known here."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedsim import figures
from fedsim.privacy.promise import FIGURES, FILES, PARTITION, REPETITION, SPLITS, UNCHECKED, Pairs
from fedsim.privacy.unit import Place
from fedsim.privacy.units import unit_of
from fedsim.report.pages import PAGES
from fedsim.report.statement import grouped
from fedsim.results.whole_files import write_bytes

_OF_SIMULATIONS = (FIGURES, FILES, PARTITION, REPETITION, SPLITS)
"""Gaps of a promise that come from the simulator, which has all rows, splits them and measures on them."""


def write(folder: Path, about: Mapping[str, Any], ledger: Mapping[str, Any]) -> None:
    """Write ``report.html``.

    Args:
        folder: The directory of the deployment.
        about: What its ``deployment.json`` holds.
        ledger: What its ``ledger.json`` holds.
    """
    spent = ledger["trainings"][0]["epsilon"] if ledger["trainings"] else {}
    metrics = sorted({name for site in about["sites"] if site["figures"] for name in site["figures"]} - {"rows"})
    rows = []
    for site in about["sites"]:
        found = site["figures"] or {}
        answered = about["rounds"] - site["rounds_missed"]
        epsilon = figures.epsilon(spent[site["site"]]) if site["site"] in spent else figures.UNKNOWN
        measured = [figures.figure(found[name]) if name in found else figures.UNKNOWN for name in metrics]
        count = f"{found['rows']:,.0f}" if "rows" in found else figures.UNKNOWN
        rows.append(
            {"name": site["site"], "answered": answered, "epsilon": epsilon, "rows": count, "figures": measured}
        )
    text = PAGES.get_template("deployment.html.j2").render(
        about=about,
        version=about["versions"]["fedsim-flower"],
        private=bool(spent),
        findings=_findings(about, ledger, spent),
        rows=rows,
        metrics=metrics,
        statement=grouped(_statement(about, ledger)),
    )
    write_bytes(folder / "report.html", text.encode())


def _findings(about: Mapping[str, Any], ledger: Mapping[str, Any], spent: Mapping[str, float]) -> Pairs:
    """Return the page's questions with their answers."""
    missed = sum(site["rounds_missed"] for site in about["sites"])
    asked = "every site answered in every round" if not missed else f"{missed} answers did not come or were set aside"
    found = [("Who trained?", f"{len(about['sites'])} sites, each on rows that never left it, in {about['rounds']} "
              f"rounds; {asked}.")]  # fmt: skip
    if spent:
        found.append(
            (
                "What is promised?",
                f"Epsilon {figures.epsilon(max(spent.values()))} at most at any site, at delta "
                f"{figures.setting(ledger['delta'])}, for this training. What a site has spent in all, its own ledger "
                "says.",
            )
        )
    else:
        found.append(("What is promised?", "Nothing: the sites sent exact models, from which rows can be learned."))
    measured = sum(site["figures"] is not None for site in about["sites"])
    if measured:
        how_good = f"{measured} sites measured the final model on their own test rows; see the table."
    elif spent:
        how_good = ("This can't be known here: the server has no rows, and exact figures of a site would be a release "
                    "without noise. A simulation on public or made-up rows says what to expect.")  # fmt: skip
    else:
        how_good = "The sites were not asked for figures (deployment.evaluation), or did not give any."
    found.append(("How good is the model?", how_good))
    found.append(
        (
            "Was it worth it?",
            "A deployment trains the federated arm alone, so that there is nothing to compare it with: each site can "
            "train alone and compare, and a simulation compares all arms.",
        )
    )
    return found


def _statement(about: Mapping[str, Any], ledger: Mapping[str, Any]) -> Pairs:
    """Return the privacy statement, in the words of the unit."""
    unit = unit_of(ledger["unit"])
    if unit.place is Place.NOWHERE:
        return []
    promise = unit.promise
    pairs = [
        ("Unit", promise.unit),
        ("Neighbours", promise.neighbours[ledger["neighbours"]]),
        ("Mechanism", promise.mechanism),
        *unit.done(ledger["trainings"]),
        ("Released", promise.released["federated"]),
        ("Trust model", promise.trust["federated"].replace(UNCHECKED, ", which each site checks")),
        ("Accountant", f"{ledger['accountant']}. Composed over all steps of all rounds."),
        ("Random numbers", promise.secure),
    ]
    pairs.append(
        (
            "Checked by each site",
            "Its policy says which units, which noise and how much epsilon in all it allows, and its own ledger, which "
            "no server can write into, what it has spent. It answers a round once.",
        )
    )
    pairs += [("Not covered", gap) for gap in promise.not_covered if gap not in _OF_SIMULATIONS]
    pairs.append(
        (
            "Not covered",
            "An app of another author: a SuperNode runs the code that is submitted to its SuperLink. A site's policy "
            "and ledger hold for this one.",
        )
    )
    return pairs
