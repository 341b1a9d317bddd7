"""A person as the unit: how far all rows of one person move what is released, and who is drawn into a step."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from fedsim.data.federation import Examples, concatenated
from fedsim.data.persons import numbers_of
from fedsim.data.task import Rows
from fedsim.engines.stack import train as stack_train
from fedsim.engines.stack.train import train_together
from fedsim.mistakes import Mistake
from fedsim.outcomes import outcome_of
from fedsim.randomness import Words
from fedsim.scenario.schema import Optimizer
from fedsim.strategy.trainable import vector_of
from fedsim.training import steps
from fedsim.training.losses import binary
from fedsim.training.steps import poisson_batches, train
from fedsim.training.work import Noise, Plan, Streams, Work
from tests.works import Silent

CLIP = 0.7
BATCH = 8.0
EXACT = 1 + 1e-6
ENGINES = ["serial", "cohort"]


def released(sites: list[Examples], engine: str) -> torch.Tensor:
    """Return each site's clipped sum, (sites, params): one noiseless step from zero, all persons in it."""
    net = nn.Linear(sites[0].inputs.shape[1], 1).double()
    start = torch.zeros(sum(value.numel() for value in net.parameters()), dtype=torch.float64)
    todo = Plan(1, 1.0, BATCH, Optimizer(lr=1.0), Noise(CLIP, 1.0), of_persons=True)
    works = [
        Work(net, start, rows, todo, Streams(Words.of(0, "batches", site), Silent()), binary)
        for site, rows in enumerate(sites)
    ]
    if engine == "serial":
        return -BATCH * torch.stack([train(work).parameters for work in works])
    stack = start.repeat(len(works), 1)
    train_together(works, stack)
    return -BATCH * stack


def persons_of(sizes: list[int], random: np.random.Generator) -> Examples:
    """Make up persons with so many rows each, their rows in any order; half of them have rows that agree."""
    person = np.repeat(np.arange(len(sizes)), sizes)
    inputs = random.normal(size=(len(person), 4)) * 10.0 ** random.uniform(-3, 6, (len(person), 1))
    alike = random.normal(size=(len(sizes), 4)) * 10
    inputs = np.where((person % 2 == 0)[:, None], alike[person], inputs)
    target = (random.random(len(person)) < 0.5).astype(np.float64)
    target = np.where(person % 2 == 0, person % 4 == 0, target).astype(np.float64)
    order = random.permutation(len(person))
    rows = Examples(torch.from_numpy(inputs), torch.from_numpy(target), torch.from_numpy(person))
    return rows.some(torch.from_numpy(order))


def numbers(rows: Examples) -> np.ndarray:
    """Return the number of each row's person."""
    assert rows.person is not None
    return rows.person.numpy()


def without(rows: Examples, person: int) -> Examples:
    return rows.some(torch.from_numpy(np.flatnonzero(numbers(rows) != person)))


@pytest.mark.parametrize(("engine", "pairs"), [pytest.param("cohort", 1000, marks=pytest.mark.whole), ("serial", 40)])
def test_all_rows_of_a_person_move_a_sum_by_no_more_than_the_clip(engine: str, pairs: int):
    """B5: pairs of sites of 1 to 4 persons with 1 to 40 rows each, and one of them gone with all rows."""
    random, sites, sizes = np.random.default_rng(3), [], []
    for _ in range(pairs):
        rows = persons_of(random.integers(1, 41, random.integers(1, 5)).tolist(), random)
        gone = int(random.choice(numbers(rows)))
        sizes.append(int((numbers(rows) == gone).sum()))
        sites += [rows, without(rows, gone)]
    found = released(sites, engine)
    distances = (found[::2] - found[1::2]).norm(dim=1)
    assert distances.max() <= CLIP * EXACT
    assert distances.max() >= 0.9 * CLIP
    assert {1, 40} <= set(sizes) or pairs < 1000
    assert distances[torch.tensor(sizes) >= 20].max() >= 0.9 * CLIP


