"""The ClientApp of a real site: its own rows, its own policy, its own ledger.

A SuperNode of Flower's runs it, with the site's name and files in its node config::

    flower-supernode --node-config 'site="cleveland" data="/srv/heart/rows.csv"' ...

``policy`` and ``state`` say where the site's policy and the folder of its ledger are; by default ``site-policy.toml``
and ``fedsim-ledger`` beside the data. Each message says all that it asks for, and is held against policy and ledger
before a row is read. What is refused is refused in a line that reaches the server; of what fails the server is told the
kind only.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp

from fedsim.data.real_sites import OwnRows
from fedsim.flower.grid import CLIENT_APP_RAISED, node_of
from fedsim.flower.packed import pack
from fedsim.flower.real_grid import SITE, TRAINING, WHO
from fedsim.flower.records import CONFIG, MECHANISM, ROUND, to_mechanism
from fedsim.flower.trees import tree_of
from fedsim.mistakes import Mistake, text_of
from fedsim.planning.deployment import deployment_faults
from fedsim.planning.trial import Trial
from fedsim.privacy.ledger import Release
from fedsim.privacy.unit import Place
from fedsim.results.digests import sha256
from fedsim.scenario import catalog
from fedsim.scenario.schema import Scenario
from fedsim.site import own_ledger, policy
from fedsim.site.app import SiteApp
from fedsim.site.own_ledger import EXACT, FIGURES, Entry, OwnLedger, Question
from fedsim.site.policy import Policy, Refused, faults_of, read_policy
from fedsim.training.work import plan

_log = logging.getLogger("fedsim")

LEDGER_FOLDER = "fedsim-ledger"
"""The folder of a site's ledger beside its data, unless the node config says ``state``."""

_LARGEST_NUMBER = 1e6
"""The largest size of a parameter, or of a number of a vector that a server tells."""

app = ClientApp()


@dataclass(frozen=True)
class Files:
    """A site's name and files, by its node config."""

    site: str
    data: Path
    policy: Path
    state: Path

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> "Files":
        """Read a node config.

        Raises:
            Mistake: It lacks something.
        """
        missing = [key for key in ("site", "data") if not isinstance(config.get(key), str) or not config[key]]
        if missing:
            raise Mistake("\n".join(f'node config: expected {key}="...", got none' for key in missing))
        data = Path(str(config["data"]))
        own_policy = Path(str(config.get("policy") or data.with_name(policy.NAME)))
        state = Path(str(config.get("state") or data.with_name(LEDGER_FOLDER)))
        return cls(str(config["site"]), data, own_policy, state)


@app.query(WHO)
def say_who(message: Message, context: Context) -> Message:
    """Say which site this is."""
    config = context.node_config
    return Message(RecordDict({SITE: ConfigRecord({SITE: str(config.get("site", ""))})}), reply_to=message)


@app.train()
def train(message: Message, context: Context) -> Message:
    """Train the model that came, if policy and budget allow it."""
    return guarded(message, context, "train")


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Measure the model that came on the site's own rows, if the policy allows it."""
    return guarded(message, context, "evaluate")


def guarded(message: Message, context: Context, what: str) -> Message:
    """Answer a message; say in an error reply that it is not answered, and nothing of the site's rows."""
    try:
        files = Files.of(context.node_config)
        content = _answer(message, context, files, what)
    except Refused as refusal:
        _log.warning("refused: %s", refusal)
        reason = f"refused by the site: {text_of(refusal)}"
    except Exception:
        _log.exception("a message of the server was not answered")
        reason = "the site could not answer, its log says why"  # even the kind of an error may hang on a row
    else:
        return Message(content, reply_to=message)
    return Message(Error(code=CLIENT_APP_RAISED, reason=reason), reply_to=message)


