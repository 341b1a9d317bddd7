"""``fedsim look``: a first look at a table before training, as a page; with ``--epsilon`` a private one to hand on."""

import contextlib
import fcntl
import json
import os
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedsim.cli import options
from fedsim.cli.output import print_json, print_lines, print_places, waiting
from fedsim.mistakes import Mistake

if TYPE_CHECKING:
    from fedsim.data.own_table.looking.look import Look
    from fedsim.data.own_table.looking.private_look import Plan
    from fedsim.privacy.looks import Account
    from fedsim.scenario.schema import Data

EXAMPLES = (
    "look patients.csv --site hospital --target outcome",
    "look patients.csv --site hospital --epsilon 1 --sites north,south",
)
_OURS = b'<meta name="generator" content="fedsim '
_HEAD = 2000  # bytes of a page in which its generator stands
_MOST_BINS = 100
_LARGEST_LEDGER = 2**26  # bytes
_MOST_TOLD = 12  # faults in the terminal


@dataclass(frozen=True)
class _Places:
    """Where a private look is written: its page, the table's ledger, and a copy of that beside another page."""

    page: Path
    ledger: Path
    copy: Path | None

    @property
    def ledgers(self) -> list[Path]:
        """The ledger, and its copy if there is one."""
        return [self.ledger] if self.copy is None else [self.ledger, self.copy]


def _beside(page: Path) -> Path:
    """Name the copy of a ledger beside a page: ``look.ledger.json`` beside ``look.html``."""
    return page.with_name(f"{page.name.removesuffix('.html')}.ledger.json")