@pytest.mark.parametrize("engine", ENGINES)
def test_what_is_clipped_is_the_sum_of_a_persons_gradients(engine: str):
    """The oracle: logistic gradients at zero are (1/2 - y) (x, 1); all rows of a person count."""
    random = np.random.default_rng(5)
    rows = persons_of([1, 2, 3, 7, 40], random)
    rows = replace(rows, inputs=rows.inputs.clamp(-1, 1) / 100)
    assert rows.person is not None
    of_rows = (0.5 - rows.target)[:, None] * torch.cat([rows.inputs, torch.ones(len(rows), 1, dtype=torch.float64)], 1)
    expected = torch.zeros(5, dtype=torch.float64)
    for person in range(5):
        of_person = of_rows[rows.person == person].sum(0)
        expected += of_person * min(1.0, CLIP / (float(of_person.norm()) + 1e-6))
    (found,) = released([rows], engine)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-9)


class Crossed(nn.Module):
    """A bilinear layer, which no rule of the stack knows."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Bilinear(4, 4, 2)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.layer(inputs, inputs.flip(1))


class Embedded(nn.Module):
    """Embeds the four numbers of a row as words, of which some come twice."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(4, 3)
        self.out = nn.Linear(12, 2)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.out(self.embedding((inputs.abs() * 2).long().clamp(max=3)).flatten(1))


class Attending(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(2, 1, batch_first=True)
        self.out = nn.Linear(4, 2)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        places = inputs.unflatten(1, (2, 2))
        return self.out(self.attention(places, places, places, need_weights=False)[0].flatten(1))


def frozen() -> nn.Module:
    """Return a model whose first weight and last bias are not trained."""
    net = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2))
    net[0].weight.requires_grad_(False)
    net[2].bias.requires_grad_(False)
    return net


NETS = {
    "PReLU": lambda: nn.Sequential(nn.Linear(4, 3), nn.PReLU(3), nn.Linear(3, 2)),
    "Bilinear": Crossed,
    "Embedding": Embedded,
    "attention": Attending,
    "frozen": frozen,
}


WAYS = [(name, way) for name in NETS for way in ("opacus", "vmap", "row by row", "cohort")]
OPACUS_LACKS = [("Bilinear", "opacus"), ("attention", "opacus")]


