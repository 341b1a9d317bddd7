"""Changes to a scenario, as they are typed: ``privacy.epsilon=2``, and the shorter ``krum:f=2`` and ``--epsilon 2``.

Every command takes the same forms, because all of them come here.
"""

import json
import math
import re
import tomllib
from collections.abc import Iterable
from typing import Any

from fedsim.mistakes import Mistake
from fedsim.scenario import catalog
from fedsim.scenario.unit_facts import NO_UNIT, UNIT_OF_RECORDS, facts_of

NONE = "none"
_KEY = re.compile(r"[\w-]+(\.[\w-]+)*")
_QUOTED = r'"(?:[^"\\]|\\.)*"|\'[^\']*\''
_WORD = r"(?<![\w.+-])[A-Za-z_][\w./:*-]*"
_QUOTED_OR_WORD = re.compile(rf"(?P<quoted>{_QUOTED})|(?P<word>{_WORD})(?![\w./:*-]|\s*=)")
_TOML_WORDS = {"true", "false", "inf", "nan"}


class Change(str):
    """A ``key=value`` change that was typed in another form; messages show ``typed`` in its place."""

    typed: str

    def __new__(cls, change: str, typed: str) -> "Change":
        """Make a change that reads ``key=value`` and remembers how it was typed."""
        made = super().__new__(cls, change)
        made.typed = typed
        return made

    def __reduce__(self) -> tuple[type["Change"], tuple[str, str]]:
        """Return what makes it anew in another process."""
        return Change, (str(self), self.typed)


def as_typed(changes: Iterable[str]) -> list[str]:
    """Return the words of a command line that make some changes: ``--task my_tasks.py:falls``, ``--set seeds=3``.

    What was given in Python as an object has no such words, and is named in brackets.
    """
    words: list[str] = []
    for change in changes:
        typed = getattr(change, "typed", "")
        option, _, value = typed.partition(" ")
        if option.startswith("--"):
            words += [option, value]
        elif typed:
            kind, _, label = typed.partition("=")
            words += [f"--{kind}", f"({label}, given in Python)"]
        else:
            words += ["--set", change]
    return words


def split(change: str) -> tuple[str, str]:
    """Return the key and the text of the value of a change.

    Raises:
        Mistake: It is not of the form ``key=value``.
    """
    key, equals, text = change.partition("=")
    if not equals or not _KEY.fullmatch(key):
        raise Mistake(f"--set: expected key=value, e.g. privacy.epsilon=2, got {change!r}")
    return key, text


def value_of(change: str) -> tuple[str, Any]:
    """Return the key and the value of ``key=value``: a TOML value, whose words may stand without quotes, or text.

    So ``partition={by=dirichlet, sites=8, alpha=1}`` and ``data.groups=[sex]`` mean what they seem to mean, as
    ``title=Mine`` does.
    """
    key, text = split(change)
    for toml in (text, _with_quotes(text)):
        try:
            values = tomllib.loads(f"value = {toml}")
        except (ValueError, RecursionError):
            continue
        if len(values) == 1:  # not the lines of more settings
            return key, values["value"]
    return key, text


def _with_quotes(text: str) -> str:
    """Return a section or list of TOML with quotes around the words that lack them; other text as it is."""
    if not text.startswith(("{", "[")):
        return text

    def quote(found: re.Match[str]) -> str:
        word = found["word"]
        if word is None or word in _TOML_WORDS:
            return found[0]
        return json.dumps(word)

    return _QUOTED_OR_WORD.sub(quote, text)


def named(text: str) -> tuple[str, list[str]]:
    """Split ``krum:f=2`` into the name and its parameters, ``["f=2"]``.

    A file of the user's and ``package.module:Class`` are names, too.

    Raises:
        Mistake: A parameter of a strategy or attack that comes with fedsim is not of the form ``key=value``.
    """
    parts = text.split(":")
    parameters = [part for part in parts if "=" in part]
    words = [part for part in parts if "=" not in part]
    if len(words) > 1 and is_known(words[0]):
        raise Mistake(f"{text}: expected parameters as KEY=VALUE, e.g. krum:f=2, got {words[1]!r}")
    return ":".join(words), parameters


def is_known(name: str) -> bool:
    """Whether a strategy or attack of this name comes with fedsim."""
    return name in catalog.titles("strategies") or name in catalog.titles("attacks")


def allow_strategy(text: str) -> str:
    """Let the code of ``my_strategy.py:factor=2`` be loaded, if it is code: the user named it. Return its name."""
    name, _ = named(text)
    if catalog.is_code(name):
        catalog.allow(name)
    return name


def with_strategy(text: str) -> Change:
    """Return the change that puts a strategy which the user named in place of a scenario's: ``krum`` or ``krum:f=2``.

    The user's own code may be loaded from then on.
    """
    name = allow_strategy(text)
    _, parameters = named(text)
    return Change(f"strategy={_section(name, parameters)}", f"--strategy {text}")


def allow_task(text: str) -> str:
    """Let a task of the user's own be loaded, if the user named one: ``my_tasks.py:falls``. Return its name.

    Raises:
        Mistake: There is no such file.
    """
    if not catalog.is_own_task(text):
        return text
    name = catalog.task_in_file(text)
    catalog.allow(name)
    return name


def with_task(text: str) -> Change:
    """Return the change that puts a task which the user named in place of a scenario's.

    It is a task that comes with fedsim, or one in a file of the user's: ``my_tasks.py:falls``.

    Raises:
        Mistake: There is no such file.
    """
    return Change(f"task={json.dumps(allow_task(text))}", f"--task {text}")


def with_attack(text: str, share: str) -> Change:
    """Return the change that puts an attack, e.g. ``none`` or ``sign-flip:factor=4``, in place of a scenario's.

    Args:
        text: The attack.
        share: Which share of the sites attacks, unless the parameters say it.
    """
    name, parameters = named(text)
    says_who = any(split(parameter)[0] in ("share", "sites") for parameter in parameters)
    if name != NONE and not says_who:
        parameters = [f"share={share}", *parameters]
    return Change(f"attack={_section(name, parameters)}", f"--attack {text}")


def _section(name: str, parameters: list[str]) -> str:
    """Return ``{ name = "krum", f = 2 }``."""
    pairs = [f"name = {json.dumps(name)}"]
    for parameter in parameters:
        key, value = value_of(parameter)
        _, text = split(parameter)
        pairs.append(f"{key} = {json.dumps(value) if isinstance(value, str) else text}")
    return f"{{ {', '.join(pairs)} }}"


def with_epsilon(text: str, unit: str) -> list[Change]:
    """Return the changes that ask for a privacy budget, or for none.

    Args:
        text: A number, or ``none``.
        unit: The scenario's own privacy unit. Where it has none, records are protected.

    Raises:
        Mistake: The text is neither.
    """
    typed = f"--epsilon {text}"
    if text == NONE:
        changes = [Change(f"privacy.unit={NO_UNIT}", typed)]
        if "secure_aggregation.colluding" in dict(facts_of(unit).settings):
            # Without noise there are no shares of it that sites could tell each other.
            changes.append(Change("secure_aggregation.colluding=0", typed))
        return changes
    if not _is_positive(text):
        raise Mistake(f"--epsilon: expected none or a number > 0, e.g. 2, got {text!r}")
    chosen = unit if facts_of(unit).promises else UNIT_OF_RECORDS
    return [Change(f"privacy.unit={chosen}", typed), Change(f"privacy.epsilon={text}", typed)]


def _is_positive(text: str) -> bool:
    try:
        return 0 < float(text) < math.inf
    except ValueError:
        return False
