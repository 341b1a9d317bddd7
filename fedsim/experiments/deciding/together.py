"""What many private trainings on the same records cost together, where one is chosen among them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter

from fedsim.experiments.deciding.kept import Spent
from fedsim.privacy.accounting import Neighbours, Segment
from fedsim.privacy.accounting import epsilon as epsilon_of
from fedsim.privacy.unit import Protected
from fedsim.privacy.units import unit_of
from fedsim.scenario.schema import Scenario
from fedsim.scenario.unit_facts import UNIT_OF_RECORDS

_SITES_OF = attrgetter("task", "data", "partition")  # all that decides which rows are at one site


@dataclass(frozen=True)
class Released:
    """The privacy that the private trainings on one scenario's records cost together.

    Attributes:
        scenario: The name of the scenario.
        trainings: The number of private trainings.
        epsilon: The epsilon of all of them together, each at the site where it spent most, by
            composition.
        delta: The delta of that epsilon; the least, where several were asked for.
        units: The privacy units of the trainings.
        protected: The thing that epsilon is for: ``record`` or ``whole site``.
    """

    scenario: str
    trainings: int
    epsilon: float
    delta: float
    units: Sequence[str]
    protected: str


def together(spent: Mapping[str, Sequence[tuple[Scenario, Spent]]]) -> list[Released]:
    """Compose the releases of the private trainings on each scenario's records.

    Args:
        spent: {name of a scenario: its private trainings, each with its releases at its costliest site}.
    """
    composed = []
    for name, trainings in spent.items():
        scenarios = [scenario for scenario, _ in trainings]
        segments = []
        for _, releases in trainings:
            segments += [Segment(*values) for values in releases]

        delta = min(scenario.privacy.delta for scenario in scenarios if scenario.privacy.delta)
        protected, neighbours = _protected(scenarios)
        released = Released(
            scenario=name,
            trainings=len(trainings),
            epsilon=epsilon_of(segments, delta, neighbours),
            delta=delta,
            units=sorted({scenario.privacy.unit for scenario in scenarios}),
            protected=protected,
        )
        composed.append(released)
    return composed


def _protected(scenarios: Sequence[Scenario]) -> tuple[str, Neighbours]:
    """Return the thing that some trainings together protect, and the neighbouring relation.

    It is a whole site, or a person, if all of them protect that and have the same sites, else one record: where more
    is protected, a record that changes replaces its site's update, or the sum of its person. To be replaced costs at
    least as much as to be added or removed, so if anything is replaced, all counts as replaced.
    """
    units = {unit_of(scenario.privacy.unit) for scenario in scenarios}
    protected = {unit.promise.protected for unit in units}
    first = scenarios[0]
    same_sites = all(_SITES_OF(other) == _SITES_OF(first) for other in scenarios)
    replaced = any(scenario.privacy.relation == "replace-one" for scenario in scenarios)

    all_protect_alike = {unit.protects for unit in units} in ({Protected.SITE}, {Protected.PERSON})
    if not all_protect_alike or not same_sites:
        record = unit_of(UNIT_OF_RECORDS).promise.protected
        replaced = replaced or protected != {record}
        protected = {record}

    whom = " or ".join(sorted(protected))
    return whom, "replace-one" if replaced else "add-or-remove-one"
