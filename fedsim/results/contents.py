"""What the JSON files of a run directory hold, as types that are checked when a file is read.

Keys that are not named here are left alone: another version may have written them. What an earlier version did not
write is ``NotRequired``.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any, Literal, NotRequired

from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, ValidationError, with_config
from typing_extensions import TypedDict

from fedsim.figures import as_written
from fedsim.mistakes import Mistake
from fedsim.privacy.accounting import Neighbours
from fedsim.privacy.units import released_in, unit_of
from fedsim.results.columns import LARGEST_COUNT
from fedsim.scenario.explain import expected_in
from fedsim.scenario.kinds import Kind
from fedsim.scenario.schema import Arm

_MOST_TOLD = 20
_MOST_SHOWN = 80  # characters of a wrong value

_checked = with_config(ConfigDict(strict=True, allow_inf_nan=False))
Count = Annotated[int, Field(ge=0, le=LARGEST_COUNT)]
Size = Annotated[float, Field(ge=0, le=LARGEST_COUNT)]


def _date(text: str) -> str:
    datetime.fromisoformat(text)
    return text


def _versions(found: dict[str, str]) -> dict[str, str]:
    if "fedsim-flower" not in found:
        raise ValueError("expected fedsim-flower among them")
    return found


def _unit(name: str) -> str:
    unit_of(name)
    return name


@_checked
class AboutMetric(TypedDict):
    """A metric of a task's own."""

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
    label: str
    better: Literal["higher", "lower"]
    low: float | None
    high: float | None
    by_site: bool
    meaning: str
    meaning_inside: str


@_checked
class AboutKind(TypedDict):
    """A kind of outcome of a task's own."""

    name: str
    in_words: str
    metrics: Annotated[list[AboutMetric], Field(min_length=1)]


@_checked
class AboutTask(TypedDict):
    """What a report says of the task."""

    name: str | None
    unit: str
    title: str
    outcome: str
    source: str
    licence: str
    kind: Kind
    by_time: bool
    declared: NotRequired[AboutKind]


@_checked
class LeftOut(TypedDict):
    """Rows of one's own table that were not used."""

    reason: str
    rows: Count
    first: Count


@_checked
class AboutData(TypedDict):
    """What became of the rows of one's own table."""

    file: str
    rows_in: Count
    rows_used: Count
    left_out: list[LeftOut]
    notes: list[str]


@_checked
class Note(TypedDict):
    """What did not go by the book in a training."""

    arm: Arm
    private: bool
    seed: Count
    note: str


@_checked
class FailedTraining(TypedDict):
    """A training that failed."""

    arm: Arm
    private: bool
    seed: Count
    reason: str


@_checked
class RoundChoice(TypedDict):
    """Which round's models a training kept, how many rounds ran, and whether it ended since it gained nothing more."""

    kept_round: Count
    rounds: Count
    stopped: bool


@_checked
class ChosenRound(RoundChoice):
    """The same of one training of a run."""

    arm: Arm
    private: bool
    seed: Count


@_checked
class Manifest(TypedDict):
    """``manifest.json``: the circumstances of a run, its times and its files."""

    task: AboutTask
    data: AboutData | None
    versions: Annotated[dict[str, str], AfterValidator(_versions)]
    git: str | None
    device: str
    threads: Count
    seeds: Annotated[list[Count], Field(min_length=1)]
    notes: list[Note]
    started: Annotated[str, AfterValidator(_date)]
    seconds: Size
    seconds_per_training: dict[str, Size]
    files: dict[str, str]
    sealed: NotRequired[bool]
    precision: NotRequired[str]
    forced: NotRequired[list[list[str]]]
    cut_for_cores: NotRequired[Count]
    rng: NotRequired[str | None]
    sites: NotRequired[Count]
    failed: NotRequired[list[FailedTraining]]
    own_code: NotRequired[dict[str, dict[str, str]]]
    chosen_rounds: NotRequired[list[ChosenRound]]


@_checked
class LedgerEntry(TypedDict):
    """A release of one site, or of several together."""

    site: str
    round: Count
    kind: NotRequired[str]
    mechanism: dict[str, Any]


def _release(entry: LedgerEntry) -> LedgerEntry:
    try:
        released_in(entry)
    except TypeError as error:  # a value that can't even be compared
        raise ValueError(f"expected a release, got one whose values are none: {error}") from None
    return entry


@_checked
class Spending(TypedDict):
    """What one training released, as ``privacy.ledger.Ledger.as_json`` has it."""

    charged: NotRequired[str]
    epsilon: dict[str, Size]
    record_epsilon: NotRequired[dict[str, Size]]
    entries: list[Annotated[LedgerEntry, AfterValidator(_release)]]


