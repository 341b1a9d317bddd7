"""Persons in a stack: against the sites one by one, which is Opacus, whose gradients of rows are summed by person."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from fedsim.data.federation import Examples
from fedsim.engines import cohort as cohort_engine
from fedsim.engines.stack import persons
from fedsim.engines.stack.layers import Embedding, Layer, Linear, NotApart
from fedsim.engines.stack.train import check_rules
from fedsim.mistakes import Mistake
from fedsim.training.losses import binary
from fedsim.training.work import Noise, Work
from tests.conftest import examples
from tests.engines.stack.test_train import MODELS, both_ways, in_double_precision, together, works

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
@pytest.mark.parametrize("model", MODELS)
def test_persons_in_a_stack_are_what_they_are_alone(model: str, noise: Noise | None):
    """Engines agree to rounding: which persons join, the sums, the clips, the noise and the denominators."""
    expected, found = both_ways(of_persons(model, noise), of_persons(model, noise))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("model", [name for name in MODELS if name not in ("gru", "lstm")])
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


def test_a_wrong_gradient_of_a_row_is_found_out(monkeypatch: pytest.MonkeyPatch):
    """The rule is tried before the first round, where persons are clipped."""
    honest = Linear.row_gradients
    halved = lambda layer, rows: {name: value / 2 for name, value in honest(layer, rows).items()}  # noqa: E731
    monkeypatch.setattr(Linear, "row_gradients", halved)
    rows = examples(5, 16)
    check_rules(MODELS["mlp"](), binary, rows)
    with pytest.raises(NotApart):
        check_rules(MODELS["mlp"](), binary, rows, of_persons=True)
    with pytest.raises(Mistake, match="told apart"):
        cohort_engine.train_all(of_persons("mlp"))


def test_a_layer_that_does_not_give_gradients_of_rows_is_trained_one_after_another(monkeypatch: pytest.MonkeyPatch):
    """Also with noise: Opacus gives them, so the guarantee is the same."""
    monkeypatch.setattr(Embedding, "row_gradients", Layer.row_gradients)
    expected = torch.stack([done.parameters for done in cohort_engine.serial.train_all(of_persons("embedding"))])
    found = torch.stack([done.parameters for done in cohort_engine.train_all(of_persons("embedding"))])
    assert torch.equal(found, expected)


def test_padding_belongs_to_nobody():
    """Rows that only fill up have no person, or they would be one of nobody's site."""
    work = of_persons("mlp")[0]
    other = Examples(work.examples.inputs + 1e3, work.examples.target, work.examples.person)
    alone = together([work])
    beside = together([work.again(), replace(of_persons("mlp")[2], examples=other)])
    torch.testing.assert_close(beside[0], alone[0], rtol=1e-5, atol=1e-6)
