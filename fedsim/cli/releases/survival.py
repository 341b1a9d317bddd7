"""``fedsim survival``: the survival curve of all sites together, as one private release."""

import csv
import io
import json
import secrets
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedsim.cli import options
from fedsim.cli.look import alone
from fedsim.cli.output import print_json, print_lines, print_places, waiting
from fedsim.mistakes import Mistake

if TYPE_CHECKING:
    import numpy as np

    from fedsim.experiments.survival.curve import Counts
    from fedsim.privacy.looks import Account

EXAMPLES = (
    "survival hospital-lung --epsilon 1",
    "survival hospital-breast-cancer --epsilon 0.5 --out curve",
)
_WHAT = "time until the event"  # the column of the ledger
_COUNTED = ("data", "partition")  # the sections of a scenario that say which rows are where
_LARGEST_LEDGER = 2**26  # bytes


def survival(
    scenario: options.OneScenario,
    epsilon: Annotated[str, typer.Option(metavar="NUMBER", help="What the release costs each row.")],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="DIR", help="The directory to write into.", show_default="survival/NAME of the scenario"
        ),
    ] = None,
    changes: options.Changes = None,
    task: options.TaskCode = None,
    as_json: options.AsJson = False,
) -> None:
    """Release the survival curve of all sites together, from noisy counts of each, with its band and a ledger."""
    with waiting(quiet=False, as_json=as_json):
        from fedsim.experiments.survival.curve import counted, curve_of
        from fedsim.experiments.survival.picture import draw
        from fedsim.privacy import looks
        from fedsim.results.whole_files import write_bytes
        from fedsim.scenario.files import read

        budget = looks.epsilon_of(epsilon)
        _check_changes(changes or [])
        chosen = read(scenario, [*options.code_from(task), *(changes or [])], all_used=False)
        counts = counted(chosen)
        folder = Path("survival") / str(chosen.name) if out is None else out
        folder.mkdir(parents=True, exist_ok=True)

        # What is spent is written down before anything is released, so that no failure can make it be forgotten.
        now = datetime.now(UTC).isoformat(timespec="seconds")
        release = looks.shared_out(budget, {_WHAT: counts.cells.shape})
        this_look = looks.Look(secrets.token_hex(16), now, tuple(release))
        with alone(folder):
            account = _account(folder / "ledger.json", str(chosen.task)).charged(this_look)
            write_bytes(folder / "ledger.json", (json.dumps(account.as_json(), indent=2) + "\n").encode())

        noisy = looks.noisy(counts.cells, release[0])
        curve = curve_of(noisy, counts.follow_up, budget)
        write_bytes(folder / "counts.csv", _table(counts, noisy))
        write_bytes(folder / "curve.csv", curve.to_csv(index=False, lineterminator="\n").encode())
        write_bytes(folder / "curve.png", draw(curve, chosen.title, counts.follow_up.unit, float(budget)))

    spent = {"epsilon": float(budget), "epsilon_of_all_releases": float(account.epsilon)}
    if as_json:
        print_json({"folder": str(folder), **spent, "curve": curve.to_dict("records")})
        return
    print_lines(_told(curve.to_dict("records"), counts, account))
    print_places({name.partition(".")[0]: folder / name for name in ("curve.png", "ledger.json")})
    print_places({"tables": f"{folder / 'curve.csv'}, {folder / 'counts.csv'}"})


def _check_changes(changes: list[str]) -> None:
    """Check that changes are of what is counted.

    Raises:
        Mistake: Some are of a training, and would have no effect.
    """
    faults = [change for change in changes if change.partition("=")[0].partition(".")[0] not in _COUNTED]
    if faults:
        expected = f"changes of {' or '.join(_COUNTED)}, since nothing is trained"
        raise Mistake("\n".join(f"--set {change}: expected {expected}" for change in faults))


def _account(file: Path, task: str) -> "Account":
    """Return the account of earlier releases of the same rows into a folder.

    Raises:
        Mistake: The file is damaged, or of another task.
    """
    from fedsim.privacy.looks import Account, account_of
    from fedsim.scenario.reading import parse_json, read_ordinary

    if not file.exists():
        return Account(task)
    account = account_of(parse_json(read_ordinary(file, _LARGEST_LEDGER), str(file)), str(file))
    if account.table != task:
        raise Mistake(f"{file}: expected the ledger of {task}, got that of {account.table}; choose another --out")
    return account


def _table(counts: "Counts", noisy: "np.ndarray") -> bytes:
    """Write the released counts, a line for each site and moment: events in the interval after it, and losses at it."""
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(["site", "survived_intervals", "events_in_the_next", "lost_or_still_there"])
    intervals = len(counts.follow_up.ends)
    for site, cells in zip(counts.sites, noisy.tolist(), strict=True):
        for survived in range(intervals + 1):
            events = cells[survived] if survived < intervals else ""
            lines.writerow([site, survived, events, cells[intervals + survived]])
    return text.getvalue().encode()


def _told(curve: list[dict], counts: "Counts", account: "Account") -> list[str]:
    last = account.looks[-1]
    lines = [
        f"{line['end']:g} {counts.follow_up.unit}: {line['survival']:.3f} without an event "
        f"({line['low']:.3f} to {line['high']:.3f})"
        for line in curve
    ]
    sites = "1 site" if len(counts.sites) == 1 else f"{len(counts.sites)} sites"
    lines.append(
        f"Every count of {sites} has noise: epsilon {float(last.epsilon):g} for one row, delta 0. "
        "The intervals hold the truth with 95 % each, noise included."
    )
    if len(account.looks) > 1:
        lines.append(f"This is release {len(account.looks)}. Epsilons add up: {float(account.epsilon):g} in all.")
    return lines
