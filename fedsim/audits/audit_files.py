"""What an audit leaves: its figures as JSON, a picture, and lines for a terminal."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from fedsim.audits.audit import Audit
from fedsim.audits.bounds import CONFIDENCE
from fedsim.audits.claims import SiteClaim
from fedsim.audits.inversion import Inversion
from fedsim.audits.pictures import names_of, side_by_side
from fedsim.audits.target import property_in_words
from fedsim.data.loading import task_of
from fedsim.results.run_directory import write_bytes, write_json
from fedsim.scenario.schema import Scenario

_WORDS = {"plain": "without privacy", "private": "with privacy"}
_METHODS = {
    "analytic": "solved for",
    "dlg": "searched for (DLG)",
    "idlg": "searched for (iDLG)",
    "round": "from a usual round",
}


def write(found: Audit, scenario: Scenario, folder: Path) -> list[Path]:
    """Write ``audit.json`` and, where a record was rebuilt, ``audit.png`` into a folder; return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "audit.json", found.values)
    if not any(found.inversion.values()):
        return [folder / "audit.json"]
    first = {kind: shown(own) for kind, own in found.inversion.items()}
    plain = next(iter(first.values()))
    pictures = {"a record, as the model sees it": plain.record}
    if "plain" in first:
        pictures["rebuilt from its update alone, without privacy"] = first["plain"].rebuilt
    if found.claim and "private" in first:
        spent = f"epsilon {found.claim.epsilon:.3g} in all"
        pictures[f"rebuilt from its update alone, with privacy ({spent})"] = first["private"].rebuilt
    names = names_of(task_of(scenario).columns, plain.record.size)
    write_bytes(folder / "audit.png", side_by_side(pictures, names))
    return [folder / "audit.json", folder / "audit.png"]


def shown(methods: Mapping[str, Inversion]) -> Inversion:
    """Return what is drawn: the first method's, which is the strongest there is for one record."""
    return next(iter(methods.values()))


def lines(found: Audit, scenario: Scenario) -> Iterator[str]:
    """Yield what a terminal shows, lines of at most 80 columns."""
    yield from _epsilons(found)
    for kind, attacks in found.membership.items() if any(found.membership.values()) else ():
        figures = ", ".join(f"{name} {one.auc:.3f} ({one.tpr:.1%})" for name, one in attacks.items())
        which = "which sites" if isinstance(found.claim, SiteClaim) else "who was in it"
        yield f"{which:<18}{_WORDS[kind]}: AUC (found at 1 % false alarms)"
        yield f"                  {figures}"
    for kind, methods in found.inversion.items():
        yield f"records rebuilt   {_WORDS[kind]}: share, median error"
        for method, one in methods.items():
            yield f"                  {_METHODS[method]} {one.found:.0%}, {one.error:.2g}; {one.records} tried"
    for kind, one in found.sources.items():
        yield f"at which site     {_WORDS[kind]}: {one.right:.1%} named rightly, guessing {one.guessing:.1%}"
    for kind, one in found.properties.items():
        yield f"a site's outcome  {_WORDS[kind]}: share wrong by {one.error:.3f}, guessing by {one.blind:.3f}"
    if found.properties:
        yield f"                  {property_in_words(task_of(scenario).kind)}; a site's, not a record's"
    if found.claim is None:
        yield "there is no claim to hold this against"
        return
    yield "THE CLAIM IS REFUTED" if found.broken else "the claim stands: no attack proved more than it allows"


def _epsilons(found: Audit) -> Iterator[str]:
    claimed, pair, one, shot = found.claim, found.paired, found.one_run, found.one_shot
    if claimed is None or pair is None:
        return
    what, tried = ("site", "runs") if isinstance(claimed, SiteClaim) else ("canary", "trainings")
    yield f"claimed           epsilon {claimed.epsilon:.3g}, delta {claimed.delta:g}, {claimed.neighbours}"
    if isinstance(claimed, SiteClaim):
        yield "                  for a whole site"
    yield f"{what + ' in or out':<18}epsilon >= {pair.bound:.2f}, about {pair.estimate:.2f}; 2 x {pair.trials} {tried}"
    yield f"                  epsilon >= {pair.noise_bound:.2f} if only the noise is in doubt"
    if one:
        yield f"one run           epsilon >= {one.bound:.2f}; {one.trials} canaries"
        yield f"                  epsilon >= {one.noise_bound:.2f} if only the noise is in doubt"
    yield f"                  bounds hold with {CONFIDENCE:.0%} confidence each"
    if shot:
        yield f"final model only  epsilon about {shot.estimate:.2f}, no bound; {shot.canaries} canaries"
