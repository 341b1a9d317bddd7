"""Tune each arm with the same number of trials, and compare what was chosen on test rows.

A study for each arm and seed: its own validation rows choose, its own test rows are looked at once, for the settings
that were chosen. All arms have the same space, as far as a setting has a meaning for them, and the same number of
trials.
"""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from fedsim.data.settling import settled
from fedsim.experiments.deciding.choice import NOT_FOR_IT, TRIAL, choose
from fedsim.experiments.deciding.decided import Decided
from fedsim.experiments.deciding.kept import make_cache
from fedsim.experiments.deciding.space import Dimension, space_of, usual
from fedsim.experiments.deciding.study import COMPLETE, FAILED, PRUNED, Study, Tried
from fedsim.experiments.deciding.sweep import decides_rows, matters, own_epsilon, protects
from fedsim.experiments.deciding.together import Released, together
from fedsim.experiments.processes import run_all
from fedsim.experiments.progress import Progress
from fedsim.experiments.ranking import metric_of, overlap_of
from fedsim.figures import epsilon as written_epsilon
from fedsim.figures import setting
from fedsim.mistakes import Mistake
from fedsim.planning.references import check_without_references
from fedsim.scenario import catalog
from fedsim.scenario.changes import as_typed, with_epsilon, with_strategy
from fedsim.scenario.code.held import check_elsewhere
from fedsim.scenario.files import read
from fedsim.scenario.schema import Arm, Scenario

_STRATEGY = "strategy.name"
_REFUSED = ("seed", "seeds", "arms", "name", "references")
"""Settings whose best value by validation figures answers no question, or that say what is asked for."""

_OF_PRIVACY = ("privacy.clip", "privacy.adaptive_clip")
"""What may be varied of privacy: it changes no release's noise multiplier, rate or number."""

_SAME_MECHANISM = ("training.optimizer", "training.schedule", "training.expected_batch", "data.model", *_OF_PRIVACY)
"""Settings that leave the mechanism as it is, so that so many trainings cost so many times one of them."""


@dataclass(frozen=True)
class Wanted:
    """What is to be tuned.

    Attributes:
        scenario: A name or path.
        trials: The number of trials of each arm, under each seed.
        space: ``KEY=LOW..HIGH``, ``KEY=LOW..HIGH:log`` or ``KEY=V1,V2``; empty for the usual space.
        arms: The arms; None for those of the scenario.
        epsilon: A budget, or ``none``; None for the scenario's own.
        changes: ``key=value`` for all.
        seeds: The number of seeds; None for the scenario's.
        charged: Whether the noise is set so that all trials of a study together stay within epsilon.
        prune: Whether trials that fall behind are ended early.
    """

    scenario: str
    trials: int = 20
    space: Sequence[str] = ()
    arms: Sequence[Arm] | None = None
    epsilon: str | None = None
    changes: Sequence[str] = ()
    seeds: int | None = None
    charged: bool = False
    prune: bool = True


@dataclass(frozen=True)
class Make:
    """Makes the scenario of a trial.

    Attributes:
        scenario: A name or path.
        arm: The arm.
        epsilon: The budget, or ``none``.
        changes: Changes for all trials.
    """

    scenario: str
    arm: Arm
    epsilon: str
    changes: Sequence[str]

    def __call__(self, settings: Mapping[str, str]) -> Scenario:
        """Return the scenario with some settings.

        Raises:
            Mistake: They can't be.
        """
        wanted = dict(settings)
        strategy = wanted.pop(_STRATEGY, None)
        overrides = [
            *([] if strategy is None else [with_strategy(strategy)]),
            *self.changes,
            *(f"{key}={value}" for key, value in wanted.items()),
            f'arms=["{self.arm}"]',
        ]
        scenario = settled(read(self.scenario, overrides, all_used=False))
        catalog.load("strategies", scenario.strategy.name)
        return scenario


