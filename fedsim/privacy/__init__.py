"""Differential privacy: accounting, and the ledger of what was released.

``fedsim.privacy(...)`` is the calculator: this package is called like a function, see
``fedsim.privacy.calculator.privacy``.
"""

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fedsim.privacy.calculator import Answer


class _Calculator(ModuleType):
    """This package; a function of its name in ``fedsim`` would be lost as soon as the package is imported."""

    def __call__(self, *args: Any, **settings: Any) -> "Answer":  # noqa: ANN401  the calculator's own
        from fedsim.privacy.calculator import privacy

        return privacy(*args, **settings)


sys.modules[__name__].__class__ = _Calculator
