"""Sites that attack or fail, around an engine that trains them all honestly.

Who attacks or fails follows from the scenario's seed by name. What changes a site's rows happens inside the site
(``fedsim/site/app.py``); what changes its answer happens here, between the engine and the server, where the attackers'
models can be seen together.
"""

import math
from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
import torch
from flwr.app import Context, Error, Message, MessageType

from fedsim.data.loading import task_of
from fedsim.flower.grid import FIRST_NODE, Execute
from fedsim.flower.records import ARRAYS, CONFIG, ROUND, STAGES, flatten, unflatten
from fedsim.mistakes import Mistake
from fedsim.outcomes import outcome_of
from fedsim.planning.attack import Attack
from fedsim.randomness import stream
from fedsim.scenario import catalog
from fedsim.scenario.schema import Scenario
from fedsim.strategy.make import make

_GONE = 0  # flwr.common.constant.ErrorCode.UNKNOWN

_LABELLED = ("binary", "classes")  # kinds whose rows have a class that an attack can change


def attack_class(scenario: Scenario) -> type[Attack] | None:
    """Return the class of the scenario's attack, or None.

    Raises:
        Mistake: There is no such attack, or its class has no base class.
    """
    name = scenario.attack.name
    if name == "none":
        return None
    kind = catalog.load("attacks", name)
    if not issubclass(kind, Attack):
        raise Mistake(
            f"attack.name: expected an attack with a base class, got {name}; "
            f"write class {kind.__name__}(Attack), with from fedsim.planning.attack import Attack"
        )
    return kind


def attack_of(scenario: Scenario) -> Attack | None:
    """Make the scenario's attack, or return None.

    Raises:
        Mistake: It has no such parameter, or refuses a value, or needs classes that the task does not have.
    """
    kind = attack_class(scenario)
    if kind is None:
        return None
    name = scenario.attack.name
    if kind.poisons() and task_of(scenario).kind not in _LABELLED:
        words = outcome_of(task_of(scenario).kind).in_words
        raise Mistake(
            f"attack.name: expected one that forges with a task whose outcome is {words}, "
            f"got {name}, which changes classes"
        )
    return make(kind, name, scenario.attack.model_extra or {}, section="attack")


def attackers_of(scenario: Scenario, seed: int, names: Sequence[str]) -> frozenset[int]:
    """Return the numbers of the sites that attack: those named, or a share of all, rounded to whole sites.

    Raises:
        Mistake: There is no site of a name.
    """
    attack = scenario.attack
    if attack.name == "none":
        return frozenset()
    if attack.sites is None:
        return some_of(seed, "attackers", len(names), attack.share or 0.0)

    for site in attack.sites:
        if site not in names:
            hint = catalog.nearest(site, names[:1000])
            raise Mistake(f"attack.sites: expected sites of this federation, got {site!r}{hint}")
    return frozenset(names.index(site) for site in attack.sites)


def slow_of(scenario: Scenario, seed: int, sites: int) -> frozenset[int]:
    """Return the numbers of the stragglers, who take ``faults.straggler_steps`` steps in a round."""
    return some_of(seed, "stragglers", sites, scenario.faults.straggler)


def spoiled_of(scenario: Scenario, seed: int, sites: int) -> frozenset[int]:
    """Return the numbers of the sites whose models are NaN."""
    return some_of(seed, "spoiled", sites, scenario.faults.spoiled)


@lru_cache(maxsize=64)
def some_of(seed: int, purpose: str, sites: int, share: float) -> frozenset[int]:
    """Return the numbers of a share of the sites; a larger share holds those of a smaller one."""
    if not share:
        return frozenset()
    order = stream(seed, purpose).permutation(sites)
    return frozenset(order[: round(share * sites)].tolist())


def misbehaving(execute: Execute, scenario: Scenario, seed: int, names: Sequence[str]) -> Execute:
    """Return an engine whose sites attack and fail as the scenario says; the engine itself if none does."""
    attack = attack_of(scenario)
    attackers = attackers_of(scenario, seed, names)
    forgery = attack if attack is not None and attack.forges() and attackers else None
    faults = scenario.faults
    if forgery is None and faults == type(faults)():
        return execute

    crashed = some_of(seed, "crash", len(names), faults.crash)
    spoiled = spoiled_of(scenario, seed, len(names))
    gone_from = _first_stage(scenario.secure_aggregation.drop_out_at)

    def execute_round(messages: Sequence[Message], contexts: Sequence[Context]) -> list[Message]:
        replies = execute(messages, contexts)
        if not messages or messages[0].metadata.message_type not in STAGES:
            return replies
        number = int(messages[0].content[CONFIG][ROUND])  # type: ignore[arg-type]
        stage = STAGES.index(messages[0].metadata.message_type)
        if forgery and stage == STAGES.index(MessageType.TRAIN):
            _forge(forgery, messages, replies, attackers, lambda: stream(seed, "attack", number))

        for place, message in enumerate(messages):
            site = message.metadata.dst_node_id - FIRST_NODE
            reason = ""
            if site in crashed and number >= faults.crash_round:
                reason = "crashed"
            elif faults.drop_out and stage >= gone_from and _drops_out(seed, number, site, faults.drop_out):
                reason = "dropped out"

            if reason:
                replies[place] = Message(Error(code=_GONE, reason=reason), reply_to=message)
            elif site in spoiled and replies[place].has_content() and not scenario.secure_aggregation.on:
                _replace(replies[place], torch.full_like(_model_in(replies[place]), math.nan))
        return replies

    return execute_round


def _first_stage(ending: str) -> int:
    """Return the place of the first stage of a round whose name ends so."""
    for place, stage in enumerate(STAGES):
        if stage.endswith(ending):
            return place
    raise ValueError(f"expected the end of one of {', '.join(STAGES)}, got {ending!r}")


def _drops_out(seed: int, number: int, site: int, probability: float) -> bool:
    return stream(seed, "drop-out", number, site).random() < probability


def _forge(
    attack: Attack,
    messages: Sequence[Message],
    replies: Sequence[Message],
    attackers: frozenset[int],
    random: Callable[[], np.random.Generator],
) -> None:
    """Put what the attackers send in place of what they trained, together."""
    theirs = []
    for message, reply in zip(messages, replies, strict=True):
        site = message.metadata.dst_node_id - FIRST_NODE
        if site in attackers and reply.has_content():
            theirs.append((message, reply))
    if not theirs:
        return

    honest = torch.stack([_model_in(reply) for _, reply in theirs])  # (attackers, params)
    begun = torch.stack([_model_in(message) for message, _ in theirs]).to(honest)  # (attackers, params)

    # Where sites are not in step they began with different models, and compare their changes; else this is 0.
    older = begun - begun[-1]  # (attackers, params)
    forged = attack.forge(begun[-1], honest - older, len(messages), random()) + older
    for (_, reply), model in zip(theirs, forged, strict=True):
        _replace(reply, model)


def _model_in(message: Message) -> torch.Tensor:
    return flatten(message.content[ARRAYS])  # type: ignore[arg-type]


def _replace(reply: Message, model: torch.Tensor) -> None:
    reply.content[ARRAYS] = unflatten(model, like=reply.content[ARRAYS])  # type: ignore[arg-type]


def triggered(scenario: Scenario, inputs: torch.Tensor) -> torch.Tensor | None:
    """Return inputs with a backdoor's trigger, or None where the attack has none."""
    attack = attack_of(scenario)
    if attack is None:
        return None
    return attack.trigger(inputs)