def _answer(message: Message, context: Context, files: Files, what: str) -> RecordDict:
    """Return what may leave in answer to a message.

    Nothing is read of the rows until all is checked and charged.

    Raises:
        Refused: The policy, the budget or what was answered before does not allow it.
    """
    torch.set_num_threads(1)  # the number of threads changes the order of sums, so the last bits
    told = message.content.get(TRAINING)
    if not isinstance(told, ConfigRecord):
        raise Refused(f"expected a record {TRAINING!r} with what is asked for, got none")
    question = _question(message, told, what)
    with own_ledger.opened(files.state, files.site) as ledger:
        before = ledger.answer(question)
        if before is not None:
            return before
        scenario = _scenario(told, files.site)
        allowed = read_policy(files.policy)
        noise = float(told["noise-multiplier"]) if "noise-multiplier" in told else None  # type: ignore[arg-type]
        _check(allowed, scenario, noise, what)
        _check_vectors(message.content)

        inside = _inside(context, scenario, files.site, told, ledger.memory(question.training))
        trial = SiteApp().setting(inside).trial  # as the server knows it: without any row
        planned = _planned(trial, files.site, noise) if what == "train" else None
        _charge(ledger, question, allowed, trial, planned)

        try:
            reply = SiteApp(OwnRows(files.site, files.data))(message, inside)
            _check_done(reply.content, planned)
        except Exception:
            ledger.keep(question, None, ledger.memory(question.training))
            raise
        ledger.keep(question, reply.content, inside.state)
        return reply.content


def _question(message: Message, told: ConfigRecord, what: str) -> Question:
    config = message.content.get(CONFIG)
    number = config.get(ROUND) if isinstance(config, ConfigRecord) else None
    if type(number) is not int or number < 1:
        raise Refused("expected the number of a round")
    terms = sha256(pack({"terms": tree_of(RecordDict({TRAINING: told}))}))
    digest = sha256(pack({"what": what, "content": tree_of(message.content)}))
    try:
        return Question(str(told.get("training", "")), number, what, terms, digest)
    except Mistake as mistake:
        raise Refused(str(mistake)) from None


def _check_vectors(content: RecordDict) -> None:
    """Make sure that models and vectors that came are numbers of a usual size.

    With others a server could let a site's work fail, or its numbers overflow, by what its rows are.

    Raises:
        Refused: They are not.
    """
    for name, record in content.items():
        if isinstance(record, ArrayRecord):
            for array in record.values():
                values = array.numpy()
                if values.dtype.kind != "f" or not (np.abs(values) <= _LARGEST_NUMBER).all():
                    raise Refused(f"{name}: expected numbers from -{_LARGEST_NUMBER:g} to {_LARGEST_NUMBER:g}")


def _scenario(told: ConfigRecord, site: str) -> Scenario:
    """Read the scenario that a server tells of.

    Raises:
        Refused: Real sites can't train it, or this one is not in it.
    """
    try:
        scenario = Scenario.model_validate_json(str(told.get("scenario", "")))
        faults = list(deployment_faults(scenario))
    except ValueError as error:
        raise Refused(f"expected a scenario, got something else: {type(error).__name__}") from None
    if site not in scenario.deployment.sites:
        faults.append(f"deployment.sites: expected {site} among them")
    if told.get("arm") != "federated":
        faults.append("arm: expected 'federated'")
    if faults:
        raise Refused("; ".join(faults))
    return scenario


def _check(allowed: Policy, scenario: Scenario, noise: float | None, what: str) -> None:
    """Hold what is asked for against the policy.

    Raises:
        Refused: It is not allowed; all faults at once.
    """
    faults = list(faults_of(allowed, scenario, noise))
    if what == "evaluate":
        if scenario.private:
            faults.append("exact figures beside a private training would be a release without noise")
        if not allowed.evaluation:
            faults.append("exact figures on the site's rows are not allowed: evaluation = false")
    if faults:
        raise Refused("; ".join(faults))
    if catalog.is_code(scenario.strategy.name):
        catalog.allow(scenario.strategy.name)  # the policy names it


