"""What is claimed for one site: by a scenario before it is run, or by the ledger of a run."""

from dataclasses import dataclass, replace

from fedsim.arms import noise_for, passes_of
from fedsim.federation import federate
from fedsim.mistakes import Mistake
from fedsim.privacy.accounting import Neighbours, epsilon
from fedsim.privacy.ledger import Mechanism
from fedsim.results import Run
from fedsim.sampling import most_rounds
from fedsim.scenario import Scenario
from fedsim.training import expected_batch


@dataclass(frozen=True)
class Claim:
    """What one site does to its rows in a whole training, and the epsilon that is claimed for it."""

    mechanism: Mechanism
    epsilon: float
    delta: float
    neighbours: Neighbours


def claim_of(scenario: Scenario) -> Claim | None:
    """Return what a scenario claims for each site; None if it promises no privacy."""
    if not scenario.private or scenario.privacy.delta is None:
        return None
    if scenario.privacy.unit != "record":
        raise Mistake(f'privacy.unit: expected "record", whose records an audit attacks, got {scenario.privacy.unit!r}')
    federation = federate(scenario, scenario.seed)
    rounds = most_rounds(scenario, scenario.seed, federation.names)
    mechanism = Mechanism(
        scenario.training.sampling_rate,
        noise_for(scenario, scenario.seed, "federated"),
        scenario.privacy.clip,
        expected_batch(scenario, federation.names[0]),
        rounds * scenario.training.local_steps * passes_of(scenario),
    )
    delta, neighbours = scenario.privacy.delta, scenario.privacy.neighbours
    return Claim(mechanism, epsilon([mechanism.segment()], delta, neighbours), delta, neighbours)


def claim_in(run: Run) -> Claim | None:
    """Return what a run's ledger claims for the site that spent the most; None if nothing was released under privacy.

    Of a federated training, if there was one. Rounds of one site that were not alike can't be audited as one training;
    the site's first mechanism stands for all.
    """
    released = [one for one in run.ledger["trainings"] if one["entries"]]
    own = [one for one in released if one["arm"] == "federated"] or released
    if not own:
        return None
    if run.ledger["unit"] != "record":
        raise Mistake(f'{run.path}: expected a run of privacy.unit = "record", whose records an audit attacks, '
                      f"got {run.ledger['unit']!r}")  # fmt: skip
    training = max(own, key=lambda one: max(one["epsilon"].values()))
    site = max(training["epsilon"], key=training["epsilon"].get)
    mechanisms = [Mechanism(**entry["mechanism"]) for entry in training["entries"] if entry["site"] == site]
    whole = replace(mechanisms[0], steps=sum(one.steps for one in mechanisms))
    return Claim(whole, training["epsilon"][site], run.ledger["delta"], run.ledger["neighbours"])
