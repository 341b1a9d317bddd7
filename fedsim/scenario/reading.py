"""Reading TOML and JSON that a stranger may have written: it ends in a second, in values or in a Mistake."""

import json
import re
import tomllib
from pathlib import Path
from typing import Any

from fedsim.mistakes import Mistake

LARGEST = 2**18  # bytes of a TOML file, which the parser takes most of a second for
MOST_DOTS = 6  # in a line, but for those of numbers: the parser's time rises with the square of a key's depth
_MOST_SHOWN = 80  # characters of a wrong line
_PLACE = re.compile(r"\(at line (\d+), column \d+\)")  # as tomllib says it
_UNQUOTED = re.compile(r"([\w.-]+)\s*=\s*([^\W\d][\w./:-]*)\s*(?:#.*)?")
_NUMBER = re.compile(r"(?<![\w.])\d+\.\d+(?![\w.])")


def read_toml(path: Path, name: str | None = None) -> tuple[str, dict[str, Any]]:
    """Return a file's text and what it holds.

    Args:
        path: The file.
        name: What to call it in messages.

    Raises:
        OSError: It can't be read.
        Mistake: It is not TOML, too large, or nested too deeply.
    """
    name = name or str(path)
    with path.open("rb") as file:
        content = file.read(LARGEST + 1)
    if len(content) > LARGEST:
        raise Mistake(f"{name}: expected at most {LARGEST:,} bytes of TOML, got more")
    try:
        text = content.decode("utf-8-sig")
    except ValueError as error:
        raise Mistake(f"{name}: expected TOML, got {error}") from None
    for number, line in enumerate(text.split("\n"), start=1):
        dots = _NUMBER.sub("", line).count(".")
        if dots > MOST_DOTS:
            raise Mistake(f"{name}:{number}: expected at most {MOST_DOTS} dots in a line, got {dots}")
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
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise Mistake(f"{name}: expected JSON, got {error}") from None
    if not isinstance(value, dict):
        raise Mistake(f"{name}: expected a JSON object, got {type(value).__name__}")
    return value
