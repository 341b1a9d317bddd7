"""The names that there are to choose from, as frames: what ``fedsim list`` prints."""

import pandas as pd

from fedsim.scenario import catalog


def list_scenarios() -> pd.DataFrame:
    """Return ``name`` and ``title`` of each scenario that comes with fedsim."""
    return _listed("scenarios")


def list_tasks() -> pd.DataFrame:
    """Return ``name`` and ``title`` of each task that comes with fedsim or an installed package."""
    return _listed("tasks")


def list_strategies() -> pd.DataFrame:
    """Return ``name`` and ``title`` of each strategy that comes with fedsim."""
    return _listed("strategies")


def list_attacks() -> pd.DataFrame:
    """Return ``name`` and ``title`` of each attack by sites."""
    return _listed("attacks")


def list_engines() -> pd.DataFrame:
    """Return ``name`` and ``title`` of each engine."""
    return _listed("engines")


def list_audits() -> pd.DataFrame:
    """Return ``name`` and ``title`` of each attack of an audit."""
    return _listed("audits")


def list_units() -> pd.DataFrame:
    """Return ``name`` and ``title`` of each privacy unit."""
    return _listed("units")


def list_trackers() -> pd.DataFrame:
    """Return ``name`` and ``title`` of each tracker."""
    return _listed("trackers")


def _listed(kind: str) -> pd.DataFrame:
    titles = catalog.titles(kind)
    return pd.DataFrame({"name": list(titles), "title": list(titles.values())})
