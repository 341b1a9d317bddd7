"""The public weights by which sites count under masks, where each adds a share of the noise."""

from collections.abc import Mapping, Sequence

from fedsim.scenario.schema import Scenario


def weights_of(scenario: Scenario, names: Sequence[str]) -> Mapping[str, float]:
    """Return {site: public weight over the heaviest}: no site counts for more than its clipped update."""
    weights = {name: scenario.expected_batch(name) for name in names}
    return {name: weight / max(weights.values()) for name, weight in weights.items()}
