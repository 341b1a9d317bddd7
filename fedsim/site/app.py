"""The Flower ClientApp of a site: the same in the simulator and on a real SuperNode.

The server says what to do in the run config: ``scenario`` (JSON), ``seed``, ``arm``, ``noise-multiplier`` if the
training is to be private, and ``secure-aggregation`` if models are to be masked. Which site this is, the node config
says: ``partition-id``. Under privacy of records a reply holds the noisy model, what was done to make it, and a public
weight; nothing else. Where whole sites are protected from the server too, the site clips and noises its update. Where
the server adds the noise, a reply holds the exact model. Under secure aggregation it holds a masked vector in place of
model and weight, with a share of the noise in it under the unit ``distributed``.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any, Literal

import pandas as pd
import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from torch import Tensor, nn

from fedsim.data.federation import Examples, Federation
from fedsim.data.real_sites import OwnRows
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
from fedsim.flower.secure.shares import weights_of
from fedsim.flower.secure.site import advertise, asked_in, check_ready, mask, masked, unmask
from fedsim.flower.secure.site import share as share_keys
from fedsim.outcomes import outcome_of
from fedsim.planning.noise import asked_of_site
from fedsim.planning.trial import Trial
from fedsim.planning.whole_sites import noise_words
from fedsim.privacy.ledger import Mechanism, Release
from fedsim.privacy.noise_shares import NoiseShare
from fedsim.privacy.unit import Place
from fedsim.randomness import kind_of, stream
from fedsim.results.evaluation import evaluate as measure
from fedsim.site.setting import Setting
from fedsim.strategy.contract import WITHOUT_NOISE
from fedsim.strategy.local_rule import CHOSEN, Choosing, LocalRule, State
from fedsim.training.functional import outputs_with
from fedsim.training.losses import RowLosses
from fedsim.training.model import parts_of
from fedsim.training.representation import with_term
from fedsim.training.steps import train as train_site
from fedsim.training.work import Done, Work, plan


class SiteApp(ClientApp):
    """A ClientApp whose training can be taken in two halves, so that an engine may train many sites in between.

    It remembers the training that it was told of last: all messages of one training tell the same.

    Args:
        own: The rows of the site, where it is a real one and no other site's rows are here.
    """

    def __init__(self, own: OwnRows | None = None) -> None:
        super().__init__()
        self._own = own
        self._told: tuple[Any, ...] | None = None
        self._setting: Setting | None = None
        self.train()(self._train)
        self.evaluate()(self._evaluate)
        self.query("keys")(self._advertise_keys)
        self.query("shares")(share_keys)
        self.query("unmask")(unmask)

    def setting(self, context: Context) -> Setting:
        """Return what a site knows of the training that its server tells of.

        Raises:
            PermissionError: The site's copy of the strategy is not the server's.
        """
        config = context.run_config
        told = tuple(config.get(key) for key in ("scenario", "seed", "arm", "strategy-code"))
        if self._setting is None or told != self._told:
            self._setting = Setting.told(config, self._own)
            self._told = told
        return self._setting

    def prepare(self, message: Message, context: Context) -> Work:
        """Return what a train message asks of this site.

        Raises:
            PermissionError: The scenario promises privacy and the server asks for none.
        """
        config = context.run_config
        setting = self.setting(context)
        scenario = setting.trial.scenario
        noise = float(config["noise-multiplier"]) if "noise-multiplier" in config else None
        if setting.private and noise is None:
            raise PermissionError("the scenario promises privacy, and no noise was asked for")
        for name in setting.reports:
            if noise is not None and name in WITHOUT_NOISE:
                raise PermissionError(f"the strategy asks for {WITHOUT_NOISE[name]}, which would leave without noise")
        if scenario.secure_aggregation.on:
            _check_masked(config)
            check_ready(message, context)
        noise_in_steps = noise if setting.trial.unit.place is Place.IN_STEPS else None
        number = _number_of_round(message)
        return self._work(message, context, setting, setting.rule_in(number), number, noise_in_steps)

    def beside(self, message: Message, context: Context, work: Work, done: Done) -> Work | None:
        """Return the second training of this site, where the strategy has one, given the first."""
        setting = self.setting(context)
        number = _number_of_round(message)
        rule = setting.second_rule_in(number)
        if rule is None:
            return None
        noise = work.plan.noise.multiplier if work.plan.noise else None
        path = {f"path-{step}": point for step, point in enumerate((work.start, *done.path))} if work.follow else {}
        return self._work(message, context, setting, rule, number, noise, path)

    def answer(self, message: Message, context: Context, *trained: tuple[Work, Done]) -> Message:
        """Return the reply that sends the first trained model back, and keep what the local rules keep."""
        setting = self.setting(context)
        scenario = setting.trial.scenario
        work, done = trained[0]
        finished = [one.rule.finish(own.parameters, one.memory, one.plan.steps) for one, own in trained]
        kept = {name: value for _, own in finished for name, value in own.items()}
        sent = finished[0][0]
        did = None
        if setting.trial.unit.place is Place.ON_UPDATES:
            sent, did = self._noised(message, context, setting, work, sent)

        if scenario.secure_aggregation.on:
            content = _masked(message, context, setting, work, sent)
            metrics = MetricRecord()
        else:
            content = RecordDict({ARRAYS: Flat(sent, setting.layout)})
            metrics = _weight(work.plan.expected_batch).copy()
            content[METRICS] = metrics
        if did:
            content[MECHANISM] = from_mechanism(did)
        if "steps" in setting.reports:
            metrics[REPORTED["steps"]] = work.plan.steps
        if "loss" in setting.reports:
            metrics[REPORTED["loss"]] = _mean_loss(work.model, work.losses, work.examples, work.start)
        if work.chosen is not None:
            metrics[REPORTED["cluster"]] = work.chosen
            kept[CHOSEN] = torch.tensor([float(work.chosen)])
        if done.mechanism:
            content[MECHANISM] = from_mechanism(_all_steps(done.mechanism, trained[1:]))
        keep(context, kept)
        return Message(content, reply_to=message)

    def _noised(
        self, message: Message, context: Context, setting: Setting, work: Work, sent: Tensor
    ) -> tuple[Tensor, Release]:
        """Return what may leave in place of an update, and what was done to it."""
        trial = setting.trial
        name = trial.names[_number_of_site(context)]
        place = (trial.arm, name, _number_of_round(message))
        words = noise_words(trial.scenario, trial.seed, "noise on an update", *place)
        multiplier = float(context.run_config["noise-multiplier"])
        asked = asked_of_site(
            trial.scenario, work.plan, work.plan.steps, multiplier, params=len(sent), rng=kind_of(words)
        )
        did = trial.unit.release(asked)
        return trial.unit.noised(_start(message, setting), sent, did, words), did

    def measure(self, messages: Sequence[Message], contexts: Sequence[Context]) -> list[Message]:
        """Return each site's measures of the model that came; sites share forward passes.

        They are measured on validation rows, or on test rows where the config says ``part = "test"``.

        Raises:
            PermissionError: Training is private here, and these figures would leave without noise.
        """
        config = contexts[0].run_config
        if "noise-multiplier" in config:
            raise PermissionError("metrics of a site would be a release without noise")
        setting = self.setting(contexts[0])
        trial = setting.trial
        if trial.scenario.secure_aggregation.on:
            raise PermissionError("metrics of a site would be seen beside the sum")

        part = _part(messages[0])
        sites = [setting.site(_number_of_site(context)) for context in contexts]
        starts = [_start(message, setting) for message in messages]
        models = {id(start): parts_of(trial.model, start) for start in starts}  # many sites were sent the same one
        of_sites = {site.name: models[id(start)] for site, start in zip(sites, starts, strict=True)}
        task = trial.task
        table = measure(trial.model, of_sites, Federation(tuple(sites)), part, task.kind, True, task.range)

        names = [metric.name for metric in outcome_of(task.kind).metrics]
        replies = []
        for site, message, found in zip(sites, messages, table[names].to_dict("records"), strict=False):
            figures = {str(name): float(value) for name, value in found.items() if pd.notna(value)}
            metrics = MetricRecord({WEIGHT: max(1, len(getattr(site, part))), **figures})
            replies.append(Message(RecordDict({METRICS: metrics}), reply_to=message))
        return replies

    def _work(
        self,
        message: Message,
        context: Context,
        setting: Setting,
        rule: LocalRule,
        number: int,
        noise: float | None,
        path: State | None = None,
    ) -> Work:
        """Return a site's task in a round; one beside the first, given its path, has batches and noise of its own."""
        trial = setting.trial
        site = setting.site(_number_of_site(context))
        told = message.content.get(TOLD)
        state = to_state(told) if isinstance(told, ArrayRecord) else {}
        told_here = {name: value.to(trial.device) for name, value in state.items()}
        known = kept_in(context) | told_here | (path or {})

        todo = plan(trial.scenario, trial.scenario.expected_batch(site.name), noise, number)
        if site.number in setting.slow:
            todo = replace(todo, steps=min(todo.steps, trial.scenario.faults.straggler_steps))
        rows = site.train
        if setting.attack and setting.attack.poisons() and site.number in setting.attackers:
            rows = setting.attack.poison(rows, setting.classes, stream(trial.seed, "poison", site.name))

        name = site.name if path is None else f"{site.name}\0beside"
        streams = trial.streams(name, number)
        came = _start(message, setting)
        best = None
        if isinstance(rule, Choosing):
            best = _best(trial, rows, rule.candidates(known))
            known = known | {CHOSEN: torch.tensor([float(best)])}
        start, memory = rule.begin(came, known, setting.parts)
        follow = path is None and setting.second_rule is not None and setting.second_rule.follows
        work = Work(trial.model, start, rows, todo, streams, trial.losses, rule, memory, follow, best)
        return with_term(work, setting.revealing) if setting.revealing else work

    def _train(self, message: Message, context: Context) -> Message:
        """Train the model that came and send it back."""
        work = self.prepare(message, context)
        trained = [(work, train_site(work))]
        if beside := self.beside(message, context, *trained[0]):
            trained.append((beside, train_site(beside)))
        return self.answer(message, context, *trained)

    def _evaluate(self, message: Message, context: Context) -> Message:
        """Measure the model that came on rows of this site."""
        return self.measure([message], [context])[0]

    def _advertise_keys(self, message: Message, context: Context) -> Message:
        """Answer with this site's public keys for a round."""
        secure = self.setting(context).trial.scenario.secure_aggregation
        if not secure.on:
            raise PermissionError("the scenario has no secure aggregation")
        return advertise(message, context, secure)


