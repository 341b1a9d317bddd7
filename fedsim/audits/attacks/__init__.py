"""The attacks, one file each, with a class derived from ``fedsim.audits.attack.Attack``."""

import importlib

from fedsim.audits.attack import Attack
from fedsim.audits.finding import QUESTIONS
from fedsim.classes import classes_in
from fedsim.scenario import catalog


def load(name: str) -> Attack:
    """Import the attack of this name.

    Raises:
        Mistake: There is no such attack; the message has the nearest names.
        TypeError: Its file does not hold one class derived from ``Attack``.
    """
    catalog.check("audits", name)
    module = importlib.import_module(f"{__name__}.{name}")
    classes = classes_in(module, Attack)
    if len(classes) != 1:
        names = ", ".join(thing.__name__ for thing in classes) or "none"
        raise TypeError(f"{module.__file__}: expected one class derived from Attack, got {names}")
    return classes[0]()  # pyright: ignore[reportAbstractUsage]  a class derived from it


def all_attacks() -> list[Attack]:
    """Load the attacks of the folder, in the order of the questions they answer, then of their names."""
    attacks = [load(name) for name in catalog.titles("audits")]
    return sorted(attacks, key=_order)


def _order(attack: Attack) -> tuple[int, str, str]:
    if attack.question in QUESTIONS:
        return QUESTIONS.index(attack.question), "", attack.name
    return len(QUESTIONS), attack.question, attack.name
