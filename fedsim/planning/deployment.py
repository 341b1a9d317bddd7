"""What can't be run at real sites, which keep their rows to themselves."""

from collections.abc import Iterator

from fedsim.data.loading import named
from fedsim.privacy.unit import Place
from fedsim.privacy.units import unit_of
from fedsim.scenario.schema import Attack, Faults, Scenario


def deployment_faults(scenario: Scenario) -> Iterator[str]:
    """Yield what keeps real sites from training a scenario."""
    sites = scenario.deployment.sites
    fewest = scenario.deployment.fewest_answers
    partition = scenario.partition
    masked = scenario.secure_aggregation.on or unit_of(scenario.privacy.unit).place is Place.IN_SHARES
    rules = {
        "deployment.sites: expected the names of the sites, got none": not sites,
        f"deployment.fewest_answers: expected at most the {len(sites)} sites that there are, got {fewest}": (
            fewest > len(sites)
        ),
        "partition: expected by = 'natural' and nothing else: real sites have the rows that they have": (
            partition.by != "natural" or partition.sites is not None
        ),
        "attack, faults: expected none: they are simulated": (
            scenario.attack != Attack() or scenario.faults != Faults()
        ),
        "secure_aggregation: expected none: real sites don't mask yet": masked,
        "data.scale: expected 'public': nobody sees the rows of all sites": scenario.data.scale == "learned",
        "training.stopping: expected none: the server has no rows to judge a round on": (
            scenario.training.stopping is not None
        ),
        "training.duration_spread: expected 0: real sites take the time that they take": (
            scenario.training.duration_spread != 0
        ),
    }
    yield from (rule for rule, broken in rules.items() if broken)
    yield from _task_faults(scenario)


def _task_faults(scenario: Scenario) -> Iterator[str]:
    """Yield why a site can't read its own rows, or the server can't tell what a row looks like."""
    if scenario.task is None:
        yield "data.path: expected a named task, whose sites know what a row looks like; a table is one site's own"
        return
    task = named(scenario.task)
    if task.read is None or task.row_shape is None:
        expected = "one that declares its columns and reads an institution's own file (Task.read)"
        yield f"task: expected {expected}, got {scenario.task}"
