"""Training of many sites at once, as one stacked model.

The parameters of all sites form one matrix, (sites, params). Each step draws every site's Poisson
batch, runs all rows through the stacked model forward and backward once, clips each row's gradient
exactly, and adds noise of its own to each site's sum. Then torch's optimizer moves the matrix; its
arithmetic is elementwise, so that each site moves as it would alone. Batches and noise come from
the same named streams as in ``fedsim.training.steps``, with which this module agrees up to
rounding.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache, partial
from weakref import WeakKeyDictionary, WeakSet

import numpy as np
import torch
from torch import Tensor, nn

from fedsim import devices
from fedsim.data.federation import Examples
from fedsim.engines.stack.captured import usual_width
from fedsim.engines.stack.layers import NoRule, NotApart, Rows, like
from fedsim.engines.stack.model import StackedModel
from fedsim.engines.stack.persons import sum_persons
from fedsim.privacy.ledger import Mechanism
from fedsim.privacy.norms import keep_float32_whole, largest_square
from fedsim.randomness import Normals, choose
from fedsim.strategy.trainable import frozen, shared_when_copied, vector_of
from fedsim.training.dropout import Draws, with_site_dropout
from fedsim.training.functional import outputs_with
from fedsim.training.losses import RowLosses
from fedsim.training.model import parts_of
from fedsim.training.optimizers import in_place_optimizer
from fedsim.training.precision import narrowed
from fedsim.training.rows_alone import draws, some_rows
from fedsim.training.work import Done, Noise, Work

_WORDS = 2**22  # random words that decide about batches, drawn at once
_TRIED = 4  # rows on which a model is tried

# Float32 numbers that a CPU works on at once: batches of a multiple of it leave no rest, see
# fedsim.engines.stack.layers.
_LANES = 16

# Each thread's stacked models: a model's layers remember the step that they are in.
_ready = threading.local()
_as_one_layer: WeakSet[nn.Module] = WeakSet()  # models that are stacked as a whole

_checked_mechanism = lru_cache(maxsize=256)(Mechanism)  # most sites of a round ran the same one


@dataclass(frozen=True)
class Batch:
    """The rows of all sites in one step.

    Attributes:
        inputs: (rows, ...).
        target: (rows, ...).
        share: The factor of each row in its site's step, 1 over the site's expected batch, (rows,).
            Rows that only fill up are zeros and have a share of 0.
        rows: The places of each site's rows.
        person: The number of each row's person, int64 (rows,), another one at another site, and -1 for rows that only
            fill up; None where steps draw rows.
    """

    inputs: Tensor
    target: Tensor
    share: Tensor
    rows: Rows
    person: Tensor | None = None


@dataclass(frozen=True)
class Cost:
    """The size of a model in memory and time.

    Attributes:
        parameters: The number of its parameters.
        floats: The numbers that its layers keep for each row.
        products: The multiplications for each row.
    """

    parameters: int
    floats: float
    products: float


def same_steps(work: Work) -> tuple[object, ...]:
    """Return the values that works must have in common to be stacked; denominators may differ."""
    plan = work.plan
    return (
        id(work.model),
        plan.steps,
        plan.sampling_rate,
        plan.optimizer,
        plan.noise,
        plan.of_persons,
        plan.precision,
        work.losses,
        work.rule,
        work.follow,
    )


def train_together(works: Sequence[Work], stack: Tensor) -> list[Done]:
    """Train works in one stack, as ``training.steps.train`` would one by one.

    Args:
        works: Works of one model, with plans that agree in ``same_steps``.
        stack: The sites' parameters, float32 (sites, params). They are trained in place, and the
            results are rows of this tensor.

    Raises:
        NoRule: The model can't be stacked.
    """
    # All works agree in these, see same_steps.
    plan = works[0].plan
    losses = works[0].losses
    rule = works[0].rule
    follow = works[0].follow

    if plan.noise:
        keep_float32_whole()
    model = stacked_model(works[0].model, stack.device)

    # On a GPU steps that come again and again are captured. What they work on stays where it is.
    is_gpu = devices.is_gpu(stack.device)
    is_captured = is_gpu and not model.drops and not plan.of_persons
    at_work = model.captured.place(stack) if is_captured else stack
    model.bind(at_work)
    model.now.room = _room(stack.device, len(model.layers))
    model.now.narrow = plan.precision == "bf16"
    model.draw_from([work.streams.layers for work in works])

    # A row counts 1 over its own site's expected batch.
    expected_batches = [work.plan.expected_batch for work in works]
    shares = 1 / stack.new_tensor(expected_batches)  # (sites,)

    # One noise stream for each site, so that results don't depend on the other sites of the stack.
    noise_streams = [work.streams.noise for work in works]
    normals = Normals(noise_streams, stack.device)
    standard_noise = torch.empty_like(stack)

    optimizer = in_place_optimizer(plan.optimizer, model.parameters)
    memory = _memory_of_parameters(works, model)
    noisy_steps = 0
    path = []
    padded = is_gpu or not model.convolves
    multiple = _LANES if plan.noise else 1
    width = usual_width([len(work.examples) for work in works], plan.sampling_rate, _LANES) if is_captured else 1
    kind = (plan.noise, plan.precision, losses)
    compute = partial(_sum_gradients, model, losses=losses, noise=plan.noise)
    for step, batch in enumerate(poisson_batches(works, shares, padded, multiple, width)):
        if is_captured:
            model.captured.compute(model, batch, kind, compute)
        else:
            compute(batch)

        # DP-SGD: noise on each site's sum, in a step without rows as well.
        if plan.noise:
            normals.fill(standard_noise)
            deviation = plan.noise.multiplier * plan.noise.clip * shares  # (sites,)
            for gradient, noise in zip(model.gradients, model.views(standard_noise), strict=True):
                gradient.addcmul_(noise, like(deviation, gradient))
            noisy_steps += 1

        # The client half of the strategy may correct the gradients, parameter by parameter.
        parts = zip(model.parameters, model.gradients, memory, strict=True)
        for parameter, gradient, remembered in parts:
            parameter.grad = rule.correct(gradient, parameter.detach(), remembered, step)
        optimizer.step()
        if follow:
            path.append(at_work.clone())

    if is_captured:
        stack.copy_(at_work)
    results = []
    for site, (work, trained) in enumerate(zip(works, stack, strict=True)):
        site_path = tuple(point[site] for point in path)
        results.append(Done(trained, _mechanism(work, noisy_steps), site_path))
    return results


def _room(device: torch.device, layers: int) -> int | None:
    """Return how many float32 numbers of rows' gradients a layer may hold at once; None where a layer knows itself.

    On a GPU that is an eighth of the free memory, shared by all layers.
    """
    if not devices.is_gpu(device):
        return None
    return devices.free_bytes(device) // (8 * 4 * max(1, layers))


def _memory_of_parameters(works: Sequence[Work], model: StackedModel) -> list[dict[str, Tensor]]:
    """Return the local rule's memory for each parameter, {name: (sites, *shape)}."""
    memory: list[dict[str, Tensor]] = [{} for _ in model.parameters]
    for name in works[0].memory:
        of_sites = torch.stack([work.memory[name] for work in works])  # (sites, params)
        for of_parameter, values in zip(memory, model.views(of_sites), strict=True):
            of_parameter[name] = values
    return memory


