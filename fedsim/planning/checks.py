"""What can't be run: every fault of a scenario that can be found before anything is trained, in one place.

Whole experiments and tournaments ask ``check``, so both refuse the same. Each kind of fault has a function that yields
its messages; ``check`` gathers them, so that a user hears of all at once.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib.util import find_spec

import torch
from torch import Tensor, nn

from fedsim.data.federation import Federation, federate
from fedsim.data.loading import task_of
from fedsim.mistakes import STOPS, Mistake, said_by, text_of
from fedsim.outcomes import outcome_of
from fedsim.planning.delta_rule import delta_faults
from fedsim.planning.misbehaviour import attack_of, attackers_of, some_of
from fedsim.planning.noise import noise_for
from fedsim.planning.participation import arrivals_of, size_of_round
from fedsim.planning.references import reference_faults
from fedsim.planning.secure_checks import secure_faults
from fedsim.planning.stopping import metric_of
from fedsim.planning.time_limit import within
from fedsim.planning.trial import Trial
from fedsim.planning.whole_sites import check_bits, check_mean_only
from fedsim.privacy.unit import Place
from fedsim.privacy.units import unit_of
from fedsim.scenario.code.held import is_object, label_of
from fedsim.scenario.schema import FRAME, Evaluation, Scenario
from fedsim.strategy.contract import WITHOUT_NOISE, Strategy, aggregate
from fedsim.strategy.foreign import Foreign
from fedsim.strategy.make import strategy_of
from fedsim.strategy.trainable import vector_of
from fedsim.training.fits_outcome import check_fits_outcome
from fedsim.training.model import architecture_of, layers_of
from fedsim.training.rows_alone import check_rows_are_alone

_MORE_SEEDS = 5  # that are tried to find one with test rows


def check(scenario: Scenario) -> None:
    """Refuse a scenario that can't be run, with all that is wrong with it.

    Args:
        scenario: The scenario; its first seed stands for the others.

    Raises:
        Mistake: It can't be run. The message has a line for each fault; only what hangs on the noise that is needed is
            looked at when nothing else is wrong.
    """
    if scenario.deployment.sites:
        expected = "none in a simulation; real sites train an app that fedsim deploy plan writes"
        raise Mistake(f"deployment.sites: expected {expected}")
    trial = Trial(scenario, scenario.seed, scenario.arms[0])
    federation = trial.federation
    check_expected_batches(scenario, federation)  # nothing else can be looked at without them
    model = trial.untried_model

    searches: list[Callable[[], Iterator[str]]] = [
        lambda: strategy_faults(scenario, len(federation.sites), model),
        lambda: attack_faults(scenario, federation.names),
        lambda: person_faults(scenario, federation),
        lambda: delta_faults(scenario, federation),
        lambda: model_faults(scenario, federation, model),
        lambda: evaluation_faults(scenario, trial.device),
        lambda: stopping_faults(trial),
        lambda: node_faults(scenario),
        lambda: reference_faults(trial),
    ]
    faults: list[str] = []
    for search in searches:
        try:
            for fault in search():
                faults.append(fault)  # one by one: those before a Mistake count, too
        except Mistake as mistake:  # what is to be looked at can't even be made
            faults.append(str(mistake))
    refuse(faults)

    # Last, since it takes seconds, and for a meaningless delta minutes.
    refuse(noise_faults(scenario, federation.names))


def stopping_faults(trial: Trial) -> Iterator[str]:
    """Yield what keeps a round from being chosen by validation figures."""
    scenario = trial.scenario
    stopping = scenario.training.stopping
    if stopping is None:
        return
    kind = trial.task.kind
    if metric_of(stopping, kind) is None:
        names = " or ".join(repr(metric.name) for metric in outcome_of(kind).metrics)
        yield f"training.stopping.metric: expected {names}, got {stopping.metric!r}"
    if scenario.secure_aggregation.on and stopping.public_sites is None:
        yield (
            "training.stopping: expected public_sites beside secure_aggregation: rounds are judged by figures of "
            "sites, which nobody may see beside the sum of their changes"
        )

    strangers = [name for name in stopping.public_sites or () if name not in trial.names]
    if strangers:
        expected = f"expected names of sites, such as {trial.names[0]!r}"
        yield f"training.stopping.public_sites: {expected}, got {', '.join(map(repr, sorted(strangers)))}"
    elif not scenario.split.validation:
        yield "training.stopping: expected split.validation > 0 beside it: rounds are judged on validation rows"
    elif not any(len(site.validation) for site in trial.judged.sites):
        yield (
            "training.stopping: expected a validation row at a site that rounds are judged on, got none; take a "
            "larger split.validation, or other public_sites"
        )


def node_faults(scenario: Scenario) -> Iterator[str]:
    """Yield what keeps other processes from training the sites of a scenario."""
    if not scenario.has_nodes:
        return
    if scenario.engine == "ray" and find_spec("ray") is None:
        yield "engine: 'ray' needs the extra ray: pip install 'fedsim-flower[ray]'"
    for kind, name in (("task", scenario.task), ("strategy", scenario.strategy.name)):
        if name is not None and is_object(name):
            yield (
                f"engine: expected 'cohort' or 'serial' with the {kind} {label_of(name)}, which is given in Python as "
                f"an object and is in no file, got {scenario.engine!r}"
            )
    if scenario.data.path == FRAME:
        said = "engine: expected 'cohort' or 'serial' for a pandas frame, which is in no file, "
        yield said + f"got {scenario.engine!r}"


def refuse(faults: Iterable[str]) -> None:
    """Raise a Mistake if there are faults, each of which it names once."""
    different = list(dict.fromkeys(faults))
    if different:
        raise Mistake("\n".join(different))


def check_expected_batches(scenario: Scenario, federation: Federation) -> None:
    """Make sure that a table of expected batches is for the sites there are.

    Raises:
        Mistake: It names others, or not all.
    """
    declared = scenario.training.expected_batch
    if isinstance(declared, dict) and sorted(declared) != sorted(federation.names):
        raise Mistake(
            f"training.expected_batch: expected one number for each of {', '.join(federation.names)}, "
            f"got them for {', '.join(declared)}"
        )


def strategy_faults(scenario: Scenario, sites: int, model: nn.Module) -> Iterator[str]:
    """Yield what the strategy can't do in a scenario.

    Args:
        scenario: The scenario.
        sites: How many sites there are.
        model: The model that is trained.

    Raises:
        Mistake: The strategy can't be made.
    """
    with within(scenario.limits.round_seconds, lambda: _hangs(scenario)):
        strategy = strategy_of(scenario, sites)
    yield from _privacy_faults(scenario, strategy)
    yield from _participation_faults(scenario, strategy, sites)
    given = scenario.strategy.model_extra or {}
    if strategy.plain_sgd and "lr" in given and not scenario.training.schedule.is_flat:
        name = scenario.strategy.label
        yield f"strategy.lr: expected none beside training.schedule: {name} computes with the rate of each round"

    start = vector_of(model)
    if scenario.secure_aggregation.on:
        yield from secure_faults(scenario, strategy, sites, len(start))
    try:
        with within(scenario.limits.round_seconds, lambda: _hangs(scenario)):
            strategy.local_rule().begin(start, {}, layers_of(model))
            if not isinstance(strategy, Foreign):
                _try(strategy, start, size_of_round(scenario, sites))
    except ValueError as error:
        yield f"strategy {scenario.strategy.label}: {text_of(error)}"
    except STOPS:
        raise
    except BaseException as error:  # such as a number that is too large for the parameters' type
        yield f"strategy {scenario.strategy.label}: a trial of it failed, with these hyperparameters: {said_by(error)}"


def _privacy_faults(scenario: Scenario, strategy: Strategy) -> Iterator[str]:
    """Yield what the strategy wants to know and may not."""
    if unit_of(scenario.privacy.unit).place is Place.AT_SERVER:
        yield from _fault_of(lambda: check_mean_only(scenario, strategy))
    for name in strategy.reports:
        if scenario.private and name in WITHOUT_NOISE:
            yield (
                f"strategy.name: expected one that does without {WITHOUT_NOISE[name]} under privacy, got "
                f"{scenario.strategy.label}: losses are computed from rows without noise"
            )


def _participation_faults(scenario: Scenario, strategy: Strategy, sites: int) -> Iterator[str]:
    """Yield the settings of who takes part in a round that can't be met, or that a strategy decides itself."""
    wanted = scenario.training.sites_per_round
    if wanted is not None and wanted > sites:
        yield f"training.sites_per_round: expected at most {sites}, the number of sites, got {wanted}"

    waits = arrivals_of(scenario, scenario.seed, sites) is None
    if waits and not isinstance(strategy, Foreign):
        return
    choices = [f"training.{name}" for name in scenario.training.participation.settings]
    if scenario.faults.joins_late:
        choices.append("faults.joins_late")
    for key in choices:
        yield (f"{key}: expected none beside {scenario.strategy.label}, which chooses among all sites itself")