@dataclass(frozen=True)
class Tuned:
    """What tuning found.

    Attributes:
        decided: The findings, for page and files.
        trials: A row for each trial: arm, epsilon, seed, trial, the settings, state, rounds and validation.
        scenarios: {arm: the scenario with the settings that its first seed chose}.
        space: The settings that were varied.
    """

    decided: Decided
    trials: pd.DataFrame
    scenarios: Mapping[Arm, Scenario]
    space: Sequence[Dimension]


def tune(
    wanted: Wanted,
    cache: Path,
    metric: str | None = None,
    progress: Progress | None = None,
    jobs: int = 1,
) -> Tuned:
    """Tune each arm; what was trained before is not trained again.

    Args:
        wanted: What is to be tuned.
        cache: The folder where finished trainings are kept.
        metric: The metric to choose and compare by; None for the task's first.
        progress: Called with (the study, trials done, trials in all).
        jobs: In how many processes studies run beside each other.

    Raises:
        Mistake: A setting is wrong, or no trial of an arm could be run.
        OSError: Something can't be written.
    """
    base, epsilon, changes = _base(wanted)
    check_elsewhere(base.own_code, jobs)
    metric = metric_of(base, metric)
    asked: Sequence[Arm] = wanted.arms or base.arms
    arms: list[Arm] = [arm for arm in asked if protects(wanted.scenario, base, changes, epsilon, arm)]
    left_out = [arm for arm in asked if arm not in arms]
    if not arms:
        raise Mistake(f"tune: expected an arm that the privacy unit protects, got {', '.join(left_out)}")

    space = space_of(wanted.space) if wanted.space else usual(base)
    _check_space(space, wanted.charged)
    _check_values(wanted, space, arms, epsilon, changes)
    make_cache(cache)
    studies = []
    for arm in arms:
        own_space = [dimension for dimension in space if matters(dimension.key, arm, epsilon)]
        make = Make(wanted.scenario, arm, epsilon, changes)
        own = _own(make({}), own_space)
        for seed in base.all_seeds:
            studies.append(Study(arm, seed, own_space, own, make, wanted.trials, metric, wanted.prune, cache))

    found = _run(studies, progress, jobs)
    trials = _table(studies, found, space, epsilon)
    _check_complete(trials)
    scores, curves = _frames(studies, found, space, epsilon)
    settings = [TRIAL, *(dimension.key for dimension in space)]
    chosen = choose(scores, curves, settings, metric, overlap_of(base))
    released = _released(wanted, studies, found) if base.private else []
    decided = Decided(
        scenario=wanted.scenario,
        title=base.title,
        chosen=chosen,
        scores=scores,
        curves=curves,
        cautions=list(_cautions(trials, left_out, epsilon)),
        released=released,
        about_privacy=list(_about_privacy(wanted, released)),
        how=list(_how(wanted, base, space, trials)),
        command=command_of(wanted),
    )
    return Tuned(decided, trials, _scenarios(studies, chosen.trainings), space)


def _base(wanted: Wanted) -> tuple[Scenario, str, list[str]]:
    """Return the scenario, its epsilon as text, and the changes for all trials.

    Raises:
        Mistake: A change has no effect or is none of the user's, or there are no validation rows.
    """
    _check_changes(wanted)
    changes = list(wanted.changes)
    if wanted.seeds is not None:
        changes.append(f"seeds={wanted.seeds}")
    base = read(wanted.scenario, changes, all_used=False)
    if base.privacy.tuning.runs is not None:
        raise Mistake(f"privacy.tuning: expected none in the scenario, since tune declares its own trials, got runs = "
                      f"{base.privacy.tuning.runs}; trainings before these would be forgotten")  # fmt: skip
    if wanted.epsilon is not None:
        changes += with_epsilon(wanted.epsilon, base.privacy.unit)
        base = read(wanted.scenario, changes, all_used=False)
    if base.private:
        charged = "true" if wanted.charged else "false"
        changes.append(f"privacy.tuning={{runs = {wanted.trials}, charged = {charged}}}")
    elif wanted.charged:
        raise Mistake("--charged: expected a privacy budget to charge to, the trainings are not private")
    base = settled(read(wanted.scenario, changes, all_used=False))
    check_without_references(base)
    if not base.split.validation:
        raise Mistake("split.validation: expected more than 0, since validation rows choose the settings, got 0")
    return base, own_epsilon(base), changes


