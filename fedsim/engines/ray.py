"""The ray engine shares the sites of a round out among actors of Ray, by Flower's simulation.

Each actor trains its sites one after another or as a stack, as ``ray.inside`` says. The arms without rounds are trained
in this process, by the same engine. It needs the extra ``ray``: ``pip install 'fedsim-flower[ray]'``.
"""

from collections.abc import Sequence

from flwr.clientapp import ClientApp

from fedsim.engines import cohort, serial
from fedsim.flower import nodes
from fedsim.flower.grid import Execute
from fedsim.training.work import Done, Work


def execute(app: ClientApp, cohort_size: int | str = "auto") -> Execute:
    """Return the function that lets the nodes at hand execute a round's messages.

    Raises:
        RunFailed: There are none.
    """
    return nodes.execute()


def train_all(works: Sequence[Work], cohort_size: int | str = "auto") -> list[Done]:
    """Train all works in this process, as an actor would."""
    engine = cohort if nodes.inside() == "cohort" else serial
    return engine.train_all(works, cohort_size)
