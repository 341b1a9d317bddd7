"""``fedsim audit``: attack what a run or a scenario trains, and hold the successes against the claim."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

<<<<<<< HEAD
import torch
from torch.nn.utils import parameters_to_vector

from fedsim import catalog
from fedsim.arms import noise_for, passes_of
from fedsim.audits import canaries, inversion, membership
from fedsim.audits.bounds import CONFIDENCE, ceiling
from fedsim.audits.pictures import names_of, side_by_side
from fedsim.federation import Examples, Federation, federate
from fedsim.loading import task_of
from fedsim.mistakes import Mistake
from fedsim.privacy.accounting import Neighbours, epsilon
from fedsim.privacy.ledger import Mechanism
from fedsim.randomness import stream
from fedsim.results import Run, write_bytes, write_json
from fedsim.sampling import most_rounds
=======
from fedsim.audits import canaries, inversion, membership, one_shot, site_property, source
from fedsim.audits.bounds import CONFIDENCE, RATES, ceiling
from fedsim.audits.claims import Claim
from fedsim.audits.target import Effort, Target, Training
>>>>>>> w-c
from fedsim.scenario import Scenario


@dataclass(frozen=True)
class Audit:
    """What the attacks gave; ``private`` and ``plain`` are the trainings with and without the scenario's noise."""

    scenario: str
    claim: Claim | None
    rows: int
    paired: canaries.CanaryAudit | None = None
    one_run: canaries.CanaryAudit | None = None
    one_shot: one_shot.OneShot | None = None
    membership: Mapping[Training, Mapping[str, membership.Membership]] = field(default_factory=dict)
    inversion: Mapping[Training, Mapping[str, inversion.Inversion]] = field(default_factory=dict)
    sources: Mapping[Training, source.Source] = field(default_factory=dict)
    properties: Mapping[Training, site_property.Property] = field(default_factory=dict)

    @property
    def bound(self) -> float:
        """The largest lower bound on epsilon, each with the confidence stated."""
        found = [one for one in (self.paired, self.one_run) if one]
        return max((bound for one in found for bound in (one.bound, one.noise_bound)), default=0.0)

    @property
    def broken(self) -> bool:
        """Whether the claim is refuted."""
        return self.claim is not None and self.bound > self.claim.epsilon

    @property
    def values(self) -> dict[str, Any]:
        """All figures as JSON holds them."""
        rebuilt = {
            kind: {
                method: {key: value for key, value in vars(one).items() if key not in ("record", "rebuilt")}
                for method, one in own.items()
            }
            for kind, own in self.inversion.items()
        }
        return {
            "scenario": self.scenario,
            "claimed": asdict(self.claim) if self.claim else None,
            "lower_bound": self.bound if self.claim else None,
            "confidence": CONFIDENCE,
            "broken": self.broken,
            "canaries": {name: asdict(one) for name in ("paired", "one_run") if (one := getattr(self, name))},
            "one_shot": asdict(self.one_shot) if self.one_shot else None,
            "membership": {kind: {n: asdict(m) for n, m in own.items()} for kind, own in self.membership.items()},
            "membership_ceiling": ceiling(self.claim.epsilon, self.claim.delta) if self.claim else None,
            "false_positive_rates": list(RATES),
            "attacked_rows": self.rows,
            "inversion": rebuilt,
            "source": {kind: asdict(one) for kind, one in self.sources.items()},
            "property": {kind: asdict(one) for kind, one in self.properties.items()},
        }


<<<<<<< HEAD
def claim_of(scenario: Scenario) -> Claim | None:
    """Return what a scenario claims for each site; None if it promises no privacy."""
    if not scenario.private or scenario.privacy.delta is None:
        return None
    if scenario.privacy.unit != "record":
        raise Mistake(f'privacy.unit: expected "record", whose records an audit attacks, got {scenario.privacy.unit!r}')
    federation = federate(scenario, scenario.seed)
    rounds = most_rounds(scenario, scenario.seed, federation.names)
    mechanism = Mechanism(
        scenario.training.sampling_rate,
        noise_for(scenario, scenario.seed, "federated"),
        scenario.privacy.clip,
        expected_batch(scenario, federation.names[0]),
        rounds * scenario.training.local_steps * passes_of(scenario),
    )
    delta, neighbours = scenario.privacy.delta, scenario.privacy.neighbours
    return Claim(mechanism, epsilon([mechanism.segment()], delta, neighbours), delta, neighbours)
