"""The schema of a scenario: its sections, keys, defaults and limits. A file from a stranger is only data."""

import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    FiniteFloat,
    Tag,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from fedsim.figures import as_written
from fedsim.of_sites import Alike, MadeNames
from fedsim.scenario import catalog
from fedsim.scenario.code.held import label_of
from fedsim.scenario.kinds import Rng, TableKind
from fedsim.scenario.participation import Participation
from fedsim.scenario.unit_facts import NO_UNIT, UnitFacts, facts_of, owners_of_settings, unit_names

Positive = Annotated[FiniteFloat, Field(gt=0)]
Probability = Annotated[FiniteFloat, Field(gt=0, lt=1)]
SMALLEST_CLIP = 1e-12
"""Below it noise of so many clips may be lost in float32, where what was clipped is not."""

Arm = Literal["federated", "centralized", "local"]
Reference = Literal["linear", "boosting"]
"""A model of scikit-learn beside the arms: logistic or ridge regression, or histogram gradient boosting."""

Neighbours = Literal["add-or-remove-one", "replace-one"]


def _known(kind: str) -> AfterValidator:
    def check(name: str) -> str:
        catalog.check(kind, name)
        return name

    return AfterValidator(check)


def _known_task(name: str) -> str:
    if not catalog.is_own_task(name):  # code is loaded only if the command line named it; catalog.load sees to that
        catalog.check("tasks", name)
    return name


def _known_unit(name: str) -> str:
    names = unit_names()
    if name not in names:
        listed = f"{', '.join(map(repr, names[:-1]))} or {names[-1]!r}"
        raise PydanticCustomError("literal_error", "Input should be {expected}", {"expected": listed})
    return name


def _no_twins(arms: list[str]) -> list[str]:
    if len(set(arms)) < len(arms):
        raise ValueError(f"expected each arm once, got {', '.join(arms)}")
    return arms


def _no_twin_references(references: list[str]) -> list[str]:
    if len(set(references)) < len(references):
        raise ValueError(f"expected each reference once, got {', '.join(references)}")
    return references


def _size_or_auto(value: Any) -> Any:  # noqa: ANN401  what the file says, not yet checked
    """Say what is expected in one line, where pydantic would have one for each type."""
    is_size = isinstance(value, int) and not isinstance(value, bool) and value >= 1
    if value != "auto" and not is_size:
        raise ValueError(f"expected 'auto' or a whole number >= 1, got {as_written(value)}")
    return value


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


def is_given(section: BaseModel, name: str) -> bool:
    """Whether a section says something else of a setting than its default."""
    return getattr(section, name) != type(section).model_fields[name].default


def _names_a_site(name: str) -> str:
    if not re.fullmatch(r"\w[\w .-]{0,79}", name):
        raise ValueError(f"expected the name of a site, of letters, digits, spaces, _, . and -, got {as_written(name)}")
    return name


SiteName = Annotated[str, AfterValidator(_names_a_site)]
"""The name of a real site, which is also that of files."""

_ROUNDING = 1e-6  # by which shares may miss their sum of 1


def _add_up_to_one(shares: list[float]) -> list[float]:
    if abs(math.fsum(shares) - 1) > _ROUNDING:
        raise ValueError(f"expected shares of all rows that add up to 1, got {math.fsum(shares):g} in all")
    return shares


class SizeClass(_Section):
    """How many sites are of a size, and the share of all rows that they have together."""

    sites: Annotated[int, Field(ge=1, le=1_000_000)]
    share: Annotated[FiniteFloat, Field(gt=0, le=1)]


def _shares_add_up_to_one(classes: dict[str, SizeClass]) -> dict[str, SizeClass]:
    _add_up_to_one([size_class.share for size_class in classes.values()])
    return classes


class Partition(_Section):
    """Which rows belong to which site: the sites the data has, declared sites, sites drawn by a rule, or made-up ones.

    ``mapping`` gives each site that the data has the site which it joins.
    """

    by: Literal[
        "natural",
        "made",
        "column",
        "mapping",
        "iid",
        "dirichlet",
        "quantity",
        "pathological",
        "size",
        "shares",
        "size-classes",
        "feature-skew",
        "time",
    ] = "natural"
    seed: Annotated[int, Field(ge=0, lt=2**62)] = 0
    sites: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    alpha: Annotated[Positive, Field(le=1e6)] | None = None
    classes: Annotated[int, Field(ge=1)] | None = None
    growth: Literal["linear", "square", "exponential"] | None = None
    shift: Annotated[FiniteFloat, Field(ge=0, le=10)] | None = None
    noise: Annotated[FiniteFloat, Field(ge=0, le=10)] | None = None
    column: Annotated[str, Field(min_length=1)] | None = None
    mapping: Annotated[dict[str, SiteName], Field(min_length=1)] | None = None
    shares: (
        Annotated[list[Annotated[Positive, Field(le=1)]], Field(min_length=1), AfterValidator(_add_up_to_one)] | None
    ) = None
    size_classes: (
        Annotated[dict[SiteName, SizeClass], Field(min_length=1), AfterValidator(_shares_add_up_to_one)] | None
    ) = None

    @model_validator(mode="after")
    def _has_what_it_takes(self) -> "Partition":
        needed = PARAMETERS[self.by]
        given = self.model_dump(exclude_none=True, exclude={"by", "seed"})
        allowed = [*needed, "sites"] if self.by == "natural" else list(needed)
        expected = f"expected {' and '.join(allowed)} beside by = {self.by!r} and nothing else"
        for name in needed:
            if name not in given:
                raise ValueError(f"{expected}, {name} is missing")
        for name in given:
            if name not in allowed:
                raise ValueError(f"{expected}, {name} is not for it")
        return self


