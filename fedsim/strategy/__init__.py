"""The contract of a strategy: everything that a strategy file imports."""

from fedsim.strategy.contract import FACTS, REPORTS, WITHOUT_NOISE, Buffered, Strategy, check, mean_delta, zeros
from fedsim.strategy.local_rule import CHOSEN, Choosing, Comparing, LocalRule, Part, Parts, Personal, Plain, State
from fedsim.strategy.private_layers import PrivateLayers

__all__ = [
    "CHOSEN",
    "FACTS",
    "REPORTS",
    "WITHOUT_NOISE",
    "Buffered",
    "Choosing",
    "Comparing",
    "LocalRule",
    "Part",
    "Parts",
    "Personal",
    "Plain",
    "PrivateLayers",
    "State",
    "Strategy",
    "check",
    "mean_delta",
    "zeros",
]
