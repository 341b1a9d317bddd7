"""Membership inference: was a record in the training data? By the loss alone, LiRA and RMIA.

LiRA: Carlini, Chien, Nasr, Song, Terzis, Tramer 2022, https://arxiv.org/abs/2112.03570. RMIA: Zarifzadeh, Liu, Shokri
2024, https://arxiv.org/abs/2312.03262. Both compare a model with shadow models, see ``shadow_models``; all are trained
as one cohort.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import ClassVar

import numpy as np
import torch

from fedsim import figures
from fedsim.audits.attack import Attack
from fedsim.audits.bounds import ceiling
from fedsim.audits.claims import RECORDS
from fedsim.audits.finding import IN_WORDS, MEMBERS, Answer, Curve, Finding, Picture, Row
from fedsim.audits.shadow_models import Membership, confidences, halves, judge, lira, rmia
from fedsim.audits.target import Target
from fedsim.randomness import Words
from fedsim.training.work import Streams, Work

_HINT = "AUC, where 0.5 is guessing, and in brackets the members found at 1 % false alarms"
_CAPTION = (
    "The attacker has records like these, knows how the training goes and has trained models with and without each "
    "record (LiRA). The higher above the grey line, the more the attacker learns. The left counts most: the members "
    "whom the attacker is sure of. Each model is trained on half of the records as one site would train on them, not "
    "federated."
)


class MembershipInference(Attack):
    """Tells records that a model was trained on from others."""

    places = RECORDS
    question = MEMBERS
    label = "who was in it"
    sections: ClassVar = {"membership": {}}

    def run(self, target: Target) -> Finding:
        """Attack models trained on halves of the records."""
        trained = target.rows.persons if target.plan.of_persons else len(target.rows)
        expected_batch = target.plan.sampling_rate * (trained or 0) / 2
        half = replace(target.plan, expected_batch=max(1.0, expected_batch))
        found = attack(replace(target, plan=half))

        claim = target.promised
        most = ceiling(claim.epsilon, claim.delta) if claim else 1.0
        results = ", ".join(f"{name} {result}" for name, result in found.items())
        return self.finding(
            target,
            measured=tuple(result.measured(name, claim) for name, result in found.items()),
            words=(f"{IN_WORDS[target.training]}: AUC (found at 1 % false alarms)", results),
            rows=(
                Row("With shadow models, LiRA", _HINT, str(found["lira"])),
                Row("With shadow models, RMIA", "", str(found["rmia"])),
                Row("By the loss alone", "", str(found["loss"])),
                Row("The most any attack can reach", "AUC, by the epsilon claimed", figures.figure(most)),
            ),
            answer=Answer(
                "Can anybody tell who was in the data?",
                "Of the members, the attack finds, while it accuses one in a hundred others wrongly",
                figures.share(found["lira"].tpr, 1),
                "Guessing finds 1.0%.",
            ),
            picture=Picture(
                name="membership",
                heading="Who was in the data?",
                alt="Share of members found against share of others accused, at each level",
                caption=_CAPTION,
                data=Curve(found["lira"].curve),
            ),
            section={"membership": {target.training: {name: asdict(result) for name, result in found.items()}}},
        )


def attack(target: Target) -> dict[str, Membership]:
    """Return {score: how well it tells members}: ``loss``, ``lira`` and ``rmia``.

    Each of the target's rows is a member in half of the trainings. Where persons are protected, each person is, with
    all rows, and the attacker scores a person by the mean over these rows.
    """
    rows = target.rows
    person = rows.person.cpu().numpy() if target.plan.of_persons and rows.person is not None else np.arange(len(rows))
    members = halves(int(person.max()) + 1, target.effort.shadows, target.seed)  # bool (shadows, persons)

    works = []
    for number, chosen in enumerate(torch.from_numpy(members[:, person])):  # bool (rows,)
        streams = Streams(
            batches=Words.of(target.seed, "shadow batches", number),
            noise=Words.of(target.seed, "shadow noise", number),
            layers=number,
        )
        half = rows.some(chosen)
        works.append(Work(target.model, target.start, half, target.plan, streams, target.losses))

    found = np.stack(
        [confidences(target.model, done.parameters, rows, target.losses) for done in target.train_all(works)]
    )  # fmt: skip  (shadows, rows)
    found = np.stack([np.bincount(person, weights=of_shadow) / np.bincount(person) for of_shadow in found])
    scores = {"loss": found, "lira": lira(found, members), "rmia": rmia(found, members)}
    return {name: judge(score[members], score[~members]) for name, score in scores.items()}