def _all_steps(mechanism: Mechanism, others: Sequence[tuple[Work, Done]]) -> Mechanism:
    """Return the mechanism of a site's first training with the steps of its other ones, too."""
    if not others:
        return mechanism
    steps = sum(done.mechanism.steps for _, done in others if done.mechanism)
    return replace(mechanism, steps=mechanism.steps + steps)


def _check_masked(config: Mapping[str, Any]) -> None:
    if "secure-aggregation" not in config:
        raise PermissionError("the scenario promises secure aggregation, and no masks were asked for")


def _masked(message: Message, context: Context, setting: Setting, work: Work, sent: Tensor) -> RecordDict:
    """Return what training changed, weighted, under masks; with a share of the noise where the sites add it."""
    trial = setting.trial
    scenario = trial.scenario
    site = setting.site(_number_of_site(context))
    change = sent.double() - _start(message, setting).double()  # (params,)
    if site.number in setting.spoiled:
        change = change * math.nan
    if trial.unit.place is not Place.IN_SHARES:
        weight = scenario.expected_batch(site.name)
        return mask(message, context, scenario.secure_aggregation, change.cpu().numpy(), weight)

    multiplier = float(context.run_config["noise-multiplier"])
    weight = weights_of(scenario, trial.names)[site.name]
    place = (trial.arm, site.name, _number_of_round(message))
    words = noise_words(scenario, trial.seed, "share of the noise", *place)
    sites = asked_in(message, context)
    asked = asked_of_site(scenario, work.plan, work.plan.steps, multiplier, len(change), sites, rng=kind_of(words))
    share = trial.unit.release(asked)
    if not isinstance(share, NoiseShare):
        raise TypeError(f"expected a share of the noise, got a {type(share).__name__}")

    values = trial.unit.noisy_share(change, weight, share, words)
    content = masked(message, context, share.grid.write(values, weight))
    content[MECHANISM] = from_mechanism(share)
    return content


