"""The lock pins, with hashes, what pyproject.toml asks for; each package of it has its licence in the docs."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
NOT_LOCKED = {"torch"}  # the Makefile names its version: each kind of GPU has a build of its own


def pinned() -> dict[str, tuple[str, list[str]]]:
    """Return {package: (version, its hashes)} of the lock."""
    text = (ROOT / ".ci" / "requirements.lock").read_text("utf-8")
    found = {}
    for block in re.split(r"\n(?=[\w.-]+==)", text)[1:]:
        name, version = re.match(r"([\w.-]+)==(\S+)", block).groups()  # type: ignore[union-attr]
        found[canonicalize_name(name)] = (version, re.findall(r"--hash=sha256:([0-9a-f]{64})\b", block))
    return found


def asked() -> list[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    return [Requirement(text) for text in (*project["dependencies"], *project["optional-dependencies"]["dev"])]


@pytest.mark.parametrize("wanted", [one for one in asked() if one.name not in NOT_LOCKED], ids=str)
def test_what_is_asked_for_is_pinned_within_its_bounds(wanted: Requirement):
    version, _ = pinned()[canonicalize_name(wanted.name)]
    assert wanted.specifier.contains(version)


def test_every_pin_has_hashes():
    assert len(pinned()) > 100
    assert [name for name, (_, hashes) in pinned().items() if not hashes] == []
    assert not NOT_LOCKED & set(pinned())


def test_the_makefile_pins_pytorch_within_its_bounds():
    (version,) = re.findall(r"^LOCKED_TORCH := (\S+)$", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    (wanted,) = [one for one in asked() if one.name == "torch"]
    assert wanted.specifier.contains(version)


def test_the_page_of_licences_has_every_package():
    page = (ROOT / "docs" / "licences.md").read_text("utf-8")
    rows = dict(re.findall(r"^\| ([\w-]+) \| (.+?) \| \w+ \|$", page, re.MULTILINE))
    assert set(rows) == set(pinned()) | NOT_LOCKED
    assert "not stated" not in rows.values()
