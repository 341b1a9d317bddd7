"""Training many sites at once, as one stacked model.

The parameters of all sites are one matrix, (sites, params). Each step draws every site's Poisson batch, runs all rows
through the stacked model forward and backward once, clips each row's gradient exactly, adds to each site's sum noise of
its own, and lets torch's optimizer move the matrix, whose arithmetic is elementwise and so each site's own. Batches and
noise come from the same named streams as in ``fedsim.training.steps``, with which this module agrees up to rounding.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector

from fedsim.data.federation import Examples
from fedsim.engines.stack.layers import NoRule, NotApart, Rows, like
from fedsim.engines.stack.model import StackedModel
from fedsim.privacy.ledger import Mechanism
from fedsim.privacy.norms import keep_float32_whole, largest_square
from fedsim.randomness import Normals, choose
from fedsim.training.functional import outputs_with
from fedsim.training.losses import RowLosses
from fedsim.training.model import parts_of
from fedsim.training.rows_alone import draws, some_rows
from fedsim.training.steps import new_optimizer
from fedsim.training.work import Done, Noise, Work

_WORDS = 2**22  # random words that decide about batches, drawn at once
_TRIED = 4  # rows on which a model is tried
_LANES = 16  # float32 numbers that a CPU works on at once: batches of a multiple of it leave no rest, see layers
_ready = threading.local()  # each thread's stacked models: a model's layers remember the step they are in


@dataclass(frozen=True)
class Batch:
    """One step's rows of all sites: inputs (rows, ...), target (rows, ...), and each row's share in its site's step.

    That is what the row counts, 1 over the site's expected batch; rows that only fill up are zeros and count nothing.
    """

    inputs: Tensor
    target: Tensor
    share: Tensor
    rows: Rows


@dataclass(frozen=True)
class Cost:
    """What a model costs: its parameters, and for each row the floats its layers keep and their multiplications."""

    parameters: int
    floats: float
    products: float


def same_steps(work: Work) -> tuple[object, ...]:
    """Return what works must have in common to be stacked; denominators may differ."""
    todo, how = work.plan, (work.losses, work.rule, work.follow)
    return id(work.model), todo.steps, todo.sampling_rate, todo.optimizer, todo.noise, *how


def train_together(works: Sequence[Work], stack: Tensor) -> list[Done]:
    """Do works as ``training.train`` would one by one.

    Args:
        works: Of one model, with plans that agree in ``same_steps``.
        stack: The sites' parameters, float32 (sites, params), which are trained in place: what is done are its rows.

    Raises:
        NoRule: The model can't be stacked.
    """
    todo, losses = works[0].plan, works[0].losses
    if todo.noise:
        keep_float32_whole()
    model = stacked_model(works[0].model, stack.device)
    model.bind(stack)
    shares = 1 / stack.new_tensor([work.plan.expected_batch for work in works])  # (sites,)
    normals, drawn = Normals([work.streams.noise for work in works], stack.device), torch.empty_like(stack)
    optimizer, draws, path = new_optimizer(todo.optimizer, model.parameters), 0, []
    rule = works[0].rule
    memory = {name: model.views(torch.stack([work.memory[name] for work in works])) for name in works[0].memory}
    batches = poisson_batches(
        works, shares, padded=stack.is_cuda or not model.convolves, multiple=_LANES if todo.noise else 1
    )
    for step, batch in enumerate(batches):
        _sum_gradients(model, batch, losses, todo.noise)
        if todo.noise:
            normals.fill(drawn)
            deviation = todo.noise.multiplier * todo.noise.clip * shares
            for gradient, noise in zip(model.gradients, model.views(drawn), strict=True):
                gradient.addcmul_(noise, like(deviation, gradient))
            draws += 1
        for place, (parameter, gradient) in enumerate(zip(model.parameters, model.gradients, strict=True)):
            own = {name: views[place] for name, views in memory.items()}
            parameter.grad = rule.correct(gradient, parameter.detach(), own, step)
        optimizer.step()
        if works[0].follow:
            path.append(stack.clone())
    paths = zip(*path, strict=True) if path else [()] * len(works)
    return [Done(row, _mechanism(work, draws), tuple(own)) for work, row, own in zip(works, stack, paths, strict=True)]


def _sum_gradients(model: StackedModel, batch: Batch, losses: RowLosses, noise: Noise | None) -> None:
    """Write each site's sum of its rows' gradients times their share, clipped before if there is to be noise."""
    if not batch.rows.total:
        return model.sum_gradients()
    found = losses(model(batch.inputs, batch.rows), batch.target)
    if noise is None:
        found.backward(batch.share)
        return model.sum_gradients()
    found.sum().backward()
    sizes = model.sizes()
    squares = sizes.squares
    masses = squares if sizes.masses is None else sizes.masses
    sound = (squares >= 0) & (squares <= largest_square(found))
    if not sound.all():  # a row whose gradient has no norm, or too large a one, counts as zero
        model.forget(~sound)
        squares = squares.masked_fill(~sound, 0.0)
        masses = masses.masked_fill(~sound, 0.0)

    # An upper bound of what the row adds, with what float32 may lose of its terms; Opacus adds the 1e-6, too.
    bounds = squares.sqrt() + torch.finfo(found.dtype).eps * masses.sqrt() + 1e-6  # (rows,)
    factor = (noise.clip / bounds).clamp(max=1.0).to(batch.share.dtype)
    return model.sum_gradients(factor * batch.share)


def _mechanism(work: Work, draws: int) -> Mechanism | None:
    did, noise = work.plan, work.plan.noise
    if noise is None:
        return None
    rng = work.streams.kind
    return Mechanism(did.sampling_rate, noise.multiplier, noise.clip, did.expected_batch, draws, rng)


@dataclass(frozen=True)
class Pool:
    """All rows of all sites, site by site, and a last one of zeros that fills up: as in ``Batch``."""

    inputs: Tensor
    target: Tensor
    share: Tensor

    @classmethod
    def of(cls, works: Sequence[Work], shares: Tensor) -> Pool:
        """Gather the rows of works, given each site's share (sites,)."""
        rows, sizes = [work.examples for work in works], torch.tensor([len(work.examples) for work in works])
        return cls(
            torch.cat([*(own.inputs for own in rows), rows[0].inputs.new_zeros(1, *rows[0].inputs.shape[1:])]),
            torch.cat([*(own.target for own in rows), rows[0].target.new_zeros(1, *rows[0].target.shape[1:])]),
            torch.cat([shares.repeat_interleave(sizes.to(shares.device)), shares.new_zeros(1)]),
        )

    def batch(self, numbers: np.ndarray, rows: Rows) -> Batch:
        """Return the rows with these numbers, ascending."""
        if rows.padded:
            filled = np.full(rows.total, len(self.target) - 1)
            filled[rows.places] = numbers
            numbers = filled
        index = torch.from_numpy(numbers).to(self.target.device)
        inputs, target, share = (values.index_select(0, index) for values in (self.inputs, self.target, self.share))
        return Batch(inputs, target, share, rows)


