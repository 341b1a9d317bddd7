"""What a strategy does and doesn't keep: the contract, tried on made-up updates.

Every check has a name, says whether it holds, and whether every strategy must keep it. What only some strategies keep,
such as giving back equal updates, tells what kind of strategy it is.
"""

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from safetensors.torch import load, save
from torch import Tensor

from fedsim.mistakes import said_by
from fedsim.strategy.contract import Strategy, aggregate, needs_mean_only
from fedsim.strategy.local_rule import State

SITES = (11, 23, 47)  # tried in turn, until there are enough for the strategy
_PARAMS, _ROUNDS, _FAR = 7, 30, 1e4


@dataclass(frozen=True)
class Finding:
    """What came of one check.

    Attributes:
        name: What was checked.
        holds: Whether it holds.
        required: Whether every strategy must keep it.
        detail: What was seen, where there is more to say.
    """

    name: str
    holds: bool
    required: bool
    detail: str = ""


@dataclass(frozen=True)
class Round:
    """What comes in: center (params,), updates (sites, params); weights, and each report, (sites,)."""

    center: Tensor
    updates: Tensor
    weights: Tensor
    loss: Tensor
    cluster: Tensor
    steps: Tensor
    staleness: Tensor

    @classmethod
    def made(cls, sites: int) -> "Round":
        """Return random updates around a random center, with unequal weights that sum to 1."""
        random = torch.Generator().manual_seed(sites)
        center = torch.randn(_PARAMS, generator=random)
        weights = torch.rand(sites, generator=random) + 0.5
        return cls(
            center=center,
            updates=center + 2.0 + 0.3 * torch.randn(sites, _PARAMS, generator=random),
            weights=weights / weights.sum(),
            loss=torch.rand(sites, generator=random) + 0.5,
            cluster=torch.arange(sites) % 2.0,
            steps=torch.full((sites,), 2.0),
            staleness=torch.arange(sites) % 3.0,
        )

    def of(self, sites: Tensor | slice) -> "Round":
        """Return what some of the sites sent, in another order or not."""
        return dataclasses.replace(
            self,
            updates=self.updates[sites],
            weights=self.weights[sites],
            loss=self.loss[sites],
            cluster=self.cluster[sites],
            steps=self.steps[sites],
            staleness=self.staleness[sites],
        )

    def with_(self, **changes: Tensor) -> "Round":
        """Return it with something else in place."""
        return dataclasses.replace(self, **changes)


class Bench:
    """A strategy, and as many sites as it needs, of those numbers that are tried."""

    def __init__(self, strategy: Strategy) -> None:
        self.strategy = strategy
        self.sites = SITES[-1]
        for sites in SITES:
            try:
                self.run(Round.made(sites))
            except (Exception, SystemExit):  # noqa: S112  a ValueError may ask for more sites; what it can't do, the checks will say
                continue
            self.sites = sites
            break

    def run(self, given: Round, state: State | None = None) -> tuple[Tensor, State]:
        """Aggregate."""
        reports = {name: vars(given)[name] for name in self.strategy.reports}
        return aggregate(self.strategy, given.center, given.updates, given.weights, state or {}, reports)

    def new(self, given: Round) -> Tensor:
        """Return the new model after a first round."""
        return self.run(given)[0]


def examine(strategy: Strategy) -> list[Finding]:
    """Try a strategy. A check that raises does not hold, and says what was raised."""
    bench = Bench(strategy)
    findings = []
    for check in (*_REQUIRED, *_KINDS):
        try:
            answer = check(bench)
        except (Exception, SystemExit) as error:  # the strategy's; the check goes on with the others
            answer = False, said_by(error)
        holds, detail = answer if isinstance(answer, tuple) else (answer, "")
        name = (inspect.getdoc(check) or "").partition(".")[0]
        findings.append(Finding(name, bool(holds), check in _REQUIRED, detail))
    return findings


Answer = bool | tuple[bool, str]


