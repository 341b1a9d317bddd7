"""Messages about wrong values of a scenario: what was expected, what came, where, and what to type.

``arms: expected a list, got 'local'; type --set 'arms=["local"]' (--set arms=local)``
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any, get_args, get_origin

from pydantic import BaseModel

from fedsim.figures import as_written
from fedsim.scenario import catalog
from fedsim.scenario.schema import Scenario

_MOST_SHOWN = 80  # characters of a bad value
_MOST_HINTS = 3  # places that a misplaced key may belong to


@dataclass(frozen=True)
class Source:
    """Where the values of a scenario came from.

    Attributes:
        text: The text of the file; empty where there is none.
        place: The name of the file.
        typed: {key: how its change was typed on the command line}.
    """

    text: str
    place: str
    typed: Mapping[str, str]

    def of(self, key: str) -> str:
        """Return where the value of a key was given: on the command line, or in which line of the file."""
        change = self._change_of(key)
        if change:
            typed = self.typed[change]
            return typed if len(typed) <= _MOST_SHOWN else f"{typed[:_MOST_SHOWN]}..."
        line = _line_of(self.text, key)
        return f"{self.place}:{line}" if line else self.place

    def say(self, key: str, value: Any) -> str:  # noqa: ANN401  anything TOML can hold
        """Return how to give a key a value, as it is written at the place where the key was given."""
        if not self._change_of(key):
            return f"write {key} = {_toml(value)}"
        if isinstance(value, list):  # a shell would take brackets and quotes for its own
            return f"type --set '{key}={_toml(value)}'"
        return f"type --set {key}={value if isinstance(value, str) else _toml(value)}"

    def _change_of(self, key: str) -> str:
        for changed in self.typed:
            if key == changed or key.startswith(f"{changed}.") or changed.startswith(f"{key}."):
                return changed
        return ""


_EXPECTED = {
    "greater_than": "a number > {gt:g}",
    "greater_than_equal": "a number >= {ge:g}",
    "less_than": "a number < {lt:g}",
    "less_than_equal": "a number <= {le:g}",
    "finite_number": "a finite number",
    "float_type": "a number",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "bool_type": "true or false",
    "string_type": "text",
    "string_too_short": "text",
    "string_too_long": "at most {max_length} characters",
    "list_type": "a list",
    "too_short": "at least {min_length} in the list",
    "dict_type": "a section",
    "literal_error": "{expected}",
    "string_pattern_mismatch": "lower-case letters, digits, - and _",
}
_NUMBERS = {"float_type", "int_type", "bool_type"}
_SECTIONS = {"model_type", "model_attributes_type", "dataclass_type", "dict_type"}

_MAIN_KEYS = {
    "partition": "by",
    "data": "path",
    "training.optimizer": "name",
    "strategy": "name",
    "attack": "name",
    "privacy": "unit",
    "split": "test",
    "training": "rounds",
    "training.schedule": "name",
    "training.stopping": "patience",
    "privacy.tuning": "runs",
    "privacy.adaptive_clip": "quantile",
    "faults": "drop_out",
}
"""{section: the key that a value in the section's place is most likely meant for}."""

_MEANT = {
    "gpu": "cuda",
    "none": "auto",
    "adamw": "adam",
    "row": "record",
    "patient": "person",
    "pupil": "person",
    "example": "record",
    "site": "client",
    "hospital": "client",
    "user": "client",
    "regression": "number",
    "multiclass": "classes",
    "classification": "binary",
    "non-iid": "dirichlet",
    "noniid": "dirichlet",
    "label-skew": "dirichlet",
    "random": "iid",
    "fed": "federated",
    "pooled": "centralized",
    "central": "centralized",
    "alone": "local",
    "add-remove": "add-or-remove-one",
    "replace": "replace-one",
    "substitute": "replace-one",
    "crypto": "secure",
    "logistic": "linear",
}
"""{a word of other tools: the word of ours}; said where the latter is among those expected."""

_TRUTH = {"yes": True, "on": True, "true": True, "no": False, "off": False, "false": False}

_OTHER_WORDS = {
    "batch": "training.expected_batch",
    "batch_size": "training.expected_batch",
    "learning_rate": "training.optimizer.lr",
    "scheduler": "training.schedule.name",
    "lr_schedule": "training.schedule.name",
    "lr_decay": "training.schedule.factor",
    "gamma": "training.schedule.factor",
    "step_size": "training.schedule.every",
    "warmup": "training.schedule.warmup_rounds",
    "early_stopping": "training.stopping",
    "early_stopping_rounds": "training.stopping.patience",
    "min_delta": "training.stopping.smallest_gain",
    "epochs": "training.local_steps",
    "local_epochs": "training.local_steps",
    "steps": "training.local_steps",
    "num_rounds": "training.rounds",
    "q": "training.sampling_rate",
    "fraction_fit": "training.site_sampling_rate",
    "clients": "partition.sites",
    "num_clients": "partition.sites",
    "partitioner": "partition.by",
    "partition_by": "partition.column",
    "partition_sizes": "partition.shares",
    "dataset": "task",
    "gpu": "device",
    "aggregation": "strategy.name",
    "dp": "privacy.unit",
    "noise": "privacy.noise_multiplier",
    "sigma": "privacy.noise_multiplier",
    "clipping_norm": "privacy.clip",
    "max_grad_norm": "privacy.clip",
    "secure_rng": "privacy.rng",
    "csv": "data.path",
    "file": "data.path",
    "label": "data.target",
    "dropout": "faults.drop_out",
}
"""{a key of other tools: the key of ours}."""


def explain(detail: Any, source: Source) -> str:  # noqa: ANN401  pydantic's ErrorDetails is a TypedDict
    """Return ``privacy.epsilon: expected a number > 0, got -1 (scenarios/my.toml:17)``."""
    parts = [str(part) for part in detail["loc"] if " " not in str(part)]  # a Tag is no key
    kind = detail["type"]
    if kind == "extra_forbidden" and " " in str(detail["loc"][-1]):
        parts.append(json.dumps(detail["loc"][-1], ensure_ascii=False))  # but this is one, as somebody wrote it
    key = ".".join(parts)
    place = source.of(key)

    if kind == "extra_forbidden":
        return f"{key}: unknown key{_where_it_belongs(parts)} ({place})"
    if kind == "value_error":
        said = str(detail["ctx"]["error"])
        if key:
            return f"{key}: {said} ({place})"
        named = re.match(r"([\w.]+): ", said)  # of several sections, the message itself says which key it is about
        return f"{said} ({source.of(named[1]) if named else place})"
    expected = expected_in(detail)
    if kind == "missing":
        return f"{key}: expected {expected}; {source.say(key, '...')} ({source.place})"
    advice = _advice(key, kind, detail["input"], expected, source)
    return f"{key}: expected {expected}, got {_short(detail['input'])}{advice} ({place})"


def expected_in(detail: Any) -> str:  # noqa: ANN401  pydantic's ErrorDetails is a TypedDict
    """Return what was expected where a value is wrong: ``a number > 0``."""
    kind = detail["type"]
    if kind == "missing":
        return "a value, it is required"
    if kind in _SECTIONS:
        return "a section"
    if kind in _EXPECTED:
        return _EXPECTED[kind].format(**detail.get("ctx", {}))
    return str(detail["msg"]).removeprefix("Input should be ")


def _advice(key: str, kind: str, value: Any, expected: str, source: Source) -> str:  # noqa: ANN401  a wrong value
    """Return what to type in place of a wrong value, after a semicolon; nothing where nobody can tell."""
    wants_structure = kind in _SECTIONS or kind == "list_type"
    if wants_structure and isinstance(value, str) and value.startswith(("{", "[")):
        return f"; that is no TOML: {_EXAMPLE_OF_TOML}"
    if kind in _SECTIONS:
        return _advice_for_section(key, value, source)
    if kind == "list_type" and isinstance(value, str):
        return f"; {source.say(key, [word.strip() for word in value.split(',')])}"
    if kind == "literal_error":
        return _nearest_literal(value, expected)
    if kind in _NUMBERS and isinstance(value, str):
        meant = _value_in(value)
        if meant is not None and isinstance(meant, bool) == (kind == "bool_type"):
            return f"; {source.say(key, meant)}"
    if kind == "int_type" and isinstance(value, float) and value.is_integer():
        return f"; {source.say(key, int(value))}"
    return ""


_EXAMPLE_OF_TOML = 'e.g. { by = "dirichlet", sites = 8, alpha = 0.5 } or ["sex", "age"]'


def _advice_for_section(key: str, value: Any, source: Source) -> str:  # noqa: ANN401  a wrong value
    section = section_of(key.split("."))
    if section is None:  # one value for each site
        return f"; {source.say(f'{key}.SITE', value)}" if isinstance(value, int | float) else ""
    main = _MAIN_KEYS.get(key)
    is_simple = isinstance(value, str | int | float) and not isinstance(value, bool)
    fits = main and is_simple and isinstance(value, str) == _takes_text(section, main)
    if fits:
        return f"; {source.say(f'{key}.{main}', value)}"
    return f"; it has the keys {', '.join(section.model_fields)}, e.g. {key}.{main or next(iter(section.model_fields))}"


def _takes_text(section: type[BaseModel], name: str) -> bool:
    annotation = section.model_fields[name].annotation
    choices = [choice for choice in get_args(annotation) if choice is not type(None)]
    return annotation is str or str in choices or any(isinstance(choice, str) for choice in choices)


def _nearest_literal(value: Any, expected: str) -> str:  # noqa: ANN401  a wrong value
    known = re.findall(r"'([^']*)'", expected)
    meant = _MEANT.get(str(value).lower())
    if meant in known:
        return f"; did you mean {meant!r}?"
    hint = catalog.nearest(str(value), known)
    return hint if "did you mean" in hint else ""  # the list of all is said already


def _value_in(text: str) -> bool | int | float | None:
    """Return the number or truth value that a text spells; None where it spells none."""
    if text.lower() in _TRUTH:
        return _TRUTH[text.lower()]
    try:
        value = json.loads(text)
    except ValueError:
        return None
    return value if isinstance(value, bool | int | float) else None


def _where_it_belongs(parts: list[str]) -> str:
    """Return a hint for a key that a section does not have: where it is, or the nearest one that is there."""
    if not parts:
        return ""
    section = section_of(parts[:-1])
    here = list(section.model_fields) if section else []
    name = parts[-1]

    elsewhere = [known for known in keys() if known.rpartition(".")[2] == name]
    if name in _OTHER_WORDS:
        elsewhere.append(_OTHER_WORDS[name])
    if 0 < len(elsewhere) <= _MOST_HINTS:
        return f"; did you mean {' or '.join(map(repr, elsewhere))}?"
    return catalog.nearest(name, here)


def section_of(parts: list[str]) -> type[BaseModel] | None:
    """Return the section of a scenario at ``["training", "optimizer"]``; None where there is none."""
    model: type[BaseModel] = Scenario
    left = iter(parts)
    for part in left:
        field = model.model_fields.get(part)
        found = _section_in(field.annotation) if field else None
        if field and found is None and next(left, None) is not None:
            found = _section_of_each(field.annotation)  # what was left out is a name, as of a class of sites
        if found is None:
            return None
        model = found
    return model


def _section_in(annotation: Any) -> type[BaseModel] | None:  # noqa: ANN401  a type, or some of them
    for choice in (annotation, *get_args(annotation)):
        if isinstance(choice, type) and issubclass(choice, BaseModel):
            return choice
    return None


def _section_of_each(annotation: Any) -> type[BaseModel] | None:  # noqa: ANN401  a type, or some of them
    """Return the section that each value is, where a key holds sections by names of the user's own."""
    if get_origin(annotation) is dict:
        return _section_in(get_args(annotation)[1])
    for choice in get_args(annotation):
        found = _section_of_each(choice)
        if found is not None:
            return found
    return None


@cache
def keys() -> tuple[str, ...]:
    """Return every key of a scenario, with its sections: ``training.optimizer.lr``."""
    return tuple(_keys_of(Scenario, ""))


def _keys_of(model: type[BaseModel], before: str) -> Iterator[str]:
    for name, field in model.model_fields.items():
        yield before + name
        section = _section_in(field.annotation)
        if section:
            yield from _keys_of(section, f"{before}{name}.")


def _short(value: Any) -> str:  # noqa: ANN401  anything TOML can hold
    text = as_written(value)
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}... ({len(text)} characters)"


def _toml(value: Any) -> str:  # noqa: ANN401  anything TOML can hold
    if isinstance(value, bool):
        return "true" if value else "false"
    return json.dumps(value, ensure_ascii=False)


def _line_of(text: str, key: str) -> int | None:
    """Return the line where ``key``, or the innermost section above it that is written down, stands."""
    lines = _lines_of(text)
    while key and key not in lines:
        key = key.rpartition(".")[0]
    return lines.get(key)


@lru_cache(maxsize=1)
def _lines_of(text: str) -> Mapping[str, int]:
    """Return {key: its line}."""
    section = ""
    lines: dict[str, int] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if header := re.match(r"\s*\[([\w.-]+)\]", line):
            section = header[1]
            lines.setdefault(section, number)
        elif pair := re.match(r"\s*([\w.-]+)\s*=", line):
            lines.setdefault(f"{section}.{pair[1]}".lstrip("."), number)
    return lines
