"""Write docs/licences.md: the licences of all packages of the lock, as the installed packages state them."""

import re
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
NOT_LOCKED = ("torch",)
INTRODUCTION = """# Licences of the packages that fedsim uses

fedsim is under the Apache licence 2.0. The table names the licence of each package that is installed with it, or that
developing it needs, as the package itself states it. `.ci/lock` writes this page and the lock
(`.ci/requirements.lock`) anew.

| package | licence | installed with |
|---|---|---|
"""


def main() -> None:
    """Write the page."""
    of_users = {name for name, _ in closure(Requirement("fedsim-flower"), set())}
    rows = []
    for name in sorted({*locked(), *NOT_LOCKED}):
        rows.append(f"| {name} | {licence(name)} | {'fedsim' if name in of_users else 'development'} |\n")
    (ROOT / "docs" / "licences.md").write_text(INTRODUCTION + "".join(rows), "utf-8")


def locked() -> list[str]:
    """Return the names of the packages in the lock."""
    text = (ROOT / ".ci" / "requirements.lock").read_text("utf-8")
    return [canonicalize_name(name) for name in re.findall(r"^([\w.-]+)==", text, re.MULTILINE)]


def closure(wanted: Requirement, found: set[tuple[str, str]]) -> set[tuple[str, str]]:
    """Add to {(package, extra)} all that a requirement needs; without an extra, it is the empty one."""
    name = canonicalize_name(wanted.name)
    for extra in ("", *wanted.extras):
        if (name, extra) in found:
            continue
        found.add((name, extra))
        try:
            needs = [Requirement(text) for text in distribution(name).requires or []]
        except PackageNotFoundError:
            continue
        for need in needs:
            if need.marker is None or need.marker.evaluate({"extra": extra}):
                closure(need, found)
    return found


def licence(name: str) -> str:
    """Return what a package says: an SPDX expression, else its classifiers, else the first line of its field."""
    about = distribution(name).metadata
    if expression := about.get("License-Expression"):
        return expression
    classifiers = [
        text.split(" :: ")[-1] for text in about.get_all("Classifier") or [] if text.startswith("License ::")
    ]
    if classifiers:
        return " / ".join(classifiers)
    return (about.get("License") or "not stated").splitlines()[0]


if __name__ == "__main__":
    main()
