"""Read PNG and JPEG files as pixels of one size, with all that is wrong with them told at once.

A file may be a stranger's. It is an ordinary file of at most ``MOST_FILE_BYTES``, its head is read
before its pixels are, and no room is made for more pixels than ``MOST_PIXELS`` in an image and
``MOST_VALUES`` in all.
"""

import hashlib
import io
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from fedsim.data.recent import Recent
from fedsim.figures import listed
from fedsim.mistakes import Mistake
from fedsim.scenario.reading import read_ordinary

MOST_FILE_BYTES = 2**26  # of an image's file
MOST_PIXELS = 2**26  # of an image as it stands in its file
MOST_VALUES = 2**28  # images x channels x height x width: 1 GiB as float32
MOST_IMAGES = 10**6
_FORMATS = ("PNG", "JPEG")
_MOST_SHOWN = 3  # images with one fault that are named
_MOST_SIZES = 5  # sizes that are named
_GREY = ("1", "L", "LA")
_MODES = {
    "I": "16 or 32 bits for each pixel, save it with 8",
    "I;16": "16 bits for each pixel, save it with 8",
    "I;16B": "16 bits for each pixel, save it with 8",
    "F": "numbers with fractions, save it with 8 bits",
    "CMYK": "the inks of a printer (CMYK), save it as RGB",
}
_LETTERS_OF_16_BITS = 16  # the depth in the head of a PNG file
_ORIENTATION = 274  # the EXIF tag of how a camera was held
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_QUARTER_TURNS = (5, 6, 7, 8)  # height becomes width

Progress = Callable[[str, int, int], None]
_progress: ContextVar[Progress | None] = ContextVar("progress", default=None)


@contextmanager
def telling(progress: Progress | None) -> Iterator[None]:
    """Call ``progress`` with (label, images read, images in all) while images are read inside."""
    token = _progress.set(progress)
    try:
        yield
    finally:
        _progress.reset(token)


@dataclass(frozen=True)
class Named:
    """An image's file, and the name it has in messages and digests: its path from the folder.

    A file that must not be opened has no path; its fault is told already.
    """

    name: str
    path: Path | None


@dataclass
class ImageFaults:
    """Faults of images by kind, each told in one line with its number and some names."""

    names: dict[str, list[str]] = field(default_factory=dict)

    def add(self, fault: str, name: str) -> None:
        """Note that an image has a fault."""
        self.names.setdefault(fault, []).append(name)

    def lines(self) -> list[str]:
        """Return a line for each kind of fault."""
        lines = []
        for fault, names in self.names.items():
            count = "1 file" if len(names) == 1 else f"{len(names):,} files"
            lines.append(f"{fault}: {count}: {listed(names, _MOST_SHOWN)}")
        return lines


@dataclass(frozen=True)
class Head:
    """The head of an image's file.

    Attributes:
        height: Its height in pixels, as it is seen.
        width: Its width.
        is_grey: Whether it has no colours.
        turn: The turn or reflection that its EXIF data asks for; None for none.
    """

    height: int
    width: int
    is_grey: bool
    turn: Image.Transpose | None

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.height, self.width


@dataclass(frozen=True)
class Pictures:
    """Images as pixels.

    Attributes:
        pixels: Their brightness, uint8 (images, channels, height, width).
        heads: The heads of their files.
        repeated: The number of images of which an earlier one has the same bytes.
    """

    pixels: np.ndarray
    heads: tuple[Head, ...]
    repeated: int

    @property
    def inputs(self) -> np.ndarray:
        """The inputs of a model: brightness 0 to 255 as [-1, 1], float32 (images, channels, height, width)."""
        inputs = self.pixels.astype(np.float32)
        inputs /= np.float32(127.5)
        inputs -= 1
        return inputs

    def notes(self) -> list[str]:
        """Return notes on the size, and on all that was changed."""
        count, channels, height, width = self.pixels.shape
        resized = sum(head.size != (height, width) for head in self.heads)
        recoloured = sum(head.is_grey != (channels == 1) for head in self.heads)
        turned = sum(head.turn is not None for head in self.heads)
        colours = "grey" if channels == 1 else "in colour"
        notes = [f"{count:,} images, {height} x {width} pixels (height x width), {colours}"]
        if resized:
            notes.append(f"images of another size, which were resized, also if that changes their shape: {resized:,}")
        if recoloured and channels == 1:
            notes.append(f"images in colour, which were read as grey: {recoloured:,}")
        elif recoloured:
            notes.append(f"grey images, which were read as colour: {recoloured:,}")
        if turned:
            notes.append(f"images that were turned as their EXIF data says: {turned:,}")
        if self.repeated:
            notes.append(
                f"images with the same bytes as another: {self.repeated:,}; test rows may repeat training rows"
            )
        return notes