def _sum_gradients(
    model: StackedModel,
    batch: Batch,
    losses: RowLosses,
    noise: Noise | None,
) -> None:
    """Write each site's sum of row gradients, times their shares.

    The gradients are clipped before, if there is to be noise; where steps draw persons, the sum of each person's.
    """
    if not batch.rows.total:
        model.forget_uses()  # an earlier step may have been broken off: its rows are not of this step, nor clipped
        model.sum_gradients()
        return

    narrow = model.now.narrow
    with narrowed(narrow, batch.inputs.device):
        outputs = model(batch.inputs, batch.rows)
    row_losses = losses(outputs.float() if narrow else outputs, batch.target)  # (rows,)
    if noise is None:
        # The gradient of a dot product is the other factor. To hand it to backward imports sympy, for nothing.
        torch.dot(row_losses, batch.share).backward()
        if model.fills_badly:
            model.forget(batch.share == 0)
        model.sum_gradients()
        return

    row_losses.sum().backward()
    if batch.person is not None:
        sum_persons(model, batch.person, batch.share, noise.clip)
        return

    sizes = model.sizes()
    squares = sizes.squares
    masses = squares if sizes.masses is None else sizes.masses

    # A row counts as zero if its gradient has no norm, or too large a norm. On a GPU every row is gone through: who
    # asks it whether there is such a row waits for all that it still has to do.
    sound = (squares >= 0) & (squares <= largest_square(row_losses))
    unasked = devices.is_gpu(squares.device)
    if unasked or not sound.all():
        model.forget(~sound)
        squares = squares.masked_fill(~sound, 0.0)
        masses = masses.masked_fill(~sound, 0.0)

    # An upper bound of the row's norm, with the digits that float32 may lose of its terms. Opacus
    # adds the 1e-6, too.
    bounds = squares.sqrt() + torch.finfo(row_losses.dtype).eps * masses.sqrt() + 1e-6  # (rows,)
    factor = (noise.clip / bounds).clamp(max=1.0).to(batch.share.dtype)
    model.sum_gradients(factor * batch.share)


