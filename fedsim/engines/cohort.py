"""All sites of a round at once, as stacked models, with exact per-row clipping."""

import logging
import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from typing import Protocol, TypeVar, runtime_checkable
from weakref import WeakKeyDictionary

import torch
from flwr.app import Context, Message, MessageType
from flwr.clientapp import ClientApp
from torch import Tensor, nn

from fedsim.engines import serial
from fedsim.engines.stack.layers import NoRule, NotApart
from fedsim.engines.stack.train import Cost, check_rules, same_steps, train_together
from fedsim.flower.grid import Execute
from fedsim.mistakes import Mistake
from fedsim.training.work import Done, Work

T = TypeVar("T")
_MEMORY = 2**28  # bytes that one stack may take, roughly
_PRODUCTS = 2**23  # multiplications in a step that are worth a stack and a thread of their own
_costs: WeakKeyDictionary[nn.Module, Cost | NoRule] = WeakKeyDictionary()
_log = logging.getLogger("fedsim")
_told: set[str] = set()  # causes that were warned of


@runtime_checkable
class InHalves(Protocol):
    """A ClientApp whose training can be taken in two halves, and that can measure for many sites at once."""

    def prepare(self, message: Message, context: Context) -> Work:
        """Return what a train message asks of this site."""
        ...

    def beside(self, message: Message, context: Context, work: Work, done: Done) -> Work | None:
        """Return the second training that a site is to do once the first is done; None if there is none."""
        ...

    def answer(self, message: Message, context: Context, *trained: tuple[Work, Done]) -> Message:
        """Return the reply that sends the trained model back, given one or two trainings."""
        ...

    def measure(self, messages: Sequence[Message], contexts: Sequence[Context]) -> list[Message]:
        """Return the replies to evaluate messages."""
        ...


def execute(app: ClientApp, cohort_size: int | str = "auto") -> Execute:
    """Return what executes a round's train messages together, its evaluate messages too, and others one by one.

    A ClientApp that is not ``InHalves`` is run one site after another.
    """
    one_by_one = serial.execute(app)
    if not isinstance(app, InHalves):
        _tell("this ClientApp can't be stacked")
        return one_by_one

    def execute_round(messages: Sequence[Message], contexts: Sequence[Context]) -> list[Message]:
        kinds, replies = {message.metadata.message_type for message in messages}, None
        if kinds == {MessageType.TRAIN}:
            replies = _train(app, messages, contexts, cohort_size)
        elif kinds == {MessageType.EVALUATE}:
            replies = _if_no_site_fails(lambda: app.measure(messages, contexts))
        return one_by_one(messages, contexts) if replies is None else replies

    return execute_round


def _train(
    app: InHalves, messages: Sequence[Message], contexts: Sequence[Context], cohort_size: int | str
) -> list[Message] | None:
    pairs = list(zip(messages, contexts, strict=True))
    prepared = [serial.guarded(partial(app.prepare, m, c), m, c) for m, c in pairs]
    asked = [(*pair, work) for pair, work in zip(pairs, prepared, strict=True) if isinstance(work, Work)]
    trained = _if_no_site_fails(lambda: _trainings(app, asked, cohort_size))
    if trained is None:
        return None
    trainings = iter(trained)
    return [
        serial.guarded(partial(app.answer, m, c, *next(trainings)), m, c) if isinstance(found, Work) else found
        for (m, c), found in zip(pairs, prepared, strict=True)
    ]


def _trainings(
    app: InHalves, asked: Sequence[tuple[Message, Context, Work]], cohort_size: int | str
) -> list[list[tuple[Work, Done]]]:
    """Train sites; then, together again, those that are to train a second time."""
    done = train_all([work for _, _, work in asked], cohort_size)
    trained = [[(work, own)] for (_, _, work), own in zip(asked, done, strict=True)]
    beside = [app.beside(message, context, *own[0]) for (message, context, _), own in zip(asked, trained, strict=True)]
    works = [work for work in beside if work is not None]
    seconds = iter(zip(works, train_all(works, cohort_size), strict=True))
    for own, work in zip(trained, beside, strict=True):
        if work is not None:
            own.append(next(seconds))
    return trained


def _if_no_site_fails(do: Callable[[], list[T]]) -> list[T] | None:
    """Return what comes of doing something for all sites, or None if one fails: one by one, the others go on."""
    try:
        return do()
    except Mistake:
        raise
    except Exception:
        return None