_read = Recent[tuple[str, tuple[int, int] | None, int | None], Pictures](size=1)


def digest_of(files: Sequence[Named]) -> str:
    """Compute the SHA-256, in hex, of the names and contents of images, wherever their folder is."""
    hashed = hashlib.sha256()
    for named in files:
        of_content = hashlib.sha256(_content(named)).hexdigest()
        hashed.update(f"{of_content}  {named.name}\n".encode())
    return hashed.hexdigest()


def read_pictures(
    files: Sequence[Named],
    size: tuple[int, int] | None,
    channels: int | None,
    faults: ImageFaults | None = None,
) -> Pictures:
    """Read images, of which those of the same digest as the last ones are not read again.

    Args:
        files: Their files.
        size: Height and width; None for the size that all of them have.
        channels: 1 for grey or 3 for colours; None for 1 if all are grey, else 3.
        faults: Faults that are told with those of the images.

    Raises:
        Mistake: Images can't be read, are too many, or have several sizes: all faults.
    """
    if faults is not None and faults.names:
        return _read_anew(files, size, channels, faults)
    try:
        digest = digest_of(files)
    except Mistake:
        return _read_anew(files, size, channels, ImageFaults())  # it says what is wrong
    return _read.get((digest, size, channels), lambda: _read_anew(files, size, channels, ImageFaults()))


def _read_anew(
    files: Sequence[Named],
    size: tuple[int, int] | None,
    channels: int | None,
    faults: ImageFaults,
) -> Pictures:
    if len(files) > MOST_IMAGES:
        raise Mistake(f"data: expected at most {MOST_IMAGES:,} images, got {len(files):,}")

    heads: list[Head | None] = []
    for number, named in enumerate(files):
        heads.append(_head(named, faults))
        _tell("reading the heads of images", number + 1, len(files))
    there = [head for head in heads if head is not None]

    lines = []
    if size is None:
        size, lines = _common_size(there)
    if channels is None:
        channels = 1 if all(head.is_grey for head in there) else 3
    if size is not None:
        lines += _too_many(len(files), channels, size)

    # Where sizes differ the images are read nevertheless, so that all faults can be told.
    room = (len(files), channels, *size) if size is not None and not lines else None
    reader = _Reader(faults, channels, room)
    for number, (named, head) in enumerate(zip(files, heads, strict=True)):
        if head is not None:
            reader.read(number, named, head)
        _tell("reading images", number + 1, len(files))

    lines = [*faults.lines(), *lines]
    if lines:
        raise Mistake("\n".join(lines))
    return Pictures(reader.pixels, tuple(there), reader.repeated)


class _Reader:
    """Reads the pixels of images, one after the other.

    Attributes:
        pixels: Those of all images, uint8 (images, channels, height, width); none without room.
        repeated: The number of images of which an earlier one has the same bytes.
    """

    def __init__(self, faults: ImageFaults, channels: int, room: tuple[int, ...] | None) -> None:
        self.pixels = np.zeros(room or 0, np.uint8)
        self.repeated = 0
        self._faults = faults
        self._channels = channels
        self._size = None if room is None else (room[2], room[3])
        self._seen: set[bytes] = set()

    def read(self, number: int, named: Named, head: Head) -> None:
        """Read an image into its place, or note its fault."""
        try:
            content = _content(named)
            with _opened(content) as image:
                image.load()
                if _is_transparent(image):
                    fault = "expected images without transparent pixels, put them on a background"
                    self._faults.add(fault, named.name)
                    return
                values = self._values(image, head)
        except Exception as error:
            self._faults.add(_unreadable(error), named.name)  # as in ``_head``
            return

        if self._size is not None:
            self.pixels[number] = values
        digest = hashlib.sha256(content).digest()
        self.repeated += digest in self._seen
        self._seen.add(digest)

    def _values(self, image: Image.Image, head: Head) -> np.ndarray:
        """Return a loaded image's brightness, uint8 (channels, height, width)."""
        flat = image.convert("L" if self._channels == 1 else "RGB")
        if head.turn is not None:
            flat = flat.transpose(head.turn)
        if self._size is not None and (flat.height, flat.width) != self._size:
            height, width = self._size
            flat = flat.resize((width, height), Image.Resampling.BILINEAR)
        values = np.asarray(flat, np.uint8)
        return values[None] if self._channels == 1 else values.transpose(2, 0, 1)


