import importlib.util
from pathlib import Path

import numpy as np
import pytest

from clients import images
from fedsim.mistakes import Mistake
from tests.clients.xrays import write_xrays


def test_a_file_is_read_in_its_order(tmp_path: Path):
    arrays = write_xrays(tmp_path / "small.npz", train=20, val=4, test=6)
    read, labels = images.read_medmnist(tmp_path / "small.npz")
    assert read.shape == (30, 28, 28)
    np.testing.assert_array_equal(read[24:], arrays["test_images"])
    np.testing.assert_array_equal(labels[:20], arrays["train_labels"][:, 0])


def test_brightness_is_scaled_by_what_a_byte_can_hold():
    inputs = images.scaled(np.array([[[0, 255]]], np.uint8))
    np.testing.assert_array_equal(inputs, np.array([[[[-1, 1]]]], np.float32))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"val_labels": None}, "expected a MedMNIST file with val_labels, it has none"),
        ({"test_images": np.zeros((6, 64, 64), np.uint8)}, r"test_images: expected uint8 \(rows, 28, 28\), got uint8"),
        ({"test_images": np.zeros((6, 28, 28))}, r"test_images: expected uint8 \(rows, 28, 28\), got float64"),
        ({"train_labels": np.zeros((5, 1), int)}, "train_labels: expected an integer for each of 20 images, got"),
        ({"train_labels": np.zeros((20, 1))}, "train_labels: expected an integer for each of 20 images, got float64"),
        ({"train_labels": np.array([[object()]] * 20)}, "expected a MedMNIST file"),
    ],
)
def test_a_file_of_another_form_is_a_mistake(tmp_path: Path, change: dict, message: str):
    write_xrays(tmp_path / "small.npz", train=20, val=4, test=6, **change)
    with pytest.raises(Mistake, match=message):
        images.read_medmnist(tmp_path / "small.npz")


@pytest.mark.parametrize("content", [b"", b"site,target\n1,2\n", b"PK\x03\x04 and no more"])
def test_no_such_file_at_all_is_a_mistake(tmp_path: Path, content: bytes):
    with pytest.raises(Mistake, match=r"data.path: expected a MedMNIST file, got .*No such file"):
        images.read_medmnist(tmp_path / "none.npz")
    (tmp_path / "other.npz").write_bytes(content)
    with pytest.raises(Mistake, match="expected a MedMNIST file"):
        images.read_medmnist(tmp_path / "other.npz")


def test_without_a_path_the_package_medmnist_is_needed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(images, "find_spec", lambda name: None)
    with pytest.raises(Mistake, match=r"data.path: expected the path of pneumoniamnist.npz .* install .* medmnist"):
        images.downloaded("pneumoniamnist")


@pytest.mark.skipif(importlib.util.find_spec("medmnist") is not None, reason="it is there")
def test_medmnist_is_not_a_dependency():
    with pytest.raises(Mistake, match="medmnist"):
        images.downloaded("pneumoniamnist")
