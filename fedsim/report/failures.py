"""What is said of the trainings of a run that failed."""

from fedsim.figures import listed
from fedsim.report import charts
from fedsim.results.run_directory import Run

_MOST_REASONS = 5
_MOST_SEEDS = 10


def failures(run: Run) -> list[str]:
    """Return a sentence for each reason why trainings failed: which they were, and why."""
    seeds_of: dict[str, dict[str, list[str]]] = {}
    for one in run.failed:
        arm = f"{one['arm']}, {charts.PRIVACY[one['private']]}"
        seeds_of.setdefault(one["reason"], {}).setdefault(arm, []).append(str(one["seed"]))

    sentences = []
    for reason, arms in list(seeds_of.items())[:_MOST_REASONS]:
        trainings = "; ".join(f"{arm}, {_seeds(seeds)}" for arm, seeds in arms.items())
        sentences.append(f"Failed, and not in these figures: {trainings}. The reason: {reason}")
    if len(seeds_of) > _MOST_REASONS:
        more = len(seeds_of) - _MOST_REASONS
        sentences.append(f"{more} more reasons of trainings that failed are in manifest.json.")
    return sentences


def _seeds(seeds: list[str]) -> str:
    return f"seed {seeds[0]}" if len(seeds) == 1 else f"seeds {listed(seeds, _MOST_SEEDS)}"
