"""Philox4x32-10 against the answers that its authors publish, and against a naive one that numpy's confirms."""

import numpy as np
import pytest
import torch

from fedsim.philox import Counted, philox

CPU = torch.device("cpu")

# Random123 1.14, tests/kat_vectors, "philox4x32 10": counter, key, words.
KNOWN = [
    (
        (0x00000000, 0x00000000, 0x00000000, 0x00000000),
        (0x00000000, 0x00000000),
        (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8),
    ),
    (
        (0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF),
        (0xFFFFFFFF, 0xFFFFFFFF),
        (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD),
    ),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]
CONSTANTS = {  # bits of a word: two multipliers, and two steps of the key
    32: (0xD2511F53, 0xCD9E8D57, 0x9E3779B9, 0xBB67AE85),
    64: (0xD2E7470EE14C6C93, 0xCA5A826395121157, 0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B),
}


def naive(counter: list[int], key: list[int], bits: int) -> list[int]:
    """Compute Philox4x32-10 or Philox4x64-10 by whole numbers of any size."""
    first_multiplier, third_multiplier, *steps = CONSTANTS[bits]
    size = 2**bits
    for number in range(10):
        low, high = ((part + number * step) % size for part, step in zip(key, steps, strict=True))
        of_first, of_third = first_multiplier * counter[0], third_multiplier * counter[2]
        counter = [
            (of_third // size) ^ counter[1] ^ low,
            of_third % size,
            (of_first // size) ^ counter[3] ^ high,
            of_first % size,
        ]
    return counter


def words_of(counter: tuple[int, ...], key: tuple[int, ...]) -> list[int]:
    found = philox(tuple(torch.tensor(word) for word in counter), tuple(torch.tensor(word) for word in key))
    return [int(word) for word in found]


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN, ids=["zeros", "ones", "pi"])
def test_the_published_answers(counter: tuple[int, ...], key: tuple[int, ...], expected: tuple[int, ...]):
    assert words_of(counter, key) == [*expected]
    assert naive([*counter], [*key], 32) == [*expected]


def test_the_naive_one_is_numpys():
    """NumPy has Philox4x64-10; it counts up before it draws."""
    random = np.random.default_rng(0)
    for _ in range(20):
        counter = [int(word) for word in random.integers(0, 2**64 - 1, 4, np.uint64)]
        key = [int(word) for word in random.integers(0, 2**64 - 1, 2, np.uint64)]
        drawn = np.random.Philox(counter=np.array(counter, np.uint64), key=np.array(key, np.uint64)).random_raw(4)
        assert naive([counter[0] + 1, *counter[1:]], key, 64) == drawn.tolist()


def test_any_counter_and_key_gives_what_the_naive_one_gives():
    random = np.random.default_rng(1)
    counters = random.integers(0, 2**32, (4, 200))
    keys = random.integers(0, 2**32, (2, 200))
    found = torch.stack(philox(tuple(torch.from_numpy(counters)), tuple(torch.from_numpy(keys))))  # (4, 200)
    expected = [naive(counters[:, one].tolist(), keys[:, one].tolist(), 32) for one in range(200)]
    assert found.T.tolist() == expected
    assert int(found.min()) >= 0


def test_streams_are_the_words_of_their_own_counters():
    """Half of a key is Philox', and half of it stands above the blocks that are counted, also across 2^32 of them."""
    random = np.random.default_rng(2)
    keys = [random.bytes(16) for _ in range(3)]
    for begin in (0, 2**32 - 1):
        streams = Counted(keys, CPU)
        streams._drawn = begin
        found = streams.draw(8).view(3, 4, 2)  # the first words of both blocks, the second words, ...
        for key, blocks in zip(keys, found, strict=True):
            low, high, third, fourth = np.frombuffer(key, "<u4").tolist()
            for place in range(2):
                block = begin + place
                expected = naive([block % 2**32, block // 2**32, third, fourth], [low, high], 32)
                assert [word % 2**32 for word in blocks[:, place].tolist()] == expected


def test_streams_go_on_where_they_stopped_and_depend_on_their_own_key_alone():
    keys = [bytes([number]) * 16 for number in range(5)]
    together = Counted(keys, CPU)
    first, second = together.draw(12), together.draw(12)
    alone = Counted(keys[3:4], CPU)
    assert torch.equal(alone.draw(12), first[3:4])
    assert torch.equal(alone.draw(12), second[3:4])
    assert len({word for drawn in (first, second) for word in drawn.flatten().tolist()}) == 2 * 5 * 12


@pytest.mark.parametrize("bit", range(0, 128, 9))
def test_every_bit_of_a_key_makes_another_stream(bit: int):
    """Half of all bits differ: 512 of 1024, with a deviation of 16."""
    changed = bytearray(16)
    changed[bit // 8] ^= 1 << bit % 8
    one, other = Counted([bytes(16), bytes(changed)], CPU).draw(32)
    differ = sum((word % 2**32).bit_count() for word in (one ^ other).tolist())
    assert abs(differ - 512) < 5.5 * 16
