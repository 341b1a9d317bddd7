"""Inversion of a usual round: solve for a record in the update that a site sends after training on all its rows.

Each unit of the first layer gives a candidate, and the best of them counts, held against the record of the site that is
nearest to it: more than an attacker can know. Phong, Aono, Hayashi, Wang, Moriai 2018,
https://eprint.iacr.org/2017/715, section 3.
"""

from __future__ import annotations

from typing import ClassVar

import torch

from fedsim.audits.attack import Attack
from fedsim.audits.claims import RECORDS as RECORD_UNITS
from fedsim.audits.finding import IN_WORDS, RECORDS, Finding
from fedsim.audits.rebuilding import Inversion, candidates, first_linear, judge, streams_of
from fedsim.audits.target import Target
from fedsim.data.federation import Examples
from fedsim.training.work import Work


class RoundInverted(Attack):
    """Solves for records in the updates of a usual round."""

    places = RECORD_UNITS
    question = RECORDS
    label = "in a usual round"
    sections: ClassVar = {"inversion": {}}

    def run(self, target: Target) -> Finding | None:
        """Attack the first sites; None where no layer gives records away."""
        if not target.rows.inputs.is_floating_point():
            return None
        found = from_a_round(target)
        if found is None:
            return None
        return self.finding(
            target,
            measured=found.measured("from a usual round"),
            words=(f"{IN_WORDS[target.training]}: share, median error", found.words("solved for")),
            rows=(found.row("From a usual round", "the best guess against the record nearest to it"),),
            section={"inversion": {target.training: {"round": found.values}}},
        )


def from_a_round(target: Target) -> Inversion | None:
    """Solve for a record of each site; None if the first layer is not linear with a bias."""
    layer = first_linear(target.model)
    if layer is None:
        return None
    works = []
    for number, site in enumerate(target.sites):
        streams = streams_of(target.seed, "round", number)
        works.append(Work(target.model, target.start, site.rows, site.plan, streams, target.losses))

    records = []
    rebuilt = []
    for site, done in zip(target.sites, target.train_all(works), strict=True):
        inputs = site.rows.inputs.flatten(1)  # (rows, inputs)
        guesses = candidates(target.model, target.start - done.parameters, layer)  # (units, inputs)
        errors = torch.cdist(guesses, inputs) / inputs.norm(dim=1).clamp(min=1e-9)  # (units, rows)
        unit, row = divmod(int(errors.nan_to_num(torch.inf).argmin()), len(inputs))
        record = site.rows.inputs[row]
        records.append(record)
        rebuilt.append(guesses[unit].reshape(record.shape)[None])
    together = torch.stack(records)
    return judge(Examples(together, together), rebuilt)
