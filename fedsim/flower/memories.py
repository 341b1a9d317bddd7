"""What sites remember from round to round, as values that can be written down: Flower keeps it in their contexts."""

from collections.abc import Mapping
from typing import Any

from fedsim.flower.grid import InProcessGrid
from fedsim.flower.records import keep, kept_in
from fedsim.flower.secure.site import last_round, remember_round


def snapshot(grid: InProcessGrid) -> dict[int, Any]:
    """Return {node: what it remembers} of the nodes that remember something.

    That is what their local rules keep, and which round of secure aggregation was their last; no secret of a round.
    """
    found = {}
    for node, context in grid.contexts.items():
        kept = kept_in(context)
        last = last_round(context)
        if kept or last is not None:
            found[node] = {"kept": kept, "secure_round": last}
    return found


def restore(grid: InProcessGrid, memories: Mapping[int, Any]) -> None:
    """Give the nodes back what ``snapshot`` returned."""
    for node, memory in memories.items():
        context = grid.context(node)
        keep(context, memory["kept"])
        if memory["secure_round"] is not None:
            remember_round(context, memory["secure_round"])
