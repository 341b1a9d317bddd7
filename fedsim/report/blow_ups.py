"""Trainings whose loss grew out of all bounds, as cautions."""

from fedsim.figures import listed
from fedsim.report import charts
from fedsim.results.evaluation import POOLED
from fedsim.results.run_directory import Run

_GROWN = 5.0  # times the loss of a constant answer; a model that merely overfits stays below
_MOST_NAMED = 5


def blow_ups(run: Run) -> list[str]:
    """Return a sentence on the trainings whose loss ended at many times the base rate's; or none."""
    losses = [metric.name for metric in run.metrics if metric.better == "lower"]
    base = run.measured.base_rates
    if base.empty or not losses:
        return []

    loss = losses[0]
    by_seed = base[base["site"] == POOLED].set_index("seed")[loss]
    pooled = run.sites[run.sites["site"] == POOLED]
    found = []
    for row in pooled.to_dict("records"):
        of_base = by_seed.get(row["seed"])
        if of_base is not None and row[loss] is not None and row[loss] > _GROWN * of_base:
            name = f"{row['arm']}, {charts.PRIVACY[bool(row['private'])]}, seed {row['seed']}"
            found.append(f"{name} ({row[loss]:.3g} against {of_base:.3g})")
    if not found:
        return []
    return [
        f"The loss is more than {_GROWN:g} times that of always giving the same answer in: "
        f"{listed(found, _MOST_NAMED)}. Such a training has blown up; a lower training.optimizer.lr may help."
    ]
