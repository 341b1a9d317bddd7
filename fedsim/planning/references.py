"""What keeps the models of scikit-learn from being trained beside the arms."""

from collections.abc import Iterator
from importlib.util import find_spec

from fedsim.mistakes import Mistake
from fedsim.outcomes import outcome_of
from fedsim.planning.trial import Trial
from fedsim.scenario.schema import Scenario

_KINDS = ("binary", "classes", "number")

MOST_SITES = 200
"""Of more sites, references are not trained: each site has models of its own."""


def reference_faults(trial: Trial) -> Iterator[str]:
    """Yield what keeps a scenario's references from being trained; nothing where it asks for none."""
    if not trial.scenario.references:
        return
    if find_spec("sklearn") is None:
        yield _not_installed()
    shape = tuple(trial.federation.sites[0].train.inputs.shape[1:])
    if len(shape) != 1:
        yield (
            "references: expected none beside images and sequences: they are for tables, and a row has the shape "
            f"{' x '.join(map(str, shape))} here"
        )
    if trial.task.kind not in _KINDS:
        yield f"references: expected none beside an outcome that is {outcome_of(trial.task.kind).in_words}"
    sites = len(trial.names)
    if sites > MOST_SITES:
        yield f"references: expected at most {MOST_SITES} sites beside them, each has models of its own, got {sites}"


def check_installed() -> None:
    """Make sure that scikit-learn can be imported.

    Raises:
        Mistake: It is not installed.
    """
    if find_spec("sklearn") is None:
        raise Mistake(_not_installed())


def check_without_references(scenario: Scenario) -> None:
    """Refuse references where many scenarios are compared, and no run has a place for them.

    Raises:
        Mistake: The scenario asks for some.
    """
    if scenario.references:
        raise Mistake(
            "references: expected none here: fedsim run has them beside the arms of one scenario; take them out with "
            "--set references=[]"
        )


def _not_installed() -> str:
    return "references: scikit-learn is not installed; it comes with: pip install 'fedsim-flower[references]'"
