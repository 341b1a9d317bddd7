"""Engines execute the messages that a round's sites are sent.

Each engine is a file with two functions. ``execute(client_app, cohort_size)`` returns a function
that executes a round's messages. ``train_all(works, cohort_size)`` trains sites without messages,
as the local-only arm needs it.
"""

import importlib
from types import ModuleType

from fedsim.scenario import catalog


def load(name: str) -> ModuleType:
    """Import the engine of this name.

    Raises:
        Mistake: There is no such engine; the message lists the nearest names.
    """
    catalog.check("engines", name)
    return importlib.import_module(f"{__name__}.{name}")
