"""The tails of the noise: every path passes on the farthest numbers that its words give, and passes them on whole.

An accountant takes Gaussian noise for granted. Noise that is cut at 4.3 standard deviations has the variance, the
kurtosis and the look of a Gaussian, but an output beyond the cut betrays whose data it came from.
"""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from fedsim.engines.stack.train import train_together
from fedsim.flower.grid import node_of
from fedsim.privacy.adaptive_clip import AdaptiveClip
from fedsim.privacy.correlated import column_norm, diagonals
from fedsim.privacy.ledger import OwnUpdate
from fedsim.privacy.noise_shares import NoiseShare, noisy
from fedsim.privacy.own_update import noised
from fedsim.randomness import Normals, Words
from fedsim.scenario.schema import Optimizer
from fedsim.training.losses import binary
from fedsim.training.steps import train
from fedsim.training.work import Noise, Plan, Streams, Work
from tests.cases import others_whole
from tests.privacy.test_central import noise_of
from tests.works import examples

CPU = torch.device("cpu")
FARTHEST = math.sqrt(-2 * math.log(0.5 * 2**-31))  # 6.66: the radius of the smallest word
TURNS = [0, 2**30, 2**31, 3 * 2**30, 2**29]  # words of the angles 0, 90, 180, 270 and 45 degrees
each_angle = pytest.mark.parametrize("turn", TURNS)
each_kind = pytest.mark.parametrize("secret", [False, True], ids=["reproducible", "secure"])


class Chosen(Words):
    """Words that a test chooses: the same for every radius, and the same for every angle, of all numbers drawn."""

    def __init__(self, turn: int, secret: bool = False, radius: int = 0) -> None:
        super().__init__(bytes(16), secret)
        self.turn, self.radius = turn, radius

    def draw_into(self, out: memoryview, zeros: bytes) -> None:
        count = len(zeros) // 4
        words = np.full(count, self.radius, np.uint32)
        words[count // 2 :] = self.turn
        out[: len(zeros)] = words.tobytes()

    def again(self) -> Words:
        return Chosen(self.turn, self.secret, self.radius)


def expected(count: int, turn: int, radius: float = FARTHEST) -> torch.Tensor:
    """Return the numbers, float64 (count,), that words of this angle stand for: cosines first, then sines."""
    angle = 2 * math.pi * turn / 2**32
    pairs = (count + 1) // 2
    both = torch.tensor([radius * math.cos(angle)] * pairs + [radius * math.sin(angle)] * pairs, dtype=torch.float64)
    return both[:count]


def close(found: torch.Tensor, wanted: torch.Tensor, step: float = 0.0) -> None:
    """Compare numbers, in standard deviations, to a float32's precision or to half a ``step`` of their grid."""
    torch.testing.assert_close(found.double(), wanted, rtol=1e-5, atol=1e-5 + 0.51 * step)


@each_kind
@each_angle
def test_the_smallest_word_gives_the_farthest_number(turn: int, secret: bool):
    found = torch.empty(3, 7)
    Normals([Chosen(turn, secret) for _ in range(3)], CPU).fill(found)
    for row in found:
        close(row, expected(7, turn))


@each_angle
def test_secret_noise_for_a_cuda_device_has_the_same_tails(turn: int):
    found = torch.empty(1, 8)
    Normals([Chosen(turn, secret=True)], torch.device("cuda")).fill(found)
    close(found[0], expected(8, turn))


@pytest.mark.parametrize("top", others_whole([0, 2**31], 0))
def test_each_word_is_the_quantile_that_it_stands_for(top: int):
    """B2: the word w, of 31 bits, is the radius that a share (w + 1/2) / 2^31 of all lie beyond; the top bit is none.

    Words up to 2^22 are all radii above 3.5.
    """
    words = [*range(2000), *(2**power + more for power in range(11, 23) for more in (-1, 0, 1))]
    for word in words:
        found = torch.empty(1, 2)
        Normals([Chosen(0, radius=word + top)], CPU).fill(found)
        share_beyond = math.exp(-(float(found[0, 0]) ** 2) / 2)
        assert share_beyond * 2**31 == pytest.approx(word + 0.5, rel=2e-5)


@each_kind
def test_as_many_numbers_are_in_the_tails_as_in_a_gaussians(secret: bool):
    """B2: beyond 4, 4.3, 4.5 and 5 on either side, of 40 million; two-sided binomial p > 1e-8 each.

    Beyond 5 on one side 11.5 numbers are expected, so that none at all is an alarm beyond 4.5, where it is 136. All
    together raise a false alarm in less than one of 10 million runs.
    """
    sites, count, blocks = 4, 1_000_000, 10
    streams = [Words.unknown() if secret else Words.of(5, "noise", site) for site in range(sites)]
    normals, drawn = Normals(streams, CPU), torch.empty(sites, count)
    beyond = dict.fromkeys((4.0, 4.3, 4.5, 5.0, -4.0, -4.3, -4.5, -5.0), 0)
    for _ in range(blocks):
        normals.fill(drawn)
        far = drawn[drawn.abs() > 4]
        for border in beyond:
            beyond[border] += int((far > border).sum() if border > 0 else (far < border).sum())
    for border, times in beyond.items():
        wanted = stats.binom(sites * count * blocks, stats.norm.sf(abs(border)))
        assert min(wanted.cdf(times), wanted.sf(times - 1)) > 0.5e-8, (border, times, wanted.mean())


PLAN = Plan(2, 0.5, 8.0, Optimizer(name="sgd", lr=1.0), Noise(0.3, 2.5))


def done_by(engine: str, todo: Plan, turn: int, secret: bool) -> tuple[torch.Tensor, int]:
    """Train a model on no rows at all; return what it moved, as noise over its deviation and step, and its size."""
    net = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 1))
    start = torch.zeros(sum(value.numel() for value in net.parameters()))
    streams = Streams(Words.of(0, "batches"), Chosen(turn, secret))
    work = Work(net, start, examples(0), todo, streams, binary)
    done = train(work) if engine == "serial" else train_together([work, work], torch.zeros(2, len(start)))[1]
    noise = todo.noise
    assert noise is not None
    moved = -done.parameters * todo.expected_batch / (todo.steps * noise.multiplier * noise.clip)
    return moved, len(start)


