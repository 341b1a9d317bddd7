"""PNG and JPEG files become pixels of one size; what can't be read is refused, all at once and in bounds."""

import io
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from fedsim.data.own_table.images import files as image_files
from fedsim.data.own_table.images.files import Named, digest_of, read_pictures, telling
from fedsim.mistakes import Mistake
from tests.data.own_table.pictures import png, save


def named(folder: Path, *names: str) -> list[Named]:
    return [Named(name, folder / name) for name in names]


def test_pixels_are_those_of_the_files(tmp_path: Path):
    rng = np.random.default_rng(0)
    grey = rng.integers(0, 256, (3, 5, 7)).astype(np.uint8)
    for number, pixels in enumerate(grey):
        save(pixels, tmp_path / f"{number}.png")
    pictures = read_pictures(named(tmp_path, "2.png", "0.png", "1.png"), None, None)
    np.testing.assert_array_equal(pictures.pixels, grey[[2, 0, 1], None])

    colour = rng.integers(0, 256, (5, 7, 3)).astype(np.uint8)
    save(colour, tmp_path / "colour.png")
    pictures = read_pictures(named(tmp_path, "colour.png"), None, None)
    np.testing.assert_array_equal(pictures.pixels[0], colour.transpose(2, 0, 1))


def test_brightness_is_scaled_by_what_a_byte_can_hold_and_not_by_the_images(tmp_path: Path):
    save(np.array([[0, 255, 51]], np.uint8), tmp_path / "all.png")
    save(np.array([[100, 102, 101]], np.uint8), tmp_path / "dull.png")
    inputs = read_pictures(named(tmp_path, "all.png", "dull.png"), None, None).inputs
    assert inputs.dtype == np.float32
    np.testing.assert_allclose(inputs[0, 0], [[-1, 1, -0.6]], atol=1e-6)
    np.testing.assert_allclose(inputs[1, 0], np.array([[100, 102, 101]]) / 127.5 - 1, atol=1e-6)
    alone = read_pictures(named(tmp_path, "dull.png"), None, None).inputs
    np.testing.assert_array_equal(alone[0], inputs[1])


GREY = np.array([[0, 255, 0, 255], [255, 0, 255, 0]], np.uint8)
READ_AS = {
    "8 bits": ("L", {}, GREY),
    "black and white": ("1", {}, GREY),
    "grey and opaque": ("LA", {}, GREY),
    "colours": ("RGB", {}, np.stack([GREY] * 3)),
    "a palette": ("P", {}, np.stack([GREY] * 3)),
    "opaque": ("RGBA", {}, np.stack([GREY] * 3)),
}


@pytest.mark.parametrize("kind", READ_AS)
def test_kinds_of_png_are_read(tmp_path: Path, kind: str):
    mode, options, expected = READ_AS[kind]
    save(GREY, tmp_path / "image.png", mode, **options)
    with Image.open(tmp_path / "image.png") as image:
        assert image.mode == mode
    pictures = read_pictures(named(tmp_path, "image.png"), None, None)
    np.testing.assert_array_equal(pictures.pixels[0], expected if expected.ndim == 3 else expected[None])


