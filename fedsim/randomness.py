"""Random streams derived from names, never from the order of calls.

The key of a stream is a 128-bit hash of (seed, purpose, place). Two different names give
independent streams. The same name gives the same stream in every process and on every engine.
Nothing touches the global generators.

``stream`` gives numpy's generator. Batches and noise are drawn for every site in every step, and
come from ``Words``: AES in counter mode. It is fast, starts in microseconds, and an attacker who
has seen a part of it can't continue it. (Torch's CPU generator keeps 32 bits of its seed, and 624
outputs of its Mersenne twister give away the rest.) Words may also be secret: then the operating
system draws their key, and nothing can be repeated.
"""

import hashlib
import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Literal, get_args

import numpy as np
import torch
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext, algorithms, modes
from torch import Tensor

from fedsim import devices
from fedsim.mistakes import Mistake
from fedsim.philox import Counted

Random = Literal["reproducible", "secure"]
"""Where random numbers come from: keys that follow from the seed, or the operating system's."""

# Words that are turned into normal numbers together: fewer stay in the cache, but threads wait
# more.
_AT_ONCE = 2**18
# Numbers of a stream that are drawn with those of all others on a GPU. That takes some 170 operations, however many
# streams there are, each of which moves about 6 bytes for each number. A generator for each stream takes one operation
# for each stream: more numbers than this are worth that. The border is a count, not a measurement.
_FEW = 2**16
_SPARE = 4  # words of room after what is drawn, which the cipher asks for and leaves alone


def stream(seed: int, purpose: str, *place: int | str) -> np.random.Generator:
    """Return the numpy generator of one purpose at one place.

    Args:
        seed: The scenario's seed.
        purpose: The use of the numbers, e.g. ``"split"`` or ``"sites"``. Purposes never share a
            stream.
        place: The place of their use, e.g. site name and round. ``1`` and ``"1"`` are different
            places.
    """
    key = int.from_bytes(_digest(seed, purpose, place, 16), "big")
    return np.random.Generator(np.random.Philox(key=key))


def torch_seed(seed: int, purpose: str, *place: int | str) -> int:
    """Return a 63-bit seed for code that can only be seeded through ``torch``.

    An example is the initialization of a model's weights.
    """
    return int.from_bytes(_digest(seed, purpose, place, 8), "big") >> 1


@contextmanager
def global_seed(seed: int) -> Iterator[None]:
    """Seed torch's global generators for code that can't be given its own.

    The state of the CPU's generator is restored afterwards.
    """
    before = torch.get_rng_state()
    torch.default_generator.manual_seed(seed)  # torch.manual_seed takes 1 ms, for a stack trace
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed(seed)
    try:
        yield
    finally:
        torch.set_rng_state(before)


class Words:
    """A stream of random 32-bit words: AES-128 in counter mode.

    Attributes:
        key: 16 bytes.
        secret: Whether the key follows from no name, so that nobody can know it.
    """

    def __init__(self, key: bytes, secret: bool = False) -> None:
        self.key = key
        self.secret = secret
        self._encryptor: CipherContext | None = None

    @classmethod
    def of(cls, seed: int, purpose: str, *place: int | str) -> "Words":
        """Return the stream of one purpose at one place."""
        return cls(_digest(seed, purpose, place, 16))

    @classmethod
    def unknown(cls) -> "Words":
        """Return a stream whose key the operating system draws.

        The key is written nowhere, and is gone with the stream.
        """
        return cls(os.urandom(16), secret=True)

    def again(self) -> "Words":
        """Return this stream from its start."""
        return Words(self.key, self.secret)

    def draw(self, count: int) -> np.ndarray:
        """Draw the next words, uint32 (count,)."""
        out = np.empty(count + _SPARE, np.uint32)
        self.draw_into(out.data.cast("B"), bytes(4 * count))
        return out[:count]

    def draw_into(self, out: memoryview, zeros: bytes) -> None:
        """Write the next words over the start of ``out``.

        Args:
            out: Bytes, at least 16 more than there are zeros.
            zeros: As many zero bytes as are to be written: the cipher encrypts them.
        """
        if self._encryptor is None:
            self._encryptor = Cipher(algorithms.AES(self.key), modes.CTR(bytes(16))).encryptor()
        self._encryptor.update_into(zeros, out)


def kind_of(noise: Words, *others: Words) -> Random:
    """Return the kind of randomness behind a promise: secure only if all of it is secret."""
    all_secret = all(words.secret for words in (noise, *others))
    return "secure" if all_secret else "reproducible"


def check_random(kind: str) -> None:
    """Make sure that a record of randomness names a kind that there is.

    Raises:
        Mistake: It names something else.
    """
    kinds = get_args(Random)
    if kind not in kinds:
        raise Mistake(f"rng: expected {' or '.join(kinds)}, got {kind!r}")


