"""The noise that a GPU draws itself, drawn on a CPU: its tails, its independence, and no cut of a stack moves it."""

import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from fedsim import randomness
from fedsim.engines.stack.train import train_together
from fedsim.philox import Counted
from fedsim.randomness import Normals, Words
from fedsim.scenario.schema import Optimizer
from fedsim.training.losses import binary
from fedsim.training.steps import train
from fedsim.training.work import Noise, Plan, Streams, Work
from tests.on_gpu import as_on_a_gpu
from tests.privacy.test_tails import TURNS, close, expected
from tests.works import examples

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def on_a_gpu() -> Iterator[None]:
    with as_on_a_gpu():
        yield


def drawn(streams: list[Words], *counts: int) -> torch.Tensor:
    """Draw so many numbers of each stream one after another, (streams, numbers)."""
    normals = Normals(streams, CPU)
    found = []
    for count in counts:
        found.append(torch.empty(len(streams), count))
        normals.fill(found[-1])
    return torch.cat(found, 1)


@pytest.mark.parametrize("turn", TURNS)
def test_the_smallest_word_gives_the_farthest_number(turn: int, monkeypatch: pytest.MonkeyPatch):
    """B2: the same numbers come of the same words as on a CPU."""

    def chosen(self: Counted, count: int) -> torch.Tensor:
        words = torch.zeros(3, count, dtype=torch.int64)
        words[:, count // 2 :] = turn
        return words.int()

    monkeypatch.setattr(Counted, "draw", chosen)
    for row in drawn([Words.of(0, "noise", site) for site in range(3)], 7):
        close(row, expected(7, turn))


def test_words_of_both_signs_reach_both_halves():
    """The highest bit of a word is the sign of its int32; angles take it, and radii leave it."""
    words = Counted([bytes(16)], CPU).draw(4096)[0]
    assert abs(int((words < 0).sum()) - 2048) < 5.5 * 32


@pytest.mark.whole
def test_as_many_numbers_are_in_the_tails_as_in_a_gaussians():
    """B2: beyond 4, 4.3, 4.5 and 5 on either side, of 40 million; two-sided binomial p > 1e-8 each."""
    sites, count, blocks = 16, 62_500, 40
    normals = Normals([Words.of(5, "noise", site) for site in range(sites)], CPU)
    out = torch.empty(sites, count)
    beyond = dict.fromkeys((4.0, 4.3, 4.5, 5.0, -4.0, -4.3, -4.5, -5.0), 0)
    for _ in range(blocks):
        normals.fill(out)
        far = out[out.abs() > 4]
        for border in beyond:
            beyond[border] += int((far > border).sum() if border > 0 else (far < border).sum())
    for border, times in beyond.items():
        wanted = stats.binom(sites * count * blocks, stats.norm.sf(abs(border)))
        assert min(wanted.cdf(times), wanted.sf(times - 1)) > 0.5e-8, (border, times, wanted.mean())


@pytest.mark.whole
def test_normal_numbers_are_normal_and_independent():
    """Variance, kurtosis, Kolmogorov-Smirnov, and the two numbers of a pair; false alarms below 1e-6."""
    values = drawn([Words.of(3, "noise", site) for site in range(4)], *[50_001] * 5).double().numpy()
    assert abs(values.var() - 1) <= 5 * np.sqrt(2 / values.size)
    assert abs(values.mean()) <= 5 / np.sqrt(values.size)
    assert all(stats.kstest(row, "norm").pvalue > 1e-6 for row in values)
    assert abs(stats.kurtosis(values.ravel())) < 6 * math.sqrt(24 / values.size)
    assert np.abs(np.corrcoef(values) - np.eye(4)).max() < 6 / math.sqrt(values.shape[1])
    block = values[0, :50_001]
    assert abs(np.corrcoef(block[:25_000], block[25_001:])[0, 1]) < 6 / math.sqrt(25_000)
    assert abs(np.corrcoef(block, values[0, 50_001:100_002])[0, 1]) < 6 / math.sqrt(50_001)


def test_noise_vectors_of_sites_and_rounds_are_independent():
    """B3, M11: the largest correlation among 200 vectors of 2000 numbers stays below 0.16; twice the same gives 1."""
    streams = [Words.of(0, "noise", site, number) for site in range(10) for number in range(20)]
    correlations = np.corrcoef(drawn(streams, 2000).numpy()) - np.eye(200)
    assert np.abs(correlations).max() < 0.16


@pytest.mark.parametrize("few", [2**16, 400, 0], ids=["all at once", "each alone is few", "a generator for each"])
@pytest.mark.parametrize("count", [1, 2, 7, 300])
def test_numbers_do_not_depend_on_who_is_drawn_beside_them(count: int, few: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(randomness, "_FEW", few)
    streams = [Words.of(0, "noise", site) for site in range(60)]
    together = drawn(streams, count, count)
    for site in (0, 31, 59):
        assert torch.equal(drawn([streams[site].again()], count, count)[0], together[site])
    assert len({tuple(row.tolist()) for row in together}) == 60
    assert not torch.equal(together[:, :count], together[:, count:])


def test_few_numbers_and_many_share_none(monkeypatch: pytest.MonkeyPatch):
    """Where a stream gives few numbers and then many, they come of two generators, whose keys are unlike."""
    monkeypatch.setattr(randomness, "_FEW", 100)
    found = drawn([Words.of(0, "noise", 1)], 100, 101)[0]
    assert len(set(found.tolist())) > 195  # two may be equal by chance


def test_secret_streams_are_not_counted(monkeypatch: pytest.MonkeyPatch):
    """Philox is no cipher: whoever has seen some of a site's noise could know the rest."""
    monkeypatch.setattr(randomness, "Counted", None)
    monkeypatch.setattr(torch, "Generator", None)
    found = drawn([Words.unknown(), Words.unknown()], 9)
    assert found.isfinite().all()
    assert len(set(found.flatten().tolist())) >= 16


def released(sites: list[int], engine: str = "cohort") -> torch.Tensor:
    """Train sites without rows, which release noise alone, (sites, params)."""
    net = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 1))
    start = torch.zeros(sum(value.numel() for value in net.parameters()))
    plan = Plan(3, 0.5, 8.0, Optimizer(name="sgd", lr=1.0), Noise(0.3, 2.5))
    works = []
    for site in sites:
        streams = Streams(Words.of(0, "batches", site), Words.of(0, "noise", site))
        works.append(Work(net, start, examples(0), plan, streams, binary))
    if engine == "serial":
        return torch.stack([train(work).parameters for work in works])
    stack = torch.zeros(len(sites), len(start))
    train_together(works, stack)
    return stack


def test_the_noise_of_a_site_does_not_depend_on_how_stacks_are_cut():
    """Nor does it on the engine."""
    whole = released([*range(6)])
    assert torch.equal(whole[:4], released([0, 1, 2, 3]))
    assert torch.equal(whole[5:], released([5]))
    torch.testing.assert_close(released([*range(6)], "serial"), whole)


def test_works_draw_their_noise_anew_where_they_begin_again():
    """As where memory runs out: nothing is released of the first try, and the second has the same noise."""
    words = Words.of(0, "noise", 3)
    first = drawn([words], 20)
    drawn([words], 20)
    assert torch.equal(drawn([words.again()], 20), first)
