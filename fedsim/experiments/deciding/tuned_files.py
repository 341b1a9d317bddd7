"""Write what a search leaves beside its page: every trial, Optuna's studies, and a scenario with what was chosen."""

import math
from pathlib import Path

import optuna
import tomli_w
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from fedsim.experiments.deciding import files
from fedsim.experiments.deciding.choice import NOT_FOR_IT, TRIAL
from fedsim.experiments.deciding.space import Dimension
from fedsim.experiments.deciding.study import COMPLETE, PRUNED
from fedsim.experiments.deciding.tune import Tuned
from fedsim.results.run_directory import write_bytes

_STATES = {COMPLETE: TrialState.COMPLETE, PRUNED: TrialState.PRUNED}


def write(folder: Path, tuned: Tuned) -> None:
    """Write ``tune.html`` and what belongs to it, ``trials.csv``, ``studies.journal`` and ``tuned-ARM.toml``.

    Args:
        folder: Where they go; made where it is missing.
        tuned: What was found.
    """
    files.write(folder, tuned.decided, "tune", more=["trials.csv", *map(_name, tuned.scenarios)])
    write_bytes(folder / "trials.csv", tuned.trials.to_csv(index=False).encode())
    for arm, scenario in tuned.scenarios.items():
        write_bytes(folder / _name(arm), tomli_w.dumps(scenario.values()).encode())
    _write_studies(folder / "studies.journal", tuned)


def _name(arm: str) -> str:
    return f"tuned-{arm}.toml"


def _write_studies(path: Path, tuned: Tuned) -> None:
    """Write all studies as Optuna's own storage, which its dashboard reads."""
    path.unlink(missing_ok=True)
    storage = JournalStorage(JournalFileBackend(str(path)))
    for (arm, seed), rows in tuned.trials.groupby(["arm", "seed"], sort=False):
        study = optuna.create_study(storage=storage, study_name=f"{arm}, seed {seed}", direction="maximize")
        for row in rows.to_dict("records"):
            known = [one for one in tuned.space if row[one.key] != NOT_FOR_IT]
            validation = math.nan if row["validation"] is None else float(row["validation"])
            state = _STATES.get(row["state"], TrialState.FAIL)
            trial = optuna.trial.create_trial(
                state=state,
                value=validation if state is TrialState.COMPLETE else None,
                params={one.key: _value(one, row[one.key]) for one in known},
                distributions={one.key: _distribution(one) for one in known},
                intermediate_values={int(row["rounds"]): validation} if math.isfinite(validation) else None,
                user_attrs={TRIAL: int(row[TRIAL])},
            )
            study.add_trial(trial)


def _distribution(dimension: Dimension) -> BaseDistribution:
    if dimension.choices:
        return CategoricalDistribution(list(dimension.choices))
    if dimension.whole:
        return IntDistribution(int(dimension.low), int(dimension.high), log=dimension.log)
    # A number that was rounded may lie beyond the end that it came from.
    return FloatDistribution(dimension.low * 0.99, dimension.high * 1.01, log=dimension.log)


def _value(dimension: Dimension, text: str) -> str | int | float:
    if dimension.choices:
        return text
    return int(text) if dimension.whole else float(text)
