"""Files, command lines, settings and replies of any kind: each ends in values or in a line, and never in silence."""

import inspect
import itertools
import math
import os
import random
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import flwr.serverapp.strategy as flowers
import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Error, Message, MetricRecord, RecordDict
from typer.testing import CliRunner

from fedsim.cli.commands import app
from fedsim.experiments import arms
from fedsim.experiments.arms import Job, run_job
from fedsim.flower.records import ARRAYS, METRICS, WEIGHT
from fedsim.planning.checks import check
from fedsim.scenario.files import read
from tests.torture.trials import FORESEEN, Tried, chooser

ODD_VALUES = (
    "0", "-1", "1", "1.5", "1e308", "-1e308", "1e-308", "inf", "-inf", "nan", "1000000", "10000000000000000000", "true",
    "false", '""', '"x"', '"none"', '"\\u001b]0;x\\u0007"', "[]", "[1]", '["a", "a"]', "{}", "{ a = 1 }",
    "1979-05-27", "07:32:00",
    '"../../etc/passwd"', '"/dev/zero"', "0x10", "[[1, 2], [3]]", '"a\\nb"', "1_000", "+1", "-0.0",
)  # fmt: skip
ONE_ROUND = ("training.rounds=1", "seeds=1", "privacy.unit=none")


def scenarios(count: int, seed: int, folder: Path) -> Tried:
    """Read scenario files with something changed: a value, a key, a line or a character."""
    tried = Tried("scenarios")
    choices = chooser("scenarios", seed)
    texts = [path.read_text("utf-8") for path in sorted(_folder_of_scenarios().glob("*.toml"))]
    path = folder / "tried.toml"
    accepted = 0

    def trial() -> str | None:
        nonlocal accepted
        scenario = read(path)
        check(scenario)
        accepted += 1
        return None

    for number in range(count):
        text = choices.choice(texts)
        for _ in range(choices.choice((1, 1, 1, 2, 4))):
            text = _mutated(text, choices)
        path.write_bytes(text.encode("utf-8", "surrogatepass"))
        tried.attempt(f"scenario {number}", trial)
        if tried.wrong and tried.wrong[-1].startswith(f"scenario {number}:"):
            (folder / f"wrong-{number}.toml").write_bytes(path.read_bytes())
    tried.facts = {"accepted": accepted}
    return tried


def _folder_of_scenarios() -> Path:
    import scenarios as package

    return Path(str(package.__path__[0]))


def _mutated(text: str, choices: random.Random) -> str:
    """Return a text of TOML with one thing changed."""
    lines = text.splitlines()
    settings = [number for number, line in enumerate(lines) if re.match(r"\s*[\w.]+\s*=", line)]
    kind = choices.choice(("value", "value", "value", "key", "line", "drop", "character", "section", "twice"))
    if not settings:
        kind = "character"
    if kind == "character":
        place = choices.randrange(len(text) + 1)
        return text[:place] + chr(choices.choice((0, 7, 27, 34, 39, 61, 91, 93, 123, 0x2028, 0xFFFD))) + text[place:]

    number = choices.choice(settings)
    key, _, value = lines[number].partition("=")
    if kind == "value":
        lines[number] = f"{key}= {choices.choice(ODD_VALUES)}"
    elif kind == "key":
        letters = list(key)
        place = choices.randrange(max(1, len(key.rstrip())))
        letters[place] = choices.choice("abcxyz_0")
        lines[number] = f"{''.join(letters)}={value}"
    elif kind == "line":
        lines.insert(
            number, choices.choice(("", "[", "= 1", "[training]", "[privacy]", "x = 1", '"a b" = 1', "[[arms]]"))
        )
    elif kind == "drop":
        del lines[number]
    elif kind == "section":
        lines.append(f"[{choices.choice(('training', 'privacy', 'attack', 'faults', 'data', 'nobody', 'strategy'))}]")
        lines.append(f"{key}= {choices.choice(ODD_VALUES)}")
    else:
        lines.insert(number, lines[number])
    return "\n".join(lines)