def _check_changes(wanted: Wanted) -> None:
    """Make sure that every change has an effect and is the user's to make.

    Raises:
        Mistake: Some are not; all of them.
    """
    faults = []
    for text in wanted.changes:
        key = text.partition("=")[0].strip()
        if key == "arms":
            faults.append("--set arms: expected --arms")
        elif key.startswith("privacy.tuning"):
            faults.append(f"--set {key}: expected none, since tune declares its own trials; --charged charges them")
        elif key == "seeds" and wanted.seeds is not None:
            faults.append("--set seeds: expected none beside --seeds")
        elif key == "privacy.epsilon" and wanted.epsilon is not None:
            faults.append("--set privacy.epsilon: expected none beside --epsilon")
    if faults:
        raise Mistake("\n".join(faults))


def _check_space(space: Sequence[Dimension], charged: bool) -> None:
    """Make sure that a search for these settings answers something, and costs what is said.

    Raises:
        Mistake: It does not: all of them.
    """
    faults = []
    for dimension in space:
        key = dimension.key
        is_of_privacy = key.startswith("privacy.") and not _is_in(key, _OF_PRIVACY)
        if _is_in(key, _REFUSED) or decides_rows(key) or is_of_privacy:
            faults.append(f"--vary {key}: expected a setting of the training, the model, the strategy or the clip; "
                          "figures of others can't be compared, or see fedsim sweep")  # fmt: skip
        elif charged and not _is_in(key, _SAME_MECHANISM):
            faults.append(f"--vary {key}: expected none beside --charged, which can set the noise for trainings of one "
                          f"mechanism only: {', '.join(_SAME_MECHANISM)} may be varied")  # fmt: skip
    if faults:
        raise Mistake("\n".join(faults))


def _is_in(key: str, names: Sequence[str]) -> bool:
    """Whether a key is one of some, or inside of one."""
    return any(key == name or key.startswith(f"{name}.") for name in names)


def _check_values(
    wanted: Wanted, space: Sequence[Dimension], arms: Sequence[Arm], epsilon: str, changes: Sequence[str]
) -> None:
    """Make sure that each value, or each end of a range, can be had, before anything is trained.

    Raises:
        Mistake: Some can't: each setting once.
    """
    faults = []
    for dimension in space:
        concerned: list[Arm] = [arm for arm in arms if matters(dimension.key, arm, epsilon)]
        if not concerned:
            faults.append(f"--vary {dimension.key}: expected a setting that changes something here")
            continue
        make = Make(wanted.scenario, concerned[0], epsilon, changes)
        for value in dimension.ends:
            try:
                make({dimension.key: value})
            except Mistake as mistake:
                faults.append(str(mistake))
                if not dimension.choices:
                    break
    if faults:
        raise Mistake("\n".join(dict.fromkeys(faults)))


def _own(scenario: Scenario, space: Sequence[Dimension]) -> dict[str, Any]:
    """Return {setting: the value of the space that is nearest to the scenario's own}."""
    values = scenario.model_dump()
    own = {}
    for dimension in space:
        value: Any = values
        for part in dimension.key.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        near = dimension.nearest(value)
        if near is not None:
            own[dimension.key] = near
    return own


