"""Training of one site: a few steps of SGD on Poisson batches, or of DP-SGD with Opacus.

DP-SGD: Abadi et al. 2016, https://arxiv.org/abs/1607.00133, Algorithm 1.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING
from weakref import WeakSet

import torch
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from fedsim.data.federation import Examples
from fedsim.mistakes import Mistake
from fedsim.privacy.ledger import Mechanism
from fedsim.privacy.norms import keep_float32_whole
from fedsim.randomness import choose, global_seed
from fedsim.scenario.schema import Optimizer
from fedsim.training.functional import outputs_with
from fedsim.training.model import parts_of
from fedsim.training.rows_alone import draws, some_rows
from fedsim.training.work import Done, Noise, Work

if TYPE_CHECKING:
    from opacus import GradSampleModule

# Models for which Opacus was seen to compute the gradients of rows.
_tried: WeakSet[nn.Module] = WeakSet()


def train(work: Work) -> Done:
    """Train a copy of a work's model."""
    model = copy.deepcopy(work.model).train()
    vector_to_parameters(work.start.clone(), model.parameters())  # they become views of it
    mechanism = None
    path: list[Tensor] = []
    with global_seed(work.streams.layers):  # dropout draws from the global generator
        if work.plan.noise is None:
            _train_plainly(work, model, path)
        else:
            model = _with_opacus_layers(model)
            mechanism = _train_privately(work, work.plan.noise, model, path)

    parameters = parameters_to_vector(_in_order_of(work.model, model)).detach()
    return Done(parameters, mechanism, tuple(path))


def new_optimizer(chosen: Optimizer, parameters: Iterable[Tensor]) -> torch.optim.Optimizer:
    """Make the torch optimizer that a scenario names."""
    if chosen.name == "adam":
        return torch.optim.Adam(
            parameters,
            lr=chosen.lr,
            weight_decay=chosen.weight_decay,
            foreach=True,
        )
    return torch.optim.SGD(
        parameters,
        lr=chosen.lr,
        momentum=chosen.momentum,
        weight_decay=chosen.weight_decay,
    )


def _train_plainly(work: Work, model: nn.Module, path: list[Tensor]) -> None:
    """Take steps of SGD in place.

    If the work is to be followed, ``path`` gets the parameters after each step.
    """
    optimizer = new_optimizer(work.plan.optimizer, model.parameters())
    parameters = [*model.parameters()]
    for step, batch in enumerate(poisson_batches(work)):
        optimizer.zero_grad()
        losses = work.losses(model(batch.inputs), batch.target)  # (rows,)
        (losses.sum() / work.plan.expected_batch).backward()
        _correct(work, parameters, step)
        optimizer.step()
        if work.follow:
            path.append(parameters_to_vector(parameters).detach())


def _correct(work: Work, parameters: Sequence[nn.Parameter], step: int) -> None:
    """Let the local rule correct the gradients, parameter by parameter."""
    memory = {}
    for name, value in work.memory.items():
        memory[name] = list(parts_of(work.model, value).values())  # in the order of parameters

    with torch.no_grad():
        for place, parameter in enumerate(parameters):
            gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            remembered = {name: parts[place] for name, parts in memory.items()}
            parameter.grad = work.rule.correct(gradient, parameter.detach(), remembered, step)


def _train_privately(work: Work, noise: Noise, model: nn.Module, path: list[Tensor]) -> Mechanism:
    """Take steps of DP-SGD in place; return the mechanism that ran.

    ``path`` is as in ``_train_plainly``.
    """
    from opacus import GradSampleModule  # takes two seconds: only private runs wait for it

    from fedsim.privacy.optimizer import SiteOptimizer

    keep_float32_whole()
    wrapped = GradSampleModule(model, batch_first=True, loss_reduction="sum")
    parameters = _in_order_of(work.model, model)
    optimizer = new_optimizer(work.plan.optimizer, parameters)
    private = SiteOptimizer(
        optimizer,
        noise.multiplier,
        noise.clip,
        work.plan.expected_batch,
        work.streams.noise,
    )
    try:
        # Opacus is tried on each model once. A site without rows has none to try it on.
        if work.model not in _tried and len(work.examples):
            _check_gradients_of_rows(work)
            _tried.add(work.model)

        for step, batch in enumerate(poisson_batches(work)):
            private.zero_grad()
            _backward(work, wrapped, batch.inputs, batch.target)
            private.rows = len(batch)
            private.person = batch.person if work.plan.of_persons else None
            if private.pre_step():  # clips, adds noise, divides
                _correct(work, parameters, step)
                private.original_optimizer.step()
            if work.follow:
                path.append(parameters_to_vector(parameters).detach())
    finally:
        wrapped.to_standard_module()
    return private.mechanism(work.plan.sampling_rate, work.streams.kind)


