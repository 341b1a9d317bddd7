"""Settings that would have no effect: a scenario that asks for something that isn't run is refused.

A section with a switch is off where the file says so (``privacy.unit = "none"``, ``attack.name = "none"``,
``secure_aggregation.on = false``): its other settings may stay there for later. Where nobody said
so, they are asked for, and so are those that are typed on the command line beside a file that
switches their section off.
"""

import difflib
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

from pydantic import BaseModel

from fedsim.scenario import catalog
from fedsim.scenario.schema import Scenario, is_given
from fedsim.scenario.unit_facts import NO_UNIT, UNIT_OF_RECORDS

_NO_ATTACK = "none"
_OTHER_WORDS_FOR_NAME = {"type", "kind", "class", "attack", "method", "algorithm", "strategy"}
_ATTACK_FOR_EXAMPLE = "sign-flip"


@dataclass(frozen=True)
class Idle:
    """A setting without effect.

    Attributes:
        key: The setting, with its section.
        message: What was expected.
    """

    key: str
    message: str


def settings_without_effect(scenario: Scenario, typed: Collection[str]) -> Iterator[Idle]:
    """Yield the settings of a scenario that would have no effect.

    Args:
        scenario: The scenario.
        typed: The keys that were given on the command line.
    """
    yield from _privacy(scenario, typed)
    yield from _attack(scenario, typed)
    yield from _strategy(scenario)
    yield from _secure_aggregation(scenario, typed)
    yield from _faults(scenario)
    yield from _data(scenario)
    yield from _of_other_choices(scenario)
    yield from _checkpoints(scenario)
    yield from _rounds(scenario)
    yield from _nodes(scenario)
    yield from _of_rounds_without_a_federated_arm(scenario)


def _privacy(scenario: Scenario, typed: Collection[str]) -> Iterator[Idle]:
    privacy = scenario.privacy
    if privacy.facts.promises:
        is_typed = "privacy.neighbours" in typed
        if is_typed and privacy.neighbours not in privacy.facts.neighbours:
            possible = " or ".join(map(repr, privacy.facts.neighbours))
            yield Idle("privacy.neighbours", f"expected {possible} with privacy.unit = {privacy.unit!r}")
        return

    example = f"; e.g. privacy.unit={UNIT_OF_RECORDS}"
    others = _others(privacy, "unit")
    if others and "unit" not in privacy.model_fields_set:
        expected = f"expected unit beside {_listed(others)}, without which nobody is protected"
        yield Idle(f"privacy.{others[0]}", f"{expected}{example}")
        return
    for key in _typed_beside_a_switch(typed, "privacy", "unit"):
        yield Idle(key, f"expected another privacy.unit than {NO_UNIT!r} beside it{example}")


def _attack(scenario: Scenario, typed: Collection[str]) -> Iterator[Idle]:
    attack = scenario.attack
    if attack.name != _NO_ATTACK:
        return

    others = [*_others(attack, "name"), *(attack.model_extra or {})]
    if others and "name" not in attack.model_fields_set:
        hint = _name_that_was_meant(attack.model_extra or {}, "attack", "attacks")
        hint = hint or f"e.g. attack.name={_ATTACK_FOR_EXAMPLE}"
        expected = f"expected name beside {_listed(others)}, without which nobody attacks"
        yield Idle(f"attack.{others[0]}", f"{expected}; {hint}")
        return
    for key in _typed_beside_a_switch(typed, "attack", "name"):
        expected = f"expected another attack.name than {_NO_ATTACK!r} beside it"
        yield Idle(key, f"{expected}; e.g. attack.name={_ATTACK_FOR_EXAMPLE}")


def _strategy(scenario: Scenario) -> Iterator[Idle]:
    others = scenario.strategy.model_extra or {}
    if others and "name" not in scenario.strategy.model_fields_set:
        hint = _name_that_was_meant(others, "strategy", "strategies") or "e.g. strategy.name=krum"
        yield Idle(f"strategy.{next(iter(others))}", f"expected name beside {_listed(others)}; {hint}")


def _secure_aggregation(scenario: Scenario, typed: Collection[str]) -> Iterator[Idle]:
    settings = scenario.secure_aggregation
    if not settings.on:
        for key in _typed_beside_a_switch(typed, "secure_aggregation", "on"):
            yield Idle(key, "expected secure_aggregation.on = true beside it")
        return
    if is_given(settings, "drop_out_at") and not scenario.faults.drop_out:
        yield Idle("secure_aggregation.drop_out_at", "expected faults.drop_out beside it: no site drops out")


