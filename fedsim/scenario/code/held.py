"""Objects that are given in Python, and held in this process under a name with their digest.

A scenario is data: of an object it has the name ``python:Mine@3f2a9c01b2d4e5f6``, with the beginning of the object's
digest, so that whatever is kept under a scenario is kept under this very object. The object itself is in no file. It is
held until Python ends; another process gets it only if it can be pickled and imported there.
"""

import hashlib
import io
import pickle
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FunctionType
from typing import Any

from fedsim.mistakes import Mistake, text_of
from fedsim.scenario.code.fingerprint import digest_of, source_text_of

_PREFIX = "python:"
_SHORT = 16  # hexadecimal digits of a digest in a name
_NAME = re.compile(r"(?P<label>.+)@(?P<digest>[0-9a-f]{16})")


@dataclass(frozen=True)
class Held:
    """An object that is held.

    Attributes:
        thing: A task or a strategy's class.
        label: What it is called in tables.
        qualified: Its name with its module.
        digest: The SHA-256 of its code and of the values that its code uses.
        file: The file its code is in; empty where it is in none.
        file_sha256: The SHA-256 of that file, as it was when the object was given; empty where there is none.
        source_sha256: The SHA-256 of its source text; empty where that can't be found.
    """

    thing: Any
    label: str
    qualified: str
    digest: str
    file: str = ""
    file_sha256: str = ""
    source_sha256: str = ""

    @property
    def name(self) -> str:
        """Its name in a scenario."""
        return f"{_PREFIX}{with_digest(self.label, self.digest)}"

    @property
    def facts(self) -> dict[str, str]:
        """What a run directory says of it."""
        known = {
            "name": self.qualified,
            "given_as": "an object in Python",
            "sha256": self.digest,
            "file": self.file,
            "file_sha256": self.file_sha256,
            "source_sha256": self.source_sha256,
        }
        return {key: value for key, value in known.items() if value}


_held: dict[str, Held] = {}


def with_digest(label: str, digest: str) -> str:
    """Return a label with the beginning of a digest: ``my_tasks.py:falls@3f2a9c01b2d4e5f6``."""
    return f"{label}@{digest[:_SHORT]}"


def split_digest(name: str) -> tuple[str, str]:
    """Split a name into its label and the beginning of its digest, which is empty if it has none."""
    found = _NAME.fullmatch(name)
    return (found["label"], found["digest"]) if found else (name, "")


def label_of(name: str) -> str:
    """Return a name as people read it: without the digest, and without the mark of an object."""
    label, digest = split_digest(name)
    return label.removeprefix(_PREFIX) if digest else name


def is_object(name: str) -> bool:
    """Whether a name stands for an object that is given in Python."""
    return name.startswith(_PREFIX) and bool(split_digest(name)[1])


def hold(thing: Any, label: str, qualified: str, module: str) -> str:  # noqa: ANN401  a task or class
    """Hold an object until Python ends; return its name in a scenario.

    Args:
        thing: The object.
        label: What it is to be called; characters that names can't have are replaced.
        qualified: Its name with its module.
        module: The name of the module that its code is in.
    """
    file = getattr(sys.modules.get(module), "__file__", None) or ""
    content = _content_of(file)
    text = source_text_of(thing)
    label = re.sub(r"[^\w.-]+", "-", label).strip("-")[:60] or "object"
    held = Held(
        thing=thing,
        label=label,
        qualified=qualified,
        digest=digest_of(thing),
        file=Path(file).name if content else "",
        file_sha256=hashlib.sha256(content).hexdigest() if content else "",
        source_sha256=hashlib.sha256(text.encode()).hexdigest() if text else "",
    )
    _held.setdefault(held.name, held)
    return held.name


def _content_of(file: str) -> bytes:
    try:
        return Path(file).read_bytes() if file else b""
    except OSError:
        return b""


def held(name: str, kind: str) -> Held:
    """Return the object that a name stands for.

    Args:
        name: The name in a scenario.
        kind: ``task`` or ``strategy``, for messages.

    Raises:
        Mistake: It is not held: the run was begun in another Python process.
    """
    if name in _held:
        return _held[name]
    label, digest = split_digest(name.removeprefix(_PREFIX))
    others = [other for other in _held.values() if other.label == label]
    given = f"; another {label} was given, with the digest {others[-1].digest[:_SHORT]}" if others else ""
    raise Mistake(
        f"{kind}: expected {label} with the digest {digest}, which was given in Python as an object and is in no file; "
        f"give it once more, as in fedsim.load(run_dir, {kind}={label}), or fedsim.resume{given}"
    )


def all_sendable() -> dict[str, Held]:
    """Return the objects that another process can have, by their names."""
    return {name: each for name, each in _held.items() if not why_not_elsewhere(each.thing)}


@contextmanager
def all_of(given: Mapping[str, Held]) -> Iterator[None]:
    """Hold what another process holds."""
    _held.update(given)
    yield


def check_elsewhere(names: Mapping[str, str], jobs: int) -> None:
    """Make sure that other processes can have the objects of a scenario.

    Args:
        names: {``task`` or ``strategy``: its name in the scenario}.
        jobs: How many processes are asked for.

    Raises:
        Mistake: They can't; each has a line.
    """
    faults = []
    for kind, name in names.items():
        if jobs == 1 or not is_object(name):
            continue
        reason = why_not_elsewhere(held(name, kind).thing)
        if reason:
            label = label_of(name)
            faults.append(
                f"jobs: expected 1 with {kind} {label}, which another process can't have: {reason}; put it into a "
                f"file and name that, as in {kind}='my_code.py:{label}', got {jobs}"
            )
    if faults:
        raise Mistake("\n".join(faults))


def why_not_elsewhere(thing: object) -> str:
    """Return why another process can't have an object; empty if it can."""
    pickler = _Pickler(io.BytesIO())
    try:
        pickler.dump(thing)
    except Exception as error:  # what is pickled may raise anything
        return text_of(error)
    for module in sorted(pickler.modules):
        if module == "__main__":
            return "it is defined in a script or notebook (__main__)"
        if not _is_found(module):
            return f"its module {module!r} can't be imported there"
    return ""


class _Pickler(pickle.Pickler):
    """Pickles, and notes the modules that will be imported."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file)
        self.modules: set[str] = set()

    def reducer_override(self, thing: Any) -> Any:  # noqa: ANN401  anything
        """Note the module of a function or class, and let it be pickled as ever."""
        if isinstance(thing, type | FunctionType):
            self.modules.add(thing.__module__)
        return NotImplemented


def _is_found(module: str) -> bool:
    """Whether a new Python would find the package that a module is in."""
    top = module.partition(".")[0]
    if top in sys.builtin_module_names:
        return True
    for finder in sys.meta_path:
        find = getattr(finder, "find_spec", None)
        if find is not None and find(top, None) is not None:
            return True
    return False
