"""No row counts for more than the clip: known cases, and a search for others, for every layer that has a rule."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from fedsim.data.federation import Examples
from fedsim.engines.stack.layers import outer_sizes
from fedsim.engines.stack.model import RULES
from fedsim.engines.stack.train import train_together
from fedsim.privacy.norms import keep_float32_whole, square_norms
from fedsim.privacy.optimizer import SiteOptimizer
from fedsim.randomness import Words
from fedsim.scenario.schema import Optimizer
from fedsim.training.losses import binary
from fedsim.training.work import Noise, Plan, Streams, Work
from tests.privacy.clip_search import CLIP, ENGINES, SUBJECTS, Candidates, Difference, Subject, search, sums
from tests.works import Silent, vector

MOST = 1 + 1e-4
TWO = Subject(lambda: Difference(24, 24, False), (2, 24))


def close_positions(count: int, scale: float, apart: float) -> torch.Tensor:
    """Make rows whose two positions are equal but for a factor, (count, 1, 2, 24)."""
    random = torch.Generator().manual_seed(0)
    first = scale * (2 * torch.rand(count, 1, 1, 24, generator=random) - 1)
    second = first * (1 + apart * torch.randn(first.shape, generator=random))
    return torch.cat([first, second], 2)


def weighted(subject: Subject) -> nn.Module:
    """Make a subject's model, with the same weights in every call."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return subject.make()


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(("scale", "apart"), [(1.0, 1e-6), (1e4, 1e-4), (1e5, 1e-4), (1e5, 1e-7), (1e18, 1e-3)])
def test_a_row_whose_positions_nearly_cancel(engine: str, scale: float, apart: float):
    """The norm of the difference is far below that of what it is the difference of: products lose all their digits."""
    count = 20 if engine == "serial" else 240
    model = weighted(TWO)
    start = (10 * vector(model)).repeat(count, 1)
    rows = Candidates(start, close_positions(count, scale, apart), torch.ones(count, 1))
    found = sums(TWO, model, rows, slice(1), engine).norm(dim=1)
    assert found.isfinite().all()
    assert found.max() <= MOST * CLIP
    assert scale < 1e4 or found.max() > 0.05 * CLIP  # it counts, and is not just left out


@pytest.mark.parametrize("engine", ENGINES)
def test_a_clipped_row_whose_terms_cancel_in_the_sum(engine: str):
    """Its norm may be exact and its share still too large: float32 loses digits of terms that nearly cancel."""
    count = 20 if engine == "serial" else 240
    model = weighted(TWO)
    rows = Candidates((1e5 * vector(model)).repeat(count, 1), close_positions(count, 1e5, 1e-7), torch.ones(count, 1))
    found = sums(TWO, model, rows, slice(1), engine).norm(dim=1)
    assert found.max() <= MOST * CLIP
    assert found.max() > 0.9 * CLIP


def test_products_that_cancel_keep_their_digits():
    """A norm 50 times below its terms: in float32 its square is right to three digits only."""
    random = torch.Generator().manual_seed(0)
    inputs = torch.randn(200, 1, 30, generator=random) + 0.02 * torch.randn(200, 2, 30, generator=random)
    gradients = torch.randn(200, 1, 20, generator=random) * torch.tensor([1.0, -1.0])[:, None]
    found = outer_sizes(inputs, gradients, bias=False)
    exact = torch.bmm(gradients.double().mT, inputs.double()).flatten(1).square().sum(1)
    torch.testing.assert_close(found.squares, exact, rtol=1e-9, atol=0)
    assert found.masses is not None
    assert (found.masses / exact).sqrt().min() > 20


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("size", [1e20, 1e30, 1e38])
def test_a_row_whose_gradient_is_too_large_counts_as_zero(engine: str, size: float):
    """Finite inputs and weights whose gradient is infinite, or too long for a factor to bring back to the clip."""
    subject = SUBJECTS["many positions"]
    model = weighted(subject)
    start = torch.zeros(1, len(vector(model)))
    start[:, -81:] = size  # the last layer's weights, and so the gradients at the first
    inputs = torch.full((1, 1, *subject.shape), 1e15)
    found = sums(subject, model, Candidates(start, inputs, torch.ones(1, 1)), slice(1), engine)
    assert found.isfinite().all()
    assert found.norm() <= MOST * CLIP


def test_such_a_row_does_not_spoil_its_sites_release():
    """One row in sixty made the whole release NaN."""
    model = weighted(TWO)
    rows = close_positions(60, 1.0, 1e-6)[:, 0]
    work = Work(
        model,
        vector(model),
        Examples(rows, torch.ones(60)),
        Plan(20, 0.5, 30.0, Optimizer(lr=0.5), Noise(1.0, 1.0)),
        Streams(Words.of(0, "batches"), Words.of(0, "noise")),
        binary,
    )
    stack = work.start[None].clone()
    train_together([work], stack)
    assert stack.isfinite().all()