def train_all(works: Sequence[Work], cohort_size: int | str = "auto") -> list[Done]:
    """Do all works, stacked; what can't be stacked one after another, logged once for each cause.

    Unless ``cohort_size`` says how many sites go into a stack, there is a stack for each core. Every stack is worked on
    by one thread; the cut changes results by rounding only.

    Raises:
        Mistake: Records are to be protected, and a model's rows can't be told apart.
    """
    done: dict[int, Done] = {}
    groups = defaultdict(list)
    for number, work in enumerate(works):
        groups[same_steps(work)].append(number)
    for numbers in groups.values():
        group = [works[number] for number in numbers]
        cost = _cost(group[0])
        if isinstance(cost, NotApart) and group[0].plan.noise:
            raise Mistake(
                "task: expected a model whose rows can be told apart in training, since clipping each row's gradient "
                "is what the privacy of a record rests on; got one that does not give for each row what it gives for "
                "that row alone, such as one that moves the dimension of the rows"
            )
        if isinstance(cost, NoRule):
            _tell(str(cost))
            found = serial.train_all(group)
        else:
            found = _train_group(group, _most_sites(group, cost, cohort_size))
        done |= zip(numbers, found, strict=True)
    return [done[number] for number in range(len(works))]


def _train_group(works: list[Work], most: int) -> list[Done]:
    stack = _starts(works)  # the replies are rows of it
    parts = [slice(start, start + most) for start in range(0, len(works), most)]
    train = [partial(_train_stack, works[part], stack[part]) for part in parts]
    return [done for part in _in_threads(train, stack.device) for done in part]


def _starts(works: list[Work]) -> Tensor:
    """Return a copy of the parameters that works start from, (sites, params)."""
    first = works[0].start
    if all(work.start is first for work in works):
        return first.repeat(len(works), 1)
    return torch.stack([work.start for work in works])


def _train_stack(works: list[Work], stack: Tensor) -> list[Done]:
    """Train one stack in place; in halves if memory runs out; one by one if a rule does not hold after all."""
    try:
        return train_together(works, stack)
    except torch.OutOfMemoryError:
        if len(works) == 1:
            raise
        half = len(works) // 2
        stack.copy_(_starts(works))
        works = [work.again() for work in works]
        return [
            *_train_stack(works[:half], stack[:half]),
            *_train_stack(works[half:], stack[half:]),
        ]
    except (RuntimeError, NotImplementedError, NoRule) as error:
        _tell(str(error).partition("\n")[0])
        return serial.train_all([work.again() for work in works])


def _in_threads(tasks: Sequence[Callable[[], list[Done]]], device: torch.device) -> Iterator[list[Done]]:
    if len(tasks) == 1 or device.type == "cuda":
        return iter([task() for task in tasks])
    return _threads().map(lambda task: task(), tasks)


@cache
def _threads() -> ThreadPoolExecutor:
    """Return a thread for each core; inside one, torch works with one thread, so that sums have one order."""
    return ThreadPoolExecutor(_cores(), "cohort", initializer=lambda: torch.set_num_threads(1))


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _cost(work: Work) -> Cost | NoRule:
    """Return what a row of a work's model costs, or why it can't be stacked; found out once for each model."""
    if work.model not in _costs:
        try:
            _costs[work.model] = check_rules(work.model, work.losses, work.examples)
        except NoRule as error:
            _costs[work.model] = error
    return _costs[work.model]


def _most_sites(works: list[Work], cost: Cost, wanted: int | str) -> int:
    """Return how many sites go into a stack: as wanted, or few enough for memory and enough to be worth their own."""
    if isinstance(wanted, int):
        return wanted
    sites, rows = len(works), works[0].plan.sampling_rate * sum(len(work.examples) for work in works) / len(works)
    in_memory = int(_MEMORY / (4 * (6 * cost.parameters + 3 * cost.floats * (rows + 1))))
    stacks = min(_cores(), max(1, int(sites * rows * cost.products / _PRODUCTS)))
    return max(1, min(in_memory, -(-sites // stacks)))


def _tell(cause: str) -> None:
    """Warn of sites that can't be stacked, once for each cause."""
    if cause not in _told:
        _told.add(cause)
        _log.warning("cohort: %s; these sites are trained one after another", cause)