def _run(studies: Sequence[Study], progress: Progress | None, jobs: int) -> list[list[Tried]]:
    """Run all studies."""
    total = sum(study.trials for study in studies)
    done = dict.fromkeys(range(len(studies)), 0)

    def tell(number: int, trial: int) -> None:
        done[number] = trial
        for earlier in range(number):
            if jobs == 1:
                done[earlier] = studies[earlier].trials
        if progress:
            progress(f"{studies[number].name}, trial {trial + 1}", sum(done.values()), total)

    def lost(number: int, how: str) -> list[Tried]:
        return [Tried(0, {}, FAILED, 0, None, reason=how)]

    return run_all(studies, jobs, tell, lost)


def _places(
    studies: Sequence[Study], found: Sequence[Sequence[Tried]], space: Sequence[Dimension], epsilon: str
) -> Iterator[tuple[dict[str, Any], Tried]]:
    """Yield each trial with its place: arm, epsilon, seed, its number and its settings."""
    for study, tried in zip(studies, found, strict=True):
        for one in tried:
            settings = {dimension.key: one.settings.get(dimension.key, NOT_FOR_IT) for dimension in space}
            place = {"arm": study.arm, "epsilon": epsilon, "seed": study.seed, TRIAL: one.number}
            yield place | settings, one


def _table(
    studies: Sequence[Study], found: Sequence[Sequence[Tried]], space: Sequence[Dimension], epsilon: str
) -> pd.DataFrame:
    rows = []
    for place, tried in _places(studies, found, space, epsilon):
        rows.append({
            **place,
            "state": tried.state,
            "rounds": tried.rounds,
            "validation": tried.validation,
            "reason": tried.reason,
        })  # fmt: skip
    return pd.DataFrame(rows)


def _check_complete(trials: pd.DataFrame) -> None:
    """Make sure that each arm has a complete trial under each seed.

    Raises:
        Mistake: One has none; the reasons of its trials follow.
    """
    complete = (trials["state"] == COMPLETE).groupby([trials["arm"], trials["seed"]]).any()
    for arm, seed in complete[~complete].index:
        own = trials[(trials["arm"] == arm) & (trials["seed"] == seed)]
        reasons = "\n".join(dict.fromkeys(own["reason"]))
        raise Mistake(f"tune: no trial of the {arm} arm ended well under seed {seed}:\n{reasons}")


