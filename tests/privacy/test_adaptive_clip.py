"""A clip that follows a quantile, and what it costs."""

import math

import pytest
import torch

from fedsim.flower.grid import node_of
from fedsim.mistakes import Mistake
from fedsim.privacy.adaptive_clip import AdaptiveClip, noise_on_the_sum
from fedsim.privacy.central import CentralNoise
from fedsim.privacy.ledger import SiteUpdate
from tests.privacy.test_central import noise_of

SITES = 100
NORMS = torch.linspace(0.1, 1.9, SITES)  # quantile x is 0.1 + 1.8 x


def noise(first: float, bit_noise: float = 5.0, quantile: float = 0.5, **changes) -> CentralNoise:
    adaptive = AdaptiveClip(first, quantile, 0.2, bit_noise)
    return noise_of((1.0,) * SITES, adaptive=adaptive, noise_multiplier=1.0, **changes)


def play(server: CentralNoise, rounds: int, norms: torch.Tensor = NORMS) -> list[float]:
    """Return the clip after each round; every site's update has the same norm in all rounds."""
    updates, nodes = torch.zeros(len(norms), 30), [node_of(site) for site in range(len(norms))]
    updates[:, 0] = norms
    clips = []
    for number in range(1, rounds + 1):
        server.release(number, nodes, torch.zeros(30), updates, nodes)
        clips.append(server.adaptive.clip)  # type: ignore[union-attr]
    return clips


@pytest.mark.parametrize("quantile", [0.2, 0.5, 0.8])
@pytest.mark.parametrize("first", [0.01, 1.0, 100.0])
def test_it_reaches_the_quantile_from_anywhere(first: float, quantile: float):
    """B11, M17: within a fifth after 60 rounds; the sign is that of the share within the clip."""
    rounds = 60 if quantile == 0.5 else 150  # far from the middle it moves more slowly one way
    assert play(noise(first, quantile=quantile), rounds)[-1] == pytest.approx(0.1 + 1.8 * quantile, rel=0.2)


@pytest.mark.parametrize("bits", [1e6, -1e6, 1e300, -1e300])
def test_noise_that_drowns_the_bits_moves_the_clip_to_an_end_and_no_further(bits: float):
    adaptive = AdaptiveClip(1.0, 0.5, 0.2, 1e9)
    adaptive.learn(bits, 10)
    assert adaptive.clip == pytest.approx(1e-12 if bits > 0 else 1e12)


def test_it_is_algorithm_1_written_out():
    clip, found = 3.0, play(noise(3.0, bit_noise=1e9), 1)
    assert found[0] != clip  # so much noise moves it anywhere
    server = noise(3.0, bit_noise=1e-9, silent=True)
    object.__setattr__(server, "noise_multiplier", 1e-10)
    for moved in play(server, 30):
        clip *= math.exp(-0.2 * (float((clip >= NORMS).float().mean()) - 0.5))
        assert moved == pytest.approx(clip, rel=1e-6)


def test_the_noise_is_that_of_the_clip_that_was_applied():
    """M18: not of the next."""
    server = noise(100.0)
    nodes = [node_of(site) for site in range(SITES)]
    for number in range(1, 6):
        applied = server.planned(number)
        drawn = server.release(number, nodes, torch.zeros(100_000), torch.zeros(0, 100_000), []) * applied.denominator
        assert server.ledger.entries[-1].mechanism == applied
        deviation = float(drawn.std()) / (applied.clip * applied.noise_multiplier)
        assert deviation == pytest.approx(1, abs=5 / math.sqrt(2 * 100_000))
        assert server.adaptive.clip != applied.clip  # type: ignore[union-attr]


@pytest.mark.parametrize(("together", "bit_noise"), [(1.0, 5.0), (0.8526, 2.0), (3.0, 1.6)])
def test_bits_and_updates_together_cost_what_is_accounted_for(together: float, bit_noise: float):
    """M19: z^-2 = z_delta^-2 + (2 sigma_b)^-2."""
    on_the_sum = noise_on_the_sum(together, bit_noise)
    assert on_the_sum > together
    adaptive = AdaptiveClip(1.0, 0.5, 0.2, bit_noise)
    planned = noise_of(adaptive=adaptive, noise_multiplier=together).planned(1)
    assert planned.segment().noise_multiplier == pytest.approx(together, rel=1e-9)
    did = SiteUpdate(0.1, on_the_sum, 1.0, 1.0, 10.0, bit_noise=bit_noise)
    assert did.segment().noise_multiplier == pytest.approx(together, rel=1e-9)
    assert on_the_sum**-2 + (2 * bit_noise) ** -2 == pytest.approx(together**-2, rel=1e-12)


def test_bits_that_would_cost_more_than_all_are_refused():
    with pytest.raises(Mistake, match=r"bit_noise: expected more than 0\.5, half the noise multiplier, got 0\.5"):
        noise_on_the_sum(1.0, 0.5)


def test_one_site_moves_the_bits_by_one_half():
    """Absent it counts as nothing, present as plus or minus one half: the other sites' bits don't change."""
    nodes = [node_of(site) for site in range(SITES)]
    seen = []

    class Seeing(AdaptiveClip):
        def learn(self, bits: float, sites: float) -> None:
            seen.append((bits, sites))

    server = noise_of((1.0,) * SITES, adaptive=Seeing(1.0, 0.5, 0.2, 0.6), noise_multiplier=1.0, silent=True)
    updates = torch.zeros(SITES, 30)
    updates[:, 0] = NORMS
    updates[3] = math.nan
    for there in (nodes, nodes[:-1], nodes[1:]):
        server.release(1, nodes, torch.zeros(30), updates[[n - node_of(0) for n in there]], there)
    (whole, without_large, without_small) = (bits for bits, _ in seen)
    assert without_large - whole == pytest.approx(0.5)
    assert without_small - whole == pytest.approx(-0.5)
    assert {sites for _, sites in seen} == {SITES}
