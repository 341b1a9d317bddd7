"""The seal of a run directory: the SHA-256 of every file of the run, as ``sha256sum --check SHA256SUMS`` reads them."""

import re
from pathlib import Path

from fedsim.mistakes import Mistake
from fedsim.results.digests import sha256
from fedsim.results.whole_files import write_bytes
from fedsim.scenario.reading import read_ordinary

NAME = "SHA256SUMS"
LARGEST = 2**24
"""Bytes that the file may have."""

_FILES = frozenset((
    "begun.json", "deployment.json", "explanations.csv", "explanations.svg", "groups.parquet", "ledger.json",
    "manifest.json", "metrics.json", "model.safetensors", "report.html", "rounds.parquet",
    "scenario.toml", "sites.parquet", "statement.html", "traffic.parquet", "training.json",
))  # fmt: skip
_CHECKPOINT = re.compile(r"checkpoints/[a-z]+-[a-z]+-[0-9]+\.(json|safetensors)", re.ASCII)
_MARK = "  "  # between digest and name, as sha256sum writes them


def seal(folder: Path) -> None:
    """Write down the digests of all files of the run, not of the user's beside them; it is written last."""
    lines = []
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if _belongs(path, name):
            lines.append(f"{sha256(path.read_bytes())}{_MARK}{name}\n")
    write_bytes(folder / NAME, "".join(lines).encode())


def unseal(folder: Path) -> None:
    """Remove the seal: files are about to be written anew."""
    (folder / NAME).unlink(missing_ok=True)


def check_seal(folder: Path, largest: int, made_anew: frozenset[str] = frozenset()) -> None:
    """Make sure that no file has changed since it was sealed.

    Args:
        folder: The run directory.
        largest: How many bytes a file may have.
        made_anew: Files that are about to be made anew, whatever they hold.

    Raises:
        Mistake: One has changed, or is gone; or the seal is not as it was written.
    """
    place = folder / NAME
    for line in _lines(place):
        digest, mark, name = line.partition(_MARK)
        path = folder / name
        if not mark or len(digest) != 64 or Path(name).is_absolute() or ".." in Path(name).parts:
            raise Mistake(f"{place}: expected lines of a digest and the name of a file, got {line[:80]!r}")
        if name in made_anew:
            continue
        try:
            content = read_ordinary(path, largest)
        except OSError as error:
            raise Mistake(f"{path}: expected the file that {NAME} names, got: {error.strerror}") from None
        if sha256(content) != digest:
            raise Mistake(f"{path}: expected SHA-256 {digest[:12]}..., the file has changed since it was made, or "
                          f"{NAME} has")  # fmt: skip


def _lines(place: Path) -> list[str]:
    try:
        return read_ordinary(place, LARGEST).decode().splitlines()
    except OSError as error:
        raise Mistake(f"{place}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise Mistake(f"{place}: expected text, got other bytes") from None


def _belongs(path: Path, name: str) -> bool:
    """Whether a file is one of the run: neither the user's, nor the seal, nor what a killed process left behind."""
    is_own = name in _FILES or _CHECKPOINT.fullmatch(name) is not None
    return is_own and path.is_file() and not path.is_symlink()
