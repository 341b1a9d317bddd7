"""DP-SGD at a site. The M and B numbers are those of a list of known mistakes: each test fails when one is made."""

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn
from torch.func import functional_call, grad, vmap
from torch.nn import functional

from fedsim.data.federation import Examples
from fedsim.mistakes import Mistake
from fedsim.randomness import Words
from fedsim.scenario.files import with_strategy
from fedsim.scenario.schema import Optimizer
from fedsim.training.steps import poisson_batches, train
from fedsim.training.work import Noise, Plan, Streams
from tests.works import Silent, examples, streams, vector, work

CLIP = 0.7


def plan(
    steps: int = 1, rate: float = 1.0, batch: float = 8.0, multiplier: float = 1.0, lr: float = 1.0, clip=CLIP
) -> Plan:
    return Plan(steps, rate, batch, Optimizer(name="sgd", lr=lr), Noise(clip, multiplier))


def model(inputs: int = 4) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(inputs, 5), nn.Tanh(), nn.Linear(5, 1))


def drawn(noise: object = None, batches: object = 0) -> Streams:
    """Return streams by name; without a name for the noise there is none."""
    return Streams(Words.of(0, "test batches", str(batches)), Silent() if noise is None else Words.of(0, str(noise)))


def release(rows: Examples, todo: Plan, streams: Streams | None = None, net: nn.Module | None = None) -> torch.Tensor:
    """Train and return the update, as the sum that was divided: -(after - before) * batch / lr."""
    net = net or model(rows.inputs.shape[1])
    done = train(work(net, rows, todo, streams or drawn()))
    return (vector(net) - done.parameters) * todo.expected_batch / todo.optimizer.lr


def batches(rows: Examples, rate: float, name: object, steps: int = 1) -> list[Examples]:
    """Return the Poisson batches of a plain work."""
    todo = Plan(steps, rate, 1.0, Optimizer(), None)
    return list(poisson_batches(work(nn.Linear(1, 1), rows, todo, drawn(batches=name))))


