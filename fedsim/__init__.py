"""fedsim: simulate federated learning at hospitals, banks and schools, with a ledger of the privacy that is spent.

``fedsim.run("hospital-heart")`` runs a scenario and returns a pandas table; ``fedsim.load(run_dir)`` reads a run.
``fedsim.sweep`` and ``fedsim.tune`` compare arms over epsilons and settings.
``fedsim.export(run_dir, "model")`` hands its model on, and ``fedsim.predict("model", frame)`` predicts new rows.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fedsim.experiments.deciding.python import sweep, tune
    from fedsim.experiments.experiment import run
    from fedsim.exporting.predict import predict
    from fedsim.exporting.write import export
    from fedsim.mistakes import Mistake
    from fedsim.results.run_directory import load

__all__ = ["Mistake", "export", "load", "predict", "run", "sweep", "tune"]

_HOMES = {
    "run": "fedsim.experiments.experiment",
    "load": "fedsim.results.run_directory",
    "sweep": "fedsim.experiments.deciding.python",
    "tune": "fedsim.experiments.deciding.python",
    "export": "fedsim.exporting.write",
    "predict": "fedsim.exporting.predict",
    "Mistake": "fedsim.mistakes",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401  PEP 562: `fedsim --help` must not import torch
    if name not in _HOMES:
        raise AttributeError(f"module 'fedsim' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
