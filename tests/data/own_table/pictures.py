"""Folders of small real images, whose bright square tells the ill from the healthy."""

import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

SIZE = (12, 16)  # height and width


def square(rng: np.random.Generator, is_ill: bool, size: tuple[int, int] = SIZE) -> np.ndarray:
    """Draw a dark image, uint8 (height, width), with a bright square for the ill."""
    pixels = rng.integers(0, 120, size).astype(np.uint8)
    row = rng.integers(0, size[0] - 5)
    column = rng.integers(0, size[1] - 5)
    if is_ill:
        pixels[row : row + 5, column : column + 5] = 230
    return pixels


def write_folder(
    folder: Path,
    sites: Sequence[str] = ("north", "south"),
    classes: Sequence[str] = ("healthy", "ill"),
    count: int = 6,
    seed: int = 0,
) -> Path:
    """Write ``site/class/*.png``, so many images in each folder."""
    rng = np.random.default_rng(seed)
    for site in sites:
        for number, name in enumerate(classes):
            (folder / site / name).mkdir(parents=True)
            for image in range(count):
                save(square(rng, number % 2 == 1), folder / site / name / f"{image}.png")
    return folder


def save(pixels: np.ndarray, path: Path, mode: str | None = None, **options: object) -> None:
    """Write pixels as an image, in another mode if one is named."""
    image = Image.fromarray(pixels)
    if mode is not None:
        image = image.convert(mode)
    image.save(path, **options)


def png(width: int, height: int, depth: int = 8, colour: int = 0, content: bytes = b"") -> bytes:
    """Make the bytes of a PNG file by hand, of any head."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(content)) + chunk(b"IEND", b"")