def _faults(scenario: Scenario) -> Iterator[Idle]:
    faults = scenario.faults
    rounds = scenario.training.rounds
    if is_given(faults, "crash_round") and not faults.crash:
        yield Idle("faults.crash_round", "expected faults.crash beside it: no site crashes")
    if faults.crash and faults.crash_round > rounds:
        yield Idle("faults.crash_round", f"expected a round up to {rounds}, the last, got {faults.crash_round}")

    if is_given(faults, "straggler_steps") and not faults.straggler:
        yield Idle("faults.straggler_steps", "expected faults.straggler beside it: no site is slow")
    steps = scenario.training.local_steps
    if faults.straggler and faults.straggler_steps >= steps:
        expected = f"expected fewer than training.local_steps, which is {steps}"
        yield Idle("faults.straggler_steps", f"{expected}, got {faults.straggler_steps}")


def _data(scenario: Scenario) -> Iterator[Idle]:
    data = scenario.data
    if scenario.task is not None and is_given(data, "model"):
        yield Idle("data.model", "expected none beside a task, which has a model of its own")
    if data.sha256 is not None and data.path is None and not catalog.is_own_task(scenario.task):
        yield Idle("data.sha256", "expected data.path beside it, the file that has this SHA-256")


def _of_other_choices(scenario: Scenario) -> Iterator[Idle]:
    """Yield settings of an engine or a partition that was not chosen."""
    if scenario.cohort_size != "auto" and scenario.trains_with != "cohort":
        yield Idle("cohort_size", f"expected engine = 'cohort' beside it, got {scenario.engine!r}")

    partition = scenario.partition
    draws = partition.by not in ("natural", "made", "column", "mapping", "time") or (
        partition.by == "natural" and partition.sites
    )
    if is_given(partition, "seed") and not draws:
        yield Idle("partition.seed", f"expected none beside by = {partition.by!r}, which draws nothing")


def _nodes(scenario: Scenario) -> Iterator[Idle]:
    """Yield settings of nodes that were not chosen."""
    for engine, section in (("ray", scenario.ray), ("superlink", scenario.superlink)):
        given = [name for name in type(section).model_fields if is_given(section, name)]
        if given and scenario.engine != engine:
            yield Idle(f"{engine}.{given[0]}", f"expected engine = {engine!r} beside it, got {scenario.engine!r}")


def _checkpoints(scenario: Scenario) -> Iterator[Idle]:
    if scenario.checkpoints.every_rounds is not None and is_given(scenario.checkpoints, "seconds"):
        yield Idle("checkpoints.seconds", "expected either it or checkpoints.every_rounds, got both")


def _rounds(scenario: Scenario) -> Iterator[Idle]:
    """Yield a patience and a step that no training of so many rounds comes to."""
    rounds = scenario.training.rounds
    schedule = scenario.training.schedule
    full = rounds - schedule.warmup_rounds
    if schedule.every is not None and schedule.every >= full:
        expected = f"expected fewer than the {full} rounds that have the full rate, after which none falls"
        yield Idle("training.schedule.every", f"{expected}, got {schedule.every}")

    stopping = scenario.training.stopping
    patience = stopping.patience if stopping else None
    if patience is not None and patience >= rounds - 1:
        expected = f"expected at most {max(0, rounds - 2)} with {rounds} rounds, of which no more can be saved"
        yield Idle("training.stopping.patience", f"{expected}, got {patience}")


def _of_rounds_without_a_federated_arm(scenario: Scenario) -> Iterator[Idle]:
    """Yield settings of rounds where no arm has any."""
    if "federated" in scenario.arms:
        return

    asked = []
    if scenario.attack.name != _NO_ATTACK:
        asked.append("attack.name")
    if scenario.secure_aggregation.on:
        asked.append("secure_aggregation")
    for name in ("drop_out", "crash", "straggler", "spoiled", "joins_late"):
        if is_given(scenario.faults, name):
            asked.append(f"faults.{name}")
    for name in ("sites_per_round", "site_sampling_rate", "site_turns", "duration_spread"):
        if is_given(scenario.training, name):
            asked.append(f"training.{name}")
    for key in asked:
        yield Idle(key, f"expected federated among the arms beside it, got {', '.join(scenario.arms)}")


def _others(section: BaseModel, switch: str) -> list[str]:
    """Return the settings that somebody gave in a section, but for the one that switches it on."""
    return [name for name in type(section).model_fields if name in section.model_fields_set and name != switch]


def _typed_beside_a_switch(typed: Iterable[str], section: str, switch: str) -> Iterator[str]:
    """Yield the settings of a section that were typed, unless the switch was typed, too."""
    typed = list(typed)
    if section in typed or f"{section}.{switch}" in typed:
        return
    for key in typed:
        if key.startswith(f"{section}."):
            yield key


def _name_that_was_meant(others: dict[str, object], section: str, kind: str) -> str:
    """Return a hint at a misspelt ``name``; nothing where there is none."""
    known = catalog.titles(kind)
    for key, value in others.items():
        looks_alike = bool(difflib.get_close_matches(key.lower(), ["name"])) or key.lower() in _OTHER_WORDS_FOR_NAME
        if isinstance(value, str) and value in known:
            return f"did you mean {section}.name={value} by {key}?"
        if looks_alike:
            return f"did you mean {section}.name by {key}?"
    return ""


def _listed(names: Iterable[str]) -> str:
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last
