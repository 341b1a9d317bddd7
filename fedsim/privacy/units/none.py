"""Nobody: models leave the sites as they are. The unit of a run without privacy.

The site: trains and sends its exact model. The server: aggregates. There is no noise, no ledger and no claim.
"""

from collections.abc import Sequence

from fedsim.privacy.ledger import Release
from fedsim.privacy.promise import Pairs, Promise, Training
from fedsim.privacy.unit import Audited, Cost, Exposure, Place, Protected, Sampled, Unit

_PROMISE = Promise(
    protected="nobody",
    unit="Nobody.",
    neighbours={},
    sent="whatever a site sends is",
    released={
        "federated": "After each round every site's exact model and its public weight, or the sum of them. Models like "
        "these can give away records they were trained on; keeping the records at home does not prevent that.",
    },
    trust={},
    mechanism="This run gives no privacy guarantee: nothing was clipped and no noise was added.",
    not_covered=(),
    secure="",
)


class Nobody(Unit):
    """Nobody, by nothing."""

    neighbours = ("add-or-remove-one", "replace-one")
    arms = ()
    settings = ()
    needs = ()

    protects = Protected.NOBODY
    place = Place.NOWHERE
    sampled = Sampled.NOTHING
    releases = ()
    promise = _PROMISE

    def cost(self, exposure: Exposure) -> Cost:
        """Refuse: an exact model has no finite epsilon.

        Raises:
            ValueError: Always.
        """
        raise ValueError("expected a privacy unit that promises something, got none: there is no epsilon to compute")

    def done(self, trainings: Sequence[Training]) -> Pairs:
        """Return the statement: there is no guarantee."""
        return [
            ("Guarantee", self.promise.mechanism),
            ("Released", self.promise.released["federated"]),
            ("To get one", "Set privacy.unit and a budget in the scenario, and run it again."),
        ]

    def audited(self, releases: Sequence[Release]) -> Audited:
        """Refuse: there is no claim to attack.

        Raises:
            ValueError: Always.
        """
        raise ValueError("expected a privacy unit that promises something, got none: there is no claim to attack")