def _try(strategy: Strategy, start: Tensor, asked: int) -> None:
    """Aggregate as many updates as a round has.

    Raises:
        ValueError: The strategy can't.
    """
    few = start[:8]  # what it can't do depends on how many updates there are, not on their length
    updates = few.expand(asked, -1)
    weights = torch.full((asked,), 1 / asked).to(few)
    reports = {name: torch.ones(asked) for name in strategy.reports}
    aggregate(strategy, few, updates, weights, {}, reports)


def _hangs(scenario: Scenario) -> Mistake:
    return Mistake(
        f"a trial of it took more than the {scenario.limits.round_seconds:g} "
        "seconds of limits.round_seconds: it hangs, or the limit is too low"
    )


def attack_faults(scenario: Scenario, names: Sequence[str]) -> Iterator[str]:
    """Yield what is wrong with the attack, and with the sites that attack or have faults."""
    yield from _fault_of(lambda: attack_of(scenario))
    yield from _fault_of(lambda: attackers_of(scenario, scenario.seed, names))

    shares = {f"faults.{name}": getattr(scenario.faults, name) for name in ("crash", "straggler", "spoiled")}
    if scenario.attack.name != "none":
        shares["attack.share"] = scenario.attack.share
    for key, share in shares.items():
        if share and not some_of(scenario.seed, key, len(names), share):
            yield f"{key}: expected a share that makes a site of {len(names)}, got {share:g}, which makes none"


