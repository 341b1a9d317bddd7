"""Search for the record whose gradient is the one that was seen: DLG and iDLG."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from fedsim.randomness import stream
from fedsim.training.functional import outputs_with
from fedsim.training.losses import RowLosses, number
from fedsim.training.model import parts_of

_STARTS, _STEPS = 3, 100  # of the search
_CLOSE = 1e-10  # the distance at which a search is over
Distance = Callable[[Tensor, Tensor], Tensor]


def squared(found: Tensor, seen: Tensor) -> Tensor:
    """Return the squared distance of two gradients over the square of the one seen: what DLG minimizes."""
    return (found - seen).square().sum() / seen.square().sum()


def angle(found: Tensor, seen: Tensor) -> Tensor:
    """Return one less the cosine of two gradients, which clipping does not change.

    Geiping, Bauermeister, Droege, Moeller 2020, https://arxiv.org/abs/2003.14053, section 3.
    """
    return 1 - functional.cosine_similarity(found, seen, dim=0)


def dlg(
    model: nn.Module, start: Tensor, losses: RowLosses, gradient: Tensor, shape: torch.Size, distance: Distance,
    seed: int,
) -> Tensor:  # fmt: skip
    """Return inputs of this shape whose gradient is the one seen, (params,); the label is searched for with them.

    "Deep leakage from gradients" (Zhu, Liu, Han 2019, https://arxiv.org/abs/1906.08935), Algorithm 1, by L-BFGS.
    """
    with torch.no_grad():
        outputs = outputs_with(model, parts_of(model, start), torch.zeros(shape).to(start)).shape[1]
    label = torch.zeros(shape[0], outputs).to(start)

    def soft(label: Tensor) -> Tensor:
        if losses is number:
            return label.squeeze(1)
        return label.softmax(1) if outputs > 1 else label.squeeze(1).sigmoid()

    return _search(model, start, losses, gradient, shape, distance, seed, label, soft)[0]


def idlg(
    model: nn.Module, start: Tensor, losses: RowLosses, gradient: Tensor, shape: torch.Size, distance: Distance,
    labels: Tensor, seed: int,
) -> Tensor:  # fmt: skip
    """Return inputs of one record, as ``dlg``, with its label read off the last layer first.

    "iDLG: improved deep leakage from gradients" (Zhao, Mopuri, Bilen 2020, https://arxiv.org/abs/2001.02610). Where no
    bias of a last layer gives the label away, every label that there is is tried.
    """
    read = label_of(model, losses, gradient)
    found = [
        _search(model, start, losses, gradient, shape, distance, seed, None, lambda _, label=label: label[None])
        for label in (labels if read is None else [read.to(labels)])
    ]
    return min(found, key=lambda pair: pair[1])[0]


def label_of(model: nn.Module, losses: RowLosses, gradient: Tensor) -> Tensor | None:
    """Return the label of the one record that a gradient (params,) is from; None if nothing gives it away.

    Of the gradients of the last layer's biases, which are p - y, that of the record's own class alone is negative.
    """
    name, last = list(parts_of(model, gradient).items())[-1]
    if losses is number or name.rpartition(".")[2] != "bias" or last.dim() != 1:
        return None
    return last.argmin() if len(last) > 1 else (last[0] < 0).float()


def _search(
    model: nn.Module, start: Tensor, losses: RowLosses, gradient: Tensor, shape: torch.Size, distance: Distance,
    seed: int, label: Tensor | None, target: Callable[[Tensor], Tensor],
) -> tuple[Tensor, float]:  # fmt: skip
    """Return the closest of several searches from random inputs, and its distance."""
    random = stream(seed, "gradient matching")
    best, least = torch.zeros(shape), float("inf")
    for _ in range(_STARTS):
        guess = torch.from_numpy(random.standard_normal(shape, np.float32)).to(start).requires_grad_()
        free = (torch.zeros(1) if label is None else label.clone()).to(start).requires_grad_()
        optimizer = torch.optim.LBFGS([guess] if label is None else [guess, free], max_iter=_STEPS,
                                      line_search_fn="strong_wolfe")  # fmt: skip

        def apart(guess: Tensor = guess, free: Tensor = free) -> Tensor:
            own = start.detach().clone().requires_grad_()
            outputs = outputs_with(model, parts_of(model, own), guess)
            (found,) = torch.autograd.grad(losses(outputs, target(free)).sum(), own, create_graph=True)
            return distance(found, gradient)

        def closure(optimizer: torch.optim.LBFGS = optimizer, apart: Callable[[], Tensor] = apart) -> float:
            optimizer.zero_grad()
            value = apart()
            value.backward()
            return float(value.detach())

        optimizer.step(closure)
        if (value := float(apart().detach())) < least:
            best, least = guess.detach(), value
        if least < _CLOSE:
            break
    return best, least
