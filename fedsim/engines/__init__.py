"""Engines: what executes the clients' messages.

Each file has ``execute(client_app, cohort_size)``, which returns what executes a round's messages, and
``train_all(works, cohort_size)``, which trains sites without messages, as the local-only arm does.
"""

import importlib
from types import ModuleType

from fedsim.scenario import catalog


def load(name: str) -> ModuleType:
    """Import the engine of this name.

    Raises:
        Mistake: There is no such engine; the message has the nearest names.
    """
    catalog.check("engines", name)
    return importlib.import_module(f"{__name__}.{name}")
