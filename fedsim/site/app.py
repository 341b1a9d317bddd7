"""The Flower ClientApp of a site: the same in the simulator and on a real SuperNode.

The server says what to do in the run config: ``scenario`` (JSON), ``seed``, ``arm``, ``noise-multiplier`` if the
training is to be private, and ``secure-aggregation`` if models are to be masked. Which site this is, the node config
says: ``partition-id``. Under privacy of records a reply holds the noisy model, what was done to make it, and a public
weight; nothing else. Where whole sites are protected from the server too, the site clips and noises its update. Where
the server adds the noise, a reply holds the exact model. Under secure aggregation it holds a masked vector in place of
model and weight., with a share of the noise in it under the unit ``distributed``.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import pandas as pd
import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from torch import Tensor, nn

from fedsim.data.federation import Federation, federate
from fedsim.data.loading import task_of
from fedsim.flower.records import (
    ARRAYS,
    CONFIG,
    MECHANISM,
    METRICS,
    REPORTED,
    ROUND,
    TOLD,
    WEIGHT,
    Flat,
    Layout,
    flatten,
    from_mechanism,
    keep,
    kept_in,
    to_state,
)
from fedsim.flower.secure.shares import share_of, weights_of
from fedsim.flower.secure.site import advertise, asked_in, check_ready, mask, masked, unmask
from fedsim.flower.secure.site import share as share_keys
from fedsim.planning.attack import Attack
from fedsim.planning.misbehaviour import attack_of, attackers_of, slow_of, spoiled_of
from fedsim.planning.whole_sites import noise_words
from fedsim.privacy.ledger import OwnUpdate
from fedsim.privacy.noise_shares import noisy
from fedsim.privacy.own_update import noised
from fedsim.randomness import kind_of, stream
from fedsim.results.evaluation import evaluate as measure
from fedsim.results.metrics import METRICS as MEASURES
from fedsim.scenario import catalog
from fedsim.scenario.schema import Scenario
from fedsim.strategy.contract import WITHOUT_NOISE
from fedsim.strategy.local_rule import CHOSEN, Choosing, Comparing, LocalRule, Parts, State
from fedsim.strategy.make import strategy_of
from fedsim.training.functional import outputs_with
from fedsim.training.losses import RowLosses
from fedsim.training.model import best_device, layers_of, losses_of, new_model, parts_of
from fedsim.training.representation import Revealing, with_term
from fedsim.training.rows_alone import check_rows_are_alone, some_rows
from fedsim.training.steps import train as train_site
from fedsim.training.work import Done, Streams, Work, plan


@dataclass(frozen=True)
class _Setting:
    """What all sites of a run have in common."""

    scenario: Scenario
    federation: Federation
    model: nn.Module
    revealing: Revealing | None
    layout: Layout
    parts: Parts
    losses: RowLosses
    device: str
    rule: LocalRule
    second_rule: LocalRule | None
    reports: tuple[str, ...]
    attack: Attack | None
    attackers: frozenset[int]
    slow: frozenset[int]
    spoiled: frozenset[int]
    classes: int


class SiteApp(ClientApp):
    """A ClientApp whose training can be taken in two halves, so that an engine may train many sites in between."""

    def prepare(self, message: Message, context: Context) -> Work:
        """Return what a train message asks of this site.

        Raises:
            PermissionError: The scenario promises privacy and the server asks for none.
        """
        config = context.run_config
        setting = _setting_of(context)
        noise = float(config["noise-multiplier"]) if "noise-multiplier" in config else None
        if setting.scenario.private and noise is None:
            raise PermissionError("the scenario promises privacy, and no noise was asked for")
        for name in setting.reports:
            if noise is not None and name in WITHOUT_NOISE:
                raise PermissionError(f"the strategy asks for {WITHOUT_NOISE[name]}, which would leave without noise")
        if setting.scenario.secure_aggregation.on:
            _check_masked(config)
            check_ready(message, context)
        own = noise if setting.scenario.privacy.unit == "record" else None
        return self._work(message, context, setting, setting.rule, own)

    def beside(self, message: Message, context: Context, work: Work, done: Done) -> Work | None:
        """Return the second training of this site, where the strategy has one, given the first."""
        setting = _setting_of(context)
        if setting.second_rule is None:
            return None
        noise = work.plan.noise.multiplier if work.plan.noise else None
        path = {f"path-{step}": point for step, point in enumerate((work.start, *done.path))} if work.follow else {}
        return self._work(message, context, setting, setting.second_rule, noise, path)

    def answer(self, message: Message, context: Context, *trained: tuple[Work, Done]) -> Message:
        """Return the reply that sends the first trained model back, and keep what the local rules keep."""
        setting = _setting_of(context)
        work, done = trained[0]
        finished = [one.rule.finish(own.parameters, one.memory, one.plan.steps) for one, own in trained]
        kept = {name: value for _, own in finished for name, value in own.items()}
        sent, did = finished[0][0], None
        if setting.scenario.privacy.unit == "local":
            sent, did = self._noised(message, context, setting, sent)
        if setting.scenario.secure_aggregation.on:
            content, metrics = _masked(message, context, setting, sent), MetricRecord()
        else:
            content = RecordDict({ARRAYS: Flat(sent, setting.layout)})
            content[METRICS] = metrics = _weight(work.plan.expected_batch).copy()
        if did:
            content[MECHANISM] = from_mechanism(did)
        if "steps" in setting.reports:
            metrics[REPORTED["steps"]] = work.plan.steps
        if "loss" in setting.reports:
            metrics[REPORTED["loss"]] = _mean_loss(work, work.start)
        if work.chosen is not None:
            metrics[REPORTED["cluster"]] = work.chosen
            kept[CHOSEN] = torch.tensor([float(work.chosen)])
        if done.mechanism:
            steps = sum(own.mechanism.steps for _, own in trained if own.mechanism)
            content[MECHANISM] = from_mechanism(replace(done.mechanism, steps=steps))
        keep(context, kept)
        return Message(content, reply_to=message)

    def _noised(self, message: Message, context: Context, setting: _Setting, sent: Tensor) -> tuple[Tensor, OwnUpdate]:
        """Return what may leave in place of an update, and what was done to it."""
        config, scenario = context.run_config, setting.scenario
        name = setting.federation.names[int(context.node_config["partition-id"])]
        number = int(message.content[CONFIG][ROUND])  # type: ignore[arg-type]
        place = (str(config["arm"]), name, number)
        words = noise_words(scenario, int(config["seed"]), "noise on an update", *place)
        did = OwnUpdate(float(config["noise-multiplier"]), scenario.privacy.clip, kind_of(words))
        return noised(_start(message, setting), sent, did, words), did

    def measure(self, messages: Sequence[Message], contexts: Sequence[Context]) -> list[Message]:
        """Return each site's measures of the model that came, on its validation rows; sites share forward passes.

        Raises:
            PermissionError: Training is private here, and these figures would leave without noise.
        """
        config = contexts[0].run_config
        if "noise-multiplier" in config:
            raise PermissionError("metrics of a site would be a release without noise")
        setting = _setting_of(contexts[0])
        if setting.scenario.secure_aggregation.on:
            raise PermissionError("metrics of a site would be seen beside the sum")
        sites = [setting.federation.sites[int(context.node_config["partition-id"])] for context in contexts]
        starts = [_start(message, setting) for message in messages]
        models = {id(start): parts_of(setting.model, start) for start in starts}
        of_sites = {site.name: models[id(start)] for site, start in zip(sites, starts, strict=True)}
        task, together = task_of(setting.scenario), Federation(tuple(sites))
        table = measure(setting.model, of_sites, together, "validation", task.kind, True, task.range)
        names = [metric.name for metric in MEASURES[task.kind]]
        replies = []
        for site, message, found in zip(sites, messages, table[names].to_dict("records"), strict=False):
            figures = {str(name): float(value) for name, value in found.items() if pd.notna(value)}
            metrics = MetricRecord({WEIGHT: max(1, len(site.validation)), **figures})
            replies.append(Message(RecordDict({METRICS: metrics}), reply_to=message))
        return replies

    def _work(
        self,
        message: Message,
        context: Context,
        setting: _Setting,
        rule: LocalRule,
        noise: float | None,
        path: State | None = None,
    ) -> Work:
        """Return a site's task; one beside the first, given its path, has batches and noise of its own."""
        site = setting.federation.sites[int(context.node_config["partition-id"])]
        seed, arm = int(context.run_config["seed"]), str(context.run_config["arm"])
        number = int(message.content[CONFIG][ROUND])  # type: ignore[arg-type]
        told = message.content.get(TOLD)
        state = to_state(told) if isinstance(told, ArrayRecord) else {}
        known = kept_in(context) | {name: one.to(setting.device) for name, one in state.items()} | (path or {})
        todo = plan(setting.scenario, setting.scenario.expected_batch(site.name), noise)
        if site.number in setting.slow:
            todo = replace(todo, steps=min(todo.steps, setting.scenario.faults.straggler_steps))
        rows = site.train
        if setting.attack and setting.attack.poisons() and site.number in setting.attackers:
            rows = setting.attack.poison(rows, setting.classes, stream(seed, "poison", site.name))
        name = site.name if path is None else f"{site.name}\0beside"
        streams = Streams.of(setting.scenario, seed, arm, name, number)
        came = _start(message, setting)
        work = Work(setting.model, came, rows, todo, streams, setting.losses, rule)
        if isinstance(rule, Choosing):
            best = _best(work, rule.candidates(known))
            work, known = replace(work, chosen=best), known | {CHOSEN: torch.tensor([float(best)])}
        start, memory = rule.begin(came, known, setting.parts)
        follow = path is None and setting.second_rule is not None and setting.second_rule.follows
        work = replace(work, start=start, memory=memory, follow=follow)
        return with_term(work, setting.revealing) if setting.revealing else work


app = SiteApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    """Train the model that came and send it back."""
    work = app.prepare(message, context)
    trained = [(work, train_site(work))]
    if beside := app.beside(message, context, *trained[0]):
        trained.append((beside, train_site(beside)))
    return app.answer(message, context, *trained)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Measure the model that came on this site's validation rows."""
    return app.measure([message], [context])[0]


@app.query("keys")
def advertise_keys(message: Message, context: Context) -> Message:
    """Answer with this site's public keys for a round."""
    scenario = _setting_of(context).scenario
    if not scenario.secure_aggregation.on:
        raise PermissionError("the scenario has no secure aggregation")
    return advertise(message, context, scenario.secure_aggregation)


@app.query("shares")
def share_secrets(message: Message, context: Context) -> Message:
    """Answer with shares of this site's secrets for the others."""
    return share_keys(message, context)


@app.query("unmask")
def unmask_sum(message: Message, context: Context) -> Message:
    """Answer with this site's shares of what is still on the sum."""
    return unmask(message, context)


def _check_masked(config: Mapping[str, Any]) -> None:
    if "secure-aggregation" not in config:
        raise PermissionError("the scenario promises secure aggregation, and no masks were asked for")


def _masked(message: Message, context: Context, setting: _Setting, sent: Tensor) -> RecordDict:
    """Return what training changed, weighted, under masks; with a share of the noise where the sites add it."""
    scenario, config = setting.scenario, context.run_config
    site = setting.federation.sites[int(context.node_config["partition-id"])]
    change = sent.double() - _start(message, setting).double()  # (params,)
    if site.number in setting.spoiled:
        change = change * math.nan
    if scenario.privacy.unit != "distributed":
        weight = scenario.expected_batch(site.name)
        return mask(message, context, scenario.secure_aggregation, change.cpu().numpy(), weight)
    share = share_of(scenario, float(config["noise-multiplier"]), len(change), asked_in(message, context))
    number = int(message.content[CONFIG][ROUND])  # type: ignore[arg-type]
    place = str(config["arm"]), site.name, number
    weight = weights_of(scenario, setting.federation.names)[site.name]
    words = noise_words(scenario, int(config["seed"]), "share of the noise", *place)
    values = noisy(change, weight, share, words)
    content = masked(message, context, share.grid.write(values, weight))
    content[MECHANISM] = from_mechanism(replace(share, rng=kind_of(words)))
    return content


