"""Hold a column as its distinct values and a code for each row.

Whatever is asked of a column (which values are missing, whether all are numbers, how often a wrong
value occurs) is asked of its distinct values, which are few even where rows are many.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

_PLAIN_NUMBER = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$"
_AS_NUMBER = pc.MatchSubstringOptions(_PLAIN_NUMBER)
_MOST_DIGITS = 2**64  # larger whole numbers are written with an exponent


def compute(name: str, *arguments: Any, options: Any = None) -> Any:  # noqa: ANN401
    """Call a function of Arrow by its name."""
    return pc.call_function(name, list(arguments), options)


@dataclass(frozen=True)
class Values:
    """A column: each row's value is ``distinct[codes[row]]``; a code of -1 has no value at all.

    Attributes:
        distinct: The distinct values: text without blanks around it, whole numbers or float64.
        codes: The number of each row's value among the distinct ones, int32 (rows,).
    """

    distinct: pa.Array
    codes: np.ndarray

    def __len__(self) -> int:
        return len(self.codes)

    @property
    def is_text(self) -> bool:
        """Whether the values are text, as all values of a CSV file are."""
        return pa.types.is_string(self.distinct.type)

    @cached_property
    def counts(self) -> np.ndarray:
        """The number of rows of each distinct value, int64 (distinct values,)."""
        present = self.codes[self.codes >= 0]
        return np.bincount(present, minlength=len(self.distinct))

    @cached_property
    def first_rows(self) -> np.ndarray:
        """The first row of each distinct value, int64 (distinct values,)."""
        rows = np.arange(len(self.codes))
        first = np.full(len(self.distinct) + 1, len(self.codes))
        first[self.codes[::-1]] = rows[::-1]  # of several rows the last one written stays
        return first[:-1]

    @cached_property
    def texts(self) -> list[str]:
        """The distinct values as text; whole numbers have all their digits."""
        if self.is_text:
            return self.distinct.to_pylist()
        return [_as_text(value) for value in self.distinct.to_pylist()]

    @cached_property
    def folded(self) -> list[str]:
        """The distinct values in lower case and with single blanks, for comparing words."""
        return [fold(text) for text in self.texts]

    @cached_property
    def plain_numbers(self) -> np.ndarray:
        """The distinct values as numbers, NaN where they are not plainly written, float64."""
        if not self.is_text:
            return self.distinct.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)

        is_number = compute("match_substring_regex", self.distinct, options=_AS_NUMBER)
        written = self.distinct.filter(is_number).cast(pa.float64())
        numbers = np.full(len(self.distinct), np.nan)
        numbers[is_number.to_numpy(zero_copy_only=False)] = written.to_numpy(zero_copy_only=False)
        return numbers

    def spread(self, by_distinct: np.ndarray, fill: Any) -> np.ndarray:  # noqa: ANN401
        """Give each row what its distinct value has, and ``fill`` to rows without a value."""
        with_fill = np.append(by_distinct, np.array([fill], dtype=by_distinct.dtype))
        return with_fill[self.codes]  # the code -1 takes the last

    def kept(self, keep: np.ndarray) -> "Values":
        """Keep some rows, bool (rows,), and the distinct values that they have."""
        return _compact(self.distinct, self.codes[keep])


def fold(text: str) -> str:
    """Return a text in lower case and with single blanks, for comparing words."""
    return " ".join(text.casefold().split())


def from_texts(texts: Sequence[str], codes: np.ndarray) -> Values:
    """Make a column of texts, of which several may be equal, and the codes of its rows."""
    numbers: dict[str, int] = {}
    for text in texts:
        numbers.setdefault(text, len(numbers))
    new_codes = np.array([*(numbers[text] for text in texts), -1], np.int32)
    return _compact(pa.array(list(numbers), pa.string()), new_codes[codes])


def of_chunks(chunks: Sequence[pa.Array]) -> Values:
    """Make a column of its parts, one after the other, each an Arrow dictionary."""
    whole = pa.chunked_array(chunks).unify_dictionaries().combine_chunks()
    if isinstance(whole, pa.ChunkedArray):
        whole = whole.chunk(0)
    codes = whole.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int32)
    return _compact(whole.dictionary, codes)


def joined(parts: Sequence[Values]) -> Values:
    """Put columns under one another."""
    texts: list[str] = []
    codes = []
    for part in parts:
        shifted = np.where(part.codes >= 0, part.codes + len(texts), -1)
        codes.append(shifted.astype(np.int32))
        texts.extend(part.texts)
    return from_texts(texts, np.concatenate(codes))


def changed(values: Values, change: Callable[[str], str]) -> Values:
    """Apply a change to every distinct text; values that become equal become one."""
    return from_texts([change(text) for text in values.texts], values.codes)


def _compact(distinct: pa.Array, codes: np.ndarray) -> Values:
    """Drop distinct values that no row has."""
    used = np.zeros(len(distinct), bool)
    used[codes[codes >= 0]] = True
    if used.all():
        return Values(distinct, codes)
    new_codes = np.append(np.cumsum(used) - 1, -1).astype(np.int32)
    return Values(distinct.filter(pa.array(used)), new_codes[codes])


def _as_text(value: float) -> str:
    is_whole = math.isfinite(value) and abs(value) < _MOST_DIGITS and value == int(value)
    return str(int(value)) if is_whole else repr(value)