PARAMETERS: Mapping[str, tuple[str, ...]] = {
    "natural": (),  # sites, if they are to be regrouped
    "made": ("sites",),
    "column": ("column",),
    "mapping": ("mapping",),
    "iid": ("sites",),
    "dirichlet": ("sites", "alpha"),
    "quantity": ("sites", "alpha"),
    "pathological": ("sites", "classes"),
    "size": ("sites", "growth"),
    "shares": ("shares",),
    "size-classes": ("size_classes",),
    "feature-skew": ("sites", "shift", "noise"),
    "time": ("sites",),
}
"""{partition: the parameters it needs}."""


def _distinct(classes: list[str | int]) -> list[str | int]:
    if len(set(map(str, classes))) < len(classes):
        raise ValueError(f"expected each class once, got {', '.join(map(str, classes))}")
    return classes


def _each_once(sites: list[str]) -> list[str]:
    if len(set(sites)) < len(sites):
        raise ValueError(f"expected each site once, got {', '.join(sites)}")
    return sites


Class = Annotated[
    Annotated[str, Field(min_length=1), Tag("text")] | Annotated[int, Tag("a whole number")],
    Discriminator(lambda value: "a whole number" if isinstance(value, int) else "text"),
]

FRAME = "(pandas frame)"
"""The ``data.path`` of a pandas frame that was given in Python; no file is meant."""

Ranges = Annotated[
    Annotated[str, Tag("a file, or from-data")] | Annotated[dict[str, Any], Tag("one for each column")],
    Discriminator(lambda value: "one for each column" if isinstance(value, dict) else "a file, or from-data"),
]


class Data(_Section):
    """A table of one's own, or the file of a task that needs one.

    ``scale`` says by which values inputs and a number to predict are standardized: ``public`` ones that the ranges
    declare, or ``learned`` ones of the training rows. Trainings under privacy always take the public ones.

    Images are files of a folder ``site/class/*.png``, whose ``layout`` says so, or those that the column ``image``
    of a table names. ``image_size`` (height and width), ``channels`` and ``classes`` are public.

    ``person`` is the column that names whose row it is; nobody's rows are on two sides of a split.
    """

    path: Annotated[str, Field(min_length=1)] | None = None
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None = None
    target: str | None = None
    site: str | None = None
    time: str | None = None
    person: Annotated[str, Field(min_length=1)] | None = None
    groups: Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1)] | None = None
    kind: TableKind | None = None
    positive: str | int | FiniteFloat | None = None
    layout: Literal["site/class"] | None = None
    image: Annotated[str, Field(min_length=1)] | None = None
    image_size: Annotated[list[Annotated[int, Field(ge=1, le=4096)]], Field(min_length=2, max_length=2)] | None = None
    channels: Literal[1, 3] | None = None
    classes: Annotated[list[Class], Field(min_length=2, max_length=1000), AfterValidator(_distinct)] | None = None
    model: Literal["linear", "mlp", "cnn"] = "linear"
    scale: Literal["learned", "public"] | None = None
    ranges: Ranges | None = None
    undeclared: Literal["from-data"] | None = None

    @property
    def is_of_images(self) -> bool:
        """Whether images are learned from."""
        return self.layout is not None or self.image is not None


class Split(_Section):
    """Shares of each site's rows, per class; the rest is for training.

    The test blocks of consecutive seeds don't overlap until all rows have been tested once (cross-validation). A task
    that is split by time has the same parts under every seed.
    """

    validation: Annotated[FiniteFloat, Field(ge=0, lt=1)] = 0.2
    test: Probability = 0.2

    @property
    def overlap(self) -> float:
        """Test share over training share, for the intervals of ``fedsim.results.comparison``."""
        return self.test / (1 - self.test - self.validation)

    @model_validator(mode="after")
    def _leaves_rows_to_train(self) -> "Split":
        if self.validation + self.test >= 1:
            raise ValueError(f"expected validation + test < 1, got {self.validation + self.test:g}")
        return self


class Evaluation(_Section):
    """How finished models are judged, beside the metrics of the task's kind.

    A row is called positive from ``threshold`` on, in the confusion matrix of a binary outcome. It is declared, and
    never chosen by looking at test rows.

    Of more than ``most_sites`` sites, so many are drawn at random, and models are judged on their rows.
    """

    threshold: Probability = 0.5
    most_sites: Annotated[int, Field(ge=1)] = 10_000


class Checkpoints(_Section):
    """How often a training that is under way is written down, so that ``fedsim resume`` goes on from there.

    It is after ``seconds`` of work, or after ``every_rounds`` where that is given. It changes no figure.
    """

    seconds: Annotated[FiniteFloat, Field(ge=0)] = 10.0
    every_rounds: Annotated[int, Field(ge=1)] | None = None


