"""From a scenario to the shares of the noise that its sites add under masks."""

from collections.abc import Mapping, Sequence

from fedsim.privacy.noise_shares import NoiseShare
from fedsim.scenario.schema import Scenario


def share_of(scenario: Scenario, noise_multiplier: float, params: int, asked: int) -> NoiseShare:
    """Return what each of the sites is to do that are asked in a round.

    Args:
        scenario: The scenario, of the unit ``distributed``.
        noise_multiplier: Of the sum.
        params: How many numbers an update has.
        asked: How many sites are asked.
    """
    secure = scenario.secure_aggregation
    return NoiseShare(
        noise_multiplier=noise_multiplier,
        clip=scenario.privacy.clip,
        params=params,
        asked=asked,
        drop_outs=secure.drop_outs or 0,
        colluding=secure.colluding,
        rng=scenario.privacy.rng,
    )


def weights_of(scenario: Scenario, names: Sequence[str]) -> Mapping[str, float]:
    """Return {site: public weight over the heaviest}: no site counts for more than its clipped update."""
    weights = {name: scenario.expected_batch(name) for name in names}
    return {name: weight / max(weights.values()) for name, weight in weights.items()}
