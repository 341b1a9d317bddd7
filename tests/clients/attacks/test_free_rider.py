import pytest
import torch

from tests.clients.attacks.running import run, weights


@pytest.mark.parametrize("engine", ["serial", "cohort"])
def test_a_free_rider_stops_its_weight_from_moving(scenario, engine: str):
    """In one round three of four honest weights move the model: 186 of 276."""
    one = ["training.rounds=1", f"engine={engine}"]
    alone = [
        weights(run(scenario, *one, "attack.name=free-rider", f"attack.sites={[*others]}".replace("'", '"')))
        for others in [["cleveland"], ["hungarian", "switzerland", "va_long_beach"]]
    ]
    torch.testing.assert_close(alone[0] + alone[1], weights(run(scenario, *one)), rtol=1e-4, atol=1e-6)