def _number_of_site(context: Context) -> int:
    return int(context.node_config["partition-id"])


def _part(message: Message) -> Literal["validation", "test"]:
    """Return the rows that a model is to be measured on."""
    config = message.content.get(CONFIG)
    asked = config.get("part", "validation") if isinstance(config, ConfigRecord) else "validation"
    if asked not in ("validation", "test"):
        raise ValueError(f"part: expected validation or test, got {asked!r}")
    return "test" if asked == "test" else "validation"


def _number_of_round(message: Message) -> int:
    return int(message.content[CONFIG][ROUND])  # type: ignore[arg-type]


def _mean_loss(model: nn.Module, losses: RowLosses, rows: Examples, parameters: Tensor) -> float:
    """Return the mean loss of a model with these parameters (params,) on a site's training rows; 0 if it has none."""
    if not len(rows):
        return 0.0
    with torch.no_grad():
        outputs = outputs_with(model.eval(), parts_of(model, parameters), rows.inputs)
        return float(losses(outputs, rows.target).mean())


def _best(trial: Trial, rows: Examples, models: Sequence[Tensor]) -> int:
    """Return the number of the model with the least loss on the site's training rows, the first of equals."""
    means = [_mean_loss(trial.model, trial.losses, rows, model) for model in models]
    return min(range(len(means)), key=lambda number: (math.isnan(means[number]), means[number]))


def _start(message: Message, setting: Setting) -> Tensor:
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
    return flatten(arrays).to(setting.trial.device)


@lru_cache(maxsize=256)
def _weight(expected_batch: float) -> MetricRecord:
    return MetricRecord({WEIGHT: expected_batch})


app = SiteApp()
