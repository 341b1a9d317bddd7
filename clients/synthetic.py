"""Made-up sites, in any number.

They serve to try a strategy or a privacy setting at scale, and to measure speed.

A row is white noise around the center of its class. The centers are the same at every site. A
site's rows are made when the site is first asked for, and are the same in every run.
"""

from functools import cache

import numpy as np
from torch import Tensor, nn

from fedsim.data import Task
from fedsim.data.task import Make
from fedsim.randomness import stream

SOURCE = "random numbers, made when they are needed"


def maker(name: str, rows: int, classes: int, *shape: int) -> Make:
    """Build the function that makes a site's rows.

    Args:
        name: A name for the random streams.
        rows: The number of a site's rows.
        classes: The number of classes.
        shape: The shape of a row.
    """

    @cache
    def centers() -> np.ndarray:
        return stream(0, "centers", name).standard_normal((classes, *shape), np.float32)

    def make(site: int) -> tuple[np.ndarray, np.ndarray]:
        random = stream(0, "rows", name, site)
        target = random.integers(classes, size=rows)
        noise = random.standard_normal((rows, *shape), np.float32)
        return centers()[target] + noise, target

    return make


def skewed_rows(site: int) -> tuple[np.ndarray, np.ndarray]:
    """Make 100 rows of 30 numbers, of two of ten classes; the site decides which two."""
    random = stream(0, "rows", "skewed", site)
    classes = np.array([site % 10, (3 * site + 1) % 10])
    target = classes[random.integers(2, size=100)]
    noise = 1.5 * random.standard_normal((100, 30), np.float32)
    return _centers(10)[target] + noise, target


def noisy_rows(site: int) -> tuple[np.ndarray, np.ndarray]:
    """Make 100 rows of 30 numbers, of two classes that overlap."""
    random = stream(0, "rows", "noisy", site)
    target = random.integers(2, size=100)
    noise = 3.0 * random.standard_normal((100, 30), np.float32)
    return _centers(2)[target] + noise, target


def odd_rows(site: int) -> tuple[np.ndarray, np.ndarray]:
    """Make the noisy rows; at site 0 the classes have each other's names."""
    rows, target = noisy_rows(site)
    if site == 0:
        target = 1 - target
    return rows, target


def rows_of_two_kinds(site: int) -> tuple[np.ndarray, np.ndarray]:
    """Make the noisy rows; at every other site the classes have each other's names."""
    rows, target = noisy_rows(site)
    if site % 2:
        target = 1 - target
    return rows, target


@cache
def _centers(classes: int) -> np.ndarray:
    """Draw the centers of classes of 30 numbers, float32 (classes, 30)."""
    return stream(0, "centers", classes).standard_normal((classes, 30), np.float32)


def mlp_of_ten(inputs: int) -> nn.Module:
    """Make a network with a hidden layer of 64, for ten classes."""
    return nn.Sequential(nn.Linear(inputs, 64), nn.ReLU(), nn.Linear(64, 10))


def mlp(inputs: int) -> nn.Module:
    """Make a network with two hidden layers of 64, for two classes."""
    return nn.Sequential(
        *(nn.Linear(inputs, 64), nn.ReLU()),
        *(nn.Linear(64, 64), nn.ReLU()),
        nn.Linear(64, 2),
    )


def lenet(channels: int, height: int, width: int) -> nn.Module:
    """Make LeNet-5 for 32 x 32 images of ten classes: 62 006 parameters.

    LeCun, Bottou, Bengio, Haffner 1998.
    """
    return nn.Sequential(
        *(nn.Conv2d(channels, 6, 5), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()),
        *(nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10)),
    )


def cnn(channels: int, height: int, width: int) -> nn.Module:
    """Make a network like that of pfl-research's CIFAR-10 benchmark, without dropout.

    It has 1 626 442 parameters.
    """
    return nn.Sequential(
        *(nn.Conv2d(channels, 32, 3), nn.ReLU()),
        *(nn.Conv2d(32, 64, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()),
        *(nn.Linear(64 * 14 * 14, 128), nn.ReLU(), nn.Linear(128, 10)),
    )


class Recurrent(nn.Module):
    """A GRU of 32 units and a linear readout of its last state, for two classes."""

    def __init__(self, time: int, inputs: int) -> None:
        super().__init__()
        self.recurrent = nn.GRU(inputs, 32, batch_first=True)
        self.readout = nn.Linear(32, 2)

    def forward(self, inputs: Tensor) -> Tensor:
        """Compute logits (rows, 2) for inputs (rows, time, inputs)."""
        states, _ = self.recurrent(inputs)  # (rows, time, units)
        return self.readout(states[:, -1])


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
