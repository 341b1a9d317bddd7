"""Training of one site: a few steps of SGD on Poisson batches, or of DP-SGD with the gradients of rows.

DP-SGD: Abadi et al. 2016, https://arxiv.org/abs/1607.00133, Algorithm 1.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from fedsim.data.federation import Examples
from fedsim.privacy.ledger import Mechanism
from fedsim.privacy.norms import keep_float32_whole
from fedsim.randomness import choose, global_seed
from fedsim.strategy.trainable import shared_when_copied, trainable
from fedsim.training.dropout import Draws, with_site_dropout
from fedsim.training.model import parts_of
from fedsim.training.optimizers import in_place_optimizer, torch_optimizer
from fedsim.training.precision import narrowed
from fedsim.training.row_gradients import gradients_of_rows, way_of
from fedsim.training.work import Done, Noise, Work

_Trained = tuple[nn.Module, Mechanism]


def train(work: Work) -> Done:
    """Train a copy of a work's model."""
    model = copy.deepcopy(work.model, shared_when_copied(work.model)).train()
    vector_to_parameters(work.start.clone(), trainable(model).values())  # they become views of it
    draws = Draws([work.streams.layers], work.start.device)
    model = with_site_dropout(model, draws)
    mechanism = None
    path: list[Tensor] = []
    with global_seed(work.streams.layers):  # what else draws does so from the global generator
        if work.plan.noise is None:
            _train_plainly(work, model, draws, path)
        else:
            model, mechanism = _train_privately(work, work.plan.noise, model, draws, path)

    parameters = parameters_to_vector(_in_order_of(work.model, model)).detach()
    return Done(parameters, mechanism, tuple(path))


def _train_plainly(work: Work, model: nn.Module, draws: Draws, path: list[Tensor]) -> None:
    """Take steps of SGD in place.

    If the work is to be followed, ``path`` gets the parameters after each step.
    """
    parameters = list(trainable(model).values())
    optimizer = in_place_optimizer(work.plan.optimizer, parameters)
    narrow = work.plan.precision == "bf16"
    for step, batch in enumerate(poisson_batches(work)):
        optimizer.zero_grad()
        draws.begin([len(batch)], len(batch))
        if len(batch):  # not every layer takes a batch of no rows
            with narrowed(narrow, batch.inputs.device):
                outputs = model(batch.inputs)
            losses = work.losses(outputs.float() if narrow else outputs, batch.target)  # (rows,)
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


def _train_privately(work: Work, noise: Noise, model: nn.Module, draws: Draws, path: list[Tensor]) -> _Trained:
    """Take steps of DP-SGD in place; return the trained model, and the mechanism that ran.

    ``path`` is as in ``_train_plainly``.
    """
    from fedsim.privacy.optimizer import SiteOptimizer

    keep_float32_whole()
    with gradients_of_rows(way_of(work), work, model, draws) as (trained, compute):
        parameters = _in_order_of(work.model, trained)
        optimizer = torch_optimizer(work.plan.optimizer, parameters)
        private = SiteOptimizer(
            optimizer,
            noise.multiplier,
            noise.clip,
            work.plan.expected_batch,
            work.streams.noise,
        )
        for step, batch in enumerate(poisson_batches(work)):
            private.zero_grad()
            draws.begin([len(batch)], len(batch))
            if len(batch):
                compute(batch.inputs, batch.target)
            else:
                _leave_no_rows(parameters)
            private.rows = len(batch)
            private.person = batch.person if work.plan.of_persons else None
            if private.pre_step():  # clips, adds noise, divides
                _correct(work, parameters, step)
                private.original_optimizer.step()
            if work.follow:
                path.append(parameters_to_vector(parameters).detach())
    return trained, private.mechanism(work.plan.sampling_rate, work.streams.kind)


def _leave_no_rows(parameters: Sequence[nn.Parameter]) -> None:
    """Leave the gradients of no rows with each parameter: not every layer takes a batch of none."""
    for parameter in parameters:
        parameter.grad_sample = parameter.new_zeros(0, *parameter.shape)  # type: ignore[attr-defined]


def _in_order_of(model: nn.Module, trained: nn.Module) -> list[nn.Parameter]:
    """Return the parameters of a trained copy in the order of the model's.

    Opacus' layers have another order.
    """
    by_name = dict(trained.named_parameters())
    return [by_name[name] for name in trainable(model)]


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
