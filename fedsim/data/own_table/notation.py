"""Recognize how the numbers and dates of a column are written: ``130,8``, ``$250,000``, ``69 y``.

A column is read in a notation only if all of its values agree in it, and if no other notation
would read another number from them. What is in doubt is refused; an entry's ``written`` decides.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np

POINT = "1,234.5"  # thousands parted by commas, the decimal mark is a point
COMMA = "1.234,5"  # thousands parted by points, the decimal mark is a comma
NUMBER_NOTATIONS = (POINT, COMMA)

_SIGN = r"[+\-−]?"
_BODY = {
    POINT: r"(?:\d{1,3}(?:,\d{3})+|\d{1,3}(?:[ '’]\d{3})+|\d+)(?:\.\d*)?|\.\d+",
    COMMA: r"(?:\d{1,3}(?:\.\d{3})+|\d{1,3}(?:[ '’]\d{3})+|\d+)(?:,\d*)?|,\d+",
}
_CURRENCY = r"(?:[$€£¥₹₽₩₪₺]|[A-Z]{3} |(?:US|C|A|NZ|HK|S|R)\$)"
_UNIT = r"(?:[^\W\d_]|[%‰°$€£¥₹])[^\d,;]{0,15}"  # behind a number: y, kg, mg/dL, %, °C
_NUMBER = re.compile(
    rf"(?P<sign>{_SIGN})\s?(?P<before>{_CURRENCY})?\s?(?P<sign2>{_SIGN})"
    rf"(?P<body>[\d.,'’ ]*\d[.,]?)(?P<exponent>[eE][+-]?\d+)?\s?(?P<after>{_UNIT}|)"
)
_IN_DOUBT = re.compile(r"\d{1,3}[.,]\d{3}")


@dataclass(frozen=True)
class Notation:
    """A way in which all numbers of a column are written.

    Attributes:
        name: ``1,234.5``, ``1.234,5``, or empty for plain numbers.
        unit: The currency or unit that stands at the numbers; empty for none.
        numbers: The number of each text, float64.
    """

    name: str
    unit: str
    numbers: np.ndarray

    @property
    def said(self) -> str:
        """A note on the notation; empty for plain numbers."""
        parts = []
        if self.name:
            parts.append(f"numbers as in {self.name}")
        if self.unit:
            parts.append(f"numbers of {self.unit}")
        return " and ".join(parts)


@dataclass(frozen=True)
class _Split:
    """A text that is a number with its unit: what stands at it, and the digits with their marks."""

    sign: str
    body: str
    exponent: str
    unit: str


def _split(text: str) -> _Split | None:
    match = _NUMBER.fullmatch(text)
    if match is None:
        return None
    if match["before"] and match["after"]:
        return None
    return _Split(
        sign=match["sign"] or match["sign2"],
        body=match["body"].strip(),
        exponent=match["exponent"] or "",
        unit=(match["before"] or match["after"]).strip(),
    )


def looks_like_number(text: str) -> bool:
    """Return whether a text is a number with at most a unit, in any notation."""
    return _split(text) is not None


def is_bare_number(text: str) -> bool:
    """Return whether a text is a number in any notation, without a unit."""
    split = _split(text)
    return split is not None and not split.unit


def possible_notations(texts: Sequence[str]) -> dict[str, Notation]:
    """Find the notations in which all texts are numbers, with at most one unit.

    Args:
        texts: Distinct texts, at least one.
    """
    splits = []
    for text in texts:
        split = _split(text)
        if split is None:
            return {}
        splits.append(split)

    # A currency or a unit may be left out at some values; a percent sign may not: 45 is not 45 %.
    units = {split.unit for split in splits} - {""}
    some_lack_it = any(not split.unit for split in splits)
    if len(units) > 1 or ("%" in units and some_lack_it):
        return {}
    unit = "".join(units)

    found = {}
    is_plain = all(re.fullmatch(r"[\d.]+", split.body) for split in splits)
    for name, body in _BODY.items():
        if all(re.fullmatch(body, split.body) for split in splits):
            numbers = np.array([_value(name, split) for split in splits])
            shown = "" if is_plain and name == POINT else name
            found[name] = Notation(shown, unit, numbers)
    return found


def _value(name: str, split: _Split) -> float:
    digits = re.sub(r"[ '’]", "", split.body)
    thousands_mark = "," if name == POINT else "."
    digits = digits.replace(thousands_mark, "").replace(",", ".")
    number = float(digits + split.exponent)
    return -number if split.sign in ("-", "−") else number


def plain_is_in_doubt(texts: Sequence[str]) -> bool:
    """Return whether plain numbers could be thousands parted by points: ``1.234``, ``85.163``."""
    with_point = [text for text in texts if "." in text]
    return bool(with_point) and all(_IN_DOUBT.fullmatch(text.lstrip("+-")) for text in with_point)


def decided(found: Mapping[str, Notation], delimiter: str, file_mark: str) -> Notation | None:
    """Choose among the possible notations of a column; None if it is in doubt.

    Args:
        found: The possible notations.
        delimiter: The character between the file's fields; empty if there is none.
        file_mark: The notation that other columns of the file show beyond doubt; empty if none.
    """
    notations = list(found.values())
    if len(notations) == 1:
        return notations[0]
    agree = len(notations) > 1 and np.array_equal(notations[0].numbers, notations[1].numbers)
    if agree:
        return Notation("", notations[0].unit, notations[0].numbers)
    if file_mark in found:
        return found[file_mark]
    if delimiter == "," and POINT in found:
        return found[POINT]  # a program that parts columns by commas has points in its numbers
    return None


# Dates

_TIME = r"(?P<time>[ T]\d{1,2}:\d{2}(?::\d{2}(?:\.\d+)?)?)?(?:Z|[+-]\d{2}:?\d{2})?"
_SHAPES = {
    "2020-12-31": r"(?P<y>\d{4})[-/](?P<m>\d{1,2})[-/](?P<d>\d{1,2})",
    "31.12.2020": r"(?P<d>\d{1,2})\.(?P<m>\d{1,2})\.(?P<y>\d{4})",
    "31/12/2020": r"(?P<d>\d{1,2})[-/](?P<m>\d{1,2})[-/](?P<y>\d{4})",
    "12/31/2020": r"(?P<m>\d{1,2})[-/](?P<d>\d{1,2})[-/](?P<y>\d{4})",
}
_DATES = {name: re.compile(shape + _TIME) for name, shape in _SHAPES.items()}
DATE_NOTATIONS = tuple(_SHAPES)
_A_DAY = 86_400.0


def looks_like_date(text: str) -> bool:
    """Return whether a text has the shape of a date."""
    return any(pattern.fullmatch(text) for pattern in _DATES.values())


def possible_dates(texts: Sequence[str]) -> dict[str, np.ndarray]:
    """Find the notations in which all texts are dates.

    Returns:
        {notation: days since 1970-01-01 of each text, float64}.
    """
    found = {}
    for name in DATE_NOTATIONS:
        days = _days_of_all(texts, name)
        if days is not None:
            found[name] = days
    return found


def _days_of_all(texts: Sequence[str], name: str) -> np.ndarray | None:
    days = []
    for text in texts:
        day = days_of(text, name)
        if day is None:
            return None
        days.append(day)
    return np.array(days)


def days_of(text: str, name: str = DATE_NOTATIONS[0]) -> float | None:
    """Convert a date to days since 1970-01-01; None if it is none in this notation."""
    match = _DATES[name].fullmatch(text)
    if match is None:
        return None
    try:
        day = datetime(int(match["y"]), int(match["m"]), int(match["d"]), tzinfo=UTC)
    except ValueError:
        return None
    seconds = (day - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds()
    if match["time"]:
        parts = [float(part) for part in match["time"][1:].split(":")]
        seconds += sum(part * size for part, size in zip(parts, (3600, 60, 1), strict=False))
    return seconds / _A_DAY