@pytest.mark.parametrize(("name", "way"), [pair for pair in WAYS if pair not in OPACUS_LACKS])
def test_all_trained_parameters_of_any_layer_count_in_a_persons_sum(
    name: str, way: str, monkeypatch: pytest.MonkeyPatch
):
    """Oracle: gradients of rows by autograd, with targets of two labels each; serial's three ways, and the stack."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        net = NETS[name]()
    losses = outcome_of("multi-label").losses
    rows = persons_of([1, 2, 3, 7, 20], np.random.default_rng(7))
    inputs = rows.inputs.clamp(-1.4, 1.4).float()
    rows = replace(rows, inputs=inputs, target=torch.stack([rows.target, inputs[:, 0] > 0], 1).float())
    assert rows.person is not None

    trained = [value for value in net.parameters() if value.requires_grad]
    expected = torch.zeros(sum(value.numel() for value in trained))
    norms = []
    for person in range(5):
        own = rows.person == person
        of_person = torch.autograd.grad(losses(net(rows.inputs[own]), rows.target[own]).sum(), trained)
        total = torch.cat([gradient.flatten() for gradient in of_person])
        norms.append(float(total.norm()))
        expected += total * min(1.0, 1.5 / (norms[-1] + 1e-6))
    assert min(norms) < 1.5 < max(norms), "one is clipped, and one is not"

    todo = Plan(1, 1.0, BATCH, Optimizer(lr=1.0), Noise(1.5, 1.0), of_persons=True)
    start = vector_of(net)
    work = Work(net, start, rows, todo, Streams(Words.of(0, "batches", 0), Silent()), losses)
    if way == "cohort":
        stack_train.check_rules(net, losses, rows)
        stack = start[None].clone()
        train_together([work], stack)
        end = stack[0]
    else:
        monkeypatch.setattr(steps, "way_of", lambda work: way)
        end = train(work).parameters
    torch.testing.assert_close(BATCH * (start - end), expected, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e200])
def test_a_person_with_a_row_that_counts_as_zero_counts_as_zero(engine: str, bad: float):
    """B9: not the row alone, so that a person is there with all rows or not at all."""
    rows = persons_of([3, 5, 2], np.random.default_rng(1))
    assert rows.person is not None
    inputs = rows.inputs.clone()
    inputs[int((rows.person == 1).nonzero()[0])] = bad
    found = released([replace(rows, inputs=inputs), without(rows, 1)], engine)
    assert found.isfinite().all()
    torch.testing.assert_close(found[0], found[1], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("engine", ENGINES)
def test_rows_too_large_that_cancel_take_their_person_along(engine: str):
    """B9: their sum is a number, and yet of no digits that could be trusted."""
    inputs = torch.full((3, 4), 1e200, dtype=torch.float64)
    inputs[2] = 1.0
    target = torch.tensor([0.0, 1.0, 1.0], dtype=torch.float64)
    (found,) = released([Examples(inputs, target, torch.zeros(3, dtype=torch.int64))], engine)
    assert found.norm() == 0


@pytest.mark.parametrize("engine", ENGINES)
def test_a_person_whose_rows_cancel_moves_nothing(engine: str):
    """Rows are not clipped one by one: two that are opposite leave no trace of a person."""
    inputs = torch.tensor([[30.0, 0.0, 0.0, 0.0]] * 2, dtype=torch.float64)
    rows = Examples(inputs, torch.tensor([0.0, 1.0], dtype=torch.float64), torch.zeros(2, dtype=torch.int64))
    (found,) = released([rows], engine)
    assert found.norm() <= 1e-9


@pytest.mark.parametrize("engine", ENGINES)
def test_two_persons_with_one_name_at_two_sites_are_two_in_the_pool(engine: str):
    """M14: taken for one, whoever leaves would turn the other's sum around, by up to twice the clip."""
    inputs = torch.full((3, 4), 30.0, dtype=torch.float64)
    target = torch.tensor([1.0, 1.0, 0.0], dtype=torch.float64)
    number = torch.zeros(3, dtype=torch.int64)
    there = Examples(inputs[:2], target[:2], number[:2])
    other = Examples(inputs[2:], target[2:], number[2:])
    pool = concatenated([there, other])
    assert pool.persons == 2
    found = released([pool, other], engine)
    assert (found[0] - found[1]).norm() <= CLIP * EXACT
    assert (found[0] - found[1]).norm() >= 0.9 * CLIP


def test_names_are_compared_inside_a_site_only():
    rows = Rows(
        inputs=np.zeros((5, 1), np.float32),
        target=np.zeros(5, np.float32),
        site=np.array(["a", "a", "b", "b", "a"]),
        person=np.array([7, 8, 7, 7, 7]),
    )
    np.testing.assert_array_equal(numbers_of(rows), [0, 1, 2, 2, 0])