class Limits(_Section):
    """How long a round of a training may take, in seconds; a training that takes longer fails, and no other."""

    round_seconds: Annotated[FiniteFloat, Field(ge=0.01, le=1e7)] | None = None


class Ray(_Section):
    """Where the sites of a round train with ``engine = "ray"``: in so many actors, here or on a Ray cluster.

    ``inside`` is the engine of an actor: with ``serial``, any number of actors gives the same bytes as
    ``engine = "serial"``; with ``cohort``, an actor stacks its sites, and results differ by rounding. ``gpus`` may be a
    part of one, such as 0.5 for two actors on a GPU.
    """

    actors: Annotated[int, Field(ge=1, le=10_000)] = 2
    inside: Literal["serial", "cohort"] = "cohort"
    cpus: Annotated[int, Field(ge=1)] = 1
    gpus: Annotated[FiniteFloat, Field(ge=0)] = 0.0
    address: Annotated[str, Field(min_length=1)] | None = None


class SuperLink(_Section):
    """Where the sites of a round train with ``engine = "superlink"``: at so many SuperNodes, each a process.

    They are started with the run, on this machine, with TLS and a key for each, unless ``connection`` names a SuperLink
    in Flower's configuration that runs here already. ``inside`` is the engine of a SuperNode, as in ``ray``.
    """

    nodes: Annotated[int, Field(ge=1, le=64)] = 2
    inside: Literal["serial", "cohort"] = "serial"
    connection: Annotated[str, Field(pattern=r"^[\w-]+$")] | None = None


class Deployment(_Section):
    """Real sites, which keep their rows to themselves: see docs/real-sites.md. Without ``sites``, all are simulated.

    The server waits ``seconds_to_come`` for them. A message that is not answered within ``limits.round_seconds`` is
    sent again, up to ``tries`` times in all. A round with fewer than ``fewest_answers`` ends the training, which goes
    on when it is started again. With ``evaluation``, sites are asked for figures of the final model on their own test
    rows.
    """

    sites: Annotated[list[SiteName], Field(max_length=10_000), AfterValidator(_each_once)] = []
    fewest_answers: Annotated[int, Field(ge=1)] = 2
    tries: Annotated[int, Field(ge=1, le=100)] = 3
    seconds_to_come: Annotated[FiniteFloat, Field(gt=0, le=1e6)] = 300.0
    evaluation: bool = False


class Optimizer(_Section):
    """A torch optimizer, made anew at each site in each round."""

    name: Literal["sgd", "adam"] = "sgd"
    lr: Positive = 0.1
    momentum: Annotated[FiniteFloat, Field(ge=0, lt=1)] = 0.0
    weight_decay: Annotated[FiniteFloat, Field(ge=0)] = 0.0

    @model_validator(mode="after")
    def _momentum_is_for_sgd(self) -> "Optimizer":
        if self.name == "adam" and self.momentum:
            raise ValueError("expected no momentum with adam, which has its own")
        return self


class Schedule(_Section):
    """How the learning rate changes from round to round; see ``fedsim.scenario.schedule`` for its factor.

    In the first ``warmup_rounds`` it rises to ``optimizer.lr``. Then it is ``constant``, is multiplied by ``factor``
    after every so many rounds (``step``), or falls along half a cosine to the share ``final`` in the last round.
    """

    name: Literal["constant", "step", "cosine"] = "constant"
    warmup_rounds: Annotated[int, Field(ge=0)] = 0
    every: Annotated[int, Field(ge=1)] | None = None
    factor: Probability = 0.5
    final: Probability = 0.01

    @model_validator(mode="after")
    def _has_what_it_takes(self) -> "Schedule":
        if self.name == "step" and self.every is None:
            raise ValueError("expected every beside name = 'step': after how many rounds the rate falls")
        for setting, owner in (("every", "step"), ("factor", "step"), ("final", "cosine")):
            if self.name != owner and is_given(self, setting):
                raise ValueError(f"{setting}: expected name = {owner!r} beside it, got {self.name!r}")
        return self

    @property
    def is_flat(self) -> bool:
        """Whether the learning rate is the same in all rounds."""
        return self.name == "constant" and not self.warmup_rounds


class Stopping(_Section):
    """When a training ends before its last round, and of which round the model is kept.

    It ends after ``patience`` rounds in which ``metric`` (by default the task's first) on validation rows gained no
    more than ``smallest_gain``. The model of the best of all rounds is kept, or that of the last. Where the rows of
    ``public_sites`` are declared public, figures are taken of them alone.
    """

    patience: Annotated[int, Field(ge=1)] | None = None
    metric: str | None = None
    smallest_gain: Annotated[FiniteFloat, Field(ge=0)] = 0.0
    keep: Literal["best", "last"] = "best"
    public_sites: Annotated[list[str], Field(min_length=1), AfterValidator(_each_once)] | None = None

    @model_validator(mode="after")
    def _stops_or_chooses(self) -> "Stopping":
        if self.patience is not None:
            return self
        if self.keep == "last":
            raise ValueError("expected patience beside keep = 'last', without which nothing is stopped or chosen")
        if is_given(self, "smallest_gain"):
            raise ValueError("smallest_gain: expected patience beside it, which counts the rounds without that gain")
        return self