@each_kind
@each_angle
@pytest.mark.parametrize("engine", ["serial", "cohort"])
def test_steps_of_a_site_pass_the_farthest_noise_on(engine: str, turn: int, secret: bool):
    """B2: on each step's sum, in both engines."""
    moved, params = done_by(engine, PLAN, turn, secret)
    close(moved, expected(params, turn))


@each_kind
@each_angle
def test_an_update_with_noise_of_its_own_passes_the_farthest_on(turn: int, secret: bool):
    """B2: of the unit local."""
    did = OwnUpdate(noise_multiplier=2.5, clip=0.3)
    found = noised(torch.zeros(9), torch.zeros(9), did, Chosen(turn, secret))
    close(found / (2.5 * 0.3), expected(9, turn))


@each_kind
@each_angle
def test_a_share_of_the_noise_passes_the_farthest_on(turn: int, secret: bool):
    """B2: of the unit distributed; also what is written down for the masks can hold it."""
    share = NoiseShare(noise_multiplier=2.0, clip=0.5, params=6, asked=10, drop_outs=3, colluding=2)
    sent = noisy(torch.zeros(6), 1.0, share, Chosen(turn, secret))
    high, low = expected(12, turn).view(2, 6)
    wanted = math.sqrt(1 - 2**-24) * high + 2**-12 * low
    close(torch.from_numpy(sent) / share.deviation, wanted, step=share.grid.resolution / share.deviation)
    np.testing.assert_array_equal(share.grid.decode(share.grid.write(sent, 1.0))[0], sent)


@each_kind
@each_angle
@pytest.mark.parametrize("band", [1, 2, 4])
def test_a_rounds_noise_passes_the_farthest_on(band: int, turn: int, secret: bool):
    """B2: of the unit client, also where a round's noise takes earlier ones off.

    Signs alternate from round to round, so that correlated noise is farther from 0 than any independent one.
    """
    opposite = (turn + 2**31) % 2**32
    noise = noise_of(
        (1.0,) * 8, band=band, rate=None, words=lambda number: Chosen(turn if number % 2 else opposite, secret)
    )
    params, before = 10, []
    for number in range(1, 7):
        mean = noise.release(number, [node_of(number)], torch.zeros(params), torch.zeros(0, params), [])
        found = mean.double() * noise.planned(number).denominator / (2.0 * 0.5 * column_norm(band))
        wanted = expected(params + 1, turn)[:params] * (1 if number % 2 else -1)
        for factor, earlier in zip(diagonals(band)[1:], before, strict=False):
            wanted = wanted - factor * earlier
        before.insert(0, wanted)
        close(found, wanted)
        if band > 1 and number > 1 and turn in (0, 2**31):
            assert float(found.abs().max()) > 1.3 * FARTHEST


@each_angle
def test_the_bits_of_an_adaptive_clip_get_the_farthest_noise_too(turn: int):
    """B2: their number is one of its own, the last that is drawn."""
    seen = []

    class Seeing(AdaptiveClip):
        def learn(self, bits: float, sites: float) -> None:
            seen.append(bits)

    noise = noise_of((1.0,) * 8, adaptive=Seeing(1.0, 0.5, 0.2, 5.0), words=lambda number: Chosen(turn))
    for params in (9, 10):
        noise.release(1, [], torch.zeros(params), torch.zeros(0, params), [])
        assert seen.pop() == pytest.approx(5.0 * float(expected(params + 1, turn)[-1]), rel=1e-5, abs=1e-4)