def _mechanism(work: Work, noisy_steps: int) -> Mechanism | None:
    """Return the mechanism that a site ran, or None if it was not private."""
    noise = work.plan.noise
    if noise is None:
        return None
    return _checked_mechanism(
        sampling_rate=work.plan.sampling_rate,
        noise_multiplier=noise.multiplier,
        clip=noise.clip,
        expected_batch=work.plan.expected_batch,
        steps=noisy_steps,
        rng=work.streams.kind,
    )


@dataclass(frozen=True)
class Pool:
    """All rows of all sites, site by site, and a last row of zeros that fills batches up.

    The attributes are those of ``Batch``.
    """

    inputs: Tensor
    target: Tensor
    share: Tensor
    person: Tensor | None = None

    @classmethod
    def of(cls, works: Sequence[Work], shares: Tensor) -> Pool:
        """Gather the rows of works, given the share of each site's rows, (sites,)."""
        inputs = [work.examples.inputs for work in works]
        targets = [work.examples.target for work in works]
        sizes = np.array([len(work.examples) for work in works])
        row_shares = shares.repeat_interleave(devices.moved(sizes, shares.device), output_size=int(sizes.sum()))

        filling_inputs = inputs[0].new_zeros(1, *inputs[0].shape[1:])
        filling_target = targets[0].new_zeros(1, *targets[0].shape[1:])
        return cls(
            inputs=torch.cat([*inputs, filling_inputs]),
            target=torch.cat([*targets, filling_target]),
            share=torch.cat([row_shares, shares.new_zeros(1)]),
            person=cls._persons(works),
        )

    @staticmethod
    def _persons(works: Sequence[Work]) -> Tensor | None:
        """Number the persons of all sites, so that none has the number of another site's."""
        if not works[0].plan.of_persons:
            return None
        numbers = []
        persons = 0
        for work in works:
            drawn = work.drawn  # raises a Mistake where nothing is known of persons
            assert work.examples.person is not None  # noqa: S101  see above
            numbers.append(work.examples.person + persons)
            persons += drawn
        return torch.cat([*numbers, numbers[0].new_full((1,), -1)])

    def batch(self, numbers: np.ndarray, rows: Rows) -> Batch:
        """Return the batch of the rows with these numbers, ascending."""
        if rows.padded:
            filled = np.full(rows.total, len(self.target) - 1)
            filled[rows.places] = numbers
            numbers = filled
        index = devices.moved(numbers, self.target.device)
        return Batch(
            inputs=self.inputs.index_select(0, index),
            target=self.target.index_select(0, index),
            share=self.share.index_select(0, index),
            rows=rows,
            person=None if self.person is None else self.person.index_select(0, index),
        )


def poisson_batches(
    works: Sequence[Work],
    shares: Tensor,
    padded: bool,
    multiple: int = 1,
    least: int = 1,
) -> Iterator[Batch]:
    """Yield the batches of every step, as ``training.steps.poisson_batches`` does for a work.

    Args:
        works: Works with the same number of steps and the same sampling rate.
        shares: The share of each site's rows in its step, (sites,).
        padded: Whether to fill batches up to the longest.
        multiple: If so, their length is rounded up to a multiple of this.
        least: Their least length, if so.
    """
    pool = Pool.of(works, shares)
    sizes = [len(work.examples) for work in works]
    site_of_row = np.repeat(np.arange(len(works)), sizes)
    person_of_row = None if pool.person is None else pool.person[:-1].cpu().numpy()
    for chosen in _choices(works):
        if person_of_row is not None:
            chosen = chosen[person_of_row]  # all rows of a person, or none
        numbers = chosen.nonzero()[0]
        counts = np.bincount(site_of_row[numbers], minlength=len(works))
        yield pool.batch(numbers, Rows(counts, padded, shares.device, multiple, least))


