"""The base class of attacks.

An attack is one file in ``fedsim/audits/attacks`` with one class derived from ``Attack``. The first line of the file's
docstring is its title. Nothing else has to be changed: ``fedsim audit`` runs it, and its finding is printed with the
others.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

from fedsim.audits.finding import Answer, Finding, Measured, Picture, Row
from fedsim.audits.target import TRAININGS, Target, Training
from fedsim.privacy.unit import Place


class Attack(ABC):
    """An attack run on purpose.

    Attributes:
        places: Where the noise is added of the trainings it attacks, which tells the privacy units: see ``claims``.
        question: The question it answers: one of ``finding.QUESTIONS``, or a heading of its own.
        label: At most 17 characters that begin its lines on a terminal.
        trainings: The trainings it attacks.
        sections: The keys of ``audit.json`` that its findings fill in, as they are without one.
    """

    places: ClassVar[tuple[Place, ...]]
    question: ClassVar[str]
    label: ClassVar[str]
    trainings: ClassVar[tuple[Training, ...]] = TRAININGS
    sections: ClassVar[Mapping[str, Any]] = {}

    def __init_subclass__(cls) -> None:
        """Check the attributes.

        Raises:
            TypeError: One is missing, or wrong.
        """
        super().__init_subclass__()
        where = f"{cls.__module__}.{cls.__name__}"
        given = {name for base in cls.__mro__ for name in vars(base)}
        missing = [name for name in ("places", "question", "label") if name not in given]
        if missing:
            raise TypeError(f"{where}: expected the attributes {', '.join(missing)}")
        unknown = [place for place in cls.places if not isinstance(place, Place)]
        if unknown:
            known = ", ".join(map(str, Place))
            raise TypeError(f"{where}.places: expected some of {known}, got {unknown[0]!r}")
        if len(cls.label) > 17:
            raise TypeError(f"{where}.label: expected at most 17 characters, got {cls.label!r}")

    @property
    def name(self) -> str:
        """The name of its file."""
        return type(self).__module__.rpartition(".")[2]

    def applies_to(self, place: Place, training: Training) -> bool:
        """Tell whether it attacks the training of a privacy unit that adds its noise there."""
        return place in self.places and training in self.trainings

    @abstractmethod
    def run(self, target: Target) -> Finding | None:
        """Attack a training; None if there is nothing to attack, such as a site among others where there is one."""

    def finding(
        self,
        target: Target,
        measured: tuple[Measured, ...],
        words: tuple[str, ...],
        rows: tuple[Row, ...] = (),
        answer: Answer | None = None,
        picture: Picture | None = None,
        section: Mapping[str, Any] | None = None,
    ) -> Finding:
        """Make this attack's finding; the arguments are attributes of ``Finding``."""
        return Finding(
            attack=self.name,
            question=self.question,
            label=self.label,
            training=target.training,
            claim=target.promised,
            measured=measured,
            words=words,
            rows=rows,
            answer=answer,
            picture=picture,
            section=section or {},
        )