def choose(words: np.ndarray, rate: float) -> np.ndarray:
    """Draw a choice of probability ``rate`` from each random word, bool of the same shape.

    The probability is ``rate`` rounded down to a multiple of 2^-32: never more than is accounted
    for.
    """
    threshold = math.floor(rate * 2**32)
    if not threshold:
        return np.zeros(words.shape, bool)
    return words <= threshold - 1  # 2^32 itself would not fit into a word


class Normals:
    """Standard normal numbers from several streams side by side.

    On the CPU they follow by the method of Box and Muller (1958,
    https://doi.org/10.1214/aoms/1177706645) from 31 bits for the radius and 32 for the angle, so
    that no number is farther from 0 than 6.66. On a GPU the words are Philox', with the same keys: for all
    streams at once, or, where each is to give many numbers, as the device's own generators draw them, one for
    each stream, with 63 bits of its key. How many numbers a stream gives decides, never how many streams there
    are. Philox would give secret streams away, so these are drawn on the CPU there, too.
    """

    def __init__(self, streams: Sequence[Words], device: torch.device) -> None:
        self._streams = streams
        self._device = device
        self._on_device = devices.is_gpu(device) and not any(words.secret for words in streams)

    @cached_property
    def _counted(self) -> Counted:
        """The words of all streams, for few numbers of each."""
        return Counted([words.key for words in self._streams], self._device)

    @cached_property
    def _generators(self) -> list[torch.Generator]:
        """A generator of the device for each stream, for many numbers of each."""
        seeds = [int.from_bytes(words.key[:8], "big") >> 1 for words in self._streams]
        return [torch.Generator(self._device).manual_seed(seed) for seed in seeds]

    def fill(self, out: Tensor) -> None:
        """Draw the next numbers of every stream into ``out``, float32 (streams, numbers)."""
        if self._on_device and out.shape[1] <= _FEW:
            self._fill_from_counters(out)
        elif self._on_device:
            for row, generator in zip(out, self._generators, strict=True):
                row.normal_(generator=generator)
        elif out.is_cuda:
            drawn = torch.empty(out.shape)
            self._fill_from_words(drawn)
            out.copy_(drawn)
        else:
            self._fill_from_words(out)

    def _fill_from_counters(self, out: Tensor) -> None:
        """Draw the numbers of every stream on the device, all streams at once."""
        width = out.shape[1] + out.shape[1] % 2  # words of a stream: two for each pair of numbers
        _box_muller(self._counted.draw(width), out)

    def _fill_from_words(self, out: Tensor) -> None:
        """Draw the numbers of every stream on the CPU, a block of streams at a time."""
        width = out.shape[1] + out.shape[1] % 2  # words of a stream: two for each pair of numbers
        most_at_once = max(1, _AT_ONCE // (width + 1))
        block = min(len(out), most_at_once)

        # A buffer for all blocks: bytes to the cipher, and (streams, words) to the arithmetic.
        words = np.empty(block * width + _SPARE, np.int32)
        places = words.data.cast("B")
        bits = torch.from_numpy(words[:-_SPARE]).view(block, width)
        zeros = bytes(4 * width)
        for start in range(0, len(out), block):
            streams = self._streams[start : start + block]
            for number, stream_words in enumerate(streams):
                stream_words.draw_into(places[4 * width * number :], zeros)
            _box_muller(bits[: len(streams)], out[start : start + block])


def _box_muller(bits: Tensor, out: Tensor) -> None:
    """Turn random words into normal numbers, (streams, numbers).

    ``bits`` are int32 (streams, 2 * pairs), and ``out`` is float32 (streams, 2 * pairs or one
    less).
    """
    pairs = bits.shape[1] // 2
    rest = out.shape[1] - pairs  # one less than the pairs where the number of numbers is odd

    # Radius sqrt(-2 log u) for u in (0, 1), and an angle in [-pi, pi).
    radius = (bits[:, :pairs] & 0x7FFFFFFF).float().add_(0.5).mul_(2**-31).log_().mul_(-2).sqrt_()
    angle = bits[:, pairs:].float().mul_(math.pi * 2**-31)
    torch.mul(radius, angle.cos(), out=out[:, :pairs])
    torch.mul(radius[:, :rest], angle[:, :rest].sin_(), out=out[:, pairs:])


def _digest(seed: int, purpose: str, place: tuple[int | str, ...], size: int) -> bytes:
    """Hash a name to a key of ``size`` bytes."""
    return hashlib.blake2b(repr((seed, purpose, *place)).encode(), digest_size=size).digest()
