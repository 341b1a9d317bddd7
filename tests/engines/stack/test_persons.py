"""Persons in a stack: against the sites one by one, which is Opacus, whose gradients of rows are summed by person."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from fedsim.data.federation import Examples
from fedsim.engines import cohort as cohort_engine
from fedsim.engines.stack import persons
from fedsim.engines.stack.generic import Generic
from fedsim.engines.stack.layers import Embedding, Layer, Linear, NotApart
from fedsim.engines.stack.train import check_rules
from fedsim.mistakes import Mistake
from fedsim.training.losses import binary
from fedsim.training.steps import train
from fedsim.training.work import Noise, Work
from tests.cases import others_whole
from tests.engines.stack.test_any_layer import STACKED, made
from tests.engines.stack.test_any_layer import together as any_together
from tests.engines.stack.test_any_layer import works as any_works
from tests.engines.stack.test_train import MODELS, both_ways, in_double_precision, together, works
from tests.works import examples

NOISE = Noise(clip=0.5, multiplier=1.5)


def of_persons(model: str, noise: Noise | None = NOISE, steps: int = 8) -> list[Work]:
    """Return one work for each site, whose rows are those of persons with one to several rows, in any order."""
    found = []
    for site, work in enumerate(works(model, noise=noise, steps=steps, rate=0.5)):
        random = np.random.default_rng(site)
        person = random.integers(0, max(1, len(work.examples) // 4), len(work.examples))
        rows = replace(work.examples, person=torch.from_numpy(person))
        rows = rows.some(torch.arange(len(rows)))  # numbers them without gaps
        found.append(replace(work, examples=rows, plan=replace(work.plan, of_persons=True)))
    return found


def doubled(work: Work) -> Work:
    """Return the work in double precision, with its persons."""
    of_floats = in_double_precision(work)
    return replace(of_floats, examples=replace(of_floats.examples, person=work.examples.person))


@pytest.mark.parametrize("noise", [NOISE, None], ids=["private", "plain"])
@pytest.mark.parametrize("model", others_whole(MODELS, "mlp", "two convolutions"))
def test_persons_in_a_stack_are_what_they_are_alone(model: str, noise: Noise | None):
    """Engines agree to rounding: which persons join, the sums, the clips, the noise and the denominators."""
    expected, found = both_ways(of_persons(model, noise), of_persons(model, noise))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "model", others_whole([name for name in MODELS if name not in ("gru", "lstm")], "mlp", "two convolutions")
)
def test_persons_in_a_stack_are_what_they_are_alone_to_the_last_digits(model: str):
    expected, found = both_ways([doubled(work) for work in of_persons(model)], [doubled(w) for w in of_persons(model)])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)  # noise keeps the digits of float32


@pytest.mark.parametrize("model", ["mlp", "two convolutions", "embedding", "gru"])
def test_persons_of_one_row_each_are_rows(model: str):
    """Where nobody has two rows, the unit changes nothing but the way to the same sums."""
    alone = of_persons(model)
    alone = [replace(work, examples=replace(work.examples, person=torch.arange(len(work.examples)))) for work in alone]
    rows = [replace(work, plan=replace(work.plan, of_persons=False)) for work in alone]
    torch.testing.assert_close(together(alone), together([work.again() for work in rows]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("floats", [1, 400, 10_000])
def test_however_rows_are_cut_nobody_is_taken_apart(monkeypatch: pytest.MonkeyPatch, floats: int):
    """With room for hardly a row at once, a person's rows are still summed before they are clipped."""
    expected = together(of_persons("mlp"))
    monkeypatch.setattr(persons, "_FLOATS", floats)
    torch.testing.assert_close(together(of_persons("mlp")), expected, rtol=1e-5, atol=1e-6)


def test_chunks_hold_whole_persons_and_every_row_once():
    random = np.random.default_rng(0)
    person = random.integers(-1, 30, 300)
    rows, last = [], -1
    for chunk, group in persons._whole_persons(person, 20):
        numbers = person[chunk]
        assert numbers.min() > last
        last = numbers.max()
        assert (numbers == np.unique(numbers)[group]).all()
        assert len(chunk) <= 20 or len(np.unique(numbers)) == 1
        rows += chunk.tolist()
    assert sorted(rows) == np.flatnonzero(person >= 0).tolist()


def wrong(layer: type[Layer], monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a layer give half of each row's gradient."""
    honest = layer._row_gradients
    halved = lambda self, rows: {name: value / 2 for name, value in honest(self, rows).items()}  # noqa: E731
    monkeypatch.setattr(layer, "_row_gradients", halved)


def test_a_wrong_gradient_of_a_row_is_found_out(monkeypatch: pytest.MonkeyPatch):
    """Rules are tried before the first round: the model is stacked as one layer, or refused if that is wrong, too."""
    expected = torch.stack([done.parameters for done in cohort_engine.serial.train_all(of_persons("mlp"))])
    wrong(Linear, monkeypatch)
    found = torch.stack([done.parameters for done in cohort_engine.train_all(of_persons("mlp"))])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)

    wrong(Generic, monkeypatch)
    with pytest.raises(NotApart):
        check_rules(MODELS["mlp"](), binary, examples(5, 16))
    with pytest.raises(Mistake, match="told apart"):
        cohort_engine.train_all(of_persons("mlp"))


def test_a_layer_that_does_not_give_gradients_of_rows_is_no_reason_to_clip_otherwise(monkeypatch: pytest.MonkeyPatch):
    """Where its model can't be stacked as one layer either, sites are trained one after another, with noise as well."""
    expected = torch.stack([done.parameters for done in cohort_engine.serial.train_all(of_persons("embedding"))])
    monkeypatch.setattr(Embedding, "_row_gradients", Layer._row_gradients)
    found = torch.stack([done.parameters for done in cohort_engine.train_all(of_persons("embedding"))])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)

    monkeypatch.setattr(Generic, "_row_gradients", Layer._row_gradients)
    found = torch.stack([done.parameters for done in cohort_engine.train_all(of_persons("embedding"))])
    assert torch.equal(found, expected)


QUICK = ("PReLU", "Bilinear", "Embedding", "frozen bias")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.whole] * (name not in QUICK)) for name in STACKED]
)
def test_persons_of_any_layer_in_a_stack_are_what_they_are_alone(name: str):
    """With frozen parameters, dropout, tied weights and modules without a rule, and whichever way serial takes."""
    model = made(name)
    expected = torch.stack([train(work).parameters for work in in_pairs(any_works(model, NOISE))])
    torch.testing.assert_close(any_together(in_pairs(any_works(model, NOISE))), expected, rtol=0, atol=2e-5)


def in_pairs(works: list[Work]) -> list[Work]:
    """Return the works with two rows to a person, the second of which comes later."""
    found = []
    for work in works:
        rows = len(work.examples)
        person = torch.arange(rows) % max(1, (rows + 1) // 2)
        plan = replace(work.plan, of_persons=True)
        found.append(replace(work, examples=replace(work.examples, person=person), plan=plan))
    return found


def test_padding_belongs_to_nobody():
    """Rows that only fill up have no person, or they would be one of nobody's site."""
    work = of_persons("mlp")[0]
    other = Examples(work.examples.inputs + 1e3, work.examples.target, work.examples.person)
    alone = together([work])
    beside = together([work.again(), replace(of_persons("mlp")[2], examples=other)])
    torch.testing.assert_close(beside[0], alone[0], rtol=1e-5, atol=1e-6)
