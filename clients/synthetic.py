"""Made-up sites, as many as one likes: to try a strategy or a privacy setting at scale, and to measure speed.

A row is white noise around the center of its class; the centers are the same at every site. A site's rows are made when
it is first asked for, and are the same in every run.
"""

from collections.abc import Callable
from functools import cache

import numpy as np
from torch import Tensor, nn

from fedsim.data import Task
from fedsim.randomness import stream

SOURCE = "random numbers, made when they are needed"


def maker(name: str, rows: int, classes: int, *shape: int) -> Callable[[int], tuple[np.ndarray, np.ndarray]]:
    """Return what makes a site's rows: inputs float32 (rows, *shape) and class numbers int64 (rows,)."""

    @cache
    def centers() -> np.ndarray:
        return stream(0, "centers", name).standard_normal((classes, *shape), np.float32)

    def make(site: int) -> tuple[np.ndarray, np.ndarray]:
        random = stream(0, "rows", name, site)
        target = random.integers(classes, size=rows)
        return centers()[target] + random.standard_normal((rows, *shape), np.float32), target

    return make


def skewed_rows(site: int) -> tuple[np.ndarray, np.ndarray]:
    """Return 100 rows of 30 numbers of two of ten classes, which two depends on the site."""
    random = stream(0, "rows", "skewed", site)
    target = np.array([site % 10, (3 * site + 1) % 10])[random.integers(2, size=100)]
    return _centers(10)[target] + 1.5 * random.standard_normal((100, 30), np.float32), target


def noisy_rows(site: int) -> tuple[np.ndarray, np.ndarray]:
    """Return 100 rows of 30 numbers of two classes that overlap."""
    random = stream(0, "rows", "noisy", site)
    target = random.integers(2, size=100)
    return _centers(2)[target] + 3.0 * random.standard_normal((100, 30), np.float32), target


def odd_rows(site: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the noisy rows; at site 0 the classes have each other's names."""
    rows, target = noisy_rows(site)
    return rows, 1 - target if site == 0 else target


def rows_of_two_kinds(site: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the noisy rows; at every other site the classes have each other's names."""
    rows, target = noisy_rows(site)
    return rows, 1 - target if site % 2 else target


@cache
def _centers(classes: int) -> np.ndarray:
    return stream(0, "centers", classes).standard_normal((classes, 30), np.float32)


def mlp_of_ten(inputs: int) -> nn.Module:
    """Return a network of one hidden layer of 64, for ten classes."""
    return nn.Sequential(nn.Linear(inputs, 64), nn.ReLU(), nn.Linear(64, 10))


def mlp(inputs: int) -> nn.Module:
    """Return a network of two hidden layers of 64, for two classes."""
    return nn.Sequential(nn.Linear(inputs, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2))


def lenet(channels: int, height: int, width: int) -> nn.Module:
    """Return LeNet-5 for 32 x 32 images of ten classes (LeCun, Bottou, Bengio, Haffner 1998): 62 006 parameters."""
    return nn.Sequential(
        *(nn.Conv2d(channels, 6, 5), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()),
        *(nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10)),
    )


def cnn(channels: int, height: int, width: int) -> nn.Module:
    """Return a network like that of pfl-research's CIFAR-10 benchmark, without dropout: 1 626 442 parameters."""
    return nn.Sequential(
        *(nn.Conv2d(channels, 32, 3), nn.ReLU(), nn.Conv2d(32, 64, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()),
        *(nn.Linear(64 * 14 * 14, 128), nn.ReLU(), nn.Linear(128, 10)),
    )


class Recurrent(nn.Module):
    """A GRU of 32 units and a linear readout of its last state, for two classes."""

    def __init__(self, time: int, inputs: int) -> None:
        super().__init__()
        self.recurrent = nn.GRU(inputs, 32, batch_first=True)
        self.readout = nn.Linear(32, 2)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return logits (rows, 2) for inputs (rows, time, inputs)."""
        return self.readout(self.recurrent(inputs)[0][:, -1])


tabular = Task(
    title="Two classes of 30 numbers, 320 rows a site, made-up sites",
    outcome="the class",
    source=SOURCE,
    columns=(),
    model=mlp,
    make=maker("tabular", 320, 2, 30),
    kind="classes",
)

skewed = Task(
    title="Ten classes of 30 numbers, 100 rows of two classes a site, made-up sites",
    outcome="the class",
    source=SOURCE,
    columns=(),
    model=mlp_of_ten,
    make=skewed_rows,
    kind="classes",
)

noisy = Task(
    title="Two classes of 30 numbers that overlap, 100 rows a site, made-up sites",
    outcome="the class",
    source=SOURCE,
    columns=(),
    model=mlp,
    make=noisy_rows,
    kind="classes",
)

odd = Task(
    title="Two classes of 30 numbers that overlap, which one site names the other way round, made-up sites",
    outcome="the class",
    source=SOURCE,
    columns=(),
    model=mlp,
    make=odd_rows,
    kind="classes",
)

two_kinds = Task(
    title="Two classes of 30 numbers that overlap, which half of the sites name the other way round, made-up sites",
    outcome="the class",
    source=SOURCE,
    columns=(),
    model=mlp,
    make=rows_of_two_kinds,
    kind="classes",
)

images = Task(
    title="Ten classes of 32 x 32 images, 63 rows a site, made-up sites, LeNet-5",
    outcome="the class",
    source=SOURCE,
    columns=(),
    model=lenet,
    make=maker("images", 63, 10, 3, 32, 32),
    kind="classes",
)

images_large = Task(
    title="Ten classes of 32 x 32 images, 63 rows a site, made-up sites, a network of 1.6 million parameters",
    outcome="the class",
    source=SOURCE,
    columns=(),
    model=cnn,
    make=maker("images", 63, 10, 3, 32, 32),
    kind="classes",
)

sequences = Task(
    title="Two classes of 20 x 8 sequences, 80 rows a site, made-up sites, a GRU",
    outcome="the class",
    source=SOURCE,
    columns=(),
    model=Recurrent,
    make=maker("sequences", 80, 2, 20, 8),
    kind="classes",
)
