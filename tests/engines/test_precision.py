"""Training in bfloat16: both engines, the same weights in float32, and never where gradients are clipped."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from fedsim.engines import cohort, serial
from fedsim.engines.stack.train import train_together
from fedsim.mistakes import Mistake
from fedsim.scenario.schema import Training
from fedsim.training import precision
from fedsim.training.precision import check_layers, check_precision
from fedsim.training.steps import train
from fedsim.training.work import Noise, Work
from tests.engines.stack import test_any_layer
from tests.engines.stack.architectures import ARCHITECTURES
from tests.engines.stack.test_train import MODELS, together, works

NO_CPU_LAYER = {"LSTM", "bidirectional LSTM", "LSTM with dropout"}  # of torch's, without a processor that has bfloat16
NO_STACK = {"PReLU", "PReLU twice", "AlphaDropout"}


def narrow(stack: list[Work]) -> list[Work]:
    return [replace(work, plan=replace(work.plan, precision="bf16")) for work in stack]


class _Products(TorchDispatchMode):
    """Collects the types of what is multiplied."""

    def __init__(self) -> None:
        super().__init__()
        self.types: list[torch.dtype] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.__name__.partition(".")[0]
        if name in ("bmm", "baddbmm", "mm", "addmm", "convolution", "convolution_backward"):
            self.types += [value.dtype for value in args if isinstance(value, torch.Tensor)]
        return func(*args, **(kwargs or {}))


ENGINES: dict[str, Callable[[list[Work]], torch.Tensor]] = {
    "cohort": together,
    "serial": lambda some: torch.stack([train(work).parameters for work in some]),
}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("model", ["mlp", "conv"])
def test_all_products_are_narrow_and_weights_are_not(model: str, engine: str):
    with _Products() as seen:
        found = ENGINES[engine](narrow(works(model, steps=2, rate=1.0)))
    assert set(seen.types) == {torch.bfloat16}
    assert found.dtype == torch.float32
    assert not torch.equal(found, found.bfloat16().float())  # else steps smaller than a weight's 256th would be lost


@pytest.mark.parametrize("model", ["mlp", "conv"])
def test_without_it_no_product_is_narrow_in_the_next_training_of_the_same_model(model: str):
    stack = works(model, steps=2, rate=1.0)
    expected = together(stack)
    together(narrow([work.again() for work in stack]))
    with _Products() as seen:
        found = together([work.again() for work in stack])
    assert set(seen.types) == {torch.float32}
    assert torch.equal(found, expected)


@pytest.mark.whole
@pytest.mark.parametrize("model", [name for name in MODELS if name != "lstm"])
def test_both_engines_are_as_near_to_float32(model: str):
    """Numbers are off by some 2^-9 of themselves; a model may make much of that in a step, but both engines the same.

    After a LayerNorm of eight numbers, one row's step is off by an eighth.
    """
    start = torch.stack([work.start for work in works(model)])
    exact = together(works(model, steps=1, rate=1.0))
    for train_all in ENGINES.values():
        error = (train_all(narrow(works(model, steps=1, rate=1.0))) - exact).norm()
        assert 0 < error < 0.2 * (exact - start).norm()

    in_stack, alone = (train_all(narrow(works(model, steps=5))) for train_all in ENGINES.values())
    assert (in_stack - alone).norm() < 0.02 * (in_stack - start).norm()


@pytest.mark.whole
@pytest.mark.parametrize("name", [name for name in ARCHITECTURES if name not in NO_STACK])
def test_any_layer_takes_it_in_a_stack(name: str):
    model = test_any_layer.made(name)
    plain = test_any_layer.works(model, None)
    start = torch.stack([work.start for work in plain])
    exact, found = start.clone(), start.clone()
    cohort._cost(plain[0])  # decides whether it is stacked as a whole
    train_together(plain, exact)
    train_together(narrow([work.again() for work in plain]), found)
    assert 0 < (found - exact).norm() < 0.1 * (exact - start).norm()
    if name not in NO_CPU_LAYER:
        alone = torch.stack([done.parameters for done in serial.train_all(narrow([work.again() for work in plain]))])
        assert (found - alone).norm() < 0.1 * (exact - start).norm()


def test_works_of_two_precisions_are_not_trained_as_one():
    plain = works("linear", steps=2)
    mixed = [plain[0], *narrow(plain[1:])]
    found = cohort.train_all([work.again() for work in mixed])
    for done, work in zip(found, mixed, strict=True):
        alone = cohort.train_all([work.again()])[0]
        torch.testing.assert_close(done.parameters, alone.parameters, rtol=1e-5, atol=1e-6)


def test_clipping_is_never_narrow(scenario: Callable):
    """M23: the unit's file forbids it, and so does the plan of whoever asks for it otherwise."""
    for unit in ("record", "person"):
        with pytest.raises(
            Mistake, match=r"training\.precision: expected none .*, got 'bf16': .* longer than the clip"
        ):
            scenario("training.precision=bf16", f"privacy.unit={unit}")
    with pytest.raises(Mistake, match="rounded to eight bits may be longer than the clip"):
        narrow(works("linear", noise=Noise(1.0, 1.0)))
    assert Training().precision == "float32"


def test_a_gpu_without_it_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: False)
    check_precision("float32", "cuda")
    check_precision("bf16", "cpu")
    with pytest.raises(Mistake, match="expected 'float32' on this GPU"):
        check_precision("bf16", "cuda")


def test_a_layer_of_torchs_that_does_not_take_it_is_refused():
    class Refuses(nn.Module):
        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            raise RuntimeError("could not create a primitive\nfor it")

    check_layers(nn.Linear(4, 1), torch.zeros(4, 4))
    with pytest.raises(Mistake, match=r"with engine = 'serial'.*could not create a primitive\); the engine cohort has"):
        check_layers(Refuses(), torch.zeros(4, 4))


def test_nothing_is_narrow_unless_it_is_asked_for():
    with precision.narrowed(False, torch.device("cpu")):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32
    with precision.narrowed(True, torch.device("cpu")):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.bfloat16
