"""The rule for delta: below one over the number of records, or publishing a random record would satisfy it.

The number that counts is that of whoever releases: each site's own, or the pool's where the centralized arm is alone;
of sites where whole sites are protected, and of persons where persons are.
It is private, but in a simulation the records are declared for testing, so that the rule may look; a real site chooses
delta by a public bound on its size.
"""

from collections.abc import Iterator

from fedsim.data.federation import Federation
from fedsim.privacy.unit import Protected
from fedsim.privacy.units import unit_of
from fedsim.scenario.schema import Scenario


def delta_faults(scenario: Scenario, federation: Federation) -> Iterator[str]:
    """Yield a fault if delta bounds nothing at any site; where it does at some, the report warns of the others."""
    delta = scenario.privacy.delta
    if not scenario.private or delta is None or scenario.privacy.loose_delta:
        return

    unit = unit_of(scenario.privacy.unit)
    of_persons = unit.protects is Protected.PERSON
    whose = "persons in training rows" if of_persons else "training rows"

    def counts() -> Iterator[int]:
        for site in federation.sites:  # one after another: made-up rows are costly to make
            yield (site.train.persons or 0) if of_persons else len(site.train)

    if unit.protects is Protected.SITE:
        bounds_nothing = delta * len(federation.sites) >= 1
        whose = "number of sites"
    elif scenario.arms == ["centralized"]:
        bounds_nothing = delta * sum(counts()) >= 1
        whose += " of the pool"
    else:
        # The first site at which delta bounds something settles it; nearly always that is the first site.
        bounds_nothing = all(delta * count >= 1 for count in counts())
        whose += " of the smallest site"

    if bounds_nothing:
        yield (
            f"privacy.delta: expected less than one over the {whose}, got {delta:g}: publishing a random one would "
            "satisfy it; privacy.loose_delta = true runs it all the same"
        )