def _inside(context: Context, scenario: Scenario, site: str, told: ConfigRecord, memory: RecordDict) -> Context:
    """Return the context that the site's part of a training runs in: as in a simulation, with the site's own memory."""
    number = scenario.deployment.sites.index(site)
    return Context(
        run_id=context.run_id,
        node_id=node_of(number),
        node_config={"partition-id": number, "num-partitions": len(scenario.deployment.sites)},
        state=memory,
        run_config=dict(told),  # type: ignore[arg-type]  the record holds texts and numbers
    )


def _planned(trial: Trial, site: str, noise: float | None) -> Release | None:
    """Return the release that a site's training will be; None where the site adds no noise."""
    if noise is None or trial.unit.place not in (Place.IN_STEPS, Place.ON_UPDATES):
        return None
    in_steps = noise if trial.unit.place is Place.IN_STEPS else None
    todo = plan(trial.scenario, trial.scenario.expected_batch(site), in_steps)
    return trial.unit.release(trial.asked(todo, noise))


def _charge(ledger: OwnLedger, question: Question, allowed: Policy, trial: Trial, planned: Release | None) -> None:
    """Write down what is about to leave, unless it was written down for this very message and has not left.

    Raises:
        Refused: The round was charged for another message, or the budget does not allow it.
    """
    own = [entry for entry in ledger.entries if entry.question.training == question.training]
    if own and own[0].question.terms != question.terms:
        raise Refused("expected the scenario, seed and noise with which this training began")
    charged = ledger.charged(question.training, question.round, question.what)
    if charged and charged.question != question:
        raise Refused(f"round {question.round} of this training was asked for before, on {charged.at}, otherwise: a "
                      "round is answered once")  # fmt: skip
    if charged and own[-1].question != question:
        raise Refused(f"round {question.round} of this training was answered on {charged.at}, and later ones since")
    if charged:
        return

    _check_counts(ledger, allowed, question, len(own))
    relation = trial.scenario.privacy.relation
    if planned is not None:
        times = 1 if own else trial.most_rounds  # a training that can't be ended within the budget is not begun
        after = ledger.epsilon(allowed.delta, allowed.relation, planned, times, relation)
        if not after <= allowed.epsilon:
            spent = ledger.epsilon(allowed.delta, allowed.relation)
            rounds = "one round more" if own else f"its {times} rounds"
            raise Refused(f"{rounds} would take this site's epsilon to {after:.4g}, at delta {allowed.delta:g}, where "
                          f"{allowed.epsilon:g} is allowed and {spent:.4g} spent")  # fmt: skip
    kind = planned.kind if planned else EXACT if question.what == "train" else FIGURES
    relation = relation if planned else None
    ledger.charge(Entry(own_ledger.now(), question, trial.scenario.title, relation, planned, kind))


def _check_counts(ledger: OwnLedger, allowed: Policy, question: Question, entries: int) -> None:
    """Hold the number of trainings and of rounds against the policy.

    Raises:
        Refused: It is too large.
    """
    trainings = {entry.question.training for entry in ledger.entries} | {question.training}
    if len(trainings) > allowed.most_trainings:
        raise Refused(f"expected at most the {allowed.most_trainings} trainings that are allowed")
    if entries >= 2 * allowed.most_rounds:  # each round with a training and with figures
        raise Refused(f"expected at most the {allowed.most_rounds} rounds that are allowed")


def _check_done(content: RecordDict, planned: Release | None) -> None:
    """Make sure that what was charged is what was done, before it leaves.

    Raises:
        RuntimeError: It is not.
    """
    if planned is None:
        return
    record = content.get(MECHANISM)
    done = to_mechanism(record, type(planned)) if isinstance(record, ConfigRecord) else None
    if done != planned:
        raise RuntimeError("what was done is not what was charged")