def _backward(work: Work, wrapped: GradSampleModule, inputs: Tensor, target: Tensor) -> None:
    """Let Opacus compute the gradients of rows."""
    with warnings.catch_warnings():
        # Torch warns Opacus' hooks that the inputs need no gradient, and they don't.
        warnings.filterwarnings("ignore", message="Full backward hook is firing")
        work.losses(wrapped(inputs), target).sum().backward()


def _check_gradients_of_rows(work: Work) -> None:
    """Make sure that Opacus' gradient of a row is the one that autograd gives for that row alone.

    Opacus knows what a layer computes, and takes the first dimension for the rows. A model that
    draws random numbers is not tried: a row alone gets other draws than beside others.

    It is tried with the model's first parameters on made-up rows and targets: whether it fails must tell nothing of a
    site's rows, whatever model its server sent.

    Raises:
        Mistake: It is something else: clipping it would bound nothing.
    """
    inputs = some_rows(work.examples, 3)
    target = work.examples.target.new_zeros(len(inputs), *work.examples.target.shape[1:])
    if draws(work.model, inputs):
        return

    from opacus import GradSampleModule

    wrapped = GradSampleModule(_with_opacus_layers(copy.deepcopy(work.model)), batch_first=True, loss_reduction="sum")
    try:
        _backward(work, wrapped, inputs, target)
        parameters = dict(wrapped._module.named_parameters())
        of_rows: list[Tensor] = []  # for each parameter (rows, *shape)
        for name, _ in work.model.named_parameters():
            of_rows.append(parameters[name].grad_sample)  # pyright: ignore[reportAttributeAccessIssue]
    finally:
        wrapped.to_standard_module()

    # A layer that sees each row several times is refused in the first step, with the number of
    # rows there.
    counts = {len(gradients) for gradients in of_rows}
    sees_each_row_once = counts == {len(inputs)}
    if not sees_each_row_once and not any(count % len(inputs) for count in counts):
        return

    if not sees_each_row_once or not _agree_with_autograd(work, inputs, target, of_rows):
        raise Mistake(
            "task: expected a model of which Opacus finds each row's gradient, since clipping that "
            "is what the privacy of a record rests on; got one for which it finds something else, "
            "such as one that moves the dimension of the rows"
        )


def _agree_with_autograd(work: Work, inputs: Tensor, target: Tensor, of_rows: list[Tensor]) -> bool:
    """Compare gradients of rows, (rows, *shape) each, with autograd's for each row alone."""
    first = parameters_to_vector(work.model.parameters()).detach()
    for row in range(len(inputs)):
        start = first.clone().requires_grad_()
        outputs = outputs_with(work.model, parts_of(work.model, start), inputs[row : row + 1])
        loss = work.losses(outputs, target[row : row + 1]).sum()
        (alone,) = torch.autograd.grad(loss, start)  # (params,)
        together = torch.cat([gradients[row].flatten() for gradients in of_rows])
        if not torch.allclose(alone, together, rtol=1e-3, atol=1e-5):
            return False
    return True


def _with_opacus_layers(module: nn.Module) -> nn.Module:
    """Replace torch's GRU and LSTM by Opacus' own: torch's give no gradients of rows."""
    if isinstance(module, nn.GRU | nn.LSTM):
        return _opacus_layer(module)
    for name, child in module.named_children():
        setattr(module, name, _with_opacus_layers(child))
    return module


def _opacus_layer(layer: nn.GRU | nn.LSTM) -> nn.Module:
    """Return Opacus' form of a recurrent layer, with the same parameters."""
    from opacus.layers import DPGRU, DPLSTM

    opacus_type = DPLSTM if isinstance(layer, nn.LSTM) else DPGRU
    replacement = opacus_type(
        input_size=layer.input_size,
        hidden_size=layer.hidden_size,
        num_layers=layer.num_layers,
        bias=layer.bias,
        batch_first=layer.batch_first,
        dropout=layer.dropout,
        bidirectional=layer.bidirectional,
    )
    replacement.load_state_dict(layer.state_dict())
    return replacement.to(layer.weight_ih_l0.device)  # type: ignore[union-attr, arg-type]


def _in_order_of(model: nn.Module, trained: nn.Module) -> list[nn.Parameter]:
    """Return the parameters of a trained copy in the order of the model's.

    Opacus' layers have another order.
    """
    by_name = dict(trained.named_parameters())
    return [by_name[name] for name, _ in model.named_parameters()]


def poisson_batches(work: Work) -> Iterator[Examples]:
    """Yield a batch for each step; it may be empty.

    Every row joins a batch independently, with the sampling rate as its probability; where steps draw persons, every
    person does, with all rows.
    """
    rows = work.examples
    drawn = work.drawn
    for _ in range(work.plan.steps):
        chosen = choose(work.streams.batches.draw(drawn), work.plan.sampling_rate)
        if work.plan.of_persons and rows.person is not None:
            chosen = chosen[rows.person.cpu().numpy()]
        yield rows.some(torch.from_numpy(chosen.nonzero()[0]).to(rows.target.device))