def _tell(label: str, done: int, total: int) -> None:
    progress = _progress.get()
    if progress is not None:
        progress(label, done, total)


def _common_size(heads: Sequence[Head]) -> tuple[tuple[int, int] | None, list[str]]:
    """Return the size that all images have; none, and a fault, if they have several."""
    sizes = Counter(head.size for head in heads)
    if not sizes:
        return None, []
    (height, width), _ = sizes.most_common(1)[0]
    if len(sizes) == 1:
        return (height, width), []

    shown = [f"{size[0]} x {size[1]} ({count:,})" for size, count in sizes.most_common(_MOST_SIZES)]
    if len(sizes) > _MOST_SIZES:
        shown.append(f"{len(sizes) - _MOST_SIZES} other sizes")
    expected = "expected images of one size (height x width)"
    hint = f"set data.image_size = [{height}, {width}], and others are resized to it"
    return None, [f"data.image_size: {expected}, got {', '.join(shown)}; {hint}"]


def _too_many(count: int, channels: int, size: tuple[int, int]) -> list[str]:
    height, width = size
    values = count * channels * height * width
    if values <= MOST_VALUES:
        return []
    got = f"{count:,} images x {channels} channels x {height} x {width} = {values:,}"
    hint = "set a smaller data.image_size or channels = 1"
    return [f"data: expected at most {MOST_VALUES:,} values of pixels, got {got}; {hint}"]


def _content(named: Named) -> bytes:
    if named.path is None:
        raise Mistake(f"{named.name}: expected a file that may be opened")
    try:
        return read_ordinary(named.path, MOST_FILE_BYTES, named.name)
    except OSError as error:
        raise Mistake(f"{named.name}: expected an image's file, got {error.strerror}") from None


def _head(named: Named, faults: ImageFaults) -> Head | None:
    """Read the head of an image; None, and a fault, if the image can't be used."""
    if named.path is None:
        return None
    try:
        content = _content(named)
        with _opened(content) as image:
            width, height = image.size
            if width * height > MOST_PIXELS:
                faults.add(f"expected at most {MOST_PIXELS:,} pixels in an image", named.name)
                return None
            if reason := _refused(image, content):
                faults.add(f"expected images with 8 bits, got {reason}", named.name)
                return None

            orientation = image.getexif().get(_ORIENTATION, 1) if "exif" in image.info else 1
            is_grey = image.mode in _GREY
            if orientation in _QUARTER_TURNS:
                return Head(width, height, is_grey, _TURNS[orientation])
            return Head(height, width, is_grey, _TURNS.get(orientation))
    except Mistake as mistake:
        faults.add(str(mistake).removeprefix(f"{named.name}: "), named.name)
    except Exception as error:
        faults.add(_unreadable(error), named.name)
    return None


def _unreadable(error: Exception) -> str:
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        return f"expected at most {MOST_PIXELS:,} pixels in an image"
    if isinstance(error, Image.UnidentifiedImageError):
        return "expected PNG or JPEG, got something else"
    return "expected a whole image, got one that is damaged or cut off"


@contextmanager
def _opened(content: bytes) -> Iterator[Image.Image]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        with Image.open(io.BytesIO(content), formats=_FORMATS) as image:
            yield image


def _refused(image: Image.Image, content: bytes) -> str:
    """Return what an image holds that is not read; empty if it can be read."""
    if image.mode in _MODES:
        return _MODES[image.mode]
    # Pillow would drop half of the 16 bits of a colour without a word.
    if image.format == "PNG" and content[24] == _LETTERS_OF_16_BITS:
        return _MODES["I;16"]
    if getattr(image, "n_frames", 1) > 1 and image.format == "PNG":
        return "several frames, save one of them"
    return ""


def _is_transparent(image: Image.Image) -> bool:
    """Return whether a loaded image has a pixel that is not opaque."""
    if not image.has_transparency_data:
        return False
    lowest, _ = image.convert("RGBA").getchannel("A").getextrema()
    return lowest < 255  # type: ignore[operator]
