import numpy as np
import pytest
import torch
from scipy import stats

from fedsim.randomness import Normals, Words, _digest, choose, stream, torch_seed


def test_a_stream_depends_on_its_name_alone():
    """Asking for other streams first changes nothing."""
    first = stream(0, "noise", "cleveland", 3).random(4)
    stream(0, "batches", "cleveland", 3).random(100)
    np.testing.assert_array_equal(stream(0, "noise", "cleveland", 3).random(4), first)


@pytest.mark.parametrize(
    "other",
    [(1, "noise", "a", 1), (0, "batches", "a", 1), (0, "noise", "b", 1), (0, "noise", "a", 2), (0, "noise", "a", "1")],
)
def test_another_name_is_another_stream(other: tuple):
    assert not np.array_equal(stream(0, "noise", "a", 1).random(4), stream(*other).random(4))


@pytest.mark.whole
def test_no_two_of_a_million_streams_share_a_key():
    """32-bit seeds would collide about 116 times here."""
    keys = {_digest(0, "noise", (site, number), 16) for site in range(1000) for number in range(1000)}
    assert len(keys) == 1_000_000


def test_noise_vectors_of_sites_and_rounds_are_independent():
    """B3, M11: the largest correlation among 200 vectors stays below 0.16; a stream used twice gives 1.

    Vectors of 2000 numbers: there are 19 900 pairs, and the chance that one of them is above 0.16 is 2e-8.
    """
    streams = [Words.of(0, "noise", site, number) for site in range(10) for number in range(20)]
    vectors = torch.empty(200, 2000)
    Normals(streams, torch.device("cpu")).fill(vectors)
    correlations = np.corrcoef(vectors.numpy()) - np.eye(200)
    assert np.abs(correlations).max() < 0.16


def test_torch_seeds_fit_and_differ():
    seeds = {torch_seed(seed, "initial weights") for seed in range(1000)}
    assert len(seeds) == 1000
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_words_are_uniform_and_go_on_where_they_stopped():
    words = Words.of(0, "test")
    first, second = words.draw(3), words.draw(1_000_003)
    np.testing.assert_array_equal(words.again().draw(1_000_006), np.concatenate([first, second]))
    assert stats.kstest(second[:100_000] / 2**32, "uniform").pvalue > 1e-6


@pytest.mark.parametrize("rate", [1e-9, 0.003, 0.5, 1.0])
def test_a_choice_has_its_probability_and_never_more(rate: float):
    words = Words.of(1, "test").draw(1_000_000)
    assert abs(choose(words, rate).sum() - 1e6 * rate) <= 5 * np.sqrt(1e6 * rate * (1 - rate)) + 1e-9
    edge = np.array([0, max(0, int(rate * 2**32) - 1), min(int(rate * 2**32), 2**32 - 1), 2**32 - 1], np.uint32)
    assert choose(edge, rate).tolist() == [rate >= 2**-32, rate >= 2**-32, rate == 1, rate == 1]


@pytest.mark.parametrize("count", [1, 2, 7, 5000])
def test_normal_numbers_of_streams_do_not_depend_on_who_is_drawn_beside_them(count: int):
    streams = [Words.of(0, "noise", site) for site in range(60)]
    together = torch.empty(60, count)
    Normals(streams, torch.device("cpu")).fill(together)
    for site in (0, 31, 59):
        alone = torch.empty(1, count)
        Normals([streams[site].again()], torch.device("cpu")).fill(alone)
        torch.testing.assert_close(together[site], alone[0])


def test_normal_numbers_are_normal():
    """Kolmogorov-Smirnov, variance, kurtosis, the tail: 4 million numbers of four streams, false alarms below 1e-6."""
    found = torch.empty(4, 1_000_001)
    Normals([Words.of(3, "noise", site) for site in range(4)], torch.device("cpu")).fill(found)
    values = found.double().numpy()
    assert abs(values.var() - 1) <= 5 * np.sqrt(2 / values.size)
    assert abs(values.mean()) <= 5 / np.sqrt(values.size)
    assert all(stats.kstest(row[:200_000], "norm").pvalue > 1e-6 for row in values)
    assert abs(stats.kurtosis(values.ravel())) < 0.02
    beyond = (np.abs(values) > 4).sum()
    assert abs(beyond - values.size * 2 * stats.norm.sf(4)) <= 5 * np.sqrt(values.size * 2 * stats.norm.sf(4))
    assert np.abs(np.corrcoef(values) - np.eye(4)).max() < 0.006
    halves = np.corrcoef(values[:, :500_000], values[:, 500_001:])[:4, 4:]  # 500 001 pairs, one of them cut
    assert np.abs(halves).max() < 0.008  # the two numbers of a pair
