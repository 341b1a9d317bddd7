"""What a sweep or a tuned comparison found, with all that its page, its files and the terminal show."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import pandas as pd

from fedsim.experiments.deciding import words
from fedsim.experiments.deciding.choice import Chosen, by_arm, by_epsilon, points
from fedsim.experiments.deciding.together import Released


@dataclass(frozen=True)
class Decided:
    """The findings.

    Attributes:
        scenario: The name of the scenario.
        title: Its title.
        chosen: What was chosen, and how it did.
        scores: The test figures of every training, seed and site.
        curves: The validation figures of every training, seed and round.
        cautions: What could not be run, was left out, or is not covered: a sentence each.
        released: The privacy that all private trainings cost together.
        about_privacy: What epsilon covers, a sentence each.
        how: What was compared with what, a sentence each.
        command: The command that makes all of this anew.
    """

    scenario: str
    title: str
    chosen: Chosen
    scores: pd.DataFrame
    curves: pd.DataFrame
    cautions: Sequence[str]
    released: Sequence[Released]
    about_privacy: Sequence[str]
    how: Sequence[str]
    command: str

    @cached_property
    def points(self) -> pd.DataFrame:
        """A row for each arm and epsilon, as ``choice.points`` returns it."""
        return points(self.chosen)

    @property
    def reference(self) -> str:
        """The arm that the others are compared with: the centralized one, or the first where it was not trained."""
        arms = list(dict.fromkeys(self.points["arm"]))
        return "centralized" if "centralized" in arms else arms[0]

    @cached_property
    def by_arm(self) -> pd.DataFrame:
        """The arms beside the reference arm, as ``choice.by_arm`` returns it."""
        return by_arm(self.chosen, self.reference)

    @cached_property
    def by_epsilon(self) -> pd.DataFrame:
        """The epsilons beside the first, as ``choice.by_epsilon`` returns it."""
        return by_epsilon(self.chosen)

    @property
    def seeds(self) -> int:
        """The number of seeds."""
        return len(self.chosen.figures)

    @cached_property
    def answers(self) -> list[str]:
        """The findings in sentences: what each epsilon gives or costs, then how the arms do beside each other."""
        metric = self.chosen.metric
        said = [*words.of_epsilons(self.points, self.by_epsilon, metric)]
        said += words.of_arms(self.points, self.by_arm, metric)
        if not said:
            said += words.alone(self.points, metric)
        return said

    @cached_property
    def about_seeds(self) -> list[str]:
        """How many seeds would be needed."""
        contrasts = [table for table in (self.by_epsilon, self.by_arm) if len(table)]
        if not contrasts:
            return []
        return list(words.of_seeds(pd.concat(contrasts, ignore_index=True), self.seeds))
