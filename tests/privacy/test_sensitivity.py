"""How far one record moves what is released, in double precision, so that rounding hides nothing."""

import numpy as np
import pytest
import torch
from torch import nn

from fedsim.data.federation import Examples
from fedsim.engines.stack.train import train_together
from fedsim.randomness import Words
from fedsim.scenario.schema import Optimizer
from fedsim.training.losses import binary
from fedsim.training.steps import train
from fedsim.training.work import Noise, Plan, Streams, Work
from tests.works import Silent

CLIP = 0.7
BATCH = 8.0
EXACT = 1 + 1e-6


def released(examples: list[Examples], engine: str) -> torch.Tensor:
    """Return each site's clipped sum, (sites, params): one noiseless step from zero, all rows in it."""
    net = nn.Linear(examples[0].inputs.shape[1], 1).double()
    start = torch.zeros(sum(value.numel() for value in net.parameters()), dtype=torch.float64)
    todo = Plan(1, 1.0, BATCH, Optimizer(lr=1.0), Noise(CLIP, 1.0))
    works = [
        Work(net, start, rows, todo, Streams(Words.of(0, "batches", site), Silent()), binary)
        for site, rows in enumerate(examples)
    ]
    if engine == "serial":
        return -BATCH * torch.stack([train(work).parameters for work in works])
    stack = start.repeat(len(works), 1)
    train_together(works, stack)
    return -BATCH * stack


def rows_of(inputs: np.ndarray, target: np.ndarray) -> Examples:
    return Examples(torch.from_numpy(inputs), torch.from_numpy(target))


@pytest.mark.parametrize("engine", ["serial", "cohort"])
@pytest.mark.parametrize("value", [0.0, 1e-30, 1e-3, 1.0, 1e30, 1e38, 1e300, np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("precision", [np.float16, np.float32, np.float64])
def test_a_row_counts_no_more_than_the_clip(engine: str, value: float, precision: type):
    """B4, B9: whatever its norm, and in whatever precision it came."""
    with np.errstate(over="ignore"):
        row = np.full((1, 4), value, precision).astype(np.float64)
    (found,) = released([rows_of(row, np.ones(1))], engine)
    assert found.isfinite().all()
    assert found.norm() <= CLIP * EXACT
    if np.isfinite(row).all() and 1e-3 <= value < 1e100:  # the square of a larger norm is infinite: it counts as zero
        assert found.norm() > 0.4


class Chain(nn.Module):
    """A number times a tiny weight times a large one: the first gradient overflows, the second does not."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(1, 1, bias=False).double(), nn.Linear(1, 1, bias=False).double()

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.second(self.first(inputs))


@pytest.mark.parametrize("engine", ["serial", "cohort"])
def test_a_row_that_is_finite_in_some_layers_only_counts_as_nothing(engine: str):
    """B9: not as nothing in one layer, and as NaN times nothing in the other."""
    start = torch.tensor([1e-308, 100.0], dtype=torch.float64)
    todo = Plan(1, 1.0, BATCH, Optimizer(lr=1.0), Noise(CLIP, 1.0))
    found = []
    for inputs in ([[1.0], [1e308]], [[1.0]]):
        rows = Examples(torch.tensor(inputs, dtype=torch.float64), torch.zeros(len(inputs), dtype=torch.float64))
        work = Work(Chain(), start, rows, todo, Streams(Words.of(0, "batches"), Silent()), binary)
        stack = start.repeat(1, 1)
        done = train(work) if engine == "serial" else train_together([work], stack)[0]
        found.append(done.parameters - start)
    assert found[0].isfinite().all()
    torch.testing.assert_close(found[0], found[1], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("engine", "pairs"), [("cohort", 1000), ("serial", 60)])
def test_no_pair_of_neighbours_is_farther_apart_than_the_clip(engine: str, pairs: int):
    """B5: pairs of sites of 0, 1, 10 or 100 rows and one row more; the farthest are nearly a clip apart."""
    random, data = np.random.default_rng(3), []
    for _ in range(pairs):
        rows = int(random.choice([0, 1, 10, 100]))
        inputs = random.normal(size=(rows + 1, 4)) * 10.0 ** random.uniform(-3, 6, (rows + 1, 1))
        target = (random.random(rows + 1) < 0.5).astype(np.float64)
        data += [rows_of(inputs, target), rows_of(inputs[:-1], target[:-1])]
    found = released(data, engine)
    distances = (found[::2] - found[1::2]).norm(dim=1)
    assert distances.max() <= CLIP * EXACT
    assert distances.max() >= 0.9 * CLIP


@pytest.mark.parametrize("gone", range(1, 5))
def test_who_else_answers_changes_nothing_in_what_a_site_releases(gone: int):
    """B5: with any number of five sites gone, the others' sums, and so their distances, stay as they were."""
    random = np.random.default_rng(gone)
    data = [rows_of(random.normal(size=(n, 4)), np.ones(n)) for n in (1, 3, 10, 30, 100)]
    left = sorted(random.permutation(5)[gone:])
    torch.testing.assert_close(
        released([data[site] for site in left], "cohort"), released(data, "cohort")[left], rtol=1e-12, atol=1e-12
    )
