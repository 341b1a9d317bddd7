"""A file of a few bytes that opens to gigabytes is refused before it is opened, also where it lies about its size."""

import bz2
import io
import os
import struct
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest

from clients import images
from fedsim.data import npz
from fedsim.mistakes import Mistake
from tests.cases import others_whole
from tests.clients.xrays import write_xrays


def header(shape: tuple[int, ...], kind: str = "|u1") -> bytes:
    """Return the head of a .npy file."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": kind, "fortran_order": False, "shape": shape})
    return file.getvalue()


def write_bomb(path: Path, size: int) -> None:
    """Write an .npz of six arrays, of which the first is of so many zeros, compressed."""
    write_xrays(path, train=2, val=2, test=2, train_images=None)
    with (
        zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive,
        archive.open("train_images.npy", "w", force_zip64=True) as member,
    ):
        member.write(header((size // 784, 28, 28)))
        for _ in range(size // 2**20):
            member.write(bytes(2**20))


def lie(path: Path, name: str, size: int) -> None:
    """Change the size that an archive states of a member, in both of its places."""
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        member = archive.getinfo(name)
    local = member.header_offset
    struct.pack_into("<L", content, local + 22, size)
    central = content.rindex(name.encode()) - 46
    struct.pack_into("<L", content, central + 24, size)
    path.write_bytes(content)


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize(
    "array",
    [
        np.arange(24, dtype=np.uint8).reshape(2, 3, 4),
        np.asfortranarray(np.arange(6, dtype=">i4").reshape(2, 3)),
        np.float64(1.5),
        np.zeros((0, 28, 28), np.uint8),
        np.array(["a", "bcd"]),
        np.array([True, False]),
    ],
)
def test_arrays_are_read_as_numpy_reads_them(tmp_path: Path, array: np.ndarray, compression: int):
    path = tmp_path / "x.npz"
    save = np.savez if compression == zipfile.ZIP_STORED else np.savez_compressed
    save(path, a=array, b=np.ones(3))
    read = npz.read_npz(path, ["a"])
    assert list(read) == ["a"]
    with np.load(path) as file:
        np.testing.assert_array_equal(read["a"], file["a"], strict=True)


@pytest.mark.whole
def test_a_small_file_that_opens_to_gigabytes_is_refused_unopened(tmp_path: Path):
    path = tmp_path / "bomb.npz"
    write_bomb(path, npz.LARGEST + 2**21)
    assert path.stat().st_size < 2**20
    tracemalloc.start()
    try:
        with pytest.raises(
            Mistake, match=r"bomb\.npz: expected arrays of at most 536,870,912 bytes, got 53\d,\d+,\d+$"
        ):
            images.read_medmnist(path)
        assert tracemalloc.get_traced_memory()[1] < 10e6
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("stated", others_whole([500, 4096, 784 + 128], 4096))
def test_a_file_that_lies_about_its_size_is_opened_no_further_than_it_said(tmp_path: Path, stated: int):
    path = tmp_path / "liar.npz"
    write_bomb(path, 2**26)
    lie(path, "train_images.npy", stated)
    tracemalloc.start()
    try:
        with pytest.raises(Mistake, match="expected a MedMNIST file"):
            images.read_medmnist(path)
        assert tracemalloc.get_traced_memory()[1] < 10e6
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("shape", [(10**12, 28, 28), (2**62, 4), (-1, 28, 28), (3, 28, 28), (1,), ()])
def test_an_array_has_as_many_numbers_as_it_says(tmp_path: Path, shape: tuple[int, ...]):
    path = tmp_path / "x.npz"
    write_xrays(path, train=2, val=2, test=2, train_images=None)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("train_images.npy", header(shape) + bytes(2 * 784))
    with pytest.raises(Mistake, match=r"expected a MedMNIST file \(\.npz\), got something else: train_images says"):
        images.read_medmnist(path)


METHODS = {"bzip2": zipfile.ZIP_BZIP2, "lzma": zipfile.ZIP_LZMA}


@pytest.mark.parametrize("method", METHODS)
def test_methods_that_open_more_than_was_asked_for_are_refused(tmp_path: Path, method: str):
    path = tmp_path / "x.npz"
    write_xrays(path, train=2, val=2, test=2, train_images=None)
    with zipfile.ZipFile(path, "a", METHODS[method]) as archive:
        archive.writestr("train_images.npy", header((2, 28, 28)) + bytes(2 * 784))
    with pytest.raises(Mistake, match="train_images is not compressed as NumPy does it"):
        images.read_medmnist(path)


@pytest.mark.parametrize(
    "content", [b"", b"\x93NUMPY", b"\x93NUMPY\x01\x00v\x00{'descr': ", bz2.compress(b"x"), b"x" * 99]
)
def test_a_member_that_is_no_array_is_a_mistake(tmp_path: Path, content: bytes):
    path = tmp_path / "x.npz"
    write_xrays(path, train=2, val=2, test=2, train_images=None)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("train_images.npy", content)
    with pytest.raises(Mistake, match="expected a MedMNIST file"):
        images.read_medmnist(path)


def test_a_file_with_holes_and_a_pipe_are_refused(tmp_path: Path):
    path = tmp_path / "x.npz"
    with path.open("wb") as file:
        file.truncate(10**12)
    with pytest.raises(Mistake, match="expected at most 536,870,912 bytes, got 1,000,000,000,000"):
        images.read_medmnist(path)
    os.mkfifo(tmp_path / "y.npz")
    with pytest.raises(Mistake, match="expected an ordinary file, got a pipe"):
        images.read_medmnist(tmp_path / "y.npz")
    with pytest.raises(Mistake, match="expected an ordinary file, got a device"):
        images.read_medmnist(Path("/dev/zero"))


@pytest.mark.parametrize("seed", range(40))
def test_a_damaged_file_is_a_mistake_or_read(tmp_path: Path, seed: int):
    """Whatever is changed, cut or added, it ends in images or in a line."""
    path = tmp_path / "x.npz"
    write_xrays(path, train=2, val=2, test=2)
    content = bytearray(path.read_bytes())
    random = np.random.default_rng(seed)
    for place in random.integers(0, len(content), 20):
        content[place] = random.integers(0, 256)
    path.write_bytes(content[: random.integers(1, len(content) + 1)] if seed % 2 else content)
    try:
        images.read_medmnist(path)
    except Mistake as mistake:
        assert "\n" not in str(mistake)
