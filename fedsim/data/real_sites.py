"""A federation of sites that keep their rows to themselves: all are known by name, and at most one by its rows.

The server has no rows at all. A site has those of its own file. What both need to know of the others, which is the
shape of a row, the task declares.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from fedsim.data.federation import Examples, Federation, Site, own_site
from fedsim.data.loading import check_examples, task_of
from fedsim.data.task import Task
from fedsim.mistakes import Mistake
from fedsim.outcomes import outcome_of
from fedsim.scenario.schema import Scenario


@dataclass(frozen=True)
class OwnRows:
    """The one site whose rows are here.

    Attributes:
        site: Its name.
        path: Its file.
    """

    site: str
    path: Path


def federate_real_sites(scenario: Scenario, seed: int, device: str, own: OwnRows | None) -> Federation:
    """Build the federation as the server sees it, or as one of its sites does.

    Args:
        scenario: The scenario, with the names of its sites.
        seed: The seed of the split.
        device: The device that holds the rows.
        own: The site whose rows are here; None at the server.

    Raises:
        Mistake: The task can't be learned without all rows, or the file has other rows than it declares.
    """
    task = task_of(scenario)
    sites = []
    for number, name in enumerate(scenario.deployment.sites):
        if own is not None and name == own.site:
            sites.append(_own(scenario, task, number, own, seed, device))
        else:
            nothing = _no_rows(task, device)
            sites.append(Site(number, name, nothing, nothing, nothing))
    return Federation(tuple(sites))


def _own(scenario: Scenario, task: Task, number: int, own: OwnRows, seed: int, device: str) -> Site:
    if task.read is None:
        raise Mistake(f"task {scenario.task}: expected a task that reads an institution's own file (Task.read)")
    rows = task.read(own.path)
    check_examples(str(own.path), task, rows.inputs, rows.target)
    if rows.inputs.shape[1:] != task.row_shape:
        raise Mistake(f"{own.path}: expected rows of the shape {task.row_shape}, got {rows.inputs.shape[1:]}")
    return own_site(scenario, task, number, own.site, rows, seed, device)


def _no_rows(task: Task, device: str) -> Examples:
    if task.row_shape is None:
        raise Mistake(f"task {task.title!r}: expected declared columns, which say what a row looks like without any")
    targets = torch.zeros(0, dtype=torch.int64 if outcome_of(task.kind).is_whole else torch.float32)
    return Examples(torch.from_numpy(np.zeros((0, *task.row_shape), np.float32)).to(device), targets.to(device))