def _frames(
    studies: Sequence[Study], found: Sequence[Sequence[Tried]], space: Sequence[Dimension], epsilon: str
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the scores and curves of all complete trials, as ``choose`` takes them."""
    scores = []
    curves = []
    for place, tried in _places(studies, found, space, epsilon):
        if tried.outcome is None:
            continue
        scores += [{**place, **row} for row in tried.outcome.scores]
        curves += [{**place, **row} for row in tried.outcome.curve]
    return pd.DataFrame(scores), pd.DataFrame(curves)


def _released(wanted: Wanted, studies: Sequence[Study], found: Sequence[Sequence[Tried]]) -> list[Released]:
    """Compose what the trials of one study release: of the costliest arm, each at its first seed.

    A trial that was cut short or failed counts like the costliest whole one.
    """
    composed = []
    for number, (study, tried) in enumerate(zip(studies, found, strict=True)):
        if any(earlier.arm == study.arm for earlier in studies[:number]):
            continue  # another seed of an arm that was looked at
        spent = [one.outcome.spent for one in tried if one.outcome is not None and one.outcome.spent]
        if not spent:
            continue
        scenario = study.make({})
        costliest = max(spent, key=lambda releases: together({"": [(scenario, releases)]})[0].epsilon)
        all_trials = [*spent, *[costliest] * (len(tried) - len(spent))]
        composed += together({wanted.scenario: [(scenario, releases) for releases in all_trials]})
    return [max(composed, key=lambda released: released.epsilon)] if composed else []


def _about_privacy(wanted: Wanted, released: Sequence[Released]) -> Iterator[str]:
    """Say what epsilon covers."""
    for one in released:
        all_of_them = f"{one.trainings} trainings that settings are chosen among"
        delta = setting(one.delta)
        if wanted.charged:
            yield (
                f"Tuning is charged: the noise is set so that the {all_of_them} stay within the budget together. They "
                f"come to epsilon {written_epsilon(one.epsilon)} for one {one.protected} (composition, delta {delta})."
            )
        else:
            yield (
                f"Tuning is declared and not charged: each training alone stays within the budget, and the "
                f"{all_of_them} come to epsilon {written_epsilon(one.epsilon)} together for one {one.protected} "
                f"(composition, delta {delta}). With --charged the noise is set for all of them."
            )
        yield (
            "That is the costliest arm, under its first seed; a training that was cut short counts like the costliest "
            "whole one. It is what one deployment would spend, which has one arm and one split of its records; the "
            "other seeds and arms are the price of the comparison. Running what was chosen once more repeats one of "
            "these trainings; with secret noise, or at real sites, it is one more. "
            "Validation figures, by which settings are chosen, are computed without noise: no epsilon covers the "
            "records that are validated on."
        )


def _cautions(trials: pd.DataFrame, left_out: Sequence[str], epsilon: str) -> Iterator[str]:
    for arm in left_out:
        yield f"There is no {arm} arm under epsilon {epsilon}: the privacy unit does not protect it."
    failed = trials[trials["state"] == FAILED]
    for (arm, reason), rows in failed.groupby(["arm", "reason"], sort=False):
        yield f"{len(rows)} trials of the {arm} arm failed: {reason}"


def _how(wanted: Wanted, base: Scenario, space: Sequence[Dimension], trials: pd.DataFrame) -> Iterator[str]:
    """Say how settings were searched for and compared."""
    varied = "; ".join(map(str, space))
    each_seed = "one seed" if base.seeds == 1 else f"each of {base.seeds} seeds"
    yield (
        f"Each arm was tuned with {wanted.trials} trials under {each_seed}, by Optuna's TPE sampler. "
        f"The first trial has the scenario's own settings, or the nearest ones of the space: {varied}. A setting that "
        "has no meaning for an arm, such as a strategy for the local one, is not varied there. The local arm has one "
        "setting for all sites."
    )
    yield (
        "For each arm and seed, the settings with the best figure on the validation rows of that seed were chosen, and "
        "are tested on its test rows. No test row chose anything."
    )
    pruned = int((trials["state"] == PRUNED).sum())
    if pruned:
        yield (
            f"{pruned} of {len(trials)} trials were cut short, since they did worse in a round than the median of the "
            f"trials before them had done."
        )


def _scenarios(studies: Sequence[Study], trainings: pd.DataFrame) -> dict[Arm, Scenario]:
    """Return {arm: the scenario with the settings that were chosen under its first seed}."""
    scenarios: dict[Arm, Scenario] = {}
    for study in studies:
        if study.arm in scenarios:
            continue
        same = trainings["chosen"] & (trainings["arm"] == study.arm) & (trainings["seed"] == study.seed)
        row = trainings[same].iloc[0]
        scenarios[study.arm] = study.make({dimension.key: str(row[dimension.key]) for dimension in study.space})
    return scenarios


def command_of(wanted: Wanted) -> str:
    """Return the command line that tunes the same."""
    parts = ["fedsim", "tune", wanted.scenario, "--trials", str(wanted.trials)]
    for text in wanted.space:
        parts += ["--vary", text]
    if wanted.epsilon is not None:
        parts += ["--epsilon", wanted.epsilon]
    parts += as_typed(wanted.changes)
    if wanted.arms is not None:
        parts += ["--arms", ",".join(wanted.arms)]
    if wanted.seeds is not None:
        parts += ["--seeds", str(wanted.seeds)]
    if wanted.charged:
        parts.append("--charged")
    if not wanted.prune:
        parts.append("--no-pruning")
    return shlex.join(parts)
