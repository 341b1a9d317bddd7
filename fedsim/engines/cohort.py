"""All sites of a round at once, as one stacked model, with exact per-row clipping."""

import copy
import logging
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from functools import cache, partial
from typing import Protocol, runtime_checkable

from flwr.app import Context, Message, MessageType
from flwr.clientapp import ClientApp

from fedsim.cohort import bytes_of_site, same_steps, train_together
from fedsim.engines import serial
from fedsim.grid import Execute
from fedsim.mistakes import Mistake
from fedsim.privacy.ledger import Mechanism
from fedsim.training import Work

_MEMORY = 2**30  # bytes that a stack may take, roughly; the cut changes results by rounding only
_log = logging.getLogger("fedsim")


@runtime_checkable
class InHalves(Protocol):
    """A ClientApp whose training can be taken in two halves."""

    def prepare(self, message: Message, context: Context) -> Work:
        """Return what a train message asks of this site."""
        ...

    def answer(self, message: Message, work: Work, mechanism: Mechanism | None) -> Message:
        """Return the reply that sends the trained model back."""
        ...


def execute(app: ClientApp) -> Execute:
    """Return what executes a round's train messages together, and other messages one by one.

    A ClientApp that is not ``InHalves`` is run one site after another.
    """
    one_by_one = serial.execute(app)
    if not isinstance(app, InHalves):
        _log.warning("cohort: this ClientApp can't be stacked; its sites are trained one after another")
        return one_by_one

    def execute_round(messages: list[Message], contexts: list[Context]) -> list[Message]:
        if any(message.metadata.message_type != MessageType.TRAIN for message in messages):
            return one_by_one(messages, contexts)
        pairs = zip(messages, contexts, strict=True)
        prepared = [serial.guarded(partial(app.prepare, m, c), m, c) for m, c in pairs]
        works = [found for found in prepared if isinstance(found, Work)]
        try:
            did = iter(train_all(works))
        except Mistake:
            raise
        except Exception:  # a site fails in training: one by one, the others go on
            return one_by_one(messages, contexts)
        return [
            app.answer(message, found, next(did)) if isinstance(found, Work) else found
            for message, found in zip(messages, prepared, strict=True)
        ]

    return execute_round


def train_all(works: list[Work]) -> list[Mechanism | None]:
    """Train all works in place, stacked; what can't be stacked one after another, logged once for each cause."""
    done: dict[int, Mechanism | None] = {}
    for indices in _stacks(works):
        stack = [works[index] for index in indices]
        untouched = [copy.deepcopy(work.streams) for work in stack]
        try:
            did = train_together(stack)
        except (RuntimeError, NotImplementedError) as error:
            _tell(str(error).partition("\n")[0])
            did = serial.train_all([replace(w, streams=kept) for w, kept in zip(stack, untouched, strict=True)])
        done |= dict(zip(indices, did, strict=True))
    return [done[index] for index in range(len(works))]


@cache
def _tell(cause: str) -> None:
    _log.warning("cohort: %s; these sites are trained one after another", cause)


def _stacks(works: list[Work]) -> Iterator[list[int]]:
    """Yield the numbers of works that can be trained together, cut to fit into memory."""
    groups = defaultdict(list)
    for index, work in enumerate(works):
        groups[same_steps(work)].append(index)
    for members in groups.values():
        largest = max((works[index] for index in members), key=lambda work: len(work.examples))
        size = max(1, _MEMORY // bytes_of_site(largest))
        for start in range(0, len(members), size):
            yield members[start : start + size]
