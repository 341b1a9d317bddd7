"""Search for a row that counts for more than the clip, over inputs, weights and outcomes at once.

A candidate is a model's parameters and a few rows. Random ones are made to be nasty: positions that nearly cancel,
numbers of very different sizes, many equal words. Some are improved by gradient descent on the norm of the row's
gradient over the sizes of what it is made of, which is how far terms cancel; all are then improved by an evolution
strategy on the share itself: the norm of what the last row adds to its site's noiseless sum, over the clip. For hours:

    python -m tests.privacy.clip_search --minutes 60
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from fedsim.data.federation import Examples
from fedsim.engines.stack.train import train_together
from fedsim.randomness import Words
from fedsim.scenario.schema import Optimizer
from fedsim.training.functional import outputs_with
from fedsim.training.losses import binary
from fedsim.training.model import parts_of
from fedsim.training.steps import train
from fedsim.training.work import Noise, Plan, Streams, Work
from tests.on_gpu import as_on_a_gpu
from tests.works import Silent

CLIP = 1.0
RATE = 2.0**60  # the learning rate: what is read off the model is the sum, not the rounding of the model itself
ROWS = 5  # of a candidate; the last is the one that comes and goes
ENGINES = ("cohort", "cohort as on CUDA", "serial")


class Difference(nn.Module):
    """The difference of two positions, through two layers: equal positions cancel."""

    def __init__(self, features: int, hidden: int, bias: bool) -> None:
        super().__init__()
        self.first = nn.Linear(features, hidden, bias=bias)
        self.second = nn.Linear(hidden, 1, bias=bias)

    def forward(self, inputs: Tensor) -> Tensor:
        outputs = self.first(inputs)
        return self.second(outputs[:, 1] - outputs[:, 0])


class Words4(nn.Module):
    """Embeddings of words, with alternating signs: a word at two positions cancels."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(10, 6)
        self.layer = nn.Linear(6, 1)

    def forward(self, inputs: Tensor) -> Tensor:
        words = inputs.nan_to_num().abs().clamp(max=9).long()
        signs = torch.tensor([1.0, -1.0]).repeat(inputs.shape[1] // 2).to(inputs) * inputs.sign()
        signs = signs + 0 * inputs  # a NaN has a sign for torch, and is to spoil its row
        return self.layer((self.embedding(words) * signs[:, :, None]).sum(1))


class Last(nn.Module):
    """The last output of a recurrent layer."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, inputs: Tensor) -> Tensor:
        return self.layer(inputs)[0][:, -1]


class Cell(nn.Module):
    """The last state of a cell that goes along the positions."""

    def __init__(self, cell: nn.RNNCellBase) -> None:
        super().__init__()
        self.cell = cell

    def forward(self, inputs: Tensor) -> Tensor:
        state = None
        for position in range(inputs.shape[1]):
            state = self.cell(inputs[:, position], state)
        return state[0] if isinstance(state, tuple) else state  # type: ignore[return-value]


class TorchAttention(nn.Module):
    """The mean of what torch's attention gives at each position."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.attention(inputs, inputs, inputs)[0].mean(1)


class Crossed(nn.Module):
    """A bilinear layer, for which there is no rule: it is computed by ``torch.func``."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Bilinear(6, 6, 4)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.layer(inputs[:, 0], inputs[:, 1])


class Attention(nn.Module):
    """One head of attention by hand: gradients at the keys add up to nothing over positions."""

    def __init__(self, features: int, hidden: int) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(features, hidden) for _ in range(3))
        self.last = nn.Linear(hidden, 1)

    def forward(self, inputs: Tensor) -> Tensor:
        weights = (self.query(inputs) @ self.key(inputs).mT).softmax(2)
        return self.last((weights @ self.value(inputs)).mean(1))


def twice() -> nn.Module:
    shared = nn.Linear(12, 12)
    return nn.Sequential(shared, nn.Tanh(), shared, nn.Linear(12, 1))


def convolved_twice() -> nn.Module:
    shared = nn.Conv2d(2, 2, 3, padding=1)
    return nn.Sequential(shared, nn.Tanh(), shared, nn.Flatten(), nn.Linear(32, 1))


def normed_twice() -> nn.Module:
    shared = nn.LayerNorm(12)
    return nn.Sequential(shared, nn.Linear(12, 12), shared, nn.Linear(12, 1))


@dataclass(frozen=True)
class Subject:
    """A model to attack, and the shape of a row of its inputs."""

    make: Callable[[], nn.Module]
    shape: tuple[int, ...]


SUBJECTS = {
    "one position": Subject(lambda: nn.Sequential(nn.Linear(30, 20), nn.ReLU(), nn.Linear(20, 1)), (30,)),
    "one position of few inputs": Subject(lambda: nn.Sequential(nn.Linear(6, 20), nn.ReLU(), nn.Linear(20, 1)), (6,)),
    "two positions, no bias": Subject(lambda: Difference(24, 24, False), (2, 24)),
    "two positions": Subject(lambda: Difference(64, 48, True), (2, 64)),
    "many positions": Subject(
        lambda: nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Flatten(), nn.Linear(80, 1)), (20, 5)
    ),
    "few positions of a large layer": Subject(
        lambda: nn.Sequential(nn.Linear(40, 50), nn.Flatten(), nn.Linear(250, 1)), (5, 40)
    ),
    "a layer used twice": Subject(twice, (12,)),
    "attention": Subject(lambda: Attention(20, 16), (6, 20)),
    "embedding": Subject(Words4, (8,)),
    "layer norm": Subject(lambda: nn.Sequential(nn.Linear(16, 8), nn.LayerNorm(8), nn.Linear(8, 1)), (16,)),
    "layer norm over positions": Subject(
        lambda: nn.Sequential(nn.LayerNorm(6), nn.Linear(6, 4), nn.Flatten(), nn.Linear(32, 1)), (8, 6)
    ),
    "a norm used twice": Subject(normed_twice, (12,)),
    "group norm": Subject(lambda: nn.Sequential(nn.GroupNorm(2, 4), nn.Flatten(), nn.Linear(24, 1)), (4, 6)),
    "convolution": Subject(
        lambda: nn.Sequential(nn.Conv2d(1, 3, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(75, 1)), (1, 5, 5)
    ),
    "convolution of few positions": Subject(
        lambda: nn.Sequential(nn.Conv2d(4, 40, 3), nn.Tanh(), nn.Flatten(), nn.Linear(160, 1)), (4, 4, 4)
    ),
    "convolutions and pooling": Subject(
        lambda: nn.Sequential(
            *(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 6, 2), nn.Flatten()),
            nn.Linear(24, 1),
        ),
        (1, 6, 6),
    ),
    "a convolution used twice": Subject(convolved_twice, (2, 4, 4)),
    "gru": Subject(lambda: nn.Sequential(Last(nn.GRU(5, 6, batch_first=True)), nn.Linear(6, 1)), (6, 5)),
    "lstm": Subject(lambda: nn.Sequential(Last(nn.LSTM(5, 6, batch_first=True)), nn.Linear(6, 1)), (6, 5)),
    "rnn": Subject(lambda: nn.Sequential(Last(nn.RNN(5, 6, batch_first=True)), nn.Linear(6, 1)), (6, 5)),
    "rnn cell": Subject(lambda: nn.Sequential(Cell(nn.RNNCell(5, 6)), nn.Linear(6, 1)), (4, 5)),
    "gru cell": Subject(lambda: nn.Sequential(Cell(nn.GRUCell(5, 6)), nn.Linear(6, 1)), (4, 5)),
    "lstm cell": Subject(lambda: nn.Sequential(Cell(nn.LSTMCell(5, 6)), nn.Linear(6, 1)), (4, 5)),
    "torch's attention": Subject(lambda: nn.Sequential(TorchAttention(), nn.Linear(8, 1)), (4, 8)),
    "convolution in one dimension": Subject(
        lambda: nn.Sequential(nn.Conv1d(2, 3, 3, padding=1), nn.Tanh(), nn.Flatten(), nn.Linear(24, 1)), (2, 8)
    ),
    "a layer without a rule": Subject(lambda: nn.Sequential(Crossed(), nn.PReLU(4), nn.Linear(4, 1)), (2, 6)),
    "large gru": Subject(lambda: nn.Sequential(Last(nn.GRU(40, 40, batch_first=True)), nn.Linear(40, 1)), (4, 40)),
}


@dataclass(frozen=True)
class Candidates:
    """Some ways to try it: parameters (n, params), inputs (n, ROWS, ...), targets (n, ROWS)."""

    parameters: Tensor
    inputs: Tensor
    target: Tensor

    def __len__(self) -> int:
        return len(self.target)

    def chosen(self, numbers: Tensor) -> Candidates:
        return Candidates(self.parameters[numbers], self.inputs[numbers], self.target[numbers])

    def joined(self, other: Candidates) -> Candidates:
        return Candidates(
            torch.cat([self.parameters, other.parameters]),
            torch.cat([self.inputs, other.inputs]),
            torch.cat([self.target, other.target]),
        )


@dataclass
class Worst:
    """The largest shares that were found, and how many candidates were tried.

    Attributes:
        alone: Of a row that is its site's only one.
        beside: Of a row beside others, against the same batch in which it counts as zero.
        coming: Of a row beside others, against a batch without it. The others' own gradients may then differ in their
            last bits, since torch multiplies short batches in another order than long ones.
        tried: How many candidates.
        not_finite: How many gave a sum that is not finite.
    """

    alone: float = 0.0
    beside: float = 0.0
    coming: float = 0.0
    tried: int = 0
    not_finite: int = 0


def sums(subject: Subject, model: nn.Module, tried: Candidates, rows: slice, engine: str) -> Tensor:
    """Return each candidate's noiseless clipped sum of some of its rows, float64 (n, params)."""
    plan = Plan(1, 1.0, 1.0, Optimizer(lr=RATE), Noise(CLIP, 1.0))
    works = []
    for number in range(len(tried)):
        examples = Examples(tried.inputs[number, rows], tried.target[number, rows])
        streams = Streams(Words.of(0, "batches", number), Silent())
        works.append(Work(model, tried.parameters[number].clone(), examples, plan, streams, binary))
    start = tried.parameters.double()
    if engine == "serial":
        trained = torch.stack([train(work).parameters for work in works])
        return (start - trained.double()) / RATE
    stack = tried.parameters.clone()
    with as_on_a_gpu() if engine == "cohort as on CUDA" else nullcontext():
        train_together(works, stack)
    return (start - stack.double()) / RATE


def made(subject: Subject, model: nn.Module, count: int, random: torch.Generator) -> Candidates:
    """Make random candidates."""
    shape = (count, ROWS, *subject.shape)
    start = torch.cat([value.detach().flatten() for value in model.parameters()])
    spread = _powers((count, 1), -2, 2, random)
    parameters = spread * (start + 0.3 * torch.randn(count, len(start), generator=random))

    inputs = torch.randn(shape, generator=random) * _powers((count, ROWS, *[1] * len(subject.shape)), -3, 5, random)
    wild = torch.rand(count, generator=random) < 0.2
    inputs[wild] *= _powers(inputs[wild].shape, -6, 6, random)
    if len(subject.shape) > 1:  # positions that are nearly equal
        alike = torch.rand(count, generator=random) < 0.6
        apart = _powers((count, ROWS, *[1] * len(subject.shape)), -9, 0, random)
        close = inputs[:, :, :1] * (1 + apart * torch.randn(shape, generator=random))
        inputs = torch.where(alike.view(-1, *[1] * (len(shape) - 1)), close, inputs)
    target = (torch.rand(count, ROWS, generator=random) < 0.5).float()
    return Candidates(parameters, inputs, target)


def _powers(shape: tuple[int, ...] | torch.Size, low: float, high: float, random: torch.Generator) -> Tensor:
    return 10.0 ** (low + (high - low) * torch.rand(shape, generator=random))


def changed(tried: Candidates, random: torch.Generator) -> Candidates:
    """Change each candidate a little: some numbers by a little or much, or one position into nearly another."""
    inputs = _nudged(tried.inputs, random)
    if inputs.dim() > 3 and torch.rand((), generator=random) < 0.5:
        first, second = torch.randint(inputs.shape[2], (2,), generator=random).tolist()
        apart = _powers((len(inputs), 1, *[1] * (inputs.dim() - 3)), -9, -1, random)
        noise = torch.randn(inputs[:, :, first].shape, generator=random)
        inputs[:, :, first] = inputs[:, :, second] * (1 + apart * noise)
    flipped = torch.rand(tried.target.shape, generator=random) < 0.05
    target = torch.where(flipped, 1 - tried.target, tried.target)
    return Candidates(_nudged(tried.parameters, random), inputs, target)


def _nudged(values: Tensor, random: torch.Generator) -> Tensor:
    size = _powers((len(values), *[1] * (values.dim() - 1)), -7, 0, random)
    nudges = size * torch.randn(values.shape, generator=random)
    some = torch.rand(values.shape, generator=random) < 0.3
    whole = _powers((len(values), *[1] * (values.dim() - 1)), -0.3, 0.3, random)
    return torch.where(some, values * (1 + nudges), values) * whole


def descended(model: nn.Module, tried: Candidates, steps: int) -> Candidates:
    """Make the last row's terms cancel: descend on its gradient's norm over those of its inputs and outputs."""
    parameters, inputs = tried.parameters.clone(), tried.inputs.clone()
    for number in range(len(tried)):
        weights = parameters[number].clone().requires_grad_()
        row = inputs[number, -1:].clone().requires_grad_()
        optimizer = torch.optim.Adam([weights, row], lr=float(row.detach().abs().mean()) * 0.03)
        for _ in range(steps):
            outputs = outputs_with(model, parts_of(model, weights), row)
            loss = binary(outputs, tried.target[number, -1:]).sum()
            at_output, gradient = torch.autograd.grad(loss, [outputs, weights], create_graph=True)
            size = gradient.pow(2).sum() + 1e-30
            scale = (row.pow(2).sum() + 1e-30) * (at_output.pow(2).sum() + 1e-30) * (weights.pow(2).sum() + 1e-30)
            goal = size.log() - scale.log()
            optimizer.zero_grad()
            goal.backward()
            if not (weights.grad is not None and weights.grad.isfinite().all()):
                break
            if row.grad is None or not row.grad.isfinite().all():
                break
            optimizer.step()
        parameters[number] = weights.detach()
        inputs[number, -1] = row.detach()[0]
    return Candidates(parameters, inputs, tried.target)


def measure(subject: Subject, model: nn.Module, tried: Candidates, engine: str, worst: Worst) -> Tensor:
    """Return the larger of each candidate's shares alone and beside others, (n,), and remember the worst."""
    alone = sums(subject, model, tried, slice(ROWS - 1, ROWS), engine)
    both = sums(subject, model, tried, slice(ROWS), engine)
    without = sums(subject, model, tried, slice(ROWS - 1), engine)

    inputs = tried.inputs.clone()
    inputs[:, -1] = torch.nan  # a row that is not finite is there and counts as zero
    spoiled = Candidates(tried.parameters, inputs, tried.target)
    as_zero = sums(subject, model, spoiled, slice(ROWS), engine)

    found = torch.stack([alone, both - as_zero, both - without]).norm(dim=2) / CLIP  # (3, n)
    worst.not_finite += int((~found.isfinite()).any(0).sum())
    found = found.nan_to_num(posinf=0.0)
    worst.alone = max(worst.alone, float(found[0].max()))
    worst.beside = max(worst.beside, float(found[1].max()))
    worst.coming = max(worst.coming, float(found[2].max()))
    worst.tried += len(tried)
    return found[:2].amax(0)


def search(name: str, engine: str, seconds: float, seed: int, size: int = 48, generations: int = 10**9) -> Worst:
    """Search for so many seconds of this process, or generations."""
    subject, random, worst = SUBJECTS[name], torch.Generator().manual_seed(seed), Worst()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = subject.make()
    end = time.process_time() + seconds
    best, scores = None, None
    for generation in range(generations):
        if generation and time.process_time() > end:
            break
        new = made(subject, model, size, random)
        if generation % 4 == 0:
            some = torch.arange(4)
            new = new.joined(descended(model, new.chosen(some), 15))
        if best is not None:
            new = new.joined(changed(best, random)).joined(changed(best, random))
        found = measure(subject, model, new, engine, worst)
        if best is not None and scores is not None:
            new, found = new.joined(best), torch.cat([found, scores])
        leading = found.topk(size // 3).indices
        best, scores = new.chosen(leading), found[leading]
        if generation % 12 == 11:
            best, scores = None, None  # start over: the next may end elsewhere
    return worst


def main() -> None:
    """Search all subjects in turn, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--engine", choices=ENGINES, action="append")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    engines = asked.engine or ENGINES
    each = 60 * asked.minutes / (len(SUBJECTS) * len(engines))
    say = partial(print, flush=True)
    say("| subject | engine | candidates | alone | beside others | coming and going | not finite |")
    say("|---|---|---|---|---|---|---|")
    for place, name in enumerate(SUBJECTS):
        for engine in engines:
            worst = search(name, engine, each, asked.seed + 1000 * place)
            figures = (
                f"{worst.tried} | {worst.alone:.7f} | {worst.beside:.7f} | {worst.coming:.7f} | {worst.not_finite}"
            )
            say(f"| {name} | {engine} | {figures} |")


if __name__ == "__main__":
    main()