def included(engine: str, sizes: list[int], rate: float, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw batches of two sites; return how many rows of each person joined each step, and how many there are."""
    sites = [persons_of(sizes, np.random.default_rng(site)) for site in range(2)]
    person = np.concatenate([numbers(site) + number * len(sizes) for number, site in enumerate(sites)])
    numbered, start = [], 0
    for site in sites:
        numbered.append(replace(site, inputs=torch.arange(start, start + len(site)).double()[:, None]))
        start += len(site)
    todo = Plan(steps, rate, 1.0, Optimizer(), None, of_persons=True)
    net = nn.Linear(1, 1).double()
    begin = torch.zeros(2, dtype=torch.float64)
    works = [
        Work(net, begin, rows, todo, Streams(Words.of(0, "batches of persons", site), Silent()), binary)
        for site, rows in enumerate(numbered)
    ]
    chosen = np.zeros((steps, 2 * len(sizes)), int)
    if engine == "cohort":
        for step, batch in enumerate(stack_train.poisson_batches(works, torch.ones(2), padded=False)):
            np.add.at(chosen[step], person[batch.inputs[:, 0].numpy().astype(int)], 1)
    else:
        for work in works:
            for step, batch in enumerate(poisson_batches(work)):
                np.add.at(chosen[step], person[batch.inputs[:, 0].numpy().astype(int)], 1)
    return chosen, np.bincount(person)


@pytest.mark.parametrize("engine", ENGINES)
def test_all_rows_of_a_person_join_a_step_or_none(engine: str):
    """C1, M1: persons join as a coin says, whatever their number of rows; p > 1e-6 for how often each one does."""
    sizes, rate, steps = [1, 2, 5, 40] * 10, 0.3, 400
    chosen, rows = included(engine, sizes, rate, steps)
    assert set(np.unique(chosen / rows)) == {0.0, 1.0}
    inclusions = (chosen > 0).sum(0)
    variance = steps * rate * (1 - rate)
    spread = ((inclusions - steps * rate) ** 2).sum() / variance
    assert 1e-6 < stats.chi2.sf(spread, len(inclusions)) < 1 - 1e-6

    # So does the number of persons in a step: it would not vary if a batch had one size.
    persons = (chosen > 0).sum(1)
    variance = len(rows) * rate * (1 - rate)
    spread = ((persons - len(rows) * rate) ** 2).sum() / variance
    assert 1e-6 < stats.chi2.sf(spread, steps) < 1 - 1e-6


def test_both_engines_draw_the_same_persons():
    serial, _ = included("serial", [1, 3, 9], 0.5, 20)
    cohort, _ = included("cohort", [1, 3, 9], 0.5, 20)
    assert (serial == cohort).all()


@pytest.mark.parametrize("engine", ENGINES)
def test_the_noise_and_the_mechanism_follow_from_no_number_of_rows(engine: str):
    """B7, M3: rows of zeros leave the noise alone, which is the same for 3 persons with 1 row and with 40."""
    results = []
    for size in (1, 40):
        person = torch.arange(3).repeat_interleave(size)
        rows = Examples(torch.zeros(len(person), 4), torch.zeros(len(person)), person)
        todo = Plan(100, 0.5, 5.0, Optimizer(lr=1.0), Noise(CLIP, 1.5), of_persons=True)
        net = nn.Linear(4, 1, bias=False)
        streams = Streams(Words.of(0, "batches"), Words.of(0, "noise of persons"))
        work = Work(net, torch.zeros(4), rows, todo, streams, binary, follow=True)
        done = train(work) if engine == "serial" else train_together([work], work.start.repeat(1, 1))[0]
        results.append(done)
    assert results[0].mechanism == results[1].mechanism
    assert results[0].mechanism is not None
    assert (results[0].mechanism.expected_batch, results[0].mechanism.steps) == (5.0, 100)
    assert torch.equal(results[0].parameters, results[1].parameters)
    steps = torch.diff(torch.stack(results[0].path), dim=0)
    assert float(steps.std()) == pytest.approx(1.5 * CLIP / 5.0, rel=0.25)


@pytest.mark.parametrize("engine", ENGINES)
def test_persons_can_not_be_drawn_where_nobody_knows_them(engine: str):
    rows = replace(persons_of([2, 3], np.random.default_rng(0)), person=None)
    with pytest.raises(Mistake, match=r"privacy\.unit: expected rows whose persons are known"):
        released([rows], engine)