def test_rows_that_are_singled_out_are_summed_right():
    """Rows whose terms cancel leave the products; the sum is still that of all clipped gradients, at every site."""
    model = weighted(Subject(lambda: Difference(24, 24, True), (2, 24)))
    start = vector(model)
    random = torch.Generator().manual_seed(1)
    works, expected = [], []
    for site in range(3):
        close = close_positions(3, 1.0, 1e-5)[:, 0] * (site + 1)
        usual = torch.randn(4, 2, 24, generator=random)
        rows = torch.cat([close, usual])[torch.randperm(7, generator=random)]
        target = torch.ones(7)
        plan = Plan(1, 1.0, 2.0, Optimizer(lr=1.0), Noise(1e-6, 1.0))  # small, so that close rows are clipped, too
        works.append(Work(model, start, Examples(rows, target), plan, Streams(Words.of(0, "b"), Silent()), binary))
        total = torch.zeros(len(start), dtype=torch.float64)
        for row in rows:
            loss = binary(model(row[None]), target[:1]).sum()
            parts = torch.autograd.grad(loss, [*model.parameters()])
            gradient = torch.cat([part.flatten() for part in parts]).double()
            total += gradient * min(1.0, 1e-6 / (float(gradient.norm()) + 1e-6))
        expected.append(total / 2.0)
    found = _sums_of(works, start.repeat(3, 1))
    torch.testing.assert_close(found, torch.stack(expected), rtol=1e-3, atol=1e-12)


def _sums_of(works: list[Work], stack: torch.Tensor) -> torch.Tensor:
    """Return what each site's step subtracts, read off with a learning rate that drowns the model's rounding."""
    rate = 2.0**44
    faster = [replace(work, plan=replace(work.plan, optimizer=Optimizer(lr=rate))) for work in works]
    trained = stack.clone()
    train_together(faster, trained)
    return (stack.double() - trained.double()) / rate


@pytest.mark.whole
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", SUBJECTS)
def test_a_short_search_finds_no_row_above_the_clip(engine: str, name: str):
    found = search(name, engine, seconds=0, seed=7, size=6 if engine == "serial" else 24, generations=2)
    assert found.tried > 0
    assert found.not_finite == 0
    assert max(found.alone, found.beside) <= MOST
    assert found.alone > 0.9  # the search reaches the clip


@pytest.mark.slow
@pytest.mark.parametrize("name", SUBJECTS)
def test_a_long_search_finds_no_row_above_the_clip(name: str):
    """Ten seconds for each model and engine; for hours see ``clip_search``."""
    for engine in ENGINES:
        found = search(name, engine, seconds=10, seed=11)
        assert found.not_finite == 0
        assert max(found.alone, found.beside) <= MOST


def test_every_layer_that_has_a_rule_is_searched():
    """Max pooling is among them: it has no parameters, but a path of its own. Dropout has neither: it draws."""
    searched = {type(layer) for subject in SUBJECTS.values() for layer in subject.make().modules()}
    draws = {rule for rule in RULES if issubclass(rule, nn.modules.dropout._DropoutNd)}
    assert set(RULES) - draws <= searched


@pytest.mark.whole
def test_the_norm_of_ten_million_numbers_keeps_its_digits():
    """In float32 it is too small by 2.6e-4, in torch as it is; and squares of small numbers vanish."""
    values = torch.rand(1, 10**7, generator=torch.Generator().manual_seed(0)) * 1e-3
    assert abs(float(square_norms(values)) / float(values.double().pow(2).sum()) - 1) < 1e-12
    tiny = torch.full((1, 4), 1e-30)
    assert abs(float(square_norms(tiny)) / 4e-60 - 1) < 1e-6
    large, nothing = square_norms(torch.tensor([[1e30], [float("nan")]]))
    assert abs(float(large) / 1e60 - 1) < 1e-6  # float32 has no such number
    assert nothing.isnan()


@pytest.mark.parametrize("shape", [(2700, 100), (3, 2**17 + 1), (1, 2**18 + 1), (4, 0), (0, 3)])
def test_a_row_has_the_norm_that_it_has_alone(shape: tuple[int, int]) -> None:
    """Many numbers are measured some rows at a time: none is left out, and none is measured beside another."""
    rows = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    alone = [float(row.double().square().sum()) for row in rows]
    assert square_norms(rows).tolist() == pytest.approx(alone, rel=1e-12)


def test_serial_clips_a_large_layer_by_its_whole_norm():
    """A layer of ten million weights: the float32 norm lets its row count for 1.0003 clips."""
    weight = nn.Parameter(torch.zeros(10**7))
    weight.grad_sample = torch.rand(1, 10**7, generator=torch.Generator().manual_seed(0)) + 1  # type: ignore[attr-defined]
    weight.summed_grad = None  # type: ignore[attr-defined]
    private = SiteOptimizer(torch.optim.SGD([weight], lr=1.0), 1.0, 1.0, 1.0, Silent())
    private.rows = 1
    private.clip_and_accumulate()
    assert abs(float(weight.summed_grad.double().norm()) - 1) < 1e-5  # type: ignore[attr-defined]


def test_private_training_keeps_float32_whole():
    """TF32 and bfloat16 would round factors to ten bits or fewer: a sum may then be a thousandth longer."""
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    kinds = [torch.backends.cudnn.conv, torch.backends.cuda.matmul, torch.backends.mkldnn.conv]  # type: ignore[attr-defined]
    try:
        torch.set_float32_matmul_precision("medium")
        torch.backends.cudnn.allow_tf32 = True
        sums(
            TWO,
            TWO.make(),
            Candidates(torch.zeros(1, 600), close_positions(1, 1.0, 1.0), torch.ones(1, 1)),
            slice(1),
            "cohort",
        )
        assert torch.get_float32_matmul_precision() == "highest"
        assert not torch.backends.cudnn.allow_tf32
        assert [kind.fp32_precision for kind in kinds] == ["ieee"] * 3
    finally:
        keep_float32_whole()
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]
