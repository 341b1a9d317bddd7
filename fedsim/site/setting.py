"""All that a site knows of a training before the first message: from what the server tells."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from fedsim.data.federation import Site
from fedsim.data.real_sites import OwnRows
from fedsim.flower.records import Layout
from fedsim.planning.attack import Attack
from fedsim.planning.misbehaviour import attack_of, attackers_of, slow_of, spoiled_of
from fedsim.planning.trial import Trial
from fedsim.scenario import catalog
from fedsim.scenario.schema import Arm, Scenario
from fedsim.strategy.local_rule import Comparing, LocalRule, Parts
from fedsim.training.model import layers_of
from fedsim.training.representation import Revealing
from fedsim.training.rows_alone import some_rows


@dataclass(frozen=True, eq=False)
class Setting:
    """The public facts of a training, and the rules of its strategy.

    Attributes:
        trial: Scenario, seed and arm.
    """

    trial: Trial

    @classmethod
    def told(cls, told: Mapping[str, Any], own: OwnRows | None = None) -> Setting:
        """Read the run config of a server.

        Args:
            told: The run config.
            own: The rows of a real site.

        Raises:
            PermissionError: The site's copy of the strategy is not the server's: their releases might share noise.
        """
        scenario = Scenario.model_validate_json(str(told["scenario"]))
        code = str(told.get("strategy-code", ""))
        own_code = catalog.code_hash(scenario.strategy.name) if code else ""
        if code != own_code:
            raise PermissionError(
                f"expected the server's strategy {scenario.strategy.name}, SHA-256 {code}, got {own_code}"
            )
        arm: Arm = told["arm"]
        return cls(Trial(scenario, int(told["seed"]), arm, own))

    @cached_property
    def private(self) -> bool:
        """Whether anybody is promised privacy."""
        return self.trial.scenario.private

    def site(self, number: int) -> Site:
        """Return a site by its number."""
        return self.trial.federation.sites[number]

    @cached_property
    def layout(self) -> Layout:
        """The names and shapes of the model's parameters."""
        return Layout.of(self.trial.model)

    @cached_property
    def parts(self) -> Parts:
        """The model's parameters with the kinds of their layers."""
        return layers_of(self.trial.model)

    @cached_property
    def rule(self) -> LocalRule:
        """The client half of the strategy."""
        return self.trial.strategy.local_rule()

    @cached_property
    def second_rule(self) -> LocalRule | None:
        """The rule of a second training in each round, where the strategy has one."""
        return self.trial.strategy.second_rule()

    def rule_in(self, round_number: int) -> LocalRule:
        """Return the client half of the strategy, with the learning rate of a round."""
        strategy = self.trial.strategy_in(round_number)
        return self.rule if strategy is self.trial.strategy else strategy.local_rule()

    def second_rule_in(self, round_number: int) -> LocalRule | None:
        """Return the same of the second training, where the strategy has one."""
        strategy = self.trial.strategy_in(round_number)
        return self.second_rule if strategy is self.trial.strategy else strategy.second_rule()

    @cached_property
    def reports(self) -> tuple[str, ...]:
        """The numbers that the strategy asks of each site beside its model."""
        return self.trial.strategy.reports

    @cached_property
    def revealing(self) -> Revealing | None:
        """The model with its representations, where the rule compares them."""
        if not isinstance(self.rule, Comparing):
            return None
        return Revealing(self.trial.model, some_rows(self.trial.model, self.trial.federation.sites[0].train))

    @cached_property
    def attack(self) -> Attack | None:
        """The scenario's attack."""
        return attack_of(self.trial.scenario)

    @cached_property
    def attackers(self) -> frozenset[int]:
        """The numbers of the sites that attack."""
        return attackers_of(self.trial.scenario, self.trial.seed, self.trial.names)

    @cached_property
    def slow(self) -> frozenset[int]:
        """The numbers of the stragglers."""
        return slow_of(self.trial.scenario, self.trial.seed, len(self.trial.names))

    @cached_property
    def spoiled(self) -> frozenset[int]:
        """The numbers of the sites whose models are NaN."""
        return spoiled_of(self.trial.scenario, self.trial.seed, len(self.trial.names))

    @cached_property
    def classes(self) -> int:
        """How many classes the outcome has, by the model's outputs."""
        rows = some_rows(self.trial.model, self.trial.federation.sites[0].train)
        with torch.no_grad():
            outputs = self.trial.model(rows)  # (rows, outputs)
        return max(2, outputs.shape[1])
