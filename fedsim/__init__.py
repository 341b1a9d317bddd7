"""fedsim: simulate federated learning at hospitals, banks and schools, with a ledger of the privacy that is spent.

``fedsim.run("hospital-heart")`` runs a scenario and returns a pandas table; ``fedsim.load(run_dir)`` reads a run, with
its models. ``compare``, ``sweep`` and ``tune`` run many trainings, ``audit`` attacks them, ``privacy`` computes an
epsilon or a noise, ``check`` tries a strategy, ``resume`` goes on with a run, ``export`` and ``predict`` hand a model
on, and ``list_tasks`` and its like say what there is. All return frames or dataclasses and print nothing; a user's
mistake is a ``fedsim.Mistake``. See docs/python.md.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fedsim.experiments.deciding.python import sweep, tune
    from fedsim.experiments.experiment import run
    from fedsim.exporting.predict import predict
    from fedsim.exporting.write import export
    from fedsim.mistakes import Mistake
    from fedsim.privacy.calculator import privacy
    from fedsim.python.auditing import audit
    from fedsim.python.checking import check
    from fedsim.python.comparing import compare
    from fedsim.python.listing import (
        list_attacks,
        list_audits,
        list_engines,
        list_scenarios,
        list_strategies,
        list_tasks,
        list_trackers,
        list_units,
    )
    from fedsim.python.runs import load, resume

__all__ = [
    "Mistake",
    "audit",
    "check",
    "compare",
    "export",
    "list_attacks",
    "list_audits",
    "list_engines",
    "list_scenarios",
    "list_strategies",
    "list_tasks",
    "list_trackers",
    "list_units",
    "load",
    "predict",
    "privacy",
    "resume",
    "run",
    "sweep",
    "tune",
]

_HOMES = {
    "run": "fedsim.experiments.experiment",
    "load": "fedsim.python.runs",
    "resume": "fedsim.python.runs",
    "compare": "fedsim.python.comparing",
    "audit": "fedsim.python.auditing",
    "check": "fedsim.python.checking",
    "sweep": "fedsim.experiments.deciding.python",
    "tune": "fedsim.experiments.deciding.python",
    "export": "fedsim.exporting.write",
    "predict": "fedsim.exporting.predict",
    "list_attacks": "fedsim.python.listing",
    "list_audits": "fedsim.python.listing",
    "list_engines": "fedsim.python.listing",
    "list_scenarios": "fedsim.python.listing",
    "list_strategies": "fedsim.python.listing",
    "list_tasks": "fedsim.python.listing",
    "list_trackers": "fedsim.python.listing",
    "list_units": "fedsim.python.listing",
    "Mistake": "fedsim.mistakes",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401  PEP 562: `fedsim --help` must not import torch
    from importlib import import_module

    if name == "privacy":  # the package, which is called like a function
        return import_module("fedsim.privacy")
    if name not in _HOMES:
        raise AttributeError(f"module 'fedsim' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
