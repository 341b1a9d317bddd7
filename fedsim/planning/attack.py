"""What an attack is: how sites that attack change their rows, or the models they send in place of honest ones.

The honest client trains as ever; an attack changes the rows before (``poison``) or the models after (``forge``).
``clients/attacks/`` holds one file for each.
"""

from typing import Any

import numpy as np
from torch import Tensor

from fedsim.data.federation import Examples
from fedsim.mistakes import Mistake
from fedsim.strategy.hooks import check_spelling, public_names


class Attack:
    """The base class of attacks: a frozen dataclass that poisons, forges or both.

    Its fields are the paper's hyperparameters, checked at construction (see ``fedsim.strategy.check``).
    """

    def __init_subclass__(cls, **more: Any) -> None:  # noqa: ANN401
        super().__init_subclass__(**more)
        check_spelling(cls, HOOKS, (Attack,))
        if not cls.poisons() and not cls.forges():
            raise Mistake(f"{cls.__name__}: expected an attack with a method poison or forge, got neither")

    def poison(self, rows: Examples, classes: int, random: np.random.Generator) -> Examples:
        """Return the rows that an attacking site trains on; by default its own.

        Args:
            rows: The site's training rows.
            classes: How many classes the task has, >= 2.
            random: A generator of the site's own, the same in every round.

        Raises:
            ValueError: There are no such classes.
        """
        return rows

    def forge(self, center: Tensor, honest: Tensor, sites: int, random: np.random.Generator) -> Tensor:
        """Return the models that the attackers send, (attackers, params); by default the honest ones.

        Attackers see what all of them trained honestly, as if they had agreed, and nothing of the honest sites.

        Args:
            center: The global model they were sent, (params,).
            honest: What they trained, (attackers, params). Not to be changed in place.
            sites: How many sites the round has, honest ones included.
            random: A generator of the round.
        """
        return honest

    def trigger(self, inputs: Tensor) -> Tensor | None:
        """Return inputs (rows, ...) with a backdoor's trigger in them; by default there is no backdoor."""
        return None

    def target_class(self) -> int | None:
        """Return the class that a backdoor is to give to rows with the trigger; by default there is none."""
        return None

    @classmethod
    def poisons(cls) -> bool:
        """Whether the attack changes rows."""
        return cls.poison is not Attack.poison

    @classmethod
    def forges(cls) -> bool:
        """Whether the attack changes models."""
        return cls.forge is not Attack.forge


HOOKS = [name for name in public_names(Attack) if name not in ("poisons", "forges")]
"""The names of all that an attack may define."""
