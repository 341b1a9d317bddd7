"""Choose the model of a run that is handed on, and refuse one that the run's promise does not cover."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from fedsim.data.scale import Scale
from fedsim.experiments.arms import Job, jobs
from fedsim.experiments.outcome import check_fits, scale_of
from fedsim.experiments.trainings import OF_ALL, of_site, with_todays_names
from fedsim.mistakes import Mistake
from fedsim.planning.trial import Trial, without_noise
from fedsim.privacy.unit import Protected
from fedsim.privacy.units import unit_of
from fedsim.results.run_directory import Run, read_checkpoint
from fedsim.scenario.schema import Arm

_CHECKPOINTS = "checkpoints"
_BY_DEFAULT: tuple[Arm, ...] = ("federated", "centralized", "local")


@dataclass(frozen=True)
class Wanted:
    """The model that is asked for; None stands for the default.

    Attributes:
        arm: Its arm; by default the federated one, or the centralized one of a run without it.
        private: Whether it was trained under privacy; by default if the run is private.
        seed: Its seed; by default the first.
        site: The site whose own model it is; by default the model that all sites share.
    """

    arm: str | None = None
    private: bool | None = None
    seed: int | None = None
    site: str | None = None


@dataclass(frozen=True)
class Chosen:
    """A trained model of a run.

    Attributes:
        run: The run.
        job: Its training.
        site: The site that it belongs to; empty for the model that all sites share.
        trial: The scenario of the training, without privacy for a training without noise.
        parameters: {name: parameter}.
        personal: The sites that have models of their own in this training.
    """

    run: Run
    job: Job
    site: str
    trial: Trial
    parameters: Mapping[str, Tensor]
    personal: tuple[str, ...]

    @property
    def scale(self) -> Scale | None:
        """The scale of its inputs and outputs; None where they are those of the public ranges."""
        if self.job.arm != "local":
            return scale_of(self.run.scenario, self.job)
        if self.trial.task.load is None:
            return None
        sites = self.trial.federation.sites
        return sites[list(self.trial.names).index(self.site)].scale


def choose(run: Run, wanted: Wanted) -> Chosen:
    """Find the model that is asked for.

    Raises:
        Mistake: The run has no such model, or its promise does not cover it.
    """
    job = _job(run, wanted)
    _check_covered(run, job, wanted.site)
    kept = read_checkpoint(run.path / _CHECKPOINTS, job.key)
    if kept is None:
        raise Mistake(f"{run.path / _CHECKPOINTS}: expected the files of the training {job.key}, they are gone")
    tensors = with_todays_names(run.path, *kept)

    scenario = run.scenario if job.private else without_noise(run.scenario)
    trial = Trial(scenario, job.seed, job.arm)
    personal = tuple(name for name in trial.names if any(key.startswith(of_site(name)) for key in tensors))
    place = _place(job, wanted.site, personal)
    parameters = {name.removeprefix(place): value for name, value in tensors.items() if name.startswith(place)}
    check_fits(trial.untried_model, parameters, f"the checkpoint {job.key}.safetensors")
    return Chosen(run, job, wanted.site or "", trial, parameters, personal)


def _job(run: Run, wanted: Wanted) -> Job:
    """Return the training whose model is asked for.

    Raises:
        Mistake: The run has none.
    """
    scenario = run.scenario
    arm = wanted.arm or _default_arm(scenario.arms)
    seed = scenario.seed if wanted.seed is None else wanted.seed
    _check_among("--arm", arm, scenario.arms)
    _check_among("--seed", seed, scenario.all_seeds)
    private = scenario.private if wanted.private is None else wanted.private
    private_arms = scenario.private_arms if scenario.private else []
    if private and arm not in private_arms:
        if not private_arms:
            raise Mistake("--private: expected a run with privacy, this one has none")
        raise Mistake(f"--arm {arm}: expected an arm that was trained under privacy, {', '.join(private_arms)}; "
                      "--plain takes the model without any")  # fmt: skip

    job = next(each for each in jobs(scenario) if (each.arm, each.private, each.seed) == (arm, private, seed))
    for failed in run.failed:
        if (failed["arm"], failed["private"], failed["seed"]) == (arm, private, seed):
            raise Mistake(f"{run.path}: expected a training {job.key} that is finished, it failed: {failed['reason']}")
    return job


def _default_arm(arms: Sequence[Arm]) -> str:
    return min(arms, key=_BY_DEFAULT.index)


def _check_among(option: str, given: object, known: Sequence[object]) -> None:
    if given not in known:
        raise Mistake(f"{option}: expected one of {', '.join(map(str, known))}, got {given}")


def _check_covered(run: Run, job: Job, site: str | None) -> None:
    """Refuse to hand on a private model with something that its promise does not cover.

    Raises:
        Mistake: It is a model that a site keeps at home, which is exact; or its ranges were taken from the records.
    """
    if not job.private:
        return
    if site is not None and unit_of(run.scenario.privacy.unit).protects is Protected.SITE:
        raise Mistake(
            f"--site {site}: expected the model that all sites share: the promise of unit "
            f"{run.scenario.privacy.unit} covers what leaves a site, and not the model that a site keeps at home; "
            "--plain takes one that was trained without a promise"
        )
    if run.ledger["ranges_fitted"]:
        raise Mistake(
            f"{run.path}: expected public ranges: those of this run were taken from the records (data.ranges = "
            '"from-data"), which no epsilon covers, and they would go along with the model; declare ranges and run '
            "again, or take the model without privacy by --plain"
        )


def _place(job: Job, site: str | None, personal: Sequence[str]) -> str:
    """Return what stands before the names of the model's parameters.

    Raises:
        Mistake: There is no such model.
    """
    if site is None:
        if job.arm == "local":
            expected = f"the site whose model is meant, one of {', '.join(personal)}"
            raise Mistake(f"--site: expected {expected}: in the local arm each has its own")
        return OF_ALL
    if not personal:
        raise Mistake(f"--site {site}: expected no site: all sites share one model in the training {job.key}")
    if site not in personal:
        raise Mistake(f"--site: expected one of {', '.join(personal)}, got {site}")
    return of_site(site)
