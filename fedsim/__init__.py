"""fedsim: simulate federated learning at hospitals, banks and schools, with a ledger of the privacy that is spent.

``fedsim.run("hospital-heart")`` runs a scenario and returns a pandas table; ``fedsim.load(run_dir)`` reads a run.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fedsim.experiments.experiment import run
    from fedsim.mistakes import Mistake
    from fedsim.results.run_directory import load

__all__ = ["Mistake", "load", "run"]

_HOMES = {"run": "fedsim.experiments.experiment", "load": "fedsim.results.run_directory", "Mistake": "fedsim.mistakes"}


def __getattr__(name: str) -> Any:  # noqa: ANN401  PEP 562: `fedsim --help` must not import torch
    if name not in _HOMES:
        raise AttributeError(f"module 'fedsim' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
