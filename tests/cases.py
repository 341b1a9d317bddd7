"""Many cases of one test: a few of them are run by ``make test``, the others by ``make whole``."""

from collections.abc import Iterable
from typing import Any

import pytest
from _pytest.mark import ParameterSet


def others_whole(cases: Iterable[Any], *quick: object) -> list[ParameterSet]:
    """Mark cases as whole, except those that are named: each by itself, or by the first of its values.

    Cases with several values are tuples, or made with ``pytest.param``. A name without a case is an AssertionError.
    """
    found, missing = [], list(quick)
    for case in cases:
        made = isinstance(case, ParameterSet)
        values = case.values if made else case if isinstance(case, tuple) else (case,)
        named = [name for name in missing if name in (case, values[0])]
        missing = [name for name in missing if name not in named]
        marks = [*(case.marks if made else ()), *(() if named else [pytest.mark.whole])]
        found.append(pytest.param(*values, marks=marks, id=case.id if made else None))
    assert not missing, f"no case is {missing}"
    return found
