"""The public weights by which sites count under masks, where each adds a share of the noise."""

from collections.abc import Mapping, Sequence

from fedsim.of_sites import Alike
from fedsim.scenario.schema import Scenario


def weights_of(scenario: Scenario, names: Sequence[str]) -> Mapping[str, float]:
    """Compute {site: public weight over the heaviest}.

    No weight is above 1, so that no site counts for more than its clipped update.
    """
    weights = scenario.expected_batches(names)
    if isinstance(weights, Alike):
        return Alike(names, 1.0)
    heaviest = max(weights.values())
    return {name: weight / heaviest for name, weight in weights.items()}
