"""From TOML files and ``key=value`` changes to a Scenario; what is wrong is said all at once, with its place."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from fedsim.mistakes import Mistake
from fedsim.scenario import catalog
from fedsim.scenario.changes import NONE, Change, split, value_of, with_epsilon, with_strategy
from fedsim.scenario.code.held import label_of
from fedsim.scenario.explain import Source, explain
from fedsim.scenario.reading import read_toml
from fedsim.scenario.schema import FRAME, Scenario
from fedsim.scenario.without_effect import settings_without_effect

__all__ = ["OWN_PRIVATE_TRAINING", "OWN_TRAINING", "parse", "read", "read_own", "value_of", "with_strategy"]

_MOST_TOLD = 50  # mistakes; a file of nonsense has a hundred thousand
_TABLES = (".csv", ".tsv", ".gz", ".parquet", ".pq", ".xlsx", ".xls", ".feather", ".arrow")
OWN_TRAINING: Mapping[str, Any] = {
    "rounds": 80,
    "local_steps": 5,
    "sampling_rate": 0.3,
    "optimizer": {"name": "adam", "lr": 0.02, "weight_decay": 0.01},
}
"""Training of a table of one's own without privacy, where the scenario says nothing. Adam, whose steps don't depend on
the denominator, since the sizes of the sites may not be used. The weight decay counts the more the fewer rows there
are: gradients are sums over rows, and ``fedsim.data.settling`` chooses their denominator by the number of sites."""
OWN_PRIVATE_TRAINING: Mapping[str, Any] = {
    "rounds": 40,
    "local_steps": 4,
    "sampling_rate": 0.1,
    "expected_batch": 64.0,
    "optimizer": {"name": "adam", "lr": 0.05},
}
"""The same of a scenario with a privacy unit: fewer steps on fewer rows, since each step needs noise."""
OWN_IMAGE_TRAINING: Mapping[str, Any] = {
    "rounds": 40,
    "local_steps": 5,
    "sampling_rate": 0.1,
    "expected_batch": 64.0,
    "optimizer": {"name": "adam", "lr": 0.003},
}
"""The same of images, with and without privacy: the settings of the digits that come with fedsim."""
_OWN_IMAGE_MODEL = "cnn"
_OWN_MODEL = "mlp"  # without privacy
_OWN_PRIVATE_MODEL = "linear"  # a model with more parameters gets more noise


def read(
    name_or_path: str | Path,
    overrides: Iterable[str] = (),
    epsilon: str | None = None,
    all_used: bool = True,
    data: Mapping[str, Any] | None = None,
) -> Scenario:
    """Read a scenario by name (one that comes with fedsim) or path, and apply ``key=value`` changes.

    Args:
        name_or_path: The scenario.
        overrides: The changes.
        epsilon: A privacy budget in place of the scenario's, or ``none``; see ``changes.with_epsilon``.
        all_used: Whether a setting without effect is a mistake. It is none in a scenario that was run
            already, nor in one that more changes are made to.
        data: Values in place of those of the section ``data``, as a caller in Python gives them.

    Raises:
        Mistake: Nothing is there, it is not TOML, or values are wrong: all of them at once, each with its place.
    """
    name_or_path = str(name_or_path)
    path = _find(name_or_path)
    try:
        text, values = read_toml(path)
    except OSError as error:
        raise Mistake(f"{path}: {error.strerror}") from None
    _resolve_paths(values, path.parent)
    switch = values.get("secure_aggregation")
    if isinstance(switch, bool):  # a section, so that changes can be made to it
        values["secure_aggregation"] = {"on": switch}
    typed = _put(values, data or {}) | _apply(values, overrides, epsilon)
    _complete(values)
    values.setdefault("name", _name_of(path.stem))
    place = str(path) if path.is_relative_to(Path.cwd()) else name_or_path
    return parse(values, Source(text, place, typed), all_used)


def read_own(
    overrides: Iterable[str],
    epsilon: str | None = None,
    data: Mapping[str, Any] | None = None,
) -> Scenario:
    """Make a scenario about a table or task of one's own from changes alone: ``data.path=patients.csv``.

    Args:
        overrides: The changes.
        epsilon: A privacy budget, or ``none``.
        data: Values of the section ``data``, as a caller in Python gives them.

    Raises:
        Mistake: Values are wrong or missing.
    """
    values: dict[str, Any] = {}
    typed = _put(values, data or {}) | _apply(values, overrides, epsilon)
    _complete(values)

    section = values.get("data")
    if "task" in values:
        file = label_of(str(values["task"])).replace(".py", "").replace(":", "-")
        title = label_of(str(values["task"]))[:120]
    elif isinstance(section, dict):
        file = Path(str(section.get("path", ""))).name
        subject = "images" if "layout" in section else section.get("target")
        title = f"{subject} in {file}"[:120]
    else:
        file = ""
        title = "no data"
    values.setdefault("name", _name_of(file.partition(".")[0]))
    values.setdefault("title", title)
    place = "the arguments" if data else "the command line"
    return parse(values, Source("", place, typed))


def parse(values: Mapping[str, Any], source: Source | None = None, all_used: bool = True) -> Scenario:
    """Check values and return the Scenario they make.

    Args:
        values: The values.
        source: Where they came from, for messages.
        all_used: Whether a setting without effect is a mistake.

    Raises:
        Mistake: All that is wrong with them, one line each.
    """
    source = source or Source("", "scenario", {})
    try:
        scenario = Scenario.model_validate(values)
    except ValidationError as error:
        details = error.errors()
        lines = [explain(detail, source) for detail in details[:_MOST_TOLD]]
        lines = list(dict.fromkeys(lines))
        if len(details) > _MOST_TOLD:
            lines.append(f"and {len(details) - _MOST_TOLD} more mistakes")
        raise Mistake("\n".join(lines)) from None

    if all_used:
        idle = settings_without_effect(scenario, source.typed)
        lines = [f"{setting.key}: {setting.message} ({source.of(setting.key)})" for setting in idle]
        if lines:
            raise Mistake("\n".join(lines))
    return scenario


def is_path_of_scenario(name_or_path: str) -> bool:
    """Whether this is the path of a file, be it one that reading refuses, and not the name of a scenario."""
    path = Path(name_or_path)
    return name_or_path.endswith(".toml") or (path.exists() and not path.is_dir())


def _find(name_or_path: str) -> Path:
    """Return the file of a scenario."""
    path = Path(name_or_path)
    if name_or_path in catalog.titles("scenarios"):
        return catalog.scenario_path(name_or_path)
    if path.suffix.lower() in _TABLES:
        raise Mistake(f"{name_or_path}: expected a scenario's name or a .toml file, got the name of a table; type "
                      f"fedsim run --data {name_or_path} --target COLUMN")  # fmt: skip
    if is_path_of_scenario(name_or_path):
        if not path.exists():
            raise Mistake(f"{name_or_path}: expected a scenario file, there is none")
        return path.resolve()
    if (path / "scenario.toml").exists():
        raise Mistake(f"{name_or_path}: expected a scenario's name or a .toml file, got a run directory; its scenario "
                      f"is {path / 'scenario.toml'}")  # fmt: skip
    if path.is_dir():
        raise Mistake(f"{name_or_path}: expected a scenario's name or a .toml file, got a folder; of images, type "
                      f"fedsim run --data {name_or_path}")  # fmt: skip
    if "/" in name_or_path:
        raise Mistake(f"{name_or_path}: expected a scenario's name or a .toml file")
    return catalog.scenario_path(name_or_path)


def _resolve_paths(values: dict[str, Any], folder: Path) -> None:
    """Let the paths in a file start at the file's own folder."""
    data = values.get("data")
    if not isinstance(data, dict):
        return
    for key in ("path", "ranges"):
        value = data.get(key)
        if isinstance(value, str) and (key, value) not in (("ranges", "from-data"), ("path", FRAME)):
            data[key] = str(folder / value)


