"""Check the columns that have a role: outcome, site, time, person, image and groups."""

from collections.abc import Mapping, Sequence

from fedsim.data.task import SITE
from fedsim.mistakes import Mistake
from fedsim.scenario import catalog
from fedsim.scenario.schema import Data

_KEYS = {
    "outcome": "data.target",
    "site": "data.site",
    "time": "data.time",
    "person": "data.person",
    "image": "data.image",
}


def roles_of(data: Data) -> dict[str, str | None]:
    """Return {role: the column that has it, None if no column has}."""
    return {
        "outcome": data.target,
        "site": data.site,
        "time": data.time,
        "person": data.person,
        "image": data.image,
    }


def check_roles(table: str, known: Sequence[str], data: Data) -> None:
    """Check that outcome, site, time, person, image and groups are columns of a table, each another.

    Args:
        table: The table's name.
        known: Its columns.
        data: The section that names the roles.

    Raises:
        Mistake: They are not; all faults.
    """
    given = {role: name for role, name in roles_of(data).items() if name is not None}
    faults = []
    for role, name in given.items():
        if name not in known:
            hint = catalog.nearest(name, list(known))
            faults.append(f"{_KEYS[role]}: expected a column of {table}, got {name!r}{hint}")

    if len(set(given.values())) < len(given):
        expected = f"a column of its own for {' and '.join(given)}"
        faults.append(f"data: expected {expected}, got {', '.join(given.values())}")
    faults.extend(_faults_of_groups(table, known, given, data.groups or []))
    if faults:
        raise Mistake("\n".join(faults))


def _faults_of_groups(
    table: str,
    known: Sequence[str],
    given: Mapping[str, str],
    groups: Sequence[str],
) -> list[str]:
    """Find groups that are no columns of the table, stand there twice, or have another role."""
    role_of = {name: role for role, name in given.items()}
    faults = []
    for number, name in enumerate(groups):
        expected = "columns to compare beside the sites, each once"
        if name not in known:
            hint = catalog.nearest(name, list(known))
            faults.append(f"data.groups: expected columns of {table}, got {name!r}{hint}")
        elif name in role_of:
            got = f"the {role_of[name]}, {name!r}"
            faults.append(f"data.groups: expected {expected}, got {got}")
        elif name in groups[:number]:
            faults.append(f"data.groups: expected {expected}, got {name!r} twice")
        elif name == SITE:
            another = f"another name than {SITE!r}, which stands for the sites"
            faults.append(f"data.groups: expected {another}")
    return faults
