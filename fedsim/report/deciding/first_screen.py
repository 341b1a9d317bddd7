"""The first screen of a report, which a board can decide from: a sentence, three figures and what they rest on."""

from dataclasses import dataclass

from fedsim import figures
from fedsim.privacy.units import unit_of
from fedsim.report.base_findings import base_figures
from fedsim.report.findings import Numbers, answers
from fedsim.report.statement import promised_arm
from fedsim.results.comparison import SAME
from fedsim.results.estimate import Estimate

_TILES = 3


@dataclass(frozen=True)
class Tile:
    """One of the figures.

    Attributes:
        title: The name of the figure.
        value: The figure.
        below: Its interval, its verdict and the like, a line each.
    """

    title: str
    value: str
    below: tuple[str, ...]


def sentence(numbers: Numbers) -> str:
    """Return the first sentence of the first answer."""
    first = answers(numbers)[0][1]
    return first.partition(". ")[0].removesuffix(".") + "."


def tiles(numbers: Numbers) -> list[Tile]:
    """Return the three figures that matter most, of those that were measured.

    They are how good the model is, what joining brings, and what privacy promises and costs; without privacy, or where
    an arm is missing, the difference to the pool or the next arm's mean stands in their place.
    """
    private = numbers.private
    arm = "federated" if numbers.was_run("federated", private) else numbers.arms[0]
    kind = private if numbers.was_run(arm, private) else numbers.kinds_of(arm)[-1]
    found = [_quality(numbers, arm, kind)]
    if numbers.was_run("federated", numbers.gain_kinds[-1]) and "local" in numbers.arms:
        gain = numbers.of("gain", numbers.gain_kinds[-1], "federated")
        found.append(_change(numbers, "Gain by joining, over training alone", gain, numbers.gain_kinds[-1]))
    if private:
        found.append(_promise(numbers))
    if numbers.was_run("federated", kind) and numbers.was_run("centralized", kind):
        difference = numbers.of("difference", kind, "federated")
        found.append(_change(numbers, "Difference to pooling all records", difference, kind))

    # Arms that are left over, where there are not enough of the others.
    for other in numbers.arms:
        for other_kind in numbers.kinds_of(other):
            if (other, other_kind) != (arm, kind):
                found.append(_quality(numbers, other, other_kind))
    return found[:_TILES]


def _quality(numbers: Numbers, arm: str, private: bool) -> Tile:
    run = numbers.run
    mean = numbers.of("mean", private, arm)
    label = f"{numbers.metric.label[0].upper()}{numbers.metric.label[1:]} {run.headline_place}, {arm}"
    below = [*_interval(mean)]
    base = figures.figure(base_figures(run, run.headline)[numbers.metric.name])
    if base != figures.UNKNOWN:
        below.append(f"{base} without a model")
    return Tile(f"{label}{_with_privacy(numbers, private)}", mean.value(), tuple(below))


def _change(numbers: Numbers, title: str, change: Estimate, private: bool) -> Tile:
    better = numbers.metric.better
    words = {"": "", SAME: f"{SAME} from zero", better: "better"}
    verdict = words.get(change.verdict, "worse")
    below = [line for line in (*_interval(change, signed=True), verdict) if line]
    return Tile(f"{title}{_with_privacy(numbers, private)}", change.value(signed=True), tuple(below))


def _promise(numbers: Numbers) -> Tile:
    """Return the largest epsilon of one training, and what it costs."""
    run = numbers.run
    protected = unit_of(run.ledger["unit"]).promise.protected
    spent = run.epsilon(promised_arm(run))
    if not spent:
        return Tile("Epsilon", figures.UNKNOWN, ("nothing was released under privacy",))

    below = [f"at delta {figures.setting(run.ledger['delta'])}, the most at any site"]
    if run.ledger["ranges_fitted"]:
        below.append("without preprocessing, which is not covered")
    if numbers.was_run("federated", private=True) and numbers.was_run("federated", private=False):
        cost = numbers.cost()
        change = f"costs {cost.value(signed=True)} {numbers.metric.label}"
        bounds = cost.bounds(signed=True)
        below.append(f"{change} ({bounds})" if bounds else change)
        if cost.verdict == SAME:
            below.append(f"{SAME} from zero")
    return Tile(f"Epsilon for one {protected}", figures.epsilon(max(spent.values())), tuple(below))


def _interval(estimate: Estimate, signed: bool = False) -> list[str]:
    said = estimate.interval(signed)
    return [said] if said else ["no interval"]


def _with_privacy(numbers: Numbers, private: bool) -> str:
    if not numbers.private:
        return ""
    return ", with privacy" if private else ", without privacy"
