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
    counts = [len(site.train) for site in federation.sites]
    whose = "training rows"
    if unit.protects is Protected.PERSON:
        counts = [site.train.persons or 0 for site in federation.sites]
        whose = "persons in training rows"

    if unit.protects is Protected.SITE:
        least = len(federation.sites)
        whose = "number of sites"
    elif scenario.arms == ["centralized"]:
        least = sum(counts)
        whose += " of the pool"
    else:
        least = min(counts)
        whose += " of the smallest site"

    if delta * least >= 1:
        yield (
            f"privacy.delta: expected less than one over the {whose}, got {delta:g}: publishing a random one would "
            "satisfy it; privacy.loose_delta = true runs it all the same"
        )
