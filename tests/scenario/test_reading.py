"""Files of a stranger are opened only if they are ordinary and not too large, and nothing blocks."""

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from fedsim.mistakes import Mistake
from fedsim.scenario import reading
from fedsim.scenario.reading import open_ordinary, read_ordinary


def make_folder(path: Path) -> Path:
    path.mkdir()
    return path


def make_pipe(path: Path) -> Path:
    os.mkfifo(path)
    return path


def make_socket(path: Path) -> Path:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))
    return path


def make_link_to_a_device(path: Path) -> Path:
    path.symlink_to("/dev/zero")
    return path


OTHER_KINDS: dict[str, tuple[Callable[[Path], Path], str]] = {
    "folder": (make_folder, "a folder"),
    "pipe": (make_pipe, "a pipe; write what it gives to a file first"),
    "socket": (make_socket, "a socket"),
    "/dev/zero": (lambda _: Path("/dev/zero"), "a device"),
    "/dev/null": (lambda _: Path("/dev/null"), "a device"),
    "a link to /dev/zero": (make_link_to_a_device, "a device"),
}


@pytest.mark.parametrize("kind", OTHER_KINDS)
@pytest.mark.parametrize("read", [open_ordinary, read_ordinary])
def test_only_an_ordinary_file_is_opened(tmp_path: Path, kind: str, read: Callable):
    make, got = OTHER_KINDS[kind]
    path = make(tmp_path / "x.csv")
    with pytest.raises(Mistake) as caught:
        read(path, 10, "x.csv")
    assert str(caught.value) == f"x.csv: expected an ordinary file, got {got}"


@pytest.fixture
def another_took_its_place(monkeypatch) -> None:
    """Let the look at a file before its opening find nothing wrong, as if another file had been there then."""
    looks = []
    check = reading._check_ordinary

    def check_from_the_second_on(facts: os.stat_result, largest: int, name: str) -> None:
        looks.append(name)
        if len(looks) > 1:
            check(facts, largest, name)

    monkeypatch.setattr(reading, "_check_ordinary", check_from_the_second_on)


@pytest.mark.usefixtures("another_took_its_place")
def test_a_pipe_that_takes_the_place_of_a_file_is_not_read(tmp_path: Path):
    path = make_pipe(tmp_path / "x.csv")
    with pytest.raises(Mistake, match="expected an ordinary file, got a pipe"):
        open_ordinary(path, 10)


@pytest.mark.usefixtures("another_took_its_place")
def test_a_file_that_is_refused_does_not_stay_open(tmp_path: Path):
    path = tmp_path / "x.csv"
    path.write_bytes(b"abc")
    free = os.dup(0)  # the number that the next file gets
    os.close(free)
    with pytest.raises(Mistake, match="expected at most 2 bytes, got 3"):
        open_ordinary(path, 2)
    again = os.dup(0)
    os.close(again)
    assert again == free


@pytest.mark.parametrize("size", [0, 1, 9, 10])
def test_a_file_up_to_the_largest_size_is_read_whole(tmp_path: Path, size: int):
    path = tmp_path / "x.csv"
    path.write_bytes(b"a" * size)
    assert read_ordinary(path, 10) == b"a" * size
    with open_ordinary(str(path), 10) as file:
        assert file.read() == b"a" * size
        assert os.get_blocking(file.fileno())


@pytest.mark.parametrize("size", [11, 10**12])
def test_a_larger_file_is_refused_before_it_is_read(tmp_path: Path, size: int):
    path = tmp_path / "x.csv"
    with path.open("wb") as file:
        file.truncate(size)  # a file with a hole, which takes no room
    for read in (open_ordinary, read_ordinary):
        with pytest.raises(Mistake) as caught:
            read(path, 10, "the table")
        assert str(caught.value) == f"the table: expected at most 10 bytes, got {size:,}"


def test_a_file_that_says_it_is_empty_and_is_not_is_read_no_further_than_allowed():
    """So do the files of /proc, and those that grow."""
    path = Path("/proc/self/status")
    if not path.exists():
        pytest.skip("a file of Linux")
    with pytest.raises(Mistake, match="expected at most 10 bytes, got more"):
        read_ordinary(path, 10)


def test_a_file_that_is_not_there_is_an_error_of_the_system(tmp_path: Path):
    with pytest.raises(FileNotFoundError):
        open_ordinary(tmp_path / "x.csv", 10)


@pytest.mark.parametrize("name", ["a\0b", "\0"])
def test_a_path_with_a_zero_byte_is_a_mistake(name: str):
    with pytest.raises(Mistake, match="expected the path of a file"):
        open_ordinary(name, 10)