class Adapt(_Section):
    """What of a task's model is trained, where not all of it is; the rest is frozen.

    ``lora`` puts two small matrices beside Linear layers (Hu et al. 2021, https://arxiv.org/abs/2106.09685); ``head``
    trains the model's last layer. ``modules`` names what is meant by the ends of the modules' names. ``also`` names
    modules that are trained whole beside the adapters. ``base`` is a safetensors file with the weights to begin with.
    """

    method: Literal["lora", "head"]
    rank: Annotated[int, Field(ge=1)] | None = None
    alpha: Positive | None = None
    modules: Annotated[list[str], Field(min_length=1), AfterValidator(_each_once)] | None = None
    also: Annotated[list[str], Field(min_length=1), AfterValidator(_each_once)] | None = None
    base: str | None = None
    base_sha256: str | None = None

    @model_validator(mode="after")
    def _has_what_its_method_takes(self) -> "Adapt":
        if self.method == "lora":
            lacking = [name for name in ("rank", "modules") if getattr(self, name) is None]
            if lacking:
                raise ValueError(f"expected {' and '.join(lacking)} beside method = 'lora', for example rank = 8, "
                                 "modules = ['query', 'value']")  # fmt: skip
        for name in ("rank", "alpha", "also"):
            if self.method == "head" and getattr(self, name) is not None:
                raise ValueError(f"{name}: expected none beside method = 'head', which trains modules whole")
        if self.base_sha256 is not None and self.base is None:
            raise ValueError("base_sha256: expected base beside it, the file that has this digest")
        return self


Precision = Literal["float32", "bf16"]
"""The numbers in which products are computed in training."""


class Training(_Section):
    """Training at a site. Every value is public: none follows from how many rows a site has."""

    rounds: Annotated[int, Field(ge=1, le=1_000_000)] = 20
    local_steps: Annotated[int, Field(ge=1, le=1_000_000)] = 2
    sampling_rate: Annotated[FiniteFloat, Field(gt=0, le=1)] = 0.5
    expected_batch: Annotated[
        Annotated[Positive, Tag("one number")] | Annotated[dict[str, Positive], Tag("one for each site")],
        Discriminator(lambda value: "one for each site" if isinstance(value, dict) else "one number"),
    ] = 64.0
    optimizer: Optimizer = Optimizer()
    sites_per_round: Annotated[int, Field(ge=1)] | None = None
    duration_spread: Annotated[FiniteFloat, Field(ge=0, le=10)] = 0.0
    replace_batch_norm: bool = False
    precision: Precision = "float32"
    adapt: Adapt | None = None
    site_sampling_rate: Annotated[FiniteFloat, Field(gt=0, le=1)] | None = None
    site_turns: Annotated[int, Field(ge=1)] | None = None
    schedule: Schedule = Schedule()
    stopping: Stopping | None = None

    @model_validator(mode="after")
    def _gets_warm_in_time(self) -> "Training":
        warmup = self.schedule.warmup_rounds
        if warmup >= self.rounds:
            raise ValueError(f"schedule.warmup_rounds: expected fewer than the {self.rounds} rounds, got {warmup}")
        return self

    @model_validator(mode="after")
    def _chooses_sites_in_one_way(self) -> "Training":
        given = self.participation.settings
        if len(given) > 1:
            raise ValueError(f"{given[1]}: expected none beside {given[0]}, which chooses the sites of a round, too")
        return self

    @property
    def participation(self) -> Participation:
        """How the sites of a round are chosen, and which share of them that is."""
        return Participation(self.sites_per_round, self.site_sampling_rate, self.site_turns)


def _known_strategy(name: str) -> str:
    start, colon, rest = name.partition(":")
    if colon and start in catalog.titles("strategies"):
        raise ValueError(f"expected a strategy's name alone, got {name!r}; its parameters are keys beside it, e.g. "
                         f"strategy.{rest}, or type --strategy {name}")  # fmt: skip
    if not catalog.is_code(name):  # code is loaded only if the command line named it; catalog.load sees to that
        catalog.check("strategies", name)
    return name


def _known_attack(name: str) -> str:
    if name != "none":
        catalog.check("attacks", name)
    return name


class Strategy(_Section):
    """The server's aggregation; keys beside ``name`` are the strategy's hyperparameters.

    ``class`` in place of ``name`` names a class of Flower's: ``flwr.serverapp.strategy:FedTrimmedAvg``.
    """

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)
    name: Annotated[str, AfterValidator(_known_strategy)] = "fedavg"

    @property
    def label(self) -> str:
        """Its name as people read it: that of a class which is given in Python is without its digest."""
        return label_of(self.name)

    @model_validator(mode="before")
    @classmethod
    def _class_is_a_name(cls, values: Any) -> Any:  # noqa: ANN401  what the file says, not yet checked
        if not isinstance(values, dict) or "class" not in values:
            return values
        named = values["class"]
        if "name" in values or not isinstance(named, str) or not re.fullmatch(r"flwr\.serverapp\.strategy:\w+", named):
            raise ValueError(f"class: expected flwr.serverapp.strategy:CLASS and no name beside it, got {named!r}; "
                             "other code is named on the command line, with --strategy")  # fmt: skip
        return {"name": named, **{key: value for key, value in values.items() if key != "class"}}


