"""Files and lines of an audit: its figures as JSON, a picture, and text for a terminal."""

from collections.abc import Iterator
from pathlib import Path

from fedsim import figures
from fedsim.audits.audit import Audit
from fedsim.audits.bounds import CONFIDENCE
from fedsim.audits.finding import IN_WORDS, Finding, RebuiltRecord, lower_bounds
from fedsim.audits.pictures import draw_records
from fedsim.results.run_directory import write_bytes, write_json


def write(audit: Audit, folder: Path) -> list[Path]:
    """Write ``audit.json`` and, where a record was rebuilt, ``audit.png`` into a folder; return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / "audit.json"]
    write_json(paths[0], audit.values)

    # The first finding of each training is drawn: attacks on one record come before those on a round.
    rebuilt: dict[str, RebuiltRecord] = {}
    for finding in audit.findings:
        if finding.picture and isinstance(finding.picture.data, RebuiltRecord):
            rebuilt.setdefault(_title(finding), finding.picture.data)
    if rebuilt:
        paths.append(folder / "audit.png")
        write_bytes(paths[1], draw_records(rebuilt))
    return paths


def lines(audit: Audit) -> Iterator[str]:
    """Yield the lines for a terminal, of at most 80 columns."""
    yield from _claim_lines(audit)
    for finding in audit.findings:
        yield from finding.lines
    if audit.claim is None:
        yield "there is no claim to hold this against"
    elif audit.broken:
        yield "THE CLAIM IS REFUTED"
    else:
        yield "the claim stands: no attack proved more than it allows"


def _claim_lines(audit: Audit) -> Iterator[str]:
    """Yield the claim that the findings are held against."""
    claim = audit.claim
    if claim is None:
        return
    epsilon = figures.epsilon(claim.epsilon)
    delta = figures.setting(claim.delta)
    yield f"claimed           epsilon {epsilon}, delta {delta}, {claim.neighbours}"
    if claim.protects != "record":
        yield f"                  for a {'whole site' if claim.protects == 'site' else 'person with all records'}"
    if lower_bounds(audit.findings):
        yield f"                  bounds below hold with {figures.share(CONFIDENCE)} confidence each"


def _title(finding: Finding) -> str:
    spent = f" (epsilon {figures.epsilon(finding.claim.epsilon)} in all)" if finding.claim else ""
    return f"{IN_WORDS[finding.training]}{spent}"
