"""Reading files that a stranger may have written: it ends in a second, in values or in a Mistake."""

import json
import os
import re
import stat
import tomllib
from pathlib import Path
from typing import Any, BinaryIO

from fedsim.mistakes import Mistake
from fedsim.scenario.toml_depth import check_depth

LARGEST = 2**18  # bytes of a TOML file, which the parser takes most of a second for
_MOST_SHOWN = 80  # characters of a wrong line
_PLACE = re.compile(r"\(at line (\d+), column \d+\)")  # as tomllib says it
_UNQUOTED = re.compile(r"([\w.-]+)\s*=\s*([^\W\d][\w./:-]*)\s*(?:#.*)?")

_OTHER_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe; write what it gives to a file first",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
"""{type of a file that is no ordinary file: what to call it}."""


def open_ordinary(path: str | Path, largest: int, name: str | None = None) -> BinaryIO:
    """Open an ordinary file for reading bytes. It never blocks, and nothing else is opened.

    A file may grow while it is read: whoever reads it should ask for at most ``largest + 1`` bytes,
    as ``read_ordinary`` does.

    Args:
        path: The file. A link is followed.
        largest: How many bytes it may have.
        name: The name of the file in messages; its path by default.

    Raises:
        OSError: There is no such file, or it may not be read.
        Mistake: It is a folder, a pipe, a socket or a device, or it is larger than that.
    """
    name = name or str(path)
    try:
        # Even opening may do harm: it rewinds a tape, and waits for the other end of a pipe.
        _check_ordinary(Path(path).stat(), largest, name)
        flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        opened = os.open(path, flags)
    except ValueError as error:
        if isinstance(error, Mistake):
            raise
        raise Mistake(f"{name!r}: expected the path of a file, got {error}") from None  # a zero byte

    # Another file may have taken its place since.
    try:
        _check_ordinary(os.fstat(opened), largest, name)
        if hasattr(os, "O_NONBLOCK"):
            os.set_blocking(opened, True)
        return os.fdopen(opened, "rb")
    except BaseException:
        os.close(opened)
        raise


def read_ordinary(path: str | Path, largest: int, name: str | None = None) -> bytes:
    """Read an ordinary file, whole; arguments and errors are those of ``open_ordinary``."""
    with open_ordinary(path, largest, name) as file:
        content = file.read(largest + 1)
    if len(content) > largest:
        raise Mistake(f"{name or path}: expected at most {largest:,} bytes, got more")
    return content


def _check_ordinary(facts: os.stat_result, largest: int, name: str) -> None:
    """Check what the system says of a file.

    Raises:
        Mistake: It is no ordinary file, or too large.
    """
    if not stat.S_ISREG(facts.st_mode):
        kind = _OTHER_KINDS.get(stat.S_IFMT(facts.st_mode), "something else")
        raise Mistake(f"{name}: expected an ordinary file, got {kind}")
    if facts.st_size > largest:
        raise Mistake(f"{name}: expected at most {largest:,} bytes, got {facts.st_size:,}")


def read_toml(path: Path, name: str | None = None) -> tuple[str, dict[str, Any]]:
    """Return a file's text and what it holds.

    Args:
        path: The file.
        name: What to call it in messages.

    Raises:
        OSError: It can't be read.
        Mistake: It is no ordinary file, not TOML, too large, or nested too deeply.
    """
    name = name or str(path)
    content = read_ordinary(path, LARGEST, name)
    try:
        text = content.decode("utf-8-sig")
    except ValueError as error:
        raise Mistake(f"{name}: expected TOML, got {error}") from None
    check_depth(text, name)
    try:
        return text, tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # a ValueError is also a number of too many digits
        raise Mistake(_not_toml(name, text, str(error))) from None


def _not_toml(name: str, text: str, error: str) -> str:
    """Return what is wrong with a text that is no TOML, with its line, and what to write there if that is plain."""
    found = _PLACE.search(error)
    if not found:
        return f"{name}: expected TOML, got {error}"
    number = int(found[1])
    line = text.split("\n")[number - 1].strip()
    shown = line if len(line) <= _MOST_SHOWN else f"{line[:_MOST_SHOWN]}..."
    said = f"{name}:{number}: expected TOML, got {shown!r}: {_PLACE.sub('', error).strip()}"

    pair = _UNQUOTED.fullmatch(line)
    if not pair:
        return said
    key, word = pair.groups()
    value = word.lower() if word in ("True", "False") else json.dumps(word)
    return f"{said}; write {key} = {value}"


def parse_json(content: bytes | str, name: str) -> dict[str, Any]:
    """Return the JSON object that some bytes hold.

    Raises:
        Mistake: They hold something else, or nest too deeply.
    """
    try:
        text = content if isinstance(content, str) else content.decode()
        value = json.loads(text, parse_constant=_no_json)
        if "\\u" in text:
            json.dumps(value, ensure_ascii=False).encode()  # half a character can be written so, and is no text
    except (ValueError, RecursionError) as error:
        raise Mistake(f"{name}: expected JSON, got {error}") from None
    if not isinstance(value, dict):
        raise Mistake(f"{name}: expected a JSON object, got {type(value).__name__}")
    return value


def _no_json(constant: str) -> None:
    raise ValueError(f"{constant}, which is no JSON")