def look(
    data: options.OwnTable,
    site: options.SiteColumn = None,
    target: options.OutcomeColumn = None,
    time: options.TimeColumn = None,
    ranges: options.Ranges = None,
    page: Annotated[
        Path | None,
        typer.Option(
            metavar="HTML",
            help="The file to write the page into.",
            show_default="FILE.look.html, or FILE.private-look.html with --epsilon",
        ),
    ] = None,
    epsilon: Annotated[
        str | None,
        typer.Option(metavar="NUMBER", help="Make a private look to hand on: noisy counts, which cost this epsilon."),
    ] = None,
    sites: Annotated[
        str | None,
        typer.Option(metavar="NAMES", help="The public list of sites of a private look, parted by commas."),
    ] = None,
    bins: Annotated[
        int | None,
        typer.Option(metavar="NUMBER", help="The bins of a range in a private look.", show_default="10"),
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """Look at a table before training: kinds, missing values, ranges and the outcome by site, on a page."""
    with waiting(quiet=False, as_json=as_json):
        from fedsim.data.own_table.file_bytes import is_pattern
        from fedsim.scenario.schema import Data

        layout = None
        if data.is_dir():
            _check_folder(data, {"--target": target, "--site": site, "--time": time, "--epsilon": epsilon})
            layout = "site/class"
        asked = Data(path=str(data), target=target, site=site, time=time, ranges=ranges, layout=layout)
        place = data.with_name("sites") if is_pattern(data) else data
        if epsilon is None:
            for name, value in (("--sites", sites), ("--bins", bins)):
                if value is not None:
                    raise Mistake(f"{name}: expected --epsilon beside it, which asks for a private look")
            _open_look(asked, page or place.with_name(f"{place.name}.look.html"), as_json)
        else:
            shared = page or place.with_name(f"{place.name}.private-look.html")
            ledger = place.with_name(f"{place.name}.look.ledger.json")
            names = [] if sites is None else [name.strip() for name in sites.split(",")]
            places = _Places(shared, ledger, None if page is None else _beside(page))
            _private_look(asked, epsilon, names, 10 if bins is None else bins, places, as_json)


def _check_folder(data: Path, given: Mapping[str, str | None]) -> None:
    """Check that nothing is asked of a folder of images that only a table has.

    Raises:
        Mistake: Something is; all faults.
    """
    reasons = {"--epsilon": "a private look reads lines of a CSV file"}
    faults = []
    for option, value in given.items():
        if value is not None:
            reason = reasons.get(option, "its folders are its sites and classes")
            faults.append(f"{option}: expected none beside {data}, a folder of images: {reason}")
    if faults:
        raise Mistake("\n".join(faults))


def _open_look(asked: "Data", page: Path, as_json: bool) -> None:
    from fedsim.data.own_table.images.folder import in_columns
    from fedsim.data.own_table.looking.look import look as look_at
    from fedsim.report.look import OPEN_SENTENCE, open_page
    from fedsim.results.whole_files import write_bytes

    replaced = _check_place(page)
    seen = look_at(asked)
    write_bytes(page, open_page(seen, in_columns(asked).target).encode())
    if as_json:
        print_json(_document(seen, page))
        return
    rows = int(seen.rows_by_site.sum())
    lines = [
        OPEN_SENTENCE,
        f"{seen.rows_in:,} rows in the file, {rows:,} that can be used, {len(seen.sites):,} sites, "
        f"{len(seen.columns):,} columns.",
    ]
    if seen.undeclared:
        lines.append(f"Columns that are still to be declared before a training: {len(seen.undeclared):,}.")
    lines.extend(f"To mend: {fault}" for fault in seen.faults[:_MOST_TOLD])
    if len(seen.faults) > _MOST_TOLD:
        lines.append(f"{len(seen.faults) - _MOST_TOLD} more faults are on the page.")
    print_lines(lines)
    _print_page(page, replaced, {})


def _document(seen: "Look", page: Path) -> dict[str, Any]:
    return {
        "page": str(page),
        "private": False,
        "rows_in": seen.rows_in,
        "rows_by_site": dict(zip(seen.sites, seen.rows_by_site.tolist(), strict=True)),
        "faults": list(seen.faults),
        "to_declare": list(seen.undeclared),
    }


def _private_look(
    asked: "Data",
    epsilon: str,
    names: list[str],
    bins: int,
    places: _Places,
    as_json: bool,
) -> None:
    from fedsim.data.own_table.looking.private_look import counted, plan_of
    from fedsim.privacy import looks
    from fedsim.report.private_look import private_page
    from fedsim.results.whole_files import write_bytes

    budget = looks.epsilon_of(epsilon)
    if not 1 <= bins <= _MOST_BINS:
        raise Mistake(f"--bins: expected a whole number from 1 to {_MOST_BINS}, got {bins}")
    replaced = _check_place(places.page)
    plan = plan_of(asked, names, bins)
    counts = counted(plan)

    # What is spent is written down before anything is released, so that no failure can make it be forgotten.
    now = datetime.now(UTC).isoformat(timespec="seconds")
    look_now = looks.Look(secrets.token_hex(16), now, tuple(looks.shared_out(budget, plan.shapes)))
    with alone(places.ledger.parent):
        account = _account(plan, places).charged(look_now)
        text = json.dumps(account.as_json(), indent=2) + "\n"
        for file in places.ledgers:
            write_bytes(file, text.encode())

    histograms = []
    for column, of_column, release in zip(plan.columns, counts, look_now.histograms, strict=True):
        histograms.append(column.histogram(looks.noisy(of_column, release)))
    write_bytes(places.page, private_page(plan, histograms, look_now, account).encode())
    if as_json:
        print_json({"page": str(places.page), "private": True, "ledger": str(places.ledger), **_spent(account)})
        return
    print_lines(_told(plan, look_now.epsilon, account))
    more = {"ledger": places.ledger}
    if places.copy is not None:
        more["its copy"] = places.copy
    _print_page(places.page, replaced, more)


def _spent(account: "Account") -> dict[str, float]:
    return {"epsilon": float(account.looks[-1].epsilon), "epsilon_of_all_looks": float(account.epsilon)}


def _told(plan: "Plan", epsilon: Any, account: "Account") -> list[str]:  # noqa: ANN401  a fraction
    lines = [
        f"Every count has noise: epsilon {float(epsilon):g} for one row, split over {len(plan.columns):,} columns.",
    ]
    if len(account.looks) > 1:
        lines.append(
            f"This is look {len(account.looks)} at this table. Epsilons add up: {float(account.epsilon):g} in all."
        )
    if plan.left_aside:
        lines.append(f"Columns without a public range were not looked at: {len(plan.left_aside):,}.")
    return lines


def _account(plan: "Plan", places: _Places) -> "Account":
    """Return the account of earlier looks: what stands beside the table, and beside the page.

    Raises:
        Mistake: One of the files is damaged, or of another table.
    """
    from fedsim.privacy.looks import Account, account_of
    from fedsim.scenario.reading import parse_json, read_ordinary

    account = Account(plan.path.name)
    for file in places.ledgers:
        if not file.exists():
            continue
        earlier = account_of(parse_json(read_ordinary(file, _LARGEST_LEDGER), str(file)), str(file))
        if earlier.table != account.table:
            advice = "choose another --page" if file == places.copy else "put the table into another folder"
            raise Mistake(f"{file}: expected the ledger of {account.table}, got that of {earlier.table}; {advice}")
        account = account.with_all_of(earlier)
    return account


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Wait until no other look in a folder is being written down, nor any other release."""
    place = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(place, fcntl.LOCK_EX)
        yield
    finally:
        os.close(place)


def _check_place(page: Path) -> bool:
    """Make sure that a page of fedsim or nothing stands where the page is to be; return whether a page does.

    Raises:
        Mistake: Something else is there, or the folder is not.
    """
    if not page.parent.is_dir():
        raise Mistake(f"--page: expected a page in a folder that is there, got {page}")
    if not page.exists():
        return False
    if not page.is_file():
        raise Mistake(f"--page: expected a page, there is something else at {page}")
    with page.open("rb") as file:
        head = file.read(_HEAD)
    if _OURS not in head:
        raise Mistake(f"--page: expected a new file or a page of fedsim, {page} is another; it was left as it is")
    return True


def _print_page(page: Path, replaced: bool, more: dict[str, Path]) -> None:
    print_places({"page, written anew" if replaced else "page": page, **more})