def _frozen(bench: Bench) -> Answer:
    """It is a frozen dataclass."""
    parts = type(bench.strategy).__mro__
    parameters = [vars(part)["__dataclass_params__"] for part in parts if "__dataclass_params__" in vars(part)]
    return bool(parameters) and parameters[0].frozen


def _shape(bench: Bench) -> Answer:
    """The new model has the old one's shape and type, and finite numbers."""
    given = Round.made(bench.sites)
    new, state = bench.run(given)
    tensors = all(isinstance(name, str) and isinstance(value, Tensor) for name, value in state.items())
    return tensors and _like(new, given.center)


def _untouched(bench: Bench) -> Answer:
    """What comes in is left as it was."""
    given = Round.made(bench.sites)
    before = Round.made(bench.sites)
    _, state = bench.run(given)
    kept = {name: value.clone() for name, value in state.items()}
    bench.run(given, state)
    return _same(vars(given), vars(before)) and _same(state, kept)


def _repeatable(bench: Bench) -> Answer:
    """The same updates give the same model twice."""
    given = Round.made(bench.sites)
    return torch.equal(bench.new(given), bench.new(given))


def _order(bench: Bench) -> Answer:
    """The order of the sites does not matter."""
    given = Round.made(bench.sites)
    order = torch.randperm(bench.sites, generator=torch.Generator().manual_seed(0))
    return _close(bench.new(given), bench.new(given.of(order)))


def _state(bench: Bench) -> Answer:
    """Its state survives save and load."""
    given = Round.made(bench.sites)
    new, state = bench.run(given)
    loaded = load(save({name: value.contiguous() for name, value in state.items()}))
    again = given.with_(center=new)
    return torch.equal(bench.run(again, state)[0], bench.run(again, loaded)[0]), ", ".join(state) or "no state"


def _one(bench: Bench) -> Answer:
    """One update is enough, or a ValueError says how many are needed."""
    given = Round.made(bench.sites).of(slice(1))
    try:
        return _like(bench.new(given), given.center), ""
    except ValueError as error:
        return any(letter.isdigit() for letter in str(error)), str(error)


def _none(bench: Bench) -> Answer:
    """No update at all leaves the model where it is, or raises a ValueError."""
    given = Round.made(bench.sites).of(slice(0))
    try:
        return torch.equal(bench.new(given), given.center)
    except ValueError as error:
        return True, str(error)


def _nan(bench: Bench) -> Answer:
    """A NaN in one update is kept out or can be seen; the server stops at a model that is not finite."""
    given = Round.made(bench.sites)
    updates = given.updates.clone()
    updates[0, 0] = torch.nan
    try:
        new = bench.new(given.with_(updates=updates))
    except ValueError as error:
        return True, f"raises {error}"
    if not new.isfinite().all():
        return True, "is seen"
    reach = (given.updates[1:] - given.center).norm(dim=1).max()
    return bool((new - given.center).norm() <= 2 * reach), "is kept out"


def _mean(bench: Bench) -> Answer:
    """If it says that it needs the mean of the updates only, the mean as one update gives the same."""
    if not needs_mean_only(bench.strategy):
        return True, "does not say so"
    return same_by_mean(bench, 1.0) and same_by_mean(bench, 0.5), "says so"


def same_by_mean(bench: Bench, total: float) -> bool:
    """Whether two rounds end alike with all updates and with their mean; their weights sum to ``total``."""
    given = Round.made(bench.sites)
    given = given.with_(weights=total * given.weights)
    weight = given.weights.sum()

    # One update, the mean, of all weight.
    mean = ((given.weights / weight) @ given.updates)[None]
    one = given.of(slice(1)).with_(updates=mean, weights=weight[None])

    center, state = bench.run(given)
    center_of_one, state_of_one = bench.run(one)
    again = bench.run(given.with_(center=center), state)[0]
    again_of_one = bench.run(one.with_(center=center_of_one), state_of_one)[0]
    return _close(center_of_one, center) and _close(again_of_one, again)


