"""Answers of the accountant on disk: a command need not compute what an earlier one did.

An answer is used for the very same question only: all inputs, and the versions of all that computes. What is in the
folder shapes a claim of privacy. So it is read only where nobody but the user can have written, an answer holds its
whole question, and whatever is wrong with a file means that the answer is computed.

The folder is ``$XDG_CACHE_HOME/fedsim``, by default ``~/.cache/fedsim``. The environment variable ``FEDSIM_CACHE``
names another one, or is ``off``.
"""

import hashlib
import json
import math
import os
import platform
import secrets
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

VARIABLE = "FEDSIM_CACHE"
OFF = "off"
Question = Mapping[str, Any]
"""All that an answer depends on, but for versions, as JSON can hold it."""

_FOLDER = "accounting"
_LONGEST = 2**16  # bytes of a file
_FLAGS = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


def kept(question: Question) -> float | None:
    """Return the answer to a question, a finite number >= 0; None if there is none that can be trusted."""
    with suppress(OSError, ValueError, RecursionError), _folder(create=False) as folder:
        text = _text(question)
        file = os.open(_name(text), os.O_RDONLY | _FLAGS, dir_fd=folder)
        with open(file, "rb") as opened:  # noqa: PTH123  it is relative to an open folder
            if not _is_own(os.fstat(file), stat.S_ISREG):
                return None
            content = opened.read(_LONGEST + 1)
        found = json.loads(content) if len(content) <= _LONGEST else None
        if not isinstance(found, dict) or found.get("question") != json.loads(text):
            return None
        answer = found.get("answer")
        if isinstance(answer, float) and math.isfinite(answer) and answer >= 0:
            return answer
    return None


def keep(question: Question, answer: float) -> None:
    """Write an answer down, if it is a finite number and there is a folder for it; whole or not at all."""
    if not math.isfinite(answer):
        return
    with suppress(OSError, ValueError), _folder(create=True) as folder:
        text = _text(question)
        content = json.dumps({"question": json.loads(text), "answer": float(answer)}, allow_nan=False).encode()
        unfinished = f".{secrets.token_hex(8)}"
        file = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _FLAGS, 0o600, dir_fd=folder)
        try:
            with open(file, "wb") as opened:  # noqa: PTH123
                opened.write(content)
            os.replace(unfinished, _name(text), src_dir_fd=folder, dst_dir_fd=folder)
        except OSError:
            os.unlink(unfinished, dir_fd=folder)
            raise


@contextmanager
def _folder(create: bool) -> Iterator[int]:
    """Open the folder of the answers, made before if asked for.

    Raises:
        OSError: There is none, it is switched off, or others may write there.
    """
    place = _place()
    if create:
        place.parent.parent.mkdir(parents=True, exist_ok=True)
        for own in (place.parent, place):
            own.mkdir(mode=0o700, exist_ok=True)
    folder = os.open(place, os.O_RDONLY | os.O_DIRECTORY | _FLAGS)
    try:
        for opened in (os.stat(place.parent), os.fstat(folder)):  # noqa: PTH116
            if not _is_own(opened, stat.S_ISDIR):
                raise PermissionError(f"{place}: others may write there")
        yield folder
    finally:
        os.close(folder)


def _place() -> Path:
    """Return the folder of the answers.

    Raises:
        OSError: It is switched off, or the system has no owners of files to go by.
    """
    chosen = os.environ.get(VARIABLE, "")
    if chosen == OFF or not hasattr(os, "getuid") or os.open not in os.supports_dir_fd:
        raise FileNotFoundError("nothing is kept")
    if chosen:
        return Path(chosen).absolute() / _FOLDER

    shared = os.environ.get("XDG_CACHE_HOME", "")
    home = os.path.expanduser("~")  # noqa: PTH111  it raises nothing where there is no home
    caches = Path(shared) if Path(shared).is_absolute() else Path(home) / ".cache"
    if not caches.is_absolute():
        raise FileNotFoundError("no home")
    return caches / "fedsim" / _FOLDER


def _is_own(found: os.stat_result, is_kind: Any) -> bool:  # noqa: ANN401  one of stat.S_IS...
    """Whether a file or a folder is of this kind, the user's own, and nobody else may write there."""
    return is_kind(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & _OTHERS_WRITE


def _text(question: Question) -> str:
    """Return a question with all that computes its answer, in one spelling."""
    return json.dumps({**question, "computed by": _computed_by()}, sort_keys=True, allow_nan=False)


def _name(text: str) -> str:
    return f"{hashlib.sha256(text.encode()).hexdigest()}.json"


@cache
def _computed_by() -> dict[str, str]:
    """Return the versions of all that computes an answer, and a digest of the accounting's own source.

    Raises:
        OSError: The source is not in files.
    """
    here = Path(__file__).parent
    source = hashlib.sha256()
    for file in (here.parent / "accounting.py", *sorted(here.glob("*.py"))):
        source.update(file.read_bytes())
    libraries = {name: version(name) for name in ("dp-accounting", "numpy", "scipy")}
    machine = f"{platform.machine()} {platform.python_version()}"
    return {**libraries, "machine and Python": machine, "source": source.hexdigest()}