class Attack(_Section):
    """Sites that attack; keys beside these are the attack's parameters."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)
    name: Annotated[str, AfterValidator(_known_attack)] = "none"
    sites: list[str] | None = None
    share: Annotated[FiniteFloat, Field(ge=0, le=1)] | None = None

    @model_validator(mode="after")
    def _says_who(self) -> "Attack":
        if self.name != "none" and (self.sites is None) == (self.share is None):
            raise ValueError("expected either sites or share beside name: who attacks, e.g. attack.share=0.2")
        return self


class Tuning(_Section):
    """How many private trainings on the same records the settings are chosen among, this one included.

    ``charged`` sets the noise so that all of them together stay within epsilon.
    """

    runs: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    charged: bool = False

    @model_validator(mode="after")
    def _charges_a_number(self) -> "Tuning":
        if self.charged and self.runs is None:
            raise ValueError("expected runs beside charged = true: how many trainings are chosen among")
        return self

    @property
    def trainings(self) -> int:
        """How many trainings share the budget."""
        return self.runs if self.charged and self.runs else 1


class AdaptiveClip(_Section):
    """A clip that follows a quantile of the sites' norms; ``privacy.clip`` is the first."""

    quantile: Probability = 0.5
    rate: Positive = 0.2
    bit_noise: Positive | None = None


_EXAMPLES = {"epsilon": "8", "delta": "1e-4"}


class Privacy(_Section):
    """The privacy guarantee: its unit, budget and mechanism.

    A unit is a file in ``fedsim/privacy/units``, which says the rest.
    """

    unit: Annotated[str, AfterValidator(_known_unit)] = NO_UNIT
    epsilon: Annotated[Positive, Field(le=1000)] | None = None
    delta: Annotated[Probability, Field(ge=1e-12)] | None = None
    clip: Annotated[FiniteFloat, Field(ge=SMALLEST_CLIP)] = 1.0
    noise_multiplier: Annotated[Positive, Field(le=1e6)] | None = None
    neighbours: Neighbours = "add-or-remove-one"
    rng: Rng = "reproducible"
    tuning: Tuning = Tuning()
    loose_delta: bool = False
    adaptive_clip: AdaptiveClip | None = None
    correlated: bool = False

    @property
    def facts(self) -> UnitFacts:
        """What the unit's file says that a scenario must know.

        Raises:
            Mistake: There is no such unit.
        """
        return facts_of(self.unit)

    @property
    def relation(self) -> Neighbours:
        """Between which data sets the promise holds: as asked for, or the only ones that the unit can claim."""
        possible = self.facts.neighbours
        return self.neighbours if self.neighbours in possible else possible[0]  # type: ignore[return-value]

    @model_validator(mode="after")
    def _says_how_much(self) -> "Privacy":
        facts = self.facts
        if facts.promises and (self.epsilon is None or self.delta is None):
            missing = " and ".join(name for name in ("epsilon", "delta") if getattr(self, name) is None)
            examples = " and ".join(f"privacy.{name}={_EXAMPLES[name]}" for name in missing.split(" and "))
            raise ValueError(f"expected {missing} beside unit = {self.unit!r}, e.g. {examples}")

        for setting, owners in owners_of_settings().items():
            section, _, name = setting.partition(".")
            if section == "privacy" and facts.promises and self.unit not in owners and is_given(self, name):
                units = " or ".join(f"unit = {owner!r}, {reason}" for owner, reason in owners.items())
                raise ValueError(f"{name}: expected {units}, got {self.unit!r}")

        if self.adaptive_clip and self.correlated:
            raise ValueError("adaptive_clip: expected none beside correlated, whose noise cancels at one clip only")
        return self