WORDS = (
    "list", "show", "check", "privacy", "groups", "report", "resume", "audit", "run", "compare", "check-data",
    "look", "doctor", "hospital-heart", "hospital/heart", "fedavg", "krum", "krum:f=2", "krum:f=x", "nobody", "",
    "-", "--", "--json", "--quiet", "--help", "-h", "--version", "--seeds", "--seed", "--out", "--set",
    "training.rounds=0", "training.rounds", "=", "privacy.epsilon=", "--epsilon", "none", "-1", "nan", "1e400",
    "--strategy", "--data", "/dev/null", "/dev/zero", "/nonexistent", ".", "..", "--target", "--site", "--ranges",
    "from-data", "--sampling-rate", "--noise-multiplier", "--steps", "--delta", "--arm", "federated", "--rate",
    "--force", "--attack", "\x1b[31m", "ééééééééé", "0", "1", "1e308", "--neighbours", "replace-one", "auto",
    "--trials", "--shadows", "--to", "scenarios", "tasks",
)  # fmt: skip
LONG = {"run", "compare", "audit"}


def command_lines(count: int, seed: int, folder: Path) -> Tried:
    """Type any words after ``fedsim``; what would train for long is left out."""
    tried = Tried("command lines")
    choices = chooser("command lines", seed)
    runner = CliRunner()
    os.chdir(folder)
    by_code: dict[int, int] = {}
    for _ in range(count):
        words = [choices.choice(WORDS) for _ in range(choices.randint(1, 7))]
        if LONG & set(words) and not any(word.startswith("-") and len(word) > 1 for word in words):
            words.append("--set=training.rounds=0")  # it is refused before anything is trained

        def trial(words: Sequence[str] = words) -> str | None:
            ended = runner.invoke(app, list(words))
            by_code[ended.exit_code] = by_code.get(ended.exit_code, 0) + 1
            if ended.exception is not None and not isinstance(ended.exception, FORESEEN):
                raise ended.exception
            return None

        tried.attempt(f"fedsim {' '.join(map(repr, words))}", trial)
    tried.facts = {"done": by_code.get(0, 0)}
    return tried


ODD_PARAMETERS: tuple[Any, ...] = (
    0, -1, 1, 2, 0.0, 0.5, 1.0, 1.5, -0.5, 1e308, 1e-300, math.inf, "x", "", True, [1], {"a": 1}, 10**9,
)  # fmt: skip


def flower_settings(count: int, seed: int, folder: Path) -> Tried:
    """Train a round with classes of Flower's and settings of any kind, from a scenario."""
    tried = Tried("Flower settings")
    choices = chooser("Flower settings", seed)
    kinds = [name for name in flowers.__all__ if isinstance(getattr(flowers, name), type)]
    trained = 0
    for number in range(count):
        name = choices.choice(kinds)
        parameters = [
            key for key in inspect.signature(getattr(flowers, name)).parameters if key not in ("args", "kwargs")
        ]
        given = {
            key: choices.choice(ODD_PARAMETERS) for key in parameters if choices.random() < 2 / max(2, len(parameters))
        }
        settings = "".join(f", {key} = {_toml(value)}" for key, value in given.items())

        def trial(name: str = name, settings: str = settings) -> str | None:
            nonlocal trained
            section = f'strategy={{ class = "flwr.serverapp.strategy:{name}"{settings} }}'
            scenario = read("hospital-heart", [*ONE_ROUND, section])
            check(scenario)
            run_job(scenario, Job("federated", False, 0), lambda number: None)
            trained += 1
            return None

        tried.attempt(f"{number}: {name}{settings}", trial)
    tried.facts = {"trained": trained}
    return tried


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "{ a = 1 }"
    if isinstance(value, str):
        return f'"{value}"'
    return repr(value)


