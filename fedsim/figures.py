"""How numbers are written for people: figures, intervals, epsilons, shares and settings, in one place.

Everything that is printed, in the terminal, in reports and in messages, comes from here, so that one run never shows
one number in two ways. The module imports nothing of fedsim and nothing heavy: every room may use it.
"""

import math
from collections.abc import Sequence
from datetime import date, time

UNKNOWN = "–"
"""Stands for a number that nobody knows."""

_FEWEST_DIGITS = 3
_MOST_DIGITS = 6
_SMALLEST_SHOWN = 0.0005  # three digits would show less as zero
_LARGE = 100  # from here on, three digits after the point say nothing


def figure(value: float, signed: bool = False, least_digits: int = _FEWEST_DIGITS) -> str:
    """Write a metric with three digits: ``0.895``, and with a sign ``+0.014`` or ``−0.002``; ``–`` for NaN.

    A change that three digits would show as zero gets four, a large number one, and there is no ``−0.000``.
    """
    if math.isnan(value):
        return UNKNOWN
    if signed and 0 < abs(value) < _SMALLEST_SHOWN:
        digits = 4
    elif abs(value) < _LARGE:
        digits = 3
    else:
        digits = 1

    digits += least_digits - _FEWEST_DIGITS
    rounded = round(value, digits) + 0.0  # -0.0 + 0.0 is 0.0
    sign = "+" if signed and rounded else ""
    return f"{rounded:{sign}.{digits}f}".replace("-", "−")


def coefficient(value: float) -> str:
    """Write a coefficient with its sign and three significant digits: ``+0.00164``, ``−1.23e-05``, ``+3100``."""
    if math.isnan(value):
        return UNKNOWN
    least = 1e-4  # from here on, and up to a million, an exponent is harder to read than zeros
    if value and not least <= abs(value) < 1e6:
        return f"{value:+.2e}".replace("-", "−")
    if abs(value) >= _LARGE:
        return f"{value:+.0f}".replace("-", "−")
    return f"{value:+#.3g}".replace("-", "−") if value else "0"


def bounds(low: float, high: float, signed: bool = False) -> str:
    """Write an interval as ``0.843 to 0.947``, with as many digits as tell its ends apart; ``–`` where one is NaN."""
    if math.isnan(low) or math.isnan(high):
        return UNKNOWN
    digits = _FEWEST_DIGITS
    while figure(low, signed, digits) == figure(high, signed, digits) and digits < _MOST_DIGITS:
        digits += 1
    return f"{figure(low, signed, digits)} to {figure(high, signed, digits)}"


def margin(value: float, low: float, high: float, signed: bool = False) -> str:
    """Write a mean and half of its interval as ``0.895 ± 0.052``; the mean alone where there is no interval.

    Of an interval that is cut where the metric ends, the longer half counts.
    """
    written = figure(value, signed)
    if math.isnan(value) or math.isnan(low) or math.isnan(high):
        return written
    half = max(high - value, value - low)
    if half < _SMALLEST_SHOWN:
        return f"{written} ± <0.001"
    return f"{written} ± {figure(half)}"


def epsilon(value: float) -> str:
    """Write an epsilon that was spent or is claimed as ``7.96``, rounded up: an upper bound must stay one."""
    if math.isnan(value):
        return UNKNOWN
    if math.isinf(value):
        return "unbounded"
    return f"{math.ceil(round(value * 100, 6)) / 100:.2f}"


def proven_epsilon(value: float) -> str:
    """Write an epsilon that an attack proved as ``1.23``, rounded down: a lower bound must stay one."""
    if math.isnan(value):
        return UNKNOWN
    if math.isinf(value):
        return "unbounded"
    return f"{math.floor(round(value * 100, 6)) / 100:.2f}"


def estimated_epsilon(value: float) -> str:
    """Write an epsilon that is estimated as ``1.23``, rounded to the nearest: it is no bound."""
    return UNKNOWN if math.isnan(value) else f"{value:.2f}"


def share(value: float, digits: int = 0) -> str:
    """Write a share as ``12%``, or with one digit as ``12.3%``."""
    return UNKNOWN if math.isnan(value) else f"{value:.{digits}%}"


def setting(value: float) -> str:
    """Write a setting or a threshold as short as it goes: ``0.0001``, ``8``, ``1e-12``."""
    return f"{value:g}"


def level(value: float | str) -> str:
    """Write the level of a category: a text as it is, a number as a setting."""
    return value if isinstance(value, str) else setting(value)


def listed(names: Sequence[str], most: int) -> str:
    """Write names in a row, and of those beyond ``most`` their number."""
    more = len(names) - most
    shown = ", ".join(names[:most])
    return f"{shown} and {more:,} more" if more > 0 else shown


def as_written(value: object) -> str:
    """Write a value that came as TOML would have it: ``'adam'``, ``8.0``, ``true``, ``inf``, ``2026-01-31``.

    It is for messages about it: neither ``True`` nor ``np.float64(inf)`` is what anybody wrote.
    """
    to_plain = getattr(value, "item", None)  # of a NumPy number, whose repr names its type
    plain = to_plain() if callable(to_plain) else value
    if isinstance(plain, bool):
        return "true" if plain else "false"
    if isinstance(plain, date | time):
        return plain.isoformat()
    return repr(plain)


def with_article(label: str) -> str:
    """Return ``an AUC``, ``an R²``, ``a share of rows``: a figure's name with the article that its sound asks for."""
    first = label.split()[0].rstrip(",")
    is_spelled = first.upper() == first  # AUC, RMSE, R²: read letter by letter
    begins_with_vowel = label[0] in ("AEFHILMNORSX" if is_spelled else "aeioAEIO")
    return f"an {label}" if begins_with_vowel else f"a {label}"