def _choices(works: Sequence[Work]) -> Iterator[np.ndarray]:
    """Yield for each step which rows, or persons, of all works join it, bool (rows or persons of all works,)."""
    sizes = [work.drawn for work in works]
    steps_left = works[0].plan.steps
    steps_at_once = max(1, _WORDS // (1 + sum(sizes)))
    while steps_left:
        steps = min(steps_left, steps_at_once)
        words = []
        for work, size in zip(works, sizes, strict=True):
            drawn = work.streams.batches.draw(steps * size)
            words.append(drawn.reshape(steps, size))
        yield from choose(np.concatenate(words, 1), works[0].plan.sampling_rate)
        steps_left -= steps


def stacked_model(model: nn.Module, device: torch.device) -> StackedModel:
    """Return the stacked form of a model, made once in each thread."""
    if not hasattr(_ready, "models"):
        _ready.models = WeakKeyDictionary()
    if model not in _ready.models:
        _ready.models[model] = StackedModel(model, device, model in _as_one_layer)
    return _ready.models[model]


def forget_stacks() -> None:
    """Let go of all stacked models of this thread, their graphs, and the tensors that their layers keep from a step."""
    getattr(_ready, "models", {}).clear()


def sites_in_place(model: nn.Module) -> int:
    """Return for how many sites a model's captured steps hold memory already."""
    stacked = getattr(_ready, "models", {}).get(model)
    return 0 if stacked is None else stacked.captured.sites


def check_rules(model: nn.Module, losses: RowLosses, examples: Examples) -> Cost:
    """Make sure that a model's stacked form agrees with autograd row by row.

    Outputs, norms, clipped sums and the gradients of rows, whose sums by person may be clipped, are compared.

    A rule knows what its layer computes. It does not know what a model's own code does between
    layers, such as moving the dimension of the rows. Clipping by a wrong norm would bound nothing,
    so every model is tried before its first round: layer by layer, and if that fails, as one layer.

    Args:
        model: The model.
        losses: The loss of its task.
        examples: Rows of its task; their values don't matter where they are floats.

    Returns:
        The cost of the model.

    Raises:
        NoRule: It can't be stacked.
        NotApart: Its stacked form gives something else.
    """
    reasons = []
    for whole in (False, True):
        try:
            cost = _cost_of(model, losses, examples, whole)
        except NoRule as error:
            reasons.append(error)
            continue
        if whole:
            _as_one_layer.add(model)
        return cost

    of_layers, of_whole = reasons
    if isinstance(of_layers, NotApart) and not isinstance(of_whole, NotApart):
        raise of_whole
    raise of_layers


def _cost_of(model: nn.Module, losses: RowLosses, examples: Examples, whole: bool) -> Cost:
    """Try a model, layer by layer or as one layer; return its cost.

    Raises:
        NoRule: It can't be stacked.
        NotApart: Its stacked form gives something else.
    """
    inputs = some_rows(model, examples)
    target = examples.target[:1].expand(_TRIED, *examples.target.shape[1:])
    try:
        own_draws = Draws([], inputs.device)
        alone = with_site_dropout(copy.deepcopy(model, shared_when_copied(model)), own_draws)
        with own_draws.off():
            is_random = draws(alone, inputs)
        stacked = StackedModel(model, inputs.device, whole)
        trial = _Trial(stacked, alone, own_draws, losses, inputs, target)
        if stacked.fills_badly:
            trial.tell_arguments_apart()
        padded_costs = trial.costs(padded=True)
        costs = trial.costs(padded=False)
    except Exception as error:
        first_line = str(error).partition("\n")[0]
        raise NoRule(f"a model that can't be stacked: {first_line}") from error

    if padded_costs is None or costs is None:
        if is_random:
            raise NoRule(
                "a model that draws random numbers, so that its rows can't be told apart in a stack"
            )  # fmt: skip
        raise NotApart("a model whose rows can't be told apart in a stack")

    floats, products = costs
    parameters = len(vector_of(model))
    return Cost(parameters, floats / _TRIED, products / _TRIED)


@dataclass(frozen=True)
class _Trial:
    """A trial of a stacked model.

    Attributes:
        stacked: The stacked model.
        alone: The model, for one row at a time.
        draws: The random numbers by which ``alone`` drops.
        losses: The loss of its task.
        inputs: Rows, (rows, ...).
        target: Their targets, (rows, ...).
    """

    stacked: StackedModel
    alone: nn.Module
    draws: Draws
    losses: RowLosses
    inputs: Tensor
    target: Tensor

    def tell_arguments_apart(self) -> None:
        """Call layers of any kind with batches of two sizes: tensors of rows are those whose sizes follow."""
        for padded in (True, False):
            batch, stack, _ = self._step(padded)
            self.stacked.bind(stack)
            with torch.no_grad(), suppress(Exception):
                self.stacked(batch.inputs, batch.rows)

    def costs(self, padded: bool) -> tuple[int, int] | None:
        """Return the costs of a step, or None if it differs from autograd's.

        The step has three sites, of which the second has no rows.
        """
        batch, stack, counts = self._step(padded)
        stacked = self.stacked

        # All rows in one stack.
        self.alone.train()
        stacked.bind(stack)
        stacked.draw_from(range(len(counts)))
        with stacked.now.draws.recorded() as kept, _kept_beside(self.alone) as kept_by_torch:
            outputs = stacked(batch.inputs, batch.rows)
        self.losses(outputs, batch.target).sum().backward()
        floats, products = stacked.costs()
        costs = floats + sum(kept_by_torch.values()), products
        is_row = batch.share > 0  # the others only fill up
        row_outputs = outputs[is_row]
        row_squares = stacked.sizes().squares[is_row]
        numbers = is_row.nonzero()[:, 0]
        row_gradients = stacked.row_gradients(numbers)
        stacked.forget(~is_row)
        stacked.sum_gradients(batch.share)

        # Each row alone, by autograd.
        sums = torch.zeros_like(stack)
        pairs = []
        for row, site in enumerate(np.repeat(np.arange(len(counts)), counts)):
            number = numbers[row]
            parameters = stack[site].clone().requires_grad_()
            with self.draws.given([decided[number : number + 1] for decided in kept]):
                output = outputs_with(self.alone, parts_of(self.alone, parameters), self.inputs[row : row + 1])
            loss = self.losses(output, self.target[row : row + 1]).sum()
            (gradient,) = torch.autograd.grad(loss, parameters)
            sums[site] += batch.share[number] * gradient
            pairs.append((output[0], row_outputs[row]))
            pairs.append((gradient.double().pow(2).sum(), row_squares[row]))
            pairs.append((gradient, torch.cat([values[row].flatten() for values in row_gradients.values()])))
        pairs += zip(stacked.views(sums), stacked.gradients, strict=True)

        agree = all(torch.allclose(one, other, rtol=1e-3, atol=1e-5) for one, other in pairs)
        return costs if agree else None

    def _step(self, padded: bool) -> tuple[Batch, Tensor, np.ndarray]:
        """Return the batch of a step, the sites' parameters (sites, params), and their numbers of rows."""
        random = torch.Generator().manual_seed(0)
        start = vector_of(self.alone)
        stack = start + 0.1 * torch.randn(3, len(start), generator=random).to(start)
        counts = np.array([len(self.target) - 1, 0, 1])
        share = torch.rand(len(self.target) + 1, generator=random).to(start)
        share[-1] = 0
        pool = Pool(
            inputs=torch.cat([self.inputs, self.inputs[:1] * 0]),
            target=torch.cat([self.target, self.target[:1] * 0]),
            share=share,
        )
        batch = pool.batch(np.arange(len(self.target)), Rows(counts, padded, self.target.device))
        return batch, stack, counts


@contextmanager
def _kept_beside(model: nn.Module) -> Iterator[dict[int, int]]:
    """Count the floats that autograd keeps of a batch for a model's frozen modules, by where they begin in memory.

    The layers of a stack count what they keep themselves; a frozen backbone may keep far more.
    """
    floats: dict[int, int] = {}
    unchanged = {value.data_ptr() for value in frozen(model).values()}
    if all(value.requires_grad for value in model.parameters()):
        yield floats
        return

    def keep(values: Tensor) -> Tensor:
        if values.untyped_storage().data_ptr() not in unchanged:
            floats[values.data_ptr()] = values.numel()
        return values

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda values: values):
        yield floats