def _put(values: dict[str, Any], data: Mapping[str, Any]) -> dict[str, str]:
    """Put values into the section ``data``; return {key: how it was given}."""
    if not data:
        return {}
    section = values.setdefault("data", {})
    if isinstance(section, dict):
        section.update(data)
        if "path" in data:
            section.pop("sha256", None)  # of another table
    return {f"data.{key}": f"the argument {'data' if key == 'path' else key}" for key in data}


def _apply(values: dict[str, Any], overrides: Iterable[str], epsilon: str | None) -> dict[str, str]:
    """Apply changes; return {key: how its change was typed}."""
    typed: dict[str, str] = {}
    for change in overrides:
        _set(values, change, typed)
    if epsilon is not None:
        privacy = values.get("privacy")
        unit = privacy.get("unit", NONE) if isinstance(privacy, dict) else NONE
        for change in with_epsilon(epsilon, str(unit)):
            _set(values, change, typed)
    return typed


def _set(values: dict[str, Any], change: str, typed: dict[str, str]) -> None:
    key, text = split(change)
    shown = change.typed if isinstance(change, Change) else f"--set {key}={text}"
    *sections, last = key.split(".")
    for section in sections:
        values = values.setdefault(section, {})
        if not isinstance(values, dict):
            raise Mistake(f"{shown}: {section} is a value, not a section")
    values[last] = value_of(change)[1]
    typed[key] = shown