def per_row_gradients(net: nn.Module, rows: Examples) -> torch.Tensor:
    """Compute each row's gradient by vmap, without Opacus: (rows, params)."""

    def loss(parameters: dict, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        logits = functional_call(net, parameters, (x[None],)).squeeze()
        return functional.binary_cross_entropy_with_logits(logits, y)

    parameters = {k: v.detach() for k, v in net.named_parameters()}
    found = vmap(grad(loss), in_dims=(None, 0, 0))(parameters, rows.inputs, rows.target)
    return torch.cat([g.flatten(1) for g in found.values()], dim=1)


def test_without_noise_a_step_is_the_sum_of_clipped_gradients():
    """Oracle: vmap of grad with explicit clipping."""
    rows = examples(12)
    gradients = per_row_gradients(model(), rows)
    norms = gradients.norm(dim=1, keepdim=True)
    assert (norms > CLIP).any()
    assert (norms < CLIP).any()
    expected = (gradients * (CLIP / norms).clamp(max=1)).sum(0)
    torch.testing.assert_close(release(rows, plan()), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("scale", [0.0, 1e-30, 1.0, 1e10, 1e30])
def test_one_row_never_moves_the_sum_by_more_than_the_clip(scale: float):
    row = Examples(torch.full((1, 4), scale), torch.ones(1))
    assert release(row, plan()).norm() <= CLIP * (1 + 1e-5)


@pytest.mark.whole
def test_neighbours_differ_by_at_most_the_clip_and_the_worst_pair_by_nearly_that():
    """B5, in one step: adding any row moves the sum by <= clip; a far-out row moves it by >= 0.9 clip."""
    distances = []
    for seed in range(100):
        rows = examples(6, seed=seed)
        more = Examples(torch.cat([rows.inputs, 3 * torch.randn(1, 4)]), torch.cat([rows.target, torch.ones(1)]))
        distances.append((release(more, plan()) - release(rows, plan())).norm())
    assert max(distances) <= CLIP * (1 + 1e-4)
    assert max(distances) >= 0.9 * CLIP


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf"), 1e38])
def test_a_row_that_is_not_finite_neither_spoils_the_release_nor_shows(bad: float):
    """B9, M8: the others' sum is released as if the row were not there, or clipped."""
    rows = examples(6)
    spoiled = Examples(torch.cat([rows.inputs, torch.full((1, 4), bad)]), torch.cat([rows.target, torch.ones(1)]))
    with_it, without = release(spoiled, plan()), release(rows, plan())
    assert with_it.isfinite().all()
    assert (with_it - without).norm() <= CLIP * (1 + 1e-4)


@pytest.mark.slow
def test_a_thousand_steps_with_hardly_a_row_are_all_accounted():
    """B10: sites of 1 to 20 rows, with Opacus."""
    for rows in range(1, 21):
        done = train(work(model(), examples(rows), plan(steps=1000, rate=0.02), drawn(1, batches=rows)))
        assert done.mechanism is not None
        assert done.mechanism.steps == 1000
        assert done.parameters.isfinite().all()


@pytest.mark.parametrize("rows", range(1, 21))
def test_an_empty_batch_is_a_step_like_any_other(rows: int):
    """B10, M9: noise is drawn and counted; rate 0.02 leaves most of these batches empty."""
    net = model()
    done = train(work(net, examples(rows), plan(steps=20, rate=0.02), drawn(1, batches=rows)))
    assert done.mechanism is not None
    assert done.mechanism.steps == 20
    assert done.parameters.isfinite().all()


def test_a_site_without_rows_releases_pure_noise():
    rows = Examples(torch.zeros(0, 4), torch.zeros(0))
    noisy = release(rows, plan(), drawn(0))
    assert noisy.norm() > 0.1


def test_the_noise_has_the_claimed_size_and_shape():
    """B1, B2: 1e6 draws of the real path; variance within 5 sd, Kolmogorov-Smirnov p > 1e-6, tails of a Gaussian.

    See test_tails for more of them.
    The largest can't be above 6.66: that is what 31 bits give. A Gaussian's would be with a chance of 3e-5.
    """
    rows = Examples(torch.zeros(0, 999_999), torch.zeros(0))
    multiplier, clip = 2.5, 0.3
    streams = drawn(7)
    net = nn.Linear(999_999, 1)
    nn.init.zeros_(net.weight)
    nn.init.zeros_(net.bias)
    noise = release(rows, plan(multiplier=multiplier, clip=clip), streams, net).numpy() / (multiplier * clip)
    count = len(noise)
    assert abs(noise.var() - 1) <= 5 * np.sqrt(2 / count)
    assert abs(noise.mean()) <= 5 / np.sqrt(count)
    assert stats.kstest(noise[:100_000], "norm").pvalue > 1e-6
    assert abs(stats.kurtosis(noise)) < 0.05
    beyond = stats.binom(count, 2 * stats.norm.sf(4.3))  # 17 of a million are expected; none at all has p = 4e-8
    assert beyond.cdf((np.abs(noise) > 4.3).sum()) > 1e-7
    assert beyond.sf((np.abs(noise) > 4.3).sum() - 1) > 1e-7
    assert np.abs(noise).max() < 6.67


def test_noise_does_not_depend_on_the_rows():
    """M23: the same stream gives the same noise for 3 rows and for 30, up to rounding."""
    found = []
    for rows in (examples(3), examples(30)):
        noisy = release(rows, plan(), drawn(5))
        found.append(noisy - release(rows, plan()))
    torch.testing.assert_close(found[0], found[1], atol=1e-4, rtol=1e-4)


def test_the_ledger_gets_what_was_used():
    """A9, M2: steps are counted where noise is drawn, the rate and sigma are those of the step."""
    draws = 0

    class Counting(Words):
        def draw_into(self, out: memoryview, zeros: bytes) -> None:
            nonlocal draws
            draws += 1
            super().draw_into(out, zeros)

    streams = Streams(Words.of(0, "batches"), Counting(bytes(16)))
    mechanism = train(work(model(), examples(9), plan(steps=7, rate=0.3, batch=5.0, multiplier=1.7), streams)).mechanism
    assert mechanism is not None
    assert draws == mechanism.steps == 7
    assert (mechanism.sampling_rate, mechanism.noise_multiplier, mechanism.clip, mechanism.expected_batch) == (
        0.3, 1.7, CLIP, 5.0,
    )  # fmt: skip


@pytest.mark.whole
def test_nothing_public_follows_from_the_number_of_rows():
    """B7, M3: with 1 to 201 rows, what is accounted is the same, and bit for bit the noise over the denominator.

    The rows are zeros, whose gradients are zeros, so that only noise is released.
    """
    net = nn.Linear(4, 1, bias=False)
    found, released = set(), set()
    for rows in range(1, 202):
        zeros = Examples(torch.zeros(rows, 4), torch.zeros(rows))
        done = train(work(net, zeros, plan(steps=3, rate=0.4), streams(0, "a", "b", 1)))
        found.add(done.mechanism)
        released.add(done.parameters.numpy().tobytes())
    assert len(found) == len(released) == 1


def test_batches_are_poisson():
    """C1, C2, M1: size and inclusion vary as Binomial(N, q) and Binomial(T, q); shuffled batches would not vary.

    Means within 5 sd; the spread by its chi-square on both sides and the sizes' distribution by another, p > 1e-6.
    """
    count, rate, steps = 400, 0.1, 1000
    rows = Examples(torch.arange(count, dtype=torch.float32)[:, None], torch.zeros(count))
    included = np.zeros((steps, count))
    for step, batch in enumerate(batches(rows, rate, 3, steps)):
        included[step, batch.inputs[:, 0].numpy().astype(int)] = 1
    sizes, inclusions = included.sum(1), included.sum(0)
    for values, trials in ((sizes, count), (inclusions, steps)):
        variance = trials * rate * (1 - rate)
        assert abs(values.mean() - trials * rate) <= 5 * np.sqrt(variance / len(values))
        spread = ((values - trials * rate) ** 2).sum() / variance
        assert 1e-6 < stats.chi2.sf(spread, len(values)) < 1 - 1e-6
    edges = stats.binom(count, rate).ppf(np.linspace(0.1, 0.9, 9))
    expected = np.diff(stats.binom(count, rate).cdf([-1, *edges, count])) * steps
    observed = np.histogram(sizes, [-1, *(edges + 0.5), count + 1])[0]
    assert stats.chisquare(observed, expected).pvalue > 1e-6


def test_whether_a_row_joins_does_not_depend_on_the_others():
    """M25: one row more at the end leaves the choice among the others as it was."""
    few, more = examples(20), examples(21)
    for seed in range(20):
        (chosen,) = batches(Examples(torch.arange(20.0)[:, None], few.target), 0.5, seed)
        (again,) = batches(Examples(torch.arange(21.0)[:, None], more.target), 0.5, seed)
        assert [*chosen.inputs[:, 0]] == [x for x in again.inputs[:, 0] if x < 20]


def test_a_rows_gradient_does_not_depend_on_the_other_rows():
    """M10, B8: swapping one row changes the sum by that row's part only."""
    rows = examples(8)
    swapped = Examples(rows.inputs.clone(), rows.target.clone())
    swapped.inputs[3] = 9.0
    change = release(swapped, plan()) - release(rows, plan())
    alone = [Examples(r.inputs[3:4], r.target[3:4]) for r in (rows, swapped)]
    torch.testing.assert_close(change, release(alone[1], plan()) - release(alone[0], plan()), atol=1e-5, rtol=1e-4)


def test_every_parameter_gets_noise():
    """M24."""
    quiet, noisy = (train(work(model(), examples(5), plan(), streams)).parameters for streams in (drawn(), drawn(1)))
    assert (noisy != quiet).all()


def test_sites_rounds_and_arms_have_noise_of_their_own():
    """M11: also the arms, or the difference of two releases would be free of noise."""
    places = [
        (0, "federated", "a", 1),
        (0, "local", "a", 1),
        (0, "federated", "b", 1),
        (0, "federated", "a", 2),
        (1, "federated", "a", 1),
    ]
    found = {streams(*place).noise.draw(8).tobytes() for place in places}
    assert len(found) == len(places)


@pytest.mark.parametrize("extra", [[], ["privacy.unit=local"], ["privacy.unit=none"], ["privacy.rng=secure"]])
def test_noise_and_batches_never_come_from_one_stream(extra: list[str]):
    """M11, M12: the accountant takes the noise for independent of which rows are in a step."""
    places = [("federated", "a", 1), ("federated", "a", 2), ("federated", "b", 1), ("local", "a", 1)]
    drawn = [streams(0, *place, *extra) for place in places]
    batches = {one.batches.key for one in drawn}
    noise = {one.noise.key for one in drawn}
    assert len(noise) == len(places)
    assert not batches & noise


@pytest.mark.parametrize(
    "change",
    [
        "privacy.epsilon=1",
        "training.optimizer.lr=0.1",
        "training.duration_spread=1",
        "strategy.x=1",
        "privacy.clip=2",
        "faults.joins_late.cleveland=2",
        "faults.wrong_labels.cleveland=1.0",
    ],
)
def test_two_runs_of_one_seed_that_differ_share_no_noise_and_no_batches(change: str):
    """M11: otherwise the difference of two published models is free of noise; M1: and they compose as is said."""
    one, other = streams(0, "federated", "a", 1), streams(0, "federated", "a", 1, change)
    assert one.noise.draw(8).tolist() != other.noise.draw(8).tolist()
    assert one.batches.draw(8).tolist() != other.batches.draw(8).tolist()


def test_the_title_and_the_engine_do_not_change_the_noise():
    one, other = streams(0, "federated", "a", 1), streams(0, "federated", "a", 1, "title=Mine", "engine=cohort")
    assert one.noise.draw(8).tolist() == other.noise.draw(8).tolist()


def test_two_versions_of_a_strategys_file_share_no_noise(tmp_path):
    """M11: one name, one seed, and what comes in the second round is known of both."""
    path, found = tmp_path / "mine.py", []
    for comment in ("first", "second", "first"):
        path.write_text(f"class Mine:\n    def aggregate(self, *rest): ...  # {comment}\n")
        found.append(streams(0, "federated", "a", 1, with_strategy(str(path))))
    first, second, again = ([one.noise.draw(8).tolist(), one.batches.draw(8).tolist()] for one in found)
    assert first == again
    assert first[0] != second[0]
    assert first[1] != second[1]


class Visits(nn.Module):
    """Sees each row twice, as two short ones: Opacus clips each visit on its own."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 1)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.layer(inputs.reshape(-1, 2)).reshape(-1, 2).sum(1, keepdim=True)


def test_gradients_of_more_rows_than_there_are_are_refused(monkeypatch):
    """Clipping would bound each visit, not the row. Opacus is not taken for such a model; if it were, it would end."""
    monkeypatch.setattr("fedsim.training.steps.way_of", lambda work: "opacus")
    with pytest.raises(Mistake, match=r"expected a gradient for each of 5 rows in every layer, got \[10\]"):
        release(examples(5), plan(), net=Visits())
