"""Findings: the result of one attack on one training, in figures, words and pictures.

Every attack returns this one kind. Audit files, the command line and the story page print findings without knowing the
attack.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

import numpy as np

from fedsim.audits.claims import AnyClaim
from fedsim.audits.target import Training

EPSILON = "Epsilon: claimed, proven, estimated"
MEMBERS = "Who was in the data"
RECORDS = "Records rebuilt from what a site sends"
SITES = "What sites are like"
QUESTIONS = (EPSILON, MEMBERS, RECORDS, SITES)
"""The questions that attacks answer, in the order in which they are printed. Others come after them."""

IN_WORDS: Mapping[Training, str] = {"plain": "without privacy", "private": "with privacy"}
_LABEL = 18  # columns of a terminal that labels take


class Verdict(StrEnum):
    """What a finding says about the claim."""

    REFUTED = "refuted"
    STANDS = "stands"
    NOT_TESTED = "not tested"
    NO_CLAIM = "no claim"


@dataclass(frozen=True)
class Measured:
    """A figure that an attack measured.

    Attributes:
        name: How it was measured.
        quantity: ``epsilon``, ``AUC``, ``share`` or another.
        value: The figure; None where there is a bound only. It is no bound, and refutes nothing.
        low: The lower end of its interval, None if it has no interval.
        high: The upper end; None if there is none.
        confidence: With which the interval holds.
        limit: The value that a true claim keeps the quantity below; None if the claim says nothing about it.
    """

    name: str
    quantity: str
    value: float | None
    low: float | None = None
    high: float | None = None
    confidence: float | None = None
    limit: float | None = None

    @property
    def tests(self) -> bool:
        """Whether the figure could refute a claim."""
        return self.low is not None and self.limit is not None

    @property
    def refutes(self) -> bool:
        """Whether the figure lies above its limit, with the confidence stated."""
        return self.low is not None and self.limit is not None and self.low > self.limit


@dataclass(frozen=True)
class Row:
    """A row of the story's table: its name, a hint how to read it, and the cell of this finding."""

    name: str
    hint: str
    cell: str


@dataclass(frozen=True)
class Answer:
    """An answer to a question that a privacy officer asks.

    The story prints ``lead: FIGURE with epsilon 8; FIGURE with epsilon 1. tail``, a figure for each level.
    """

    question: str
    lead: str
    figure: str
    tail: str = ""


@dataclass(frozen=True)
class Curve:
    """A ROC curve: the share of members found at each false-positive rate of ``bounds.RATES``."""

    found: tuple[float, ...]


@dataclass(frozen=True)
class RebuiltRecord:
    """A record as the model sees it, and the attacker's reconstruction, of the same shape.

    Attributes:
        record: The record.
        rebuilt: The reconstruction.
        names: A name for each input of a table's record.
    """

    record: np.ndarray
    rebuilt: np.ndarray
    names: tuple[str, ...]


@dataclass(frozen=True)
class Picture:
    """Data of a picture. The first finding of each level that has a picture of this name is drawn into it.

    Attributes:
        name: Of the picture's file, without its ending.
        heading: Of the page's section.
        alt: Its description, for those who can't see it.
        caption: The text below it.
        data: The data of one finding.
    """

    name: str
    heading: str
    alt: str
    caption: str
    data: Curve | RebuiltRecord

    @property
    def is_wide(self) -> bool:
        """Whether it needs a page's whole width."""
        return isinstance(self.data, RebuiltRecord)


@dataclass(frozen=True)
class Finding:
    """The result of one attack on one training.

    Attributes:
        attack: The attack's name.
        question: The question it answers, which is the heading over its rows.
        label: A few words that its lines begin with.
        training: The training that was attacked.
        claim: The claim it tests; None without privacy.
        measured: The figures, with their intervals and the limits they must stay below.
        words: Its lines on a terminal, without the label.
        rows: Its rows in the story's table.
        answer: Its answer for a privacy officer, if it has one.
        picture: Its picture, if it has one.
        section: Its figures in ``audit.json`` where readers of earlier versions look for them.
    """

    attack: str
    question: str
    label: str
    training: Training
    claim: AnyClaim | None
    measured: tuple[Measured, ...]
    words: tuple[str, ...]
    rows: tuple[Row, ...] = ()
    answer: Answer | None = None
    picture: Picture | None = None
    section: Mapping[str, Any] = field(default_factory=dict)

    @property
    def verdict(self) -> Verdict:
        """What the finding says about the claim."""
        if self.claim is None:
            return Verdict.NO_CLAIM
        if any(figure.refutes for figure in self.measured):
            return Verdict.REFUTED
        if any(figure.tests for figure in self.measured):
            return Verdict.STANDS
        return Verdict.NOT_TESTED

    @property
    def lines(self) -> Iterator[str]:
        """Lines for a terminal, the first with the label."""
        for number, text in enumerate(self.words):
            label = "" if number else self.label
            yield f"{label:<{_LABEL}}{text}"

    @property
    def values(self) -> dict[str, Any]:
        """All figures as JSON holds them."""
        claimed = {"epsilon": self.claim.epsilon, "delta": self.claim.delta} if self.claim else None
        return {
            "attack": self.attack,
            "question": self.question,
            "training": self.training,
            "claim": claimed,
            "measured": [asdict(figure) for figure in self.measured],
            "verdict": str(self.verdict),
            "words": list(self.words),
        }


def lower_bounds(findings: Sequence[Finding], quantity: str = "epsilon") -> list[float]:
    """List the lower bounds on a quantity."""
    return [
        figure.low
        for finding in findings
        for figure in finding.measured
        if figure.quantity == quantity and figure.low is not None
    ]
