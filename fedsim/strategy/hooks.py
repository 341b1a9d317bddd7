"""Misspelt hooks: a method that nothing calls would otherwise be passed over in silence."""

import difflib
import inspect
from collections.abc import Iterable

from fedsim.mistakes import Mistake

_ALIKE = 0.8  # of letters in common, from which on a name is taken for a misspelt hook


def check_spelling(kind: type, hooks: Iterable[str], ours: Iterable[type]) -> None:
    """Refuse a class with a public name that is nearly, but not quite, the name of a hook.

    Args:
        kind: The class.
        hooks: The names of all hooks it may have.
        ours: Base classes of fedsim, whose own names are right.

    Raises:
        Mistake: There is such a name; the message has the nearest hook.
    """
    by_letters = {_letters(hook): hook for hook in hooks}
    written = [part for part in kind.__mro__ if part not in {*ours, object}]
    for part in written:
        for name in public_names(part):
            if name in by_letters.values():
                continue
            close = difflib.get_close_matches(_letters(name), by_letters, n=1, cutoff=_ALIKE)
            if close:
                raise Mistake(
                    f"{kind.__name__}.{name}: nothing calls a hook of this name; did you mean "
                    f"{by_letters[close[0]]!r}? (A helper of your own may be called _{name}.)"
                )


def public_names(kind: type) -> list[str]:
    """Return the names that a class itself defines or annotates, without those that begin with ``_``."""
    names = dict.fromkeys([*vars(kind), *inspect.get_annotations(kind)])
    return [name for name in names if not name.startswith("_")]


def defines(kind: type, name: str) -> bool:
    """Whether a class or one of its bases defines a name."""
    return any(name in vars(part) for part in kind.__mro__)


def _letters(name: str) -> str:
    """Return a name as it is compared: ``localRule`` and ``local_rule`` are alike."""
    return name.replace("_", "").lower()