def replies(count: int, seed: int, folder: Path) -> Tried:
    """Let sites answer anything: it is set aside and named, and the round goes on with the others, or ends with why."""
    tried = Tried("replies")
    choices = chooser("replies", seed)
    execute = arms.misbehaving
    odd = itertools.cycle(ODD_REPLIES)
    private = ("privacy.unit=record", "privacy.epsilon=900", "privacy.noise_multiplier=2")
    for number in range(count):
        spoil = next(odd)
        many = choices.choice((1, 2, 4))
        is_private = choices.random() < 0.5
        changes = private if is_private else ("privacy.unit=none",)

        def trial(spoil: Any = spoil, many: int = many, changes: Sequence[str] = changes) -> str | None:
            scenario = read("hospital-heart", ["training.rounds=1", "seeds=1", *changes])

            def misbehaving(*args: Any) -> Any:
                inner = execute(*args)

                def answer(messages: Sequence[Message], contexts: Sequence[Context]) -> list[Message]:
                    found = inner(messages, contexts)
                    for place in range(min(many, len(found))):
                        found[place] = spoil(messages[place], found[place])
                    return found

                return answer

            arms.misbehaving = misbehaving
            try:
                done = run_job(scenario, Job("federated", scenario.private, 0), lambda number: None)
            finally:
                arms.misbehaving = execute
            finite = all(value.isfinite().all() for value in done.models[arms.GLOBAL].values())
            if not finite:
                return "the model is not finite"
            if not done.notes and spoil not in HARMLESS:
                return "no note"
            if done.ledger is not None and len(done.ledger.entries) != 4:
                return f"{len(done.ledger.entries)} charges in place of 4"
            return None

        tried.attempt(f"{number}: {spoil.__name__}, {many} sites, {'private' if is_private else 'plain'}", trial)
    return tried


def empty(message: Message, reply: Message) -> Message:
    return Message(RecordDict(), reply_to=message)


def error(message: Message, reply: Message) -> Message:
    return Message(Error(code=3, reason="\x1b[31mred"), reply_to=message)


def changed(message: Message, reply: Message, name: str, record: Any) -> Message:
    """Return the reply with another record under a name."""
    return Message(RecordDict({**dict(reply.content.items()), name: record}), reply_to=message)


def with_arrays(message: Message, reply: Message, array_of: Callable[[Array], Array]) -> Message:
    """Return the reply with another array in place of each."""
    arrays = {name: array_of(array) for name, array in reply.content[ARRAYS].items()}  # type: ignore[union-attr]
    return changed(message, reply, ARRAYS, ArrayRecord(arrays))


def not_finite(message: Message, reply: Message) -> Message:
    return with_arrays(message, reply, lambda array: Array(np.full(tuple(array.shape), math.nan, dtype=np.float32)))


def huge(message: Message, reply: Message) -> Message:
    return with_arrays(message, reply, lambda array: Array(np.full(tuple(array.shape), 1e300)))


def other_shape(message: Message, reply: Message) -> Message:
    return with_arrays(message, reply, lambda array: Array(np.zeros((3, 3), dtype=np.float32)))


def texts(message: Message, reply: Message) -> Message:
    return with_arrays(message, reply, lambda array: Array(np.array(["a", "b"])))


def broken_bytes(message: Message, reply: Message) -> Message:
    def broken(array: Array) -> Array:
        return Array(dtype=array.dtype, shape=array.shape, stype=array.stype, data=b"not an array")

    return with_arrays(message, reply, broken)


def config_as_arrays(message: Message, reply: Message) -> Message:
    return changed(message, reply, ARRAYS, ConfigRecord({"a": 1}))


def no_weight(message: Message, reply: Message) -> Message:
    return changed(message, reply, METRICS, MetricRecord())


def negative_weight(message: Message, reply: Message) -> Message:
    return changed(message, reply, METRICS, MetricRecord({WEIGHT: -5.0}))


def weight_list(message: Message, reply: Message) -> Message:
    return changed(message, reply, METRICS, MetricRecord({WEIGHT: [1.0, 2.0]}))


def unknown_sender(message: Message, reply: Message) -> Message:
    reply.metadata.__dict__["_src_node_id"] = 10**15
    return reply


def another_sender(message: Message, reply: Message) -> Message:
    reply.metadata.__dict__["_src_node_id"] = 5 if reply.metadata.src_node_id != 5 else 2
    return reply


def nothing(message: Message, reply: Message) -> Any:
    return None


def a_text(message: Message, reply: Message) -> Any:
    return "hello"


ODD_REPLIES = (
    empty, error, not_finite, huge, other_shape, texts, broken_bytes, config_as_arrays, no_weight, negative_weight,
    weight_list, unknown_sender, another_sender, nothing, a_text,
)  # fmt: skip
HARMLESS = (no_weight, negative_weight, weight_list)
"""What is not read where weights are public."""