=======
def audit(
    scenario: Scenario,
    claim: Claim | None,
    effort: Effort,
    trainings: Sequence[Training] = ("plain", "private"),
    tell: Callable[[str], None] = lambda attack: None,
) -> Audit:
    """Attack a scenario's training.
>>>>>>> w-c

    Args:
        scenario: The experiment.
        claim: What is claimed for it; without one nothing is private.
        effort: How much to try.
        trainings: Which to attack.
        tell: Called with the name of each attack before it starts.
    """
<<<<<<< HEAD
    released = [one for one in run.ledger["trainings"] if one["entries"]]
    own = [one for one in released if one["arm"] == "federated"] or released
    if not own:
        return None
    if run.ledger["unit"] != "record":
        raise Mistake(f'{run.path}: expected a run of privacy.unit = "record", whose records an audit attacks, '
                      f"got {run.ledger['unit']!r}")  # fmt: skip
    training = max(own, key=lambda one: max(one["epsilon"].values()))
    site = max(training["epsilon"], key=training["epsilon"].get)
    mechanisms = [Mechanism(**entry["mechanism"]) for entry in training["entries"] if entry["site"] == site]
    whole = replace(mechanisms[0], steps=sum(one.steps for one in mechanisms))
    return Claim(whole, training["epsilon"][site], run.ledger["delta"], run.ledger["neighbours"])


def audit(scenario: Scenario, claim: Claim | None, effort: Effort) -> Audit:
    """Attack a scenario's training."""
    device = "cpu"
    federation = federate(scenario, scenario.seed, device)
    model = new_model(scenario, federation.sites[0], scenario.seed, device)
    start, losses = parameters_to_vector(model.parameters()).detach(), losses_of(scenario)
    train_all = catalog.load("engines", "serial" if scenario.engine == "serial" else "cohort").train_all
    plans = _plans(scenario, claim)
    paired = one_run = None
    if claim:
        rows = federation.sites[0].train
        paired = canaries.paired(
            model, start, losses, rows, plans["private"], claim.delta, effort.trials, effort.seed, train_all
        )
        one_run = canaries.one_run(plans["private"], claim.delta, effort.canaries, effort.seed, train_all)
    rows = _some_rows(federation, effort.seed)
    found = {
        kind: membership.attack(
            model, start, losses, rows, _over(todo, rows), effort.shadows, effort.seed, train_all
        )
        for kind, todo in plans.items()
    }  # fmt: skip
    rebuilt = {}
    if rows.inputs.is_floating_point():
        few = inversion.some(rows, _INVERTED, effort.seed)
        rebuilt = {
            kind: inversion.invert(model, start, losses, few, todo.noise, effort.seed, train_all)
            for kind, todo in plans.items()
        }
    return Audit(scenario.name, claim, paired, one_run, found, rebuilt, len(rows))


