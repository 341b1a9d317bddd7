"""Philox4x32-10, a counter-based generator, by torch's operations on whole numbers.

Salmon et al. 2011, https://doi.org/10.1145/2063384.2063405: ten rounds of multiplications turn a counter of 128 bits
and a key of 64 bits into four random words. Any place of any stream can be computed by itself, so that the numbers of
many streams come of the same few operations, wherever they run.
"""

import torch
from torch import Tensor

_WORD = 0xFFFFFFFF
_ROUNDS = 10
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_STEPS_OF_KEY = (0x9E3779B9, 0xBB67AE85)  # added to the two halves of the key after each round


def philox(counter: tuple[Tensor, ...], key: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Turn counters into random words.

    Args:
        counter: Its four words, the lowest first, each int64 from 0 to 2^32 - 1; shapes are broadcast.
        key: Its two words, likewise.

    Returns:
        Four words, each int64 from 0 to 2^32 - 1.
    """
    first, second, third, fourth = counter
    low_key, high_key = key
    for _ in range(_ROUNDS):
        high_of_first, low_of_first = _product(first, _MULTIPLIERS[0])
        high_of_third, low_of_third = _product(third, _MULTIPLIERS[1])
        first, second = high_of_third ^ second ^ low_key, low_of_third
        third, fourth = high_of_first ^ fourth ^ high_key, low_of_first
        low_key = (low_key + _STEPS_OF_KEY[0]) & _WORD
        high_key = (high_key + _STEPS_OF_KEY[1]) & _WORD
    return first, second, third, fourth


def _product(word: Tensor, multiplier: int) -> tuple[Tensor, Tensor]:
    """Return the high and the low word of a product of two words.

    The product has 64 bits. An int64 keeps all of them, with the highest as its sign, which the shift copies down and
    the mask takes off.
    """
    product = word * multiplier
    return (product >> 32) & _WORD, product & _WORD


class Counted:
    """Streams of random words side by side, each with a key of 128 bits, drawn for all at once.

    Half of a stream's key is Philox' key. The other half is the high half of its counters, and the low half counts
    four words at a time: no two streams with different keys share a counter under one key of Philox.

    Args:
        keys: 16 bytes for each stream.
        device: The device to draw on.
    """

    def __init__(self, keys: list[bytes], device: torch.device) -> None:
        words = torch.tensor([_words_of(key) for key in keys], dtype=torch.int64, device=device)  # (streams, 4)
        self._halves = words.T.unsqueeze(2)  # (4, streams, 1)
        self._drawn = 0  # blocks of four words

    def draw(self, count: int) -> Tensor:
        """Draw the next words of each stream, int32 (streams, count); what is left of the last block is dropped."""
        blocks = -(-count // 4)
        numbers = torch.arange(self._drawn, self._drawn + blocks, device=self._halves.device)[None]
        self._drawn += blocks
        low_key, high_key, third, fourth = self._halves
        counter = (numbers & _WORD, numbers >> 32, third, fourth)
        words = torch.cat(torch.broadcast_tensors(*philox(counter, (low_key, high_key))), 1)
        return words[:, :count].int()


def _words_of(key: bytes) -> list[int]:
    """Return the four words of a key of 16 bytes."""
    return [int.from_bytes(key[place : place + 4], "little") for place in range(0, 16, 4)]
