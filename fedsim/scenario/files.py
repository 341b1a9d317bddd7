"""From TOML files and ``key=value`` settings to a Scenario; what is wrong is said all at once, with its place."""

import json
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from fedsim.mistakes import Mistake
from fedsim.scenario import catalog
from fedsim.scenario.reading import read_toml
from fedsim.scenario.schema import Scenario

_SHOWN = 80  # characters of a bad value
_TOLD = 50  # mistakes; a file of nonsense has a hundred thousand


@dataclass(frozen=True)
class _Source:
    """Where a value came from, for the message about it."""

    text: str
    place: str
    overrides: Mapping[str, str]

    def of(self, key: str) -> str:
        for override in self.overrides:
            if key == override or key.startswith(f"{override}.") or override.startswith(f"{key}."):
                return f"--set {override}={self.overrides[override]}"
        line = _line_of(self.text, key)
        return f"{self.place}:{line}" if line else self.place


def read(name_or_path: str | Path, overrides: Iterable[str] = ()) -> Scenario:
    """Read a scenario by name (one that comes with fedsim) or path, and apply ``key=value`` overrides.

    Raises:
        Mistake: Nothing is there, it is not TOML, or values are wrong: all of them at once, each with its place.
    """
    name_or_path = str(name_or_path)
    path = _find(name_or_path)
    try:
        text, values = read_toml(path)
    except OSError as error:
        raise Mistake(f"{path}: {error.strerror}") from None
    data = values.get("data")
    for key in ("path", "ranges"):
        if not isinstance(data, dict):
            break
        if isinstance(data.get(key), str) and (key, data[key]) != ("ranges", "from-data"):
            data[key] = str(path.parent / data[key])  # a file says where from its own place
    given = dict(_split_override(override) for override in overrides)
    for key, value in given.items():
        _set(values, key, value)
    _complete(values)
    values.setdefault("name", _name_of(path.stem))
    return parse(values, _Source(text, str(path) if path.is_relative_to(Path.cwd()) else name_or_path, given))


def with_strategy(strategy: str) -> str:
    """Return the override that puts a strategy in place of a scenario's, which the user named: code may be loaded."""
    if catalog.is_code(strategy):
        catalog.allow(strategy)
    return f"strategy={{ name = {json.dumps(strategy)} }}"


def read_own(overrides: Iterable[str]) -> Scenario:
    """Make a scenario about a table of one's own from ``key=value`` overrides alone: ``data.path=patients.csv``.

    Raises:
        Mistake: Values are wrong or missing.
    """
    given = dict(_split_override(override) for override in overrides)
    values: dict[str, Any] = {}
    for key, value in given.items():
        _set(values, key, value)
    _complete(values)
    data = values.get("data")
    file = Path(str(data.get("path", ""))).name if isinstance(data, dict) else ""
    values.setdefault("name", _name_of(file.partition(".")[0]))
    values.setdefault("title", f"{data.get('target')} in {file}"[:120] if isinstance(data, dict) else "no data")
    return parse(values, _Source("", "the command line", given))


OWN_TRAINING: Mapping[str, Any] = {
    "rounds": 40,
    "local_steps": 4,
    "sampling_rate": 0.1,
    "expected_batch": 64.0,
    "optimizer": {"name": "adam", "lr": 0.05},
}
"""What training is for a table of one's own where the scenario does not say. Adam, whose steps don't depend on the
denominator, since the sizes of the sites may not be used."""


def _complete(values: dict[str, Any]) -> None:
    """Give a scenario about one's own table the training that suits any table."""
    data, training = values.get("data"), values.setdefault("training", {})
    if "task" not in values and isinstance(data, dict) and "target" in data and isinstance(training, dict):
        for key, value in OWN_TRAINING.items():
            training.setdefault(key, value)


def _name_of(stem: str) -> str:
    return re.sub(r"[^a-z0-9_-]+", "-", stem.lower()).strip("-_")[:64] or "scenario"


def parse(values: Mapping[str, Any], source: _Source | None = None) -> Scenario:
    """Check values and return the Scenario they make.

    Raises:
        Mistake: All that is wrong with them, one line each.
    """
    source = source or _Source("", "scenario", {})
    try:
        return Scenario.model_validate(values)
    except ValidationError as error:
        found = error.errors()
        lines = [*dict.fromkeys(_explain(detail, source) for detail in found[:_TOLD])]
        more = [f"and {len(found) - _TOLD} more mistakes"] if len(found) > _TOLD else []
        raise Mistake("\n".join([*lines, *more])) from None


