"""``fedsim doctor``: what is installed and what this machine has, and what to mend."""

import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from fedsim.cli import options
from fedsim.cli.output import FAILURE, print_json, print_lines, print_table, waiting

EXAMPLES = ("doctor", "doctor --json")

_DISTRIBUTION = "fedsim-flower"
_LEAST_DISK = 2**30  # bytes for run directories
_LEAST_MEMORY = 2 * 2**30
_LEAST_PYTHON = (3, 11)
_GIB = 2**30

GOOD = "good"
TAKE_CARE = "take care"
WRONG = "wrong"


@dataclass(frozen=True)
class Examined:
    """What was found of one thing.

    Attributes:
        what: The thing.
        state: ``good``, ``take care`` or ``wrong``.
        found: What it is like.
        mend: What to do about it; empty if it is good.
    """

    what: str
    state: str
    found: str
    mend: str = ""


def doctor(
    folder: Annotated[
        Path, typer.Option("--runs", metavar="DIR", help="The folder that run directories are to be made in.")
    ] = Path("runs"),
    as_json: options.AsJson = False,
) -> None:
    """Look at the installation and the machine, and say what to mend; fails if something is wrong."""
    with waiting(quiet=False, as_json=as_json):
        found = list(examine(folder))
    wrong = [one for one in found if one.state == WRONG]
    if as_json:
        print_json([asdict(one) for one in found])
    else:
        print_table(_table(found))
        print_lines([_verdict(found)])
    if wrong:
        raise typer.Exit(FAILURE)


def examine(folder: Path) -> Iterator[Examined]:
    """Yield what is found of Python, the packages, the processor, the GPU, memory and the disk.

    Args:
        folder: Where run directories are to be made.
    """
    yield _python()
    yield from _packages()
    yield _tried("torch", _torch)
    yield _tried("cores and threads", _cores)
    yield _tried("memory", _memory)
    yield _tried("run directories", lambda: _disk(folder))


def _tried(what: str, examine_it: Callable[[], Examined]) -> Examined:
    """Examine a thing; what can't be examined is wrong."""
    try:
        return examine_it()
    except Exception as error:
        return Examined(what, WRONG, f"{type(error).__name__}: {error}", "install fedsim anew, into a new environment")


def _python() -> Examined:
    found = f"{platform.python_version()} in {sys.prefix}"
    if sys.version_info < _LEAST_PYTHON:
        least = ".".join(map(str, _LEAST_PYTHON))
        return Examined("Python", WRONG, found, f"use Python {least} or newer")
    return Examined("Python", GOOD, found)


def _packages() -> Iterator[Examined]:
    """Yield fedsim and the packages it needs; those that are as they should be are one line."""
    from packaging.requirements import Requirement

    try:
        own_version = version(_DISTRIBUTION)
    except PackageNotFoundError:
        yield Examined("fedsim", WRONG, "it is not installed", "pip install fedsim-flower, or make .venv/installed")
        return
    yield Examined("fedsim", GOOD, own_version)

    good = []
    for text in requires(_DISTRIBUTION) or []:
        needed = Requirement(text)
        if needed.marker is not None and not needed.marker.evaluate({"extra": ""}):
            continue
        try:
            installed = version(needed.name)
        except PackageNotFoundError:
            yield Examined(needed.name, WRONG, "it is not installed", f'pip install "{needed}"')
            continue
        if needed.specifier.contains(installed, prereleases=True):
            good.append(f"{needed.name} {installed}")
        else:
            yield Examined(needed.name, WRONG, installed, f'pip install "{needed}"')
    yield Examined("packages", GOOD, ", ".join(good))


def _torch() -> Examined:
    import torch

    processor = f"{platform.machine()}, {torch.backends.cpu.get_cpu_capability()}"
    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
        return Examined("device", GOOD, f"{', '.join(names)}; CUDA {torch.version.cuda}; processor {processor}")
    built_for_cuda = torch.version.cuda is not None
    if built_for_cuda:
        found = f"cpu ({processor}); torch is built for CUDA {torch.version.cuda} and finds no GPU"
        return Examined("device", TAKE_CARE, found, "look at the driver (nvidia-smi), or install the smaller CPU build")
    return Examined("device", GOOD, f"cpu ({processor}); this build of torch has no CUDA")


def _cores() -> Examined:
    from fedsim.engines.cohort import cores

    usable = cores()
    found = f"{usable} of {os.cpu_count()} cores may be used"
    threads = os.environ.get("OMP_NUM_THREADS")
    if threads is not None:
        found += f"; OMP_NUM_THREADS = {threads}"
    if usable == 1:
        return Examined("cores", TAKE_CARE, found, "with one core, all sites are trained in one stack")
    return Examined("cores", GOOD, found)


def _memory() -> Examined:
    pages = os.sysconf("SC_AVPHYS_PAGES") if hasattr(os, "sysconf") else 0
    free = pages * os.sysconf("SC_PAGE_SIZE") if pages else 0
    if not free:
        return Examined("memory", TAKE_CARE, "this system does not say how much is free", "make sure of 2 GiB")
    found = f"{free / _GIB:.1f} GiB free"
    if free < _LEAST_MEMORY:
        return Examined("memory", TAKE_CARE, found, "a run of a small scenario takes up to 2 GiB")
    return Examined("memory", GOOD, found)


def _disk(folder: Path) -> Examined:
    """Examine the folder for run directories: a file is written into it, or into the nearest folder there is."""
    place = folder.absolute()
    while not place.exists():
        place = place.parent
    try:
        with tempfile.TemporaryFile(dir=place) as file:
            file.write(b"fedsim")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        mend = "choose a folder that you may write into, with --out DIR"
        return Examined("run directories", WRONG, f"{place}: {error.strerror}", mend)
    free = shutil.disk_usage(place).free
    found = f"{folder}: {free / _GIB:.1f} GiB free"
    if free < _LEAST_DISK:
        return Examined("run directories", TAKE_CARE, found, "make room, or choose another folder with --out DIR")
    return Examined("run directories", GOOD, found)


def _table(found: list[Examined]) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for heading in ("what", "", "found", "what to do"):
        table.add_column(heading, overflow="fold")
    for one in found:
        table.add_row(*map(escape, (one.what, one.state, one.found, one.mend)))
    return table


def _verdict(found: list[Examined]) -> str:
    wrong = sum(one.state == WRONG for one in found)
    care = sum(one.state == TAKE_CARE for one in found)
    if wrong:
        return f"{wrong} of {len(found)} things are wrong: mend them before a run."
    if care:
        return f"Nothing is wrong; take care with {care} of {len(found)} things."
    return "All is good."