def bytes_of(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


HALF = Image.fromarray(np.full((4, 4, 4), 128, np.uint8), "RGBA")
WHOLE = bytes_of(Image.effect_noise((40, 40), 50))
FRAMES = [Image.new("L", (4, 4), shade) for shade in (0, 200)]
REFUSED = {
    "transparent pixels": (bytes_of(HALF), "expected images without transparent pixels"),
    "a transparent grey": (bytes_of(HALF.convert("LA")), "expected images without transparent pixels"),
    "a transparent colour": (bytes_of(Image.new("P", (4, 4)), transparency=0), "without transparent pixels"),
    "16 bits": (bytes_of(Image.fromarray(np.full((4, 4), 900, np.uint16))), "got 16 bits for each pixel"),
    "16 bits of each colour": (png(1, 1, 16, 2, bytes(7)), "16 bits for each pixel, save it with 8"),
    "inks": (bytes_of(Image.new("CMYK", (4, 4)), "JPEG"), "the inks of a printer (CMYK), save it as RGB"),
    "frames": (bytes_of(FRAMES[0], save_all=True, append_images=FRAMES[1:]), "got several frames, save one"),
    "cut off": (WHOLE[: len(WHOLE) // 2], "expected a whole image, got one that is damaged or cut off"),
    "a JPEG cut off": (bytes_of(Image.effect_noise((40, 40), 50), "JPEG")[:-300], "damaged or cut off"),
    "changed bytes": (WHOLE[:200] + b"\0\0\0\0" + WHOLE[204:], "damaged or cut off"),
    "no content": (png(30, 30), "damaged or cut off"),
    "text": (b"site,ill\nnorth,1\n", "expected PNG or JPEG, got something else"),
    "nothing": (b"", "expected PNG or JPEG, got something else"),
    "another format": (bytes_of(Image.new("L", (4, 4)), "GIF"), "expected PNG or JPEG, got something else"),
    "a bomb": (png(60_000, 60_000), "expected at most 67,108,864 pixels in an image"),
    "a smaller bomb": (png(9000, 9000), "expected at most 67,108,864 pixels in an image"),
    "a width of nothing": (png(0, 4), "expected"),
}


@pytest.mark.parametrize("kind", REFUSED)
@pytest.mark.parametrize("size", [None, (4, 4)])
def test_what_can_not_be_read_is_refused(tmp_path: Path, kind: str, size: tuple[int, int] | None):
    content, message = REFUSED[kind]
    (tmp_path / "image.png").write_bytes(content)
    with pytest.raises(Mistake) as caught:
        read_pictures(named(tmp_path, "image.png"), size, None)
    assert message in str(caught.value)
    assert str(caught.value).endswith(": 1 file: image.png")


def whole_images() -> list[bytes]:
    image = Image.effect_noise((24, 20), 60)
    exif = image.getexif()
    exif[274] = 6
    kinds = [bytes_of(image.convert(mode)) for mode in ("L", "RGB", "P", "RGBA", "LA", "1")]
    jpegs = [bytes_of(image.convert(mode), "JPEG", exif=exif) for mode in ("L", "RGB", "CMYK")]
    return [*kinds, *jpegs, bytes_of(image, "JPEG", progressive=True)]


@pytest.mark.parametrize("seed", range(4))
def test_whatever_bytes_there_are_they_are_read_or_refused(tmp_path: Path, seed: int):
    rng = np.random.default_rng(seed)
    originals = whole_images()
    read = 0
    for _ in range(100):
        content = bytearray(originals[rng.integers(len(originals))])
        for _ in range(rng.choice([1, 2, 5, 20])):
            place = rng.integers(len(content))
            stop = place + rng.integers(1, 20)
            content[place:stop] = rng.bytes(rng.choice([0, 1, stop - place, 30]))
            content = content or bytearray(b"x")
        (tmp_path / "image.png").write_bytes(content)
        size = (8, 8) if rng.random() < 0.5 else None
        try:
            pictures = read_pictures(named(tmp_path, "image.png"), size, None)
        except Mistake as mistake:
            assert str(mistake).endswith(": 1 file: image.png") or "values of pixels" in str(mistake)
            continue
        read += 1
        assert np.abs(pictures.inputs).max() <= 1
    assert read < 100


def test_all_faults_are_told_at_once_with_their_numbers(tmp_path: Path):
    files = []
    for number in range(5):
        (tmp_path / f"text-{number}.png").write_bytes(b"text")
        save(np.zeros((4, 4 + number % 2), np.uint8), tmp_path / f"good-{number}.png")
        files += named(tmp_path, f"text-{number}.png", f"good-{number}.png")
    (tmp_path / "cut.png").write_bytes(WHOLE[:900])
    (tmp_path / "folder.png").mkdir()
    os.mkfifo(tmp_path / "pipe.png")
    files += named(tmp_path, "cut.png", "folder.png", "pipe.png", "none.png")
    with pytest.raises(Mistake) as caught:
        read_pictures(files, None, None)
    assert str(caught.value).splitlines() == [
        "expected PNG or JPEG, got something else: 5 files: text-0.png, text-1.png, text-2.png and 2 more",
        "expected an ordinary file, got a folder: 1 file: folder.png",
        "expected an ordinary file, got a pipe; write what it gives to a file first: 1 file: pipe.png",
        "expected an image's file, got No such file or directory: 1 file: none.png",
        "expected a whole image, got one that is damaged or cut off: 1 file: cut.png",
        "data.image_size: expected images of one size (height x width), got 4 x 4 (3), 4 x 5 (2), 40 x 40 (1); "
        "set data.image_size = [4, 4], and others are resized to it",
    ]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_are_turned_as_their_camera_says(tmp_path: Path, orientation: int):
    image = Image.fromarray(np.arange(96, dtype=np.uint8).reshape(8, 12) * 2)
    exif = image.getexif()
    exif[274] = orientation
    for kind in ("jpg", "png"):
        image.save(tmp_path / f"image.{kind}", exif=exif, **({"quality": 95} if kind == "jpg" else {}))
        pictures = read_pictures(named(tmp_path, f"image.{kind}"), None, None)
        with Image.open(tmp_path / f"image.{kind}") as written:
            expected = ImageOps.exif_transpose(written)
        np.testing.assert_array_equal(pictures.pixels[0, 0], np.asarray(expected))
        assert any("turned" in note for note in pictures.notes()) == (orientation > 1)


def test_images_of_other_sizes_and_colours_are_changed_and_that_is_said(tmp_path: Path):
    save(np.full((4, 6), 100, np.uint8), tmp_path / "grey.png")
    save(np.full((8, 8, 3), (10, 200, 30), np.uint8), tmp_path / "colour.png")
    files = named(tmp_path, "grey.png", "colour.png")

    as_colour = read_pictures(files, (4, 6), None)
    assert as_colour.pixels.shape == (2, 3, 4, 6)
    np.testing.assert_array_equal(as_colour.pixels[1, :, 0, 0], [10, 200, 30])
    assert as_colour.notes() == [
        "2 images, 4 x 6 pixels (height x width), in colour",
        "images of another size, which were resized, also if that changes their shape: 1",
        "grey images, which were read as colour: 1",
    ]
    as_grey = read_pictures(files, (4, 6), 1)
    assert as_grey.pixels.shape == (2, 1, 4, 6)
    assert as_grey.pixels[1].max() == round(0.299 * 10 + 0.587 * 200 + 0.114 * 30)
    assert "images in colour, which were read as grey: 1" in as_grey.notes()


def test_images_with_the_same_bytes_are_counted(tmp_path: Path):
    for name in ("a.png", "b.png", "c.png"):
        save(np.full((2, 2), 7, np.uint8), tmp_path / name)
    notes = read_pictures(named(tmp_path, "a.png", "b.png", "c.png"), None, None).notes()
    assert notes[1] == "images with the same bytes as another: 2; test rows may repeat training rows"


def test_no_room_is_made_for_too_many_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name in ("a.png", "b.png"):
        save(np.zeros((10, 10), np.uint8), tmp_path / name)
    files = named(tmp_path, "a.png", "b.png")
    with pytest.raises(Mistake, match=r"at most 268,435,456 values of pixels, got 2 images x 3 channels x 9000 x 9000"):
        read_pictures(files, (9000, 9000), 3)

    monkeypatch.setattr(image_files, "MOST_VALUES", 199)
    with pytest.raises(Mistake, match="at most 199 values of pixels, got 2 images x 1 channels x 10 x 10 = 200"):
        read_pictures(files, None, None)
    monkeypatch.setattr(image_files, "MOST_IMAGES", 1)
    with pytest.raises(Mistake, match="at most 1 images, got 2"):
        read_pictures(files, (1, 1), None)
    monkeypatch.setattr(image_files, "MOST_FILE_BYTES", 20)
    with pytest.raises(Mistake, match=r"expected at most 20 bytes, got \d+: 1 file: a.png"):
        read_pictures(files[:1], None, None)


def test_the_digest_is_of_names_and_contents(tmp_path: Path):
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        save(np.zeros((2, 2), np.uint8), tmp_path / folder / "a.png")
    digest = digest_of(named(tmp_path / "one", "a.png"))
    assert digest_of(named(tmp_path / "two", "a.png")) == digest
    (tmp_path / "two" / "a.png").rename(tmp_path / "two" / "b.png")
    assert digest_of(named(tmp_path / "two", "b.png")) != digest
    save(np.ones((2, 2), np.uint8), tmp_path / "two" / "a.png")
    assert digest_of(named(tmp_path / "two", "a.png")) != digest


def test_a_file_that_is_gone_has_no_digest(tmp_path: Path):
    with pytest.raises(Mistake, match=r"a.png: expected an image's file, got No such file"):
        digest_of(named(tmp_path, "a.png"))


def test_progress_is_told(tmp_path: Path):
    save(np.zeros((2, 2), np.uint8), tmp_path / "a.png")
    told = []
    with telling(lambda *values: told.append(values)):
        read_pictures(named(tmp_path, "a.png"), (3, 3), 3)
    assert told == [("reading the heads of images", 1, 1), ("reading images", 1, 1)]
