"""docs/strategies.md lists every hook with its default and its meaning, as the classes have them.

``python -m tests.strategy.test_hooks_in_docs`` prints the tables anew.
"""

import inspect
import re
import sys
from pathlib import Path

from fedsim.planning.attack import HOOKS as ATTACK_HOOKS
from fedsim.planning.attack import Attack
from fedsim.strategy import Buffered, Choosing, Comparing, LocalRule, Personal, Strategy
from fedsim.strategy.contract import HOOKS
from fedsim.strategy.hooks import public_names

PAGE = Path(__file__).parents[2] / "docs" / "strategies.md"
TABLES = {
    "`Strategy`": (Strategy, HOOKS),
    "`Buffered(Strategy)`, for sites that are not in step": (Buffered, public_names(Buffered)),
    "`LocalRule`, the client half": (LocalRule, public_names(LocalRule)),
    "`Personal(LocalRule)`": (Personal, public_names(Personal)),
    "`Comparing(LocalRule)`": (Comparing, public_names(Comparing)),
    "`Choosing(LocalRule)`": (Choosing, public_names(Choosing)),
    "`Attack`": (Attack, ATTACK_HOOKS),
}


def meaning_of(base: type, name: str) -> tuple[str, str]:
    """Return the default and the meaning of a hook, from the docstring of its method or of its class."""
    member = vars(base).get(name)
    if not inspect.isfunction(member):
        about = re.search(rf"^    {name}: (.*?)(?=^    \w+: |\Z)", inspect.getdoc(base) or "", re.DOTALL | re.MULTILINE)
        assert about, f"{base.__name__}.{name} is not among the attributes of the docstring"
        return f"`{member!r}`" if member is not None else "a field", words(about[1])

    text = words(re.split(r"\n(?:Args|Raises):", inspect.getdoc(member) or "")[0])
    default = re.search(r"(?:; by default|\. By default) ([^.]+)\.", text)
    if default is None:
        assert name in base.__abstractmethods__, f"{base.__name__}.{name} says nothing of its default"
        return "none, it is required", text
    return default[1], text.replace(default[0], ".").strip()


def words(text: str) -> str:
    return " ".join(text.replace("``", "`").split())


def table(title: str, base: type, names: list[str]) -> str:
    rows = [f"| `{name}` | {' | '.join(meaning_of(base, name))} |" for name in names]
    return "\n".join([f"| {title} | default | meaning |", "|---|---|---|", *rows])


def tables() -> list[str]:
    return [table(title, base, names) for title, (base, names) in TABLES.items()]


def test_every_hook_is_in_the_docs_as_it_is_in_its_class():
    page = PAGE.read_text("utf-8")
    for expected in tables():
        assert expected in page


if __name__ == "__main__":
    sys.stdout.write("\n\n".join(tables()))
