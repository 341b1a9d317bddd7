import re

import pytest
import torch

from clients.attacks.backdoor import Backdoor
from fedsim.data.federation import Examples
from fedsim.randomness import stream
from tests.clients.attacks.running import run


def test_a_backdoor_puts_its_trigger_into_a_share_of_the_rows():
    rows = Examples(torch.zeros(4000, 1, 2, 3), torch.zeros(4000))
    found = Backdoor(size=2, value=5.0, target=1, rate=0.25).poison(rows, 2, stream(0, "poison"))
    chosen = found.target == 1
    assert float(chosen.float().mean()) == pytest.approx(0.25, abs=0.03)  # four standard errors
    assert (found.inputs[chosen].flatten(1)[:, :2] == 5).all()
    assert (found.inputs[chosen].flatten(1)[:, 2:] == 0).all()
    assert (found.inputs[~chosen] == 0).all()
    with pytest.raises(ValueError, match=r"attack.target: expected a class below 2, got 2"):
        Backdoor(target=2).poison(rows, 2, stream(0, "poison"))


def test_a_backdoor_is_noted_with_its_success(scenario):
    clean = run(scenario, "attack.name=backdoor", "attack.sites=[]").notes
    much = run(
        scenario, "attack.name=backdoor", "attack.share=0.5", "attack.value=5.0", "attack.factor=20.0", "attack.size=8"
    ).notes
    shares = [float(re.search(r"backdoor works on ([\d.]+)%", notes[-1])[1]) for notes in (clean, much)]
    assert shares[1] > 90
