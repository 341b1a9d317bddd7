"""A trial is its three coordinates: whoever has them finds the same sites, model, rounds and noise."""

import pytest
import torch

from fedsim.mistakes import Mistake
from fedsim.planning.noise import noise_for
from fedsim.planning.participation import sites_of_round
from fedsim.planning.trial import Trial, without_noise
from fedsim.site.setting import Setting


def test_two_trials_of_the_same_coordinates_agree(scenario):
    first, second = Trial(scenario(), 3, "federated"), Trial(scenario(), 3, "federated")
    assert first.names == second.names
    assert torch.equal(first.start, second.start)
    assert first.noise == second.noise == noise_for(scenario(), 3, "federated")
    assert first.federation is second.federation  # made once, found by comparing sections


@pytest.mark.parametrize("change", ["split.test=0.3", "faults.wrong_labels={hungarian=0.5}", "partition.by=iid"])
def test_other_sections_make_another_federation(scenario, change: str):
    extra = ["partition={by='iid', sites=3}", "training.expected_batch=20"] if "iid" in change else [change]
    assert Trial(scenario(*extra), 0, "federated").federation is not Trial(scenario(), 0, "federated").federation


def test_another_seed_is_another_trial(scenario):
    first, second = Trial(scenario(), 0, "federated"), Trial(scenario(), 1, "federated")
    assert first.streams("cleveland", 1).noise.key != second.streams("cleveland", 1).noise.key
    assert not torch.equal(first.federation.sites[0].test.inputs, second.federation.sites[0].test.inputs)


def test_without_noise_nothing_is_private(scenario):
    trial = Trial(without_noise(scenario("privacy.unit=record")), 0, "federated")
    assert not trial.private
    assert trial.noise is None
    assert trial.plan(10.0).noise is None


def test_who_joins_is_drawn_once_in_a_trial_that_is_secure(scenario):
    """Two trials draw other sites; one trial says the same whenever it is asked."""
    chosen = scenario("privacy.unit=client", "privacy.rng=secure", "training.site_sampling_rate=0.5",
                      "partition={by='iid', sites=40}", "training.expected_batch=5")  # fmt: skip
    first, second = Trial(chosen, 0, "federated"), Trial(chosen, 0, "federated")
    rounds = [first.sites_of(number) for number in range(1, 6)]
    assert rounds == [first.sites_of(number) for number in range(1, 6)]
    assert rounds != [second.sites_of(number) for number in range(1, 6)]
    assert rounds == [sites_of_round(chosen, 0, first.names, number, first.joining) for number in range(1, 6)]


def test_a_site_finds_the_trial_of_its_server(scenario):
    server = Trial(scenario(), 2, "federated")
    told = {"scenario": server.scenario.model_dump_json(), "seed": 2, "arm": "federated", "strategy-code": ""}
    site = Setting.told(told).trial
    assert site.scenario == server.scenario
    assert torch.equal(site.start, server.start)
    assert site.streams("cleveland", 1).noise.key == server.streams("cleveland", 1).noise.key


def test_a_site_with_another_copy_of_the_strategy_refuses(scenario):
    told = {"scenario": scenario().model_dump_json(), "seed": 0, "arm": "federated", "strategy-code": "0" * 64}
    with pytest.raises(PermissionError, match="expected the server's strategy fedavg, SHA-256 0000"):
        Setting.told(told)


def test_a_model_that_mixes_rows_is_no_model_of_a_private_trial(scenario, monkeypatch: pytest.MonkeyPatch):
    class Mixing(torch.nn.Linear):
        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            return super().forward(inputs - inputs.mean(0))

    monkeypatch.setattr("fedsim.planning.trial.new_model", lambda *args: Mixing(30, 1))
    with pytest.raises(Mistake, match="expected a model"):
        _ = Trial(scenario(), 0, "local").model
    assert isinstance(Trial(without_noise(scenario()), 0, "local").model, Mixing)


def test_a_models_parts_begin_in_memory_where_any_new_vector_does(scenario):
    """A row of a stack does not, and the last digits of products depend on it: a run that is resumed would differ."""
    trial = Trial(scenario(), 0, "federated")
    stack = torch.randn(3, len(trial.start))
    for row in stack:
        parts = list(trial.parts(row).values())
        assert torch.equal(torch.cat([part.flatten() for part in parts]), row)
        assert parts[0].storage_offset() == 0
        assert parts[0].data_ptr() % 64 == torch.randn(len(row)).data_ptr() % 64 == 0