def _mean_loss(work: Work, model: Tensor) -> float:
    """Return the mean loss of a model (params,) on the site's training rows; 0 if it has none."""
    if not len(work.examples):
        return 0.0
    with torch.no_grad():
        outputs = outputs_with(work.model.eval(), parts_of(work.model, model), work.examples.inputs)
        return float(work.losses(outputs, work.examples.target).mean())


def _setting_of(context: Context) -> _Setting:
    config = context.run_config
    return _setting(str(config["scenario"]), int(config["seed"]), str(config.get("strategy-code", "")))


def _best(work: Work, models: Sequence[Tensor]) -> int:
    """Return the number of the model with the least loss on the site's training rows, the first of equals."""
    losses = [_mean_loss(work, model) for model in models]
    return min(range(len(losses)), key=lambda number: (math.isnan(losses[number]), losses[number]))


@lru_cache(maxsize=4)
def _setting(text: str, seed: int, code: str) -> _Setting:
    """Return what all sites have in common; with other code of the strategy it is something else.

    Raises:
        PermissionError: The site's copy of the strategy is not the server's: their releases might share noise.
    """
    scenario = Scenario.model_validate_json(text)
    if code and code != (own := catalog.code_hash(scenario.strategy.name)):
        raise PermissionError(f"expected the server's strategy {scenario.strategy.name}, SHA-256 {code}, got {own}")
    device = best_device(scenario.device)
    federation = federate(scenario, seed, device)
    model = new_model(scenario, federation.sites[0], seed, device)
    if scenario.privacy.unit == "record":
        check_rows_are_alone(model, federation.sites[0].train)
    strategy, sites = strategy_of(scenario, len(federation.sites)), federation.sites
    rule, rows = strategy.local_rule(), some_rows(sites[0].train)
    with torch.no_grad():
        outputs = model(rows)  # (4, outputs)
    return _Setting(
        scenario=scenario,
        federation=federation,
        model=model,
        revealing=Revealing(model, rows) if isinstance(rule, Comparing) else None,
        layout=Layout.of(model),
        parts=layers_of(model),
        losses=losses_of(scenario),
        device=device,
        rule=rule,
        second_rule=strategy.second_rule(),
        reports=strategy.reports,
        attack=attack_of(scenario),
        attackers=attackers_of(scenario, seed, federation.names),
        slow=slow_of(scenario, seed, len(sites)),
        spoiled=spoiled_of(scenario, seed, len(sites)),
        classes=max(2, outputs.shape[1]),
    )


def _start(message: Message, setting: _Setting) -> Tensor:
    """Return the parameters that came, in the order of the model's.

    Raises:
        ValueError: They are not the model's.
    """
    arrays = message.content[ARRAYS]
    if not isinstance(arrays, ArrayRecord):
        raise ValueError(f"expected an ArrayRecord, got {type(arrays).__name__}")
    if not isinstance(arrays, Flat) or arrays.layout is not setting.layout:
        got = {name: tuple(array.shape) for name, array in arrays.items()}
        if Layout.made(got) != setting.layout:
            raise ValueError(f"expected the parameters {setting.layout.shapes}, got {got}")
    return flatten(arrays).to(setting.device)


@lru_cache(maxsize=256)
def _weight(expected_batch: float) -> MetricRecord:
    return MetricRecord({WEIGHT: expected_batch})
