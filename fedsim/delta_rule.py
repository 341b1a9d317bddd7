"""The rule for delta: below one over the number of records, or publishing a random record would satisfy it.

The number that counts is that of whoever releases: each site's own, or the pool's where the centralized arm is alone.
It is private, but in a simulation the records are declared for testing, so that the rule may look; a real site chooses
delta by a public bound on its size.
"""

from fedsim.federation import Federation
from fedsim.mistakes import Mistake
from fedsim.scenario import Scenario


def check_delta(scenario: Scenario, federation: Federation) -> None:
    """Refuse a delta that bounds nothing at any site; where it does at some, the report warns of the others.

    Raises:
        Mistake: Delta is not below one over the training rows of even the smallest site.
    """
    delta = scenario.privacy.delta
    if not scenario.private or delta is None or scenario.privacy.loose_delta:
        return
    counts = (len(site.train) for site in federation.sites)
    pooled = scenario.arms == ["centralized"]
    if all(delta * count >= 1 for count in ([sum(counts)] if pooled else counts)):  # stops at the first small site
        raise Mistake(
            f"privacy.delta: expected less than one over the training rows of "
            f"{'the pool' if pooled else 'the smallest site'}, got {delta:g}: publishing a random record would "
            "satisfy it; privacy.loose_delta = true runs it all the same"
        )