def _find(name_or_path: str) -> Path:
    path = Path(name_or_path)
    if name_or_path in catalog.titles("scenarios"):
        return catalog.scenario_path(name_or_path)
    if name_or_path.endswith(".toml") or path.is_file():
        if not path.is_file():
            raise Mistake(f"{name_or_path}: expected a scenario file, there is none")
        return path.resolve()
    if "/" in name_or_path or path.is_dir():
        raise Mistake(f"{name_or_path}: expected a scenario's name or a .toml file")
    return catalog.scenario_path(name_or_path)


def _split_override(override: str) -> tuple[str, str]:
    key, equals, value = override.partition("=")
    if not equals or not re.fullmatch(r"[\w-]+(\.[\w-]+)*", key):
        raise Mistake(f"--set: expected key=value, e.g. privacy.epsilon=2, got {override!r}")
    return key, value


def value_of(setting: str) -> tuple[str, Any]:
    """Return the key and the value of ``key=value``; what is no TOML value is text."""
    key, text = _split_override(setting)
    try:
        return key, tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):
        return key, text


def _set(values: dict[str, Any], key: str, text: str) -> None:
    *sections, last = key.split(".")
    for section in sections:
        values = values.setdefault(section, {})
        if not isinstance(values, dict):
            raise Mistake(f"--set {key}={text}: {section} is a value, not a section")
    values[last] = value_of(f"{key}={text}")[1]


_EXPECTED = {
    "greater_than": "a number > {gt:g}",
    "greater_than_equal": "a number >= {ge:g}",
    "less_than": "a number < {lt:g}",
    "less_than_equal": "a number <= {le:g}",
    "finite_number": "a finite number",
    "missing": "a value, it is required",
    "literal_error": "{expected}",
    "string_pattern_mismatch": "lower-case letters, digits, - and _",
}


def _explain(detail: Any, source: _Source) -> str:  # noqa: ANN401  pydantic's ErrorDetails is a TypedDict
    """Return ``privacy.epsilon: expected a number > 0, got -1 (scenarios/my.toml:17)``."""
    parts = [str(part) for part in detail["loc"] if " " not in str(part)]  # a Tag is no key
    key, kind = ".".join(parts), detail["type"]
    place, got = source.of(key), detail["input"]
    if kind == "extra_forbidden":
        hint = catalog.nearest(parts[-1], _fields_of(parts[:-1]))
        return f"{key}: unknown key{hint} ({place})"
    if kind == "value_error":
        return f"{key + ': ' if key else ''}{detail['ctx']['error']} ({place})"
    pattern = _EXPECTED.get(kind) or str(detail["msg"]).removeprefix("Input should be ")
    expected = pattern.format(**detail.get("ctx", {}))
    if kind == "missing":
        return f"{key}: expected {expected} ({source.place})"
    hint = catalog.nearest(str(got), re.findall(r"'([^']*)'", expected)) if kind == "literal_error" else ""
    return f"{key}: expected {expected}, got {_short(got)}{hint if 'did you mean' in hint else ''} ({place})"


def _short(value: Any) -> str:  # noqa: ANN401  anything TOML can hold
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}... ({len(text)} characters)"


def _fields_of(sections: list[str]) -> list[str]:
    model: Any = Scenario
    for section in sections:
        model = model.model_fields[section].annotation
    return list(model.model_fields)


def _line_of(text: str, key: str) -> int | None:
    """Return the line where ``key``, or the innermost section above it that is written down, stands."""
    found = _lines_of(text)
    while key and key not in found:
        key = key.rpartition(".")[0]
    return found.get(key)


@lru_cache(maxsize=1)
def _lines_of(text: str) -> Mapping[str, int]:
    table, found = "", {}
    for number, line in enumerate(text.splitlines(), start=1):
        if header := re.match(r"\s*\[([\w.-]+)\]", line):
            table = header[1]
            found.setdefault(table, number)
        elif pair := re.match(r"\s*([\w.-]+)\s*=", line):
            found.setdefault(f"{table}.{pair[1]}".lstrip("."), number)
    return found