def write(found: Audit, scenario: Scenario, folder: Path) -> list[Path]:
    """Write ``audit.json`` and, where a record was rebuilt, ``audit.png`` into a folder; return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "audit.json", found.values)
    if not found.inversion:
        return [folder / "audit.json"]
    plain = found.inversion["plain"]
    pictures = {
        "a record, as the model sees it": plain.record,
        "rebuilt from one update without privacy": plain.rebuilt,
    }
    if found.claim and "private" in found.inversion:
        spent = f"epsilon {found.claim.epsilon:.3g} in all"
        pictures[f"rebuilt from one update with privacy ({spent})"] = found.inversion["private"].rebuilt
    names = names_of(task_of(scenario).columns, plain.record.size)
    write_bytes(folder / "audit.png", side_by_side(pictures, names))
    return [folder / "audit.json", folder / "audit.png"]


def lines(found: Audit) -> list[str]:
    """Return what a terminal shows, a line each of at most 80 columns."""
    said = []
    if found.claim and found.paired and found.one_run:
        claimed, pair, one = found.claim, found.paired, found.one_run
        said = [
            f"claimed           epsilon {claimed.epsilon:.3g}, delta {claimed.delta:g}, {claimed.neighbours}",
            f"canary in or out  epsilon >= {pair.bound:.2f}, about {pair.estimate:.2f}; 2 x {pair.trials} trainings",
            f"                  epsilon >= {pair.noise_bound:.2f} if only the noise is in doubt",
            f"one run           epsilon >= {one.bound:.2f}; {one.trials} canaries",
            f"                  bounds hold with {CONFIDENCE:.0%} confidence each",
        ]
    for kind, attacks in found.membership.items():
        words = "without privacy" if kind == "plain" else "with privacy"
        figures = ", ".join(f"{name} {one.auc:.3f} ({one.tpr:.1%})" for name, one in attacks.items())
        said += [f"who was in it     {words}: AUC (found at 1 % false alarms)", f"                  {figures}"]
    for kind, one in found.inversion.items():
        words = "without privacy" if kind == "plain" else "with privacy"
        said.append(f"records rebuilt   {words}: {one.found:.0%}, median error {one.error:.2g} ({one.method})")
    verdict = "THE CLAIM IS REFUTED" if found.broken else "the claim stands: no attack proved more than it allows"
    return [*said, *([verdict] if found.claim else ["there is no claim to hold this against"])]


def _plans(scenario: Scenario, claim: Claim | None) -> dict[str, Plan]:
    """Return a whole training in one go, without privacy and, if it is claimed, with."""
    training = scenario.training
    steps = claim.mechanism.steps if claim else training.rounds * training.local_steps
    batch = claim.mechanism.expected_batch if claim else expected_batch(scenario, federate(scenario, 0).names[0])
    plain = Plan(steps, training.sampling_rate, batch, training.optimizer, None)
    if not claim:
        return {"plain": plain}
    did = claim.mechanism
    private = replace(plain, sampling_rate=did.sampling_rate, noise=Noise(did.clip, did.noise_multiplier))
    return {"plain": plain, "private": private}


def _over(todo: Plan, rows: Examples) -> Plan:
    """Return a plan with the denominator that suits a site with half of these rows."""
    return replace(todo, expected_batch=max(1.0, todo.sampling_rate * len(rows) / 2))


def _some_rows(federation: Federation, seed: int) -> Examples:
    """Return rows of all parts of the first sites, at most so many, in random order."""
    parts: list[Examples] = []
    for site in federation.sites:
        parts += [site.train, site.validation, site.test]
        if sum(map(len, parts)) >= _MOST_ROWS:
            break
    inputs, target = (torch.cat([getattr(part, name) for part in parts]) for name in ("inputs", "target"))
    chosen = torch.from_numpy(stream(seed, "audited rows").permutation(len(target))[:_MOST_ROWS])
    return Examples(inputs[chosen], target[chosen])
=======
    target = Target.of(scenario, claim, effort, tell)
    found = Audit(scenario.name, claim, len(target.rows))
    if claim and "private" in trainings:
        found = replace(found, **target.bounds(claim))
    kinds: list[Training] = [kind for kind in trainings if kind in target.whole]
    sources = {kind: one for kind in kinds if (one := target.source_of(kind))}
    properties = {kind: one for kind in kinds if (one := target.property_of(kind))}
    return replace(
        found,
        membership={kind: target.members(kind) for kind in kinds},
        inversion={kind: target.rebuilt(kind) for kind in kinds},
        sources=sources,
        properties=properties,
    )
>>>>>>> w-c