def _complete(values: dict[str, Any]) -> None:
    """Give a scenario about one's own table the model, scale and training that suit any table."""
    data = values.get("data")
    if "task" in values or not isinstance(data, dict):
        return
    if "layout" not in data and _is_folder(data.get("path")):
        data["layout"] = "site/class"
    if "layout" in data or "image" in data:
        _complete_for_images(values, data)
        return
    if "target" not in data:
        return

    private = _section(values, "privacy").get("unit", NONE) != NONE
    secure = values.get("secure_aggregation", False)
    if isinstance(secure, dict):
        secure = secure.get("on", True)
    # A run's own scenario has a digest and a model: one without a scale is of a version that had none.
    is_of_older_run = "sha256" in data and "model" in data and "scale" not in data
    data.setdefault("model", _OWN_PRIVATE_MODEL if private else _OWN_MODEL)
    if not is_of_older_run:
        data.setdefault("scale", "public" if secure else "learned")

    _complete_training(values, OWN_PRIVATE_TRAINING if private else OWN_TRAINING)


def _complete_for_images(values: dict[str, Any], data: dict[str, Any]) -> None:
    data.setdefault("model", _OWN_IMAGE_MODEL)
    _complete_training(values, OWN_IMAGE_TRAINING)


def _complete_training(values: dict[str, Any], usual: Mapping[str, Any]) -> None:
    """Fill in what is not said of the training. An optimizer of which a part is said keeps its other usual parts."""
    training = values.setdefault("training", {})
    if not isinstance(training, dict):
        return
    for key, value in usual.items():
        said = training.get(key)
        if key not in training:
            training[key] = value
        elif isinstance(value, dict) and isinstance(said, dict) and "name" not in said:
            training[key] = {**value, **said}


def _is_folder(path: Any) -> bool:  # noqa: ANN401  what the file says, not yet checked
    if not isinstance(path, str):
        return False
    try:
        return Path(path).is_dir()
    except (OSError, ValueError):
        return False  # reading says what is wrong with it


def _section(values: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Return a section of a scenario; an empty one where it is not there or is no section."""
    section = values.get(name)
    return section if isinstance(section, dict) else {}


def _name_of(stem: str) -> str:
    return re.sub(r"[^a-z0-9_-]+", "-", stem.lower()).strip("-_")[:64] or "scenario"