def poisson_batches(works: Sequence[Work], shares: Tensor, padded: bool, multiple: int = 1) -> Iterator[Batch]:
    """Yield every step's batches: those that ``training.poisson_batches`` yields for each of the works.

    Args:
        works: With one number of steps and one sampling rate.
        shares: What a row of each site counts, (sites,).
        padded: Whether to fill batches up to the longest.
        multiple: Of which their length is to be one then.
    """
    pool = Pool.of(works, shares)
    owner = np.repeat(np.arange(len(works)), [len(work.examples) for work in works])
    for chosen in _choices(works):
        numbers = chosen.nonzero()[0]
        counts = np.bincount(owner[numbers], minlength=len(works))
        yield pool.batch(numbers, Rows(counts, padded, shares.device, multiple))


def _choices(works: Sequence[Work]) -> Iterator[np.ndarray]:
    """Yield for each step which rows of all works join it, bool (rows of all works,)."""
    sizes, left = [len(work.examples) for work in works], works[0].plan.steps
    while left:
        steps = min(left, max(1, _WORDS // (1 + sum(sizes))))
        drawn = [
            work.streams.batches.draw(steps * size).reshape(steps, size)
            for work, size in zip(works, sizes, strict=True)
        ]
        yield from choose(np.concatenate(drawn, 1), works[0].plan.sampling_rate)
        left -= steps


def stacked_model(model: nn.Module, device: torch.device) -> StackedModel:
    """Return the stacked form of a model, made once in each thread."""
    if not hasattr(_ready, "models"):
        _ready.models = WeakKeyDictionary()
    if model not in _ready.models:
        _ready.models[model] = StackedModel(model, device)
    return _ready.models[model]


def check_rules(model: nn.Module, losses: RowLosses, examples: Examples) -> Cost:
    """Make sure that a model's stacked form gives what autograd gives, row by row: outputs, norms and clipped sums.

    Rules know what a layer computes, not what a model's own code does between layers, such as moving the dimension of
    the rows. Clipping by a wrong norm would bound nothing, so this is tried on every model before its first round.

    Args:
        model: The model.
        losses: The loss of its task.
        examples: Rows of its task; their values don't matter where they are floats.

    Returns:
        What it costs.

    Raises:
        NoRule: It can't be stacked.
        NotApart: It gives something else.
    """
    inputs, target = some_rows(examples), examples.target[:1].expand(_TRIED, *examples.target.shape[1:])
    try:
        stacked = stacked_model(model, inputs.device)
        is_random = draws(model, inputs)
        tried = [_try(stacked, model, losses, inputs, target, padded) for padded in (True, False)]
    except Exception as error:
        raise NoRule(f"a model that can't be stacked: {str(error).partition(chr(10))[0]}") from error
    if None in tried and is_random:
        raise NoRule("a model that draws random numbers, so that its rows can't be told apart in a stack")
    if None in tried:
        raise NotApart("a model whose rows can't be told apart in a stack")
    floats, products = tried[1] or (0, 0)
    return Cost(sum(value.numel() for value in model.parameters()), floats / _TRIED, products / _TRIED)


def _try(
    stacked: StackedModel, model: nn.Module, losses: RowLosses, inputs: Tensor, target: Tensor, padded: bool
) -> tuple[int, int] | None:
    """Return the costs of a step with three sites, one of them without rows, or None if it is not right."""
    random = torch.Generator().manual_seed(0)
    start = parameters_to_vector(model.parameters()).detach()
    stack = start + 0.1 * torch.randn(3, len(start), generator=random).to(start)
    counts = np.array([len(target) - 1, 0, 1])
    factor = torch.rand(len(target) + 1, generator=random).to(start)
    factor[-1] = 0
    pool = Pool(torch.cat([inputs, inputs[:1] * 0]), torch.cat([target, target[:1] * 0]), factor)
    batch = pool.batch(np.arange(len(target)), Rows(counts, padded, target.device))
    filled = batch.share > 0
    model.train()
    stacked.bind(stack)
    outputs = stacked(batch.inputs, batch.rows)
    losses(outputs, batch.target).sum().backward()
    costs, squares = stacked.costs(), stacked.sizes().squares[filled]
    stacked.sum_gradients(batch.share)
    expected = torch.zeros_like(stack)
    agree = []
    for row, site in enumerate(np.repeat(np.arange(3), counts)):
        own = stack[site].clone().requires_grad_()
        output = outputs_with(model, parts_of(model, own), inputs[row : row + 1])
        (gradient,) = torch.autograd.grad(losses(output, target[row : row + 1]).sum(), own)
        expected[site] += factor[row] * gradient
        agree += [(output[0], outputs[filled][row]), (gradient.double().pow(2).sum(), squares[row])]
    agree += zip(stacked.views(expected), stacked.gradients, strict=True)
    right = all(torch.allclose(*pair, rtol=1e-3, atol=1e-5) for pair in agree)
    return costs if right else None
