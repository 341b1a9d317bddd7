"""Grey images of 28 x 28 points, in the file format of MedMNIST.

MedMNIST: Yang et al. 2023, https://medmnist.com.

A file is an .npz with ``train_images``, ``val_images``, ``test_images``, uint8 (rows, 28, 28), and
``..._labels``, integers (rows, 1) or (rows,).
"""

from importlib.util import find_spec
from pathlib import Path

import numpy as np

from fedsim.data.npz import read_npz
from fedsim.mistakes import Mistake

PARTS = ("train", "val", "test")
SIDE = 28


def read_medmnist(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read all images, uint8 (rows, 28, 28), and labels, int64 (rows,): training, validation, test.

    Raises:
        Mistake: There is no such file, it is too large, or not a MedMNIST file of this shape.
    """
    names = [f"{part}_{content}" for part in PARTS for content in ("images", "labels")]
    try:
        arrays = read_npz(path, names)
    except OSError as error:
        reason = error.strerror or error
        raise Mistake(f"data.path: expected a MedMNIST file, got {path}: {reason}") from None
    except KeyError as error:
        raise Mistake(f"{path}: expected a MedMNIST file with {error.args[0]}, it has none") from None
    except Mistake:
        raise
    except ValueError as error:
        message = f"{path}: expected a MedMNIST file (.npz), got something else: {error}"
        raise Mistake(message) from None

    for part in PARTS:
        _check(path, part, arrays[f"{part}_images"], arrays[f"{part}_labels"])
    images = np.concatenate([arrays[f"{part}_images"] for part in PARTS])
    labels = np.concatenate([arrays[f"{part}_labels"].reshape(-1) for part in PARTS])
    return images, labels.astype(np.int64)


def _check(path: Path, part: str, images: np.ndarray, labels: np.ndarray) -> None:
    """Check the arrays of a part of the file.

    Raises:
        Mistake: The images don't have the right type or size, or there is not a label for each.
    """
    if images.dtype != np.uint8 or images.shape[1:] != (SIDE, SIDE):
        expected = f"uint8 (rows, {SIDE}, {SIDE})"
        raise Mistake(f"{path}: {part}_images: expected {expected}, got {images.dtype} {images.shape}")
    if not np.issubdtype(labels.dtype, np.integer) or labels.size != len(images):
        raise Mistake(
            f"{path}: {part}_labels: expected an integer for each of {len(images)} images, "
            f"got {labels.dtype} {labels.shape}"
        )


def downloaded(name: str) -> Path:
    """Return the file of a MedMNIST data set, which the package ``medmnist`` downloads.

    Raises:
        Mistake: The package is not there, or can't fetch it.
    """
    if find_spec("medmnist") is None:
        raise Mistake(
            f"data.path: expected the path of {name}.npz (MedMNIST, 28 x 28), "
            f"e.g. --set data.path={name}.npz; "
            "without it, install the package medmnist, which downloads it"
        )
    import medmnist  # type: ignore[import-not-found]

    try:
        class_name = medmnist.INFO[name]["python_class"]
        dataset = getattr(medmnist, class_name)(split="train", download=True)
        return Path(dataset.root) / f"{name}.npz"
    except (RuntimeError, OSError) as error:
        raise Mistake(f"data.path: expected {name}.npz; medmnist can't fetch it: {error}") from None


def scaled(images: np.ndarray) -> np.ndarray:
    """Scale brightness 0 to 255 to inputs in [-1, 1], float32 (rows, 1, height, width)."""
    return (images[:, None] / np.float32(127.5) - 1).astype(np.float32)