class SecureAggregation(_Section):
    """Whether the server learns the sum of the updates alone.

    ``threshold`` is the share of a round's sites that must answer to the end, above a half, by default two thirds;
    ``drop_outs`` says the same by how many need not. ``bits`` is the place after the point to which updates are
    rounded, ``range`` the largest change of one parameter in a round, ``drop_out_at`` the step from which on a site
    that drops out (``faults.drop_out``) is gone for the rest of the round. ``colluding`` sites may tell others their
    share of the noise, where each adds one.
    """

    on: bool = False
    threshold: Annotated[FiniteFloat, Field(gt=0.5, le=1)] | None = None
    bits: Annotated[int, Field(ge=8, le=48)] = 32
    range: Annotated[Positive, Field(le=1e6)] = 1000.0
    drop_out_at: Literal["keys", "shares", "train", "unmask"] = "train"
    drop_outs: Annotated[int, Field(ge=0)] | None = None
    colluding: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _says_in_one_way_who_must_answer(self) -> "SecureAggregation":
        if self.drop_outs is not None and self.threshold is not None:
            raise ValueError("expected threshold or drop_outs, which say the same, got both")
        return self

    def threshold_of(self, sites: int) -> int:
        """Return how many of some sites must answer."""
        if self.drop_outs is not None:
            return sites - self.drop_outs
        return max(sites // 2 + 1, math.ceil((self.threshold or 2 / 3) * sites - 1e-9))


class Faults(_Section):
    """Faults that sites have without meaning to.

    ``wrong_labels`` is {site: the share of its labels that are wrong}, ``joins_late`` {site: its first round}. The
    others are shares of sites, but ``drop_out``, the probability that an answer is lost.
    """

    wrong_labels: dict[str, Annotated[FiniteFloat, Field(gt=0, le=1)]] = {}
    joins_late: dict[str, Annotated[int, Field(ge=2)]] = {}
    drop_out: Annotated[FiniteFloat, Field(ge=0, lt=1)] = 0.0
    crash: Annotated[FiniteFloat, Field(ge=0, lt=1)] = 0.0
    crash_round: Annotated[int, Field(ge=1)] = 1
    straggler: Annotated[FiniteFloat, Field(ge=0, le=1)] = 0.0
    straggler_steps: Annotated[int, Field(ge=1)] = 1
    spoiled: Annotated[FiniteFloat, Field(ge=0, lt=1)] = 0.0


_OF_IMAGES = ("image_size", "channels", "classes")
_EXAMPLES_OF_IMAGES = {"image_size": "[28, 28]", "channels": "1", "classes": '["healthy", "ill"]'}

_YOUNGER_KEYS = {
    "data": ("layout", "image", "person", *_OF_IMAGES),
    "partition": ("column", "mapping", "shares", "size_classes"),
    "training": ("schedule", "stopping", "replace_batch_norm", "adapt", "precision"),
}
"""{section: keys that are younger than the names of releases and checkpoints}; a new key that may be silent is one."""


class Scenario(_Section):
    """One experiment, fully stated."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")]
    title: Annotated[str, Field(min_length=1, max_length=120)]
    about: str = ""
    task: Annotated[str, AfterValidator(_known_task)] | None = None
    data: Data = Data()
    engine: Annotated[str, _known("engines")] = "cohort"
    cohort_size: Annotated[Annotated[int, Field(ge=1)] | Literal["auto"], BeforeValidator(_size_or_auto)] = "auto"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    arms: Annotated[list[Arm], Field(min_length=1), AfterValidator(_no_twins)] = ["federated", "centralized", "local"]
    references: Annotated[list[Reference], AfterValidator(_no_twin_references)] = []
    seed: Annotated[int, Field(ge=0, lt=2**62)] = 0
    seeds: Annotated[int, Field(ge=1, le=1000)] = 5
    partition: Partition = Partition()
    split: Split = Split()
    evaluation: Evaluation = Evaluation()
    checkpoints: Checkpoints = Checkpoints()
    limits: Limits = Limits()
    ray: Ray = Ray()
    superlink: SuperLink = SuperLink()
    deployment: Deployment = Deployment()
    training: Training = Training()
    strategy: Strategy = Strategy()
    attack: Attack = Attack()
    faults: Faults = Faults()
    secure_aggregation: SecureAggregation = SecureAggregation()
    privacy: Privacy = Privacy()

    def expected_batch(self, site: str) -> float:
        """Return a site's expected batch, which also is its public weight in the aggregation."""
        declared = self.training.expected_batch
        return declared[site] if isinstance(declared, dict) else float(declared)

    def expected_batches(self, names: Sequence[str]) -> Mapping[str, float]:
        """Return {site: expected batch} of sites; of made-up ones that have the same, without going through them."""
        declared = self.training.expected_batch
        if isinstance(names, MadeNames) and not isinstance(declared, dict):
            return Alike(names, float(declared))
        return {name: self.expected_batch(name) for name in names}

    @field_validator("secure_aggregation", mode="before")
    @classmethod
    def _a_section_switches_it_on(cls, value: Any) -> Any:  # noqa: ANN401  what the file says, not yet checked
        if isinstance(value, bool):
            return {"on": value}
        if not isinstance(value, dict | SecureAggregation):
            raise ValueError(f"expected true, false or a section, got {as_written(value)}")
        return {"on": True, **value} if isinstance(value, dict) else value

    @model_validator(mode="after")
    def _who_joins_takes_part(self) -> "Scenario":
        late = self.faults.joins_late
        rounds = self.training.rounds
        if late and self.training.participation.number is not None:
            raise ValueError("faults.joins_late: expected no training.sites_per_round beside it")
        if max(late.values(), default=0) > rounds:
            raise ValueError(f"faults.joins_late: expected rounds up to {rounds}, the last, got {max(late.values())}")
        return self

    @model_validator(mode="after")
    def _hides_what_is_shared(self) -> "Scenario":
        unit = self.privacy.unit
        for setting, reason in self.privacy.facts.needs:
            key, _, name = setting.partition(".")
            section = getattr(self, key)
            if not (getattr(section, "on", True) and is_given(section, name)):
                raise ValueError(f'privacy.unit: expected {setting} beside "{unit}": {reason}')

        for setting, reason in self.privacy.facts.forbids:
            key, _, name = setting.partition(".")
            if is_given(getattr(self, key), name):
                given = getattr(getattr(self, key), name)
                raise ValueError(f'{setting}: expected none beside privacy.unit = "{unit}", got {given!r}: {reason}')

        for setting, owners in owners_of_settings().items():
            section, _, name = setting.partition(".")
            if section != "privacy" and unit not in owners and is_given(getattr(self, section), name):
                units = " or ".join(f'"{owner}"' for owner in owners)
                raise ValueError(f"{setting}: expected privacy.unit = {units} beside it")
        return self

    @model_validator(mode="after")
    def _hides_the_sums_of_a_scale(self) -> "Scenario":
        if self.secure_aggregation.on and self.data.scale == "learned":
            raise ValueError("data.scale: expected 'public' beside secure_aggregation, whose server sees no site's "
                             "sums, got 'learned'")  # fmt: skip
        return self

    @model_validator(mode="after")
    def _promises_something(self) -> "Scenario":
        if self.privacy.correlated and (self.training.participation.turns or 1) < 2:
            raise ValueError("privacy.correlated: expected training.site_turns of 2 or more beside it: noise may "
                             "cancel over rounds in which no site is asked twice")  # fmt: skip
        protected = self.privacy.facts.arms
        if protected and not set(protected) & set(self.arms):
            raise ValueError(f"arms: expected {' or '.join(protected)} among them with privacy.unit = "
                             f"{self.privacy.unit!r}, which protects no other, got {', '.join(self.arms)}")  # fmt: skip
        return self

    @model_validator(mode="after")
    def _has_something_to_learn(self) -> "Scenario":
        data = self.data
        if self.task is not None:
            columns = ("target", "site", "time", "person", "groups", "kind", "scale", "ranges")
            for name in (*columns, "layout", "image", *_OF_IMAGES):
                if getattr(data, name) is not None:
                    raise ValueError(f"data.{name}: expected none beside a task, which has columns of its own")
            return self

        if data.path is None:
            raise ValueError("task: expected a task (see fedsim list tasks), or a table of your own: data.path and "
                             "data.target, on the command line --data FILE --target COLUMN")  # fmt: skip
        if data.layout is not None:
            return self
        if data.target is None:
            raise ValueError(f"data.target: expected the column of {Path(data.path).name} with the outcome, "
                             f"{self._how_to_name('target')}")  # fmt: skip
        if data.site is None and self.partition.by in ("natural", "mapping"):
            raise ValueError(f"data.site: expected the column that names each row's site, {self._how_to_name('site')}, "
                             "or another partition, e.g. partition.by=iid and partition.sites=8")  # fmt: skip
        return self

    @model_validator(mode="after")
    def _knows_whose_rows_are_whose(self) -> "Scenario":
        data = self.data
        if not self.privacy.facts.persons or self.task is not None or data.person is not None:
            return self
        if data.layout is not None:
            expected = "a table of images (data.image) with data.person"
            raise ValueError(f"privacy.unit: expected {expected} beside {self.privacy.unit!r}: a folder of images does "
                             "not say whose they are")  # fmt: skip
        raise ValueError(f"privacy.unit: expected data.person beside {self.privacy.unit!r}, the column that names "
                         "each row's person, e.g. data.person=patient_id; \"record\" protects one row and not "
                         "the person")  # fmt: skip

    @model_validator(mode="after")
    def _has_images_where_settings_are_about_them(self) -> "Scenario":
        data = self.data
        if self.task is not None or data.is_of_images:
            return self
        for name in _OF_IMAGES:
            if getattr(data, name) is not None:
                raise ValueError(f"data.{name}: expected beside it a folder of images as data.path, or data.image, the "
                                 "column of a table with their paths")  # fmt: skip
        if data.model == "cnn":
            raise ValueError("data.model: expected 'linear' or 'mlp' for a table, got 'cnn', which is for images")
        return self

    @model_validator(mode="after")
    def _fits_images(self) -> "Scenario":
        data = self.data
        if data.is_of_images and data.scale is not None:
            raise ValueError("data.scale: expected none beside images: brightness 0 to 255 is scaled to [-1, 1]")
        if data.image is not None and data.path == FRAME:
            raise ValueError("data.image: expected a CSV or Parquet file beside it, whose folder has the images, got a "
                             "pandas frame")  # fmt: skip
        if data.layout is None:
            return self

        for name in ("image", "target", "site", "time", "person", "groups", "ranges", "undeclared"):
            if getattr(data, name) is not None:
                raise ValueError(f"data.{name}: expected none beside a folder of images, whose folders name sites "
                                 "and classes; a table that lists images (data.image) may have more")  # fmt: skip
        if data.kind == "number":
            raise ValueError("data.kind: expected 'binary' or 'classes' for a folder of images, got 'number'")
        return self

    @model_validator(mode="after")
    def _declares_what_images_are(self) -> "Scenario":
        data = self.data
        if self.task is not None or not data.is_of_images or not self.private:
            return self
        lacking = [name for name in ("image_size", "channels") if getattr(data, name) is None]
        if data.classes is None and not self._outcome_of_images_is_declared:
            lacking.append("classes")
        if lacking:
            examples = ", ".join(f"data.{name} = {_EXAMPLES_OF_IMAGES[name]}" for name in lacking)
            raise ValueError(f"data: expected {', '.join(lacking)} beside privacy.unit = {self.privacy.unit!r}, from "
                             "public knowledge: no noise covers what is read off the images; write for example "
                             f"{examples}")  # fmt: skip
        return self

    @property
    def _outcome_of_images_is_declared(self) -> bool:
        """Whether ranges are given that must hold the outcome of a table of images, or it is refused."""
        data = self.data
        return data.layout is None and data.undeclared is None and data.ranges not in (None, "from-data")

    def _how_to_name(self, role: str) -> str:
        """Say how the column of a role is given."""
        if self.data.path == FRAME:
            return f"in Python {role}=COLUMN"
        return f"on the command line --{role} COLUMN"

    def shown(self) -> dict[str, Any]:
        """Return what the scenario says, for others to read: of a file, its name."""
        values = self.values()
        if self.data.path or self.data.sha256:
            values["data"] = {key: value for key, value in values["data"].items() if key != "sha256"}
        if self.data.path:
            values["data"]["path"] = Path(self.data.path).name
        return values

    @property
    def own_code(self) -> dict[str, str]:
        """The names of what may be code of the user's own: {``task`` or ``strategy``: its name}."""
        return {"strategy": self.strategy.name} | ({} if self.task is None else {"task": self.task})

    @property
    def task_label(self) -> str | None:
        """The task's name as people read it: without the digest of code of the user's own."""
        return None if self.task is None else label_of(self.task)

    def values(self) -> dict[str, Any]:
        """Return what the scenario says, defaults included, for TOML."""
        values = self.model_dump(exclude_none=True)
        defaults = {
            "data": Data(),
            "evaluation": Evaluation(),
            "checkpoints": Checkpoints(),
            "ray": Ray(),
            "superlink": SuperLink(),
            "deployment": Deployment(),
            "limits": Limits(),
            "faults": Faults(),
            "secure_aggregation": SecureAggregation(),
        }
        for section, empty in defaults.items():
            if getattr(self, section) == empty:
                del values[section]
        if self.training.schedule.is_flat:
            del values["training"]["schedule"]
        if not self.references:
            del values["references"]
        return values

    @property
    def trains_with(self) -> str:
        """The engine by which sites train in the end: that of the nodes, where there are nodes."""
        if self.engine == "ray":
            return self.ray.inside
        return self.superlink.inside if self.engine == "superlink" else self.engine

    @property
    def has_nodes(self) -> bool:
        """Whether sites are shared out among processes that the engine has."""
        return self.engine in ("ray", "superlink")

    @cached_property
    def release(self) -> str:
        """A name for all that shapes what leaves a site; two scenarios that differ in it share no noise.

        A strategy that is named as code is in it with its source, so that two versions of one file are two releases.

        Raises:
            Mistake: The strategy's code is not there, or was not named on the command line.
        """
        sections = {"task", "data", "partition", "split", "training", "strategy", "attack", "faults", "privacy"}
        if self.secure_aggregation.on:
            sections.add("secure_aggregation")
        silent = self.unused_younger_keys()
        silent["data"] |= self._says_nothing_of_rows
        silent["privacy"] = self._shapes_nothing
        silent["training"].add("stopping")  # it changes no round, only how many there are
        if not self.training.duration_spread:
            silent["training"].add("duration_spread")  # 0 shapes nothing
        shapes = self.model_dump_json(include=sections, exclude=silent)
        return hashlib.blake2b((shapes + catalog.code_hash(self.strategy.name)).encode(), digest_size=16).hexdigest()

    @property
    def _says_nothing_of_rows(self) -> set[str]:
        """Keys of ``data`` that say nothing of the rows: a file's place does not once its digest is known.

        Nor does ``scale``: no training with noise learns one.
        """
        keys = {"groups", "scale"}
        if self.data.sha256 is not None:
            keys.add("path")
        for key in ("positive", "undeclared"):
            if getattr(self.data, key) is None:
                keys.add(key)
        return keys

    def unused_younger_keys(self) -> dict[str, set[str]]:
        """Return the younger keys that say nothing here, {section: keys}.

        What is named by all that a scenario says keeps its name when a version of fedsim brings a key.
        """
        unused = {}
        for section, younger in _YOUNGER_KEYS.items():
            said = getattr(self, section)
            nothing = type(said).model_fields
            unused[section] = {key for key in younger if getattr(said, key) == nothing[key].default}
        return unused

    @property
    def _shapes_nothing(self) -> set[str]:
        """Keys of ``privacy`` that shape no named release: secure streams have no names; charged tuning adds noise."""
        return {"loose_delta", "rng"} if self.privacy.tuning.charged else {"loose_delta", "rng", "tuning"}

    @property
    def private(self) -> bool:
        """Whether the private arms are run beside the others."""
        return self.privacy.facts.promises

    @property
    def private_arms(self) -> list[Arm]:
        """The arms that are also run under privacy: those in which the unit has a meaning."""
        protected = self.privacy.facts.arms
        return [arm for arm in self.arms if arm in protected]

    @property
    def all_seeds(self) -> list[int]:
        """The seeds that are run: ``seeds`` of them from ``seed`` on."""
        return list(range(self.seed, self.seed + self.seeds))