def _equal(bench: Bench) -> Answer:
    """Equal updates give that update."""
    given = Round.made(bench.sites)
    same = given.updates[:1].expand(bench.sites, -1)
    return _close(bench.new(given.with_(updates=same)), given.updates[0])


def _still(bench: Bench) -> Answer:
    """Where nobody moves, the model stays."""
    given = Round.made(bench.sites)
    return _close(bench.new(given.with_(updates=given.center.expand(bench.sites, -1))), given.center)


def _shift(bench: Bench) -> Answer:
    """Moving everything moves the result as much."""
    given = Round.made(bench.sites)
    by = torch.linspace(-1, 1, _PARAMS)
    moved = given.with_(center=given.center + by, updates=given.updates + by)
    return _close(bench.new(moved), bench.new(given) + by)


def _scale(bench: Bench) -> Answer:
    """Scaling everything scales the result."""
    given = Round.made(bench.sites)
    scaled = given.with_(center=4 * given.center, updates=4 * given.updates)
    return _close(bench.new(scaled), 4 * bench.new(given))


def _weights(bench: Bench) -> Answer:
    """Weights count."""
    given = Round.made(bench.sites)
    equal = torch.full_like(given.weights, 1 / bench.sites)
    return not _close(bench.new(given), bench.new(given.with_(weights=equal)))


def _half(bench: Bench) -> Answer:
    """With half of the weight missing it moves half as far."""
    given = Round.made(bench.sites)
    moved = bench.new(given.with_(weights=given.weights / 2)) - given.center
    return _close(moved, (bench.new(given) - given.center) / 2)


def _robust(bench: Bench) -> Answer:
    """It withstands sites that lie."""
    most = withstood(bench)
    return most > 0, f"{max(most, 0)} of {bench.sites}" + (" (nor does it settle without any)" if most < 0 else "")


def withstood(bench: Bench) -> int:
    """Return how many colluding liars of fewer than half of the sites it withstands, -1 if it does not even settle.

    Honest sites answer with the same updates in each of 30 rounds; the liars with one far point, or far in all
    directions, and with a loss as high. To withstand them is to end near the honest updates: within twice the distance
    of the farthest of them from their mean.
    """
    most = -1  # not even without liars
    for liars in range((bench.sites + 1) // 2):
        if not all(_settles(bench, liars, spread) for spread in (False, True)):
            break
        most = liars
    return most


def _settles(bench: Bench, liars: int, spread: bool) -> bool:
    given = Round.made(bench.sites)
    honest = given.updates[liars:]
    random = torch.Generator().manual_seed(1)
    away = torch.randn(liars if spread else 1, _PARAMS, generator=random)

    center = given.center
    state: State = {}
    for _ in range(_ROUNDS):
        updates = given.updates.clone()
        updates[:liars] = center + _FAR * away
        loss = torch.where(torch.arange(bench.sites) < liars, _FAR, given.loss)
        center, state = bench.run(given.with_(center=center, updates=updates, loss=loss), state)
    reach = (honest - honest.mean(0)).norm(dim=1).max()
    return bool((center - honest.mean(0)).norm() <= 2 * reach)


_REQUIRED: tuple[Callable[[Bench], Answer], ...] = (
    _frozen, _shape, _untouched, _repeatable, _order, _state, _one, _nan, _mean
)  # fmt: skip
_KINDS: tuple[Callable[[Bench], Answer], ...] = (_none, _equal, _still, _shift, _scale, _weights, _half, _robust)


def _same(some: Mapping[str, Tensor], others: Mapping[str, Tensor]) -> bool:
    return some.keys() == others.keys() and all(torch.equal(some[name], others[name]) for name in some)


def _like(new: Tensor, center: Tensor) -> bool:
    return new.shape == center.shape and new.dtype == center.dtype and bool(new.isfinite().all())


def _close(one: Tensor, other: Tensor) -> bool:
    return torch.allclose(one, other, rtol=1e-4, atol=1e-5)
