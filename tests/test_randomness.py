import numpy as np
import pytest

from fedsim.randomness import _digest, stream, torch_seed


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


def test_no_two_of_a_million_streams_share_a_key():
    """32-bit seeds would collide about 116 times here."""
    keys = {_digest(0, "noise", (site, number), 16) for site in range(1000) for number in range(1000)}
    assert len(keys) == 1_000_000


def test_noise_vectors_of_sites_and_rounds_are_independent():
    """M11: the largest correlation among 200 vectors of 1000 stays below 6 / sqrt(1000); a reused stream gives 1."""
    vectors = np.stack(
        [stream(0, "noise", site, number).standard_normal(1000) for site in range(10) for number in range(20)]
    )
    correlations = np.corrcoef(vectors) - np.eye(200)
    assert np.abs(correlations).max() < 6 / np.sqrt(1000)


def test_torch_seeds_fit_and_differ():
    seeds = {torch_seed(seed, "initial weights") for seed in range(1000)}
    assert len(seeds) == 1000
    assert all(0 <= seed < 2**63 for seed in seeds)
