"""Try a strategy in Python: what ``fedsim check`` does as well."""

from dataclasses import asdict

import pandas as pd

from fedsim.scenario.changes import allow_strategy, named
from fedsim.strategy.contract import Strategy
from fedsim.strategy.contract_check import examine
from fedsim.strategy.given_strategy import text_of_strategy
from fedsim.strategy.make import made_of


def check(strategy: Strategy | type | str, *settings: str) -> pd.DataFrame:
    """Try a strategy on made-up updates.

    Args:
        strategy: A name such as ``krum:f=2``, a file of your own, a class, or an object with its hyperparameters.
        settings: ``"f=2"``: its hyperparameters.

    Returns:
        A row for each check: its ``name``, whether it ``holds``, whether it is ``required`` of every strategy, and
        ``detail``.

    Raises:
        Mistake: There is no such strategy, or it refuses a value.
    """
    text = text_of_strategy(strategy)
    name = allow_strategy(text)
    _, parameters = named(text)
    findings = examine(made_of(name, [*parameters, *settings]))
    return pd.DataFrame([asdict(finding) for finding in findings])
