"""What is said of the trainings of a run that failed."""

from fedsim.figures import listed
from fedsim.report import charts
from fedsim.results.run_directory import Run

_MOST_REASONS = 5
_MOST_TRAININGS = 5


def failures(run: Run) -> list[str]:
    """Return a sentence for each reason why trainings failed: which they were, and why."""
    trainings_by_reason: dict[str, list[str]] = {}
    for one in run.failed:
        name = f"{one['arm']}, {charts.PRIVACY[one['private']]}, seed {one['seed']}"
        trainings_by_reason.setdefault(one["reason"], []).append(name)

    sentences = []
    for reason, trainings in list(trainings_by_reason.items())[:_MOST_REASONS]:
        sentences.append(
            f"Failed, and not in these figures: {listed(trainings, _MOST_TRAININGS)}. The reason: {reason}"
        )
    if len(trainings_by_reason) > _MOST_REASONS:
        more = len(trainings_by_reason) - _MOST_REASONS
        sentences.append(f"{more} more reasons of trainings that failed are in manifest.json.")
    return sentences
