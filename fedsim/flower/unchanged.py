"""Fail where an adapter does not change: the model does not use it, or nothing is learned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set

import torch
from flwr.app import Context, Message, MessageType
from torch import Tensor

from fedsim.flower.grid import Execute
from fedsim.flower.records import ARRAYS, CONFIG, ROUND, Layout, flatten
from fedsim.mistakes import RunFailed
from fedsim.strategy.trainable import adapters_of


def check_changed(number: int, models: Sequence[tuple[Mapping[str, Tensor], Mapping[str, Tensor]]]) -> None:
    """Make sure that each adapter changed in at least one of the models that were trained in a round.

    Args:
        number: The round.
        models: Each model before and after the round, {name of a trained parameter: value}.

    Raises:
        RunFailed: An adapter is the same everywhere.
    """
    if not models:
        return
    names = list(models[0][0])
    changed = {name for name in names if any(not torch.equal(before[name], after[name]) for before, after in models)}
    refuse_unchanged(number, names, changed)


def refuse_unchanged(number: int, names: Sequence[str], changed: Set[str]) -> None:
    """Make sure that of each adapter a parameter changed.

    Raises:
        RunFailed: One did not.
    """
    dead = [adapter for adapter, parts in adapters_of(names).items() if changed.isdisjoint(parts)]
    if dead:
        raise RunFailed(
            f"round {number}: training.adapt: no site changed {', '.join(dead)}: the model does not use it, no row was "
            "in a step, or training.optimizer.lr is too small"
        )


def watching(execute: Execute, layout: Layout) -> Execute:
    """Return an engine that looks at the models of each round as sites send them, before an attack has changed them.

    Args:
        execute: The engine.
        layout: The parameters of a model.
    """

    def parts(message: Message) -> dict[str, Tensor]:
        vector = flatten(message.content[ARRAYS])  # type: ignore[arg-type]
        return {name: vector[start:stop] for name, _, start, stop in layout.parts}

    def execute_round(messages: Sequence[Message], contexts: Sequence[Context]) -> list[Message]:
        if not messages or messages[0].metadata.message_type != MessageType.TRAIN:
            return execute(messages, contexts)
        number = int(messages[0].content[CONFIG][ROUND])  # type: ignore[arg-type]
        sent = [{name: value.clone() for name, value in parts(message).items()} for message in messages]
        replies = execute(messages, contexts)
        by_id = {message.metadata.message_id: before for message, before in zip(messages, sent, strict=True)}
        changed: set[str] = set()
        answered = False
        for place, reply in enumerate(replies):
            if not reply.has_content():
                continue
            answered = True
            before = by_id.get(reply.metadata.reply_to_message_id, sent[place])
            changed |= {name for name, value in parts(reply).items() if not torch.equal(value, before[name])}
            if len(changed) == len(layout.parts):
                break
        if answered:
            refuse_unchanged(number, [name for name, _, _, _ in layout.parts], changed)
        return replies

    return execute_round