def person_faults(scenario: Scenario, federation: Federation) -> Iterator[str]:
    """Yield what makes it impossible to protect a person: that nothing is known of whose rows are whose."""
    if unit_of(scenario.privacy.unit).persons and federation.sites[0].train.persons is None:
        yield (
            f"privacy.unit: expected a task whose rows have persons (Rows.person) beside {scenario.privacy.unit!r}, "
            f"got {scenario.task}, which does not say whose rows are whose"
        )


def model_faults(scenario: Scenario, federation: Federation, model: nn.Module) -> Iterator[str]:
    """Yield what is wrong with a model: its outputs, or, where records are protected, that it mixes rows."""
    rows = federation.sites[0].train
    outcome = outcome_of(task_of(scenario).kind)
    faults = [*_fault_of(lambda: check_fits_outcome(model, rows, outcome, scenario.private))]
    if faults:
        yield from faults
        return
    if unit_of(scenario.privacy.unit).place is Place.IN_STEPS:
        yield from _fault_of(lambda: check_rows_are_alone(model, rows, architecture_of(scenario)))


def evaluation_faults(scenario: Scenario, device: str) -> Iterator[str]:
    """Yield what makes it impossible to judge the models: no test row anywhere, or a threshold without a use."""
    kind = task_of(scenario).kind
    threshold = scenario.evaluation.threshold
    if kind != "binary" and threshold != Evaluation().threshold:
        yield (
            f"evaluation.threshold: expected none with an outcome that is {outcome_of(kind).in_words}: "
            f"a threshold is for a binary outcome, got {threshold:g}"
        )

    # Nearly always a site has a test row under the first seed already.
    seeds = scenario.all_seeds
    if _first_tested(scenario, seeds, device) is not None:
        return
    under = f"seed {seeds[0]}" if len(seeds) == 1 else f"any of the seeds {seeds[0]} to {seeds[-1]}"
    rows = _rows_at_each(federate(scenario, seeds[0], device))
    more_seeds = ""
    later = _first_tested(scenario, range(seeds[-1] + 1, seeds[-1] + 1 + _MORE_SEEDS), device)
    if later is not None:
        more_seeds = f" (seed {later} has test rows: take --seeds {later - seeds[0] + 1} or more)"
    yield (
        f"split.test: expected a test row at some site, got none under {under}: a share of {scenario.split.test:g} of "
        f"{rows} at a site leaves none{more_seeds}; or take a larger share, or join sites (partition.sites)"
    )


def _first_tested(scenario: Scenario, seeds: Iterable[int], device: str) -> int | None:
    """Return the first seed under which some site has a test row; None if there is none."""
    for seed in seeds:
        if any(len(site.test) for site in federate(scenario, seed, device).sites):
            return seed
    return None


def _rows_at_each(federation: Federation) -> str:
    """Return how many rows sites have, e.g. ``4 rows`` or ``2 to 4 rows``."""
    counts = [len(site.train) + len(site.validation) + len(site.test) for site in federation.sites]
    least = min(counts)
    most = max(counts)
    return f"{most} rows" if least == most else f"{least} to {most} rows"


def noise_faults(scenario: Scenario, names: Sequence[str]) -> Iterator[str]:
    """Yield what keeps the noise of a private arm from being found or accounted."""
    for arm in scenario.private_arms:
        yield from _fault_of(
            lambda arm=arm: check_bits(scenario, names, noise_for(scenario, scenario.seed, arm, names))
        )


def _fault_of(check: Callable[[], object]) -> Iterator[str]:
    """Yield the message of a check that raises a Mistake."""
    try:
        check()
    except Mistake as mistake:
        yield str(mistake)