def _of_one_another(spending: Spending) -> Spending:
    released = {entry["site"] for entry in spending["entries"]}
    if released != set(spending["epsilon"]):
        raise ValueError("expected an epsilon of each site that released something, and of no other")
    return spending


@_checked
class PrivateTraining(Spending):
    """What one training of a run released."""

    arm: Arm
    private: bool
    seed: Count


@_checked
class Tuning(TypedDict):
    """The trainings that settings were chosen by."""

    runs: Annotated[int, Field(ge=1, le=LARGEST_COUNT)] | None
    charged: bool


@_checked
class WholeLedger(TypedDict):
    """``ledger.json``: what all trainings of a run released."""

    unit: Annotated[str, AfterValidator(_unit)]
    neighbours: Neighbours
    delta: Annotated[float, Field(gt=0, lt=1)] | None
    budget: Size | None
    accountant: str
    tuning: Tuning
    ranges_fitted: bool
    trainings: list[Annotated[PrivateTraining, AfterValidator(_of_one_another)]]


def _with_what_was_promised(ledger: WholeLedger) -> WholeLedger:
    for name in ("delta", "budget"):
        if ledger["trainings"] and ledger[name] is None:  # type: ignore[literal-required]  one of its keys
            raise ValueError(f"expected a {name} beside private trainings")
    if ledger["tuning"]["charged"] and ledger["tuning"]["runs"] is None:
        raise ValueError("expected the number of trainings that are charged for tuning")
    return ledger


Row = dict[str, str | bool | int | float | None]


@_checked
class FinishedTraining(TypedDict):
    """The values of a checkpoint of a finished training, apart from its tensors."""

    scenario: str
    scores: Annotated[list[Row], Field(min_length=1)]
    groups: Annotated[list[Row], Field(min_length=1)]
    calibration: NotRequired[list[Row]]
    confusion: NotRequired[list[Row]]
    curve: list[Row]
    ledger: Annotated[Spending, AfterValidator(_of_one_another)] | None
    notes: list[str]
    traffic: NotRequired[list[Row]]
    seconds: Size
    tensor_names: NotRequired[str]
    choice: NotRequired[RoundChoice]


_MANIFEST = TypeAdapter(Manifest)
_LEDGER: TypeAdapter[WholeLedger] = TypeAdapter(Annotated[WholeLedger, AfterValidator(_with_what_was_promised)])
_FINISHED = TypeAdapter(FinishedTraining)


def check_manifest(values: Mapping[str, Any], place: str) -> None:
    """Check what ``manifest.json`` holds.

    Raises:
        Mistake: It is not what fedsim writes; each fault has a line.
    """
    _check(_MANIFEST, values, place)


def check_ledger(values: Mapping[str, Any], place: str) -> None:
    """Check what ``ledger.json`` holds.

    Raises:
        Mistake: It is not what fedsim writes; each fault has a line.
    """
    _check(_LEDGER, values, place)


def check_finished(values: Mapping[str, Any], place: str) -> None:
    """Check what the checkpoint of a finished training holds.

    Raises:
        Mistake: It is not what fedsim writes; each fault has a line.
    """
    _check(_FINISHED, values, place)


def _check(form: TypeAdapter[Any], values: Mapping[str, Any], place: str) -> None:
    try:
        form.validate_python(values)
    except ValidationError as error:
        details = error.errors()
        lines = list(dict.fromkeys([*_missing(details, place), *_wrong(details, place)]))
        if len(lines) > _MOST_TOLD:
            lines[_MOST_TOLD:] = [f"{place}: and {len(lines) - _MOST_TOLD} more faults"]
        raise Mistake("\n".join(lines)) from None


def _missing(details: Sequence[Any], place: str) -> Iterator[str]:
    """Yield a line for each object that lacks keys: ``runs/x/manifest.json: task: expected kind, title in it``."""
    lacking: dict[tuple[str | int, ...], list[str]] = {}
    for detail in details:
        if detail["type"] == "missing":
            *holder, key = detail["loc"]
            lacking.setdefault(tuple(holder), []).append(str(key))
    for holder, keys in lacking.items():
        yield f"{_at(holder, place)}: expected {', '.join(sorted(keys))} in it"


def _wrong(details: Sequence[Any], place: str) -> Iterator[str]:
    """Yield a line for each wrong value: ``runs/x/manifest.json: threads: expected a whole number, got 'x'``."""
    for detail in details:
        at = _at(detail["loc"], place)
        if detail["type"] == "value_error":
            yield f"{at}: {detail['ctx']['error']}"
        elif detail["type"] != "missing":
            expected = expected_in(detail).replace("a section", "an object")
            yield f"{at}: expected {expected}, got {as_written(detail['input'])[:_MOST_SHOWN]}"


def _at(keys: Sequence[str | int], place: str) -> str:
    return ": ".join([place, ".".join(map(str, keys))]) if keys else place
