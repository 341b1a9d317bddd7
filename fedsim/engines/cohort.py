"""The cohort engine trains all sites of a round at once, as stacked models.

Rows are clipped exactly, each by its own gradient.
"""

import logging
import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from typing import Protocol, TypeVar, runtime_checkable
from weakref import WeakKeyDictionary

import torch
from flwr.app import Context, Message, MessageType
from flwr.clientapp import ClientApp
from torch import Tensor, nn

from fedsim import devices, memory
from fedsim.engines import serial
from fedsim.engines.stack.layers import NoRule, NotApart
from fedsim.engines.stack.train import Cost, check_rules, forget_stacks, same_steps, sites_in_place, train_together
from fedsim.flower.grid import Execute
from fedsim.mistakes import Mistake
from fedsim.training.work import Done, Work

T = TypeVar("T")
_MEMORY = 2**28  # bytes that a stack may take on a CPU, roughly
_SHARE_OF_GPU = 0.5  # of a GPU's free memory that a stack may take; norms and batches take some of the rest
_PRODUCTS = 2**23  # multiplications in a step that are worth a stack and a thread of their own
_costs: WeakKeyDictionary[nn.Module, Cost | NoRule] = WeakKeyDictionary()
_fitted: WeakKeyDictionary[nn.Module, int] = WeakKeyDictionary()  # sites in a stack once memory had run out
_log = logging.getLogger("fedsim")
_told: set[str] = set()  # causes that were warned of
_cut_for: list[int] = []  # cores for which stacks are cut, if not for those there are; the last one counts


@runtime_checkable
class InHalves(Protocol):
    """A ClientApp that splits its training into two halves, and that evaluates many sites at once.

    The engine calls ``prepare`` for every site, trains all works together, and then calls
    ``answer``.
    """

    def prepare(self, message: Message, context: Context) -> Work:
        """Return the work that a train message asks of this site."""
        ...

    def beside(self, message: Message, context: Context, work: Work, done: Done) -> Work | None:
        """Return the second work of this site, given the first and its result, or None."""
        ...

    def answer(self, message: Message, context: Context, *trained: tuple[Work, Done]) -> Message:
        """Return the reply with the trained model, given one or two works and their results."""
        ...

    def measure(self, messages: Sequence[Message], contexts: Sequence[Context]) -> list[Message]:
        """Return the replies to evaluate messages."""
        ...


@dataclass(frozen=True)
class _Request:
    """A train message, the context of its site, and the work that the message asks for."""

    message: Message
    context: Context
    work: Work


def execute(app: ClientApp, cohort_size: int | str = "auto") -> Execute:
    """Build the function that executes the train or evaluate messages of a round together.

    Messages of other types are executed one by one. So are all messages of a ClientApp that is not
    ``InHalves``.
    """
    one_by_one = serial.execute(app)
    if not isinstance(app, InHalves):
        _tell("this ClientApp can't be stacked")
        return one_by_one

    def execute_round(messages: Sequence[Message], contexts: Sequence[Context]) -> list[Message]:
        message_types = {message.metadata.message_type for message in messages}
        replies = None
        if message_types == {MessageType.TRAIN}:
            replies = _train(app, messages, contexts, cohort_size)
        elif message_types == {MessageType.EVALUATE}:
            replies = _if_no_site_fails(lambda: app.measure(messages, contexts))

        if replies is None:
            return one_by_one(messages, contexts)
        return replies

    return execute_round


def _train(
    app: InHalves,
    messages: Sequence[Message],
    contexts: Sequence[Context],
    cohort_size: int | str,
) -> list[Message] | None:
    """Reply to a round's train messages; return None if a site fails in training."""
    # First half: each site prepares its work. A site that fails has an error reply in its place.
    prepared: list[_Request | Message] = []
    for message, context in zip(messages, contexts, strict=True):
        work = serial.guarded(partial(app.prepare, message, context), message, context)
        prepared.append(_Request(message, context, work) if isinstance(work, Work) else work)

    requests = [request for request in prepared if isinstance(request, _Request)]
    trainings = _if_no_site_fails(lambda: _train_requests(app, requests, cohort_size))
    if trainings is None:
        return None

    # Second half: each site makes its reply, in the order of the messages.
    next_trained = iter(trainings)
    replies = []
    for request in prepared:
        if isinstance(request, Message):
            replies.append(request)
            continue
        answer = partial(app.answer, request.message, request.context, *next(next_trained))
        replies.append(serial.guarded(answer, request.message, request.context))
    return replies


def _train_requests(
    app: InHalves, requests: Sequence[_Request], cohort_size: int | str
) -> list[list[tuple[Work, Done]]]:
    """Train the work of each request; then train, together again, the second works that sites have.

    Returns:
        For each request its works with their results, one or two.
    """
    works = [request.work for request in requests]
    results = train_all(works, cohort_size)
    trainings = [[(work, done)] for work, done in zip(works, results, strict=True)]

    # A second work depends on the result of the first.
    second_works = []
    for request, done in zip(requests, results, strict=True):
        second_works.append(app.beside(request.message, request.context, request.work, done))

    to_train = [work for work in second_works if work is not None]
    second_results = iter(train_all(to_train, cohort_size))
    for training, second_work in zip(trainings, second_works, strict=True):
        if second_work is not None:
            training.append((second_work, next(second_results)))
    return trainings


def _if_no_site_fails(do: Callable[[], list[T]]) -> list[T] | None:
    """Call a function that serves all sites; return None if a site fails.

    The caller then serves the sites one by one, so that the others can go on.
    """
    try:
        return do()
    except Mistake:
        raise
    except Exception:
        return None


def train_all(works: Sequence[Work], cohort_size: int | str = "auto") -> list[Done]:
    """Train all works, stacked where their model allows it and one after another where it doesn't.

    The log names each cause that prevents stacking once. Unless ``cohort_size`` gives the number of
    sites in a stack, there is a stack for each core, and one thread works on each; on a GPU there are
    as few stacks as fit into its memory, one after another. How works are cut into stacks changes
    results by rounding only.

    Raises:
        Mistake: Records are to be protected, and a model's rows can't be told apart.
    """
    groups: dict[tuple[object, ...], list[int]] = defaultdict(list)
    for number, work in enumerate(works):
        groups[same_steps(work)].append(number)

    results: dict[int, Done] = {}
    for numbers in groups.values():
        group = [works[number] for number in numbers]
        results |= zip(numbers, _train_group(group, cohort_size), strict=True)
    return [results[number] for number in range(len(works))]


def _train_group(works: list[Work], cohort_size: int | str) -> list[Done]:
    """Train works that have their steps in common, stacked if their model can be stacked.

    Raises:
        Mistake: Records are to be protected, and the model's rows can't be told apart.
    """
    with_rows = [work for work in works if len(work.examples)]
    if not with_rows:
        return serial.train_all(works)  # nothing can be tried, and there is nothing to be fast for
    cost = _cost(with_rows[0])
    if isinstance(cost, NotApart) and works[0].plan.noise:
        raise Mistake(
            "task: expected a model whose rows can be told apart in training, since clipping each "
            "row's gradient is what the privacy of a record rests on; got one that does not give "
            "for each row what it gives for that row alone, such as one that moves the dimension "
            "of the rows"
        )
    if isinstance(cost, NoRule):
        _tell(str(cost))
        return serial.train_all(works)
    return _train_in_stacks(works, _most_sites(works, cost, cohort_size))


def _train_in_stacks(works: list[Work], most_sites: int) -> list[Done]:
    """Train works in stacks of at most ``most_sites`` sites.

    The trained parameters are rows of a single tensor.
    """
    memory.keep_freed()
    stack = _starts(works)  # (sites, params)
    parts = [slice(start, start + most_sites) for start in range(0, len(works), most_sites)]
    tasks = [partial(_train_stack, works[part], stack[part]) for part in parts]

    results = []
    for results_of_part in _in_threads(tasks, stack.device):
        results += results_of_part
    return results


def _starts(works: list[Work]) -> Tensor:
    """Copy the parameters that works start from into a stack, (sites, params)."""
    first = works[0].start
    if all(work.start is first for work in works):
        return first.repeat(len(works), 1)
    return torch.stack([work.start for work in works])


def _train_stack(works: list[Work], stack: Tensor) -> list[Done]:
    """Train a stack in place.

    If memory runs out, the stack is trained in halves. If a rule does not hold after all, its works
    are trained one by one.

    Raises:
        Mistake: The memory is too small for a single site.
    """
    try:
        return train_together(works, stack)
    except torch.OutOfMemoryError as error:
        ran_out = str(error).partition("\n")[0]
    except (RuntimeError, NotImplementedError, NoRule) as error:
        _tell(str(error).partition("\n")[0])
        forget_stacks()  # a step was broken off
        return serial.train_all([work.again() for work in works])

    # From here on, nothing holds the tensors of the steps that were taken any more: neither the error's frames nor
    # a stacked model, be it this one's or another's that has a graph.
    model = works[0].model
    forget_stacks()
    devices.give_back(stack.device)
    if len(works) == 1:
        raise Mistake(
            f"device: expected memory for the training of one site on {stack.device.type}, which ran out of it; lower "
            "training.sampling_rate, take a smaller model, end other programs there, or use device = 'cpu' "
            f"({ran_out})"
        )

    # Both halves begin again, with the same random streams.
    stack.copy_(_starts(works))
    works = [work.again() for work in works]
    half = -(-len(works) // 2)  # rounded up
    _fitted[model] = half
    return [
        *_train_stack(works[:half], stack[:half]),
        *_train_stack(works[half:], stack[half:]),
    ]


def _in_threads(
    tasks: Sequence[Callable[[], list[Done]]],
    device: torch.device,
) -> Iterator[list[Done]]:
    """Run tasks and yield their results in order: in threads on a CPU, one by one on a GPU."""
    if len(tasks) == 1 or devices.is_gpu(device):
        return iter([task() for task in tasks])
    return _threads().map(lambda task: task(), tasks)


@cache
def _threads() -> ThreadPoolExecutor:
    """Start a thread for each core.

    Inside each of them torch uses a single thread, so that sums have a fixed order.
    """
    return ThreadPoolExecutor(cores(), "cohort", initializer=lambda: torch.set_num_threads(1))


@contextmanager
def cut_for(count: int) -> Iterator[None]:
    """Cut stacks as for so many cores: what goes on elsewhere then has the bits that it would have had."""
    _cut_for.append(count)
    try:
        yield
    finally:
        _cut_for.pop()


def cores_to_cut_for() -> int:
    """Return for how many cores stacks are cut here."""
    return _cut_for[-1] if _cut_for else cores()


def cores() -> int:
    """Count the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not on every system
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _cost(work: Work) -> Cost | NoRule:
    """Return the cost of a work's model, or the reason why it can't be stacked.

    Each model is tried once.
    """
    if work.model not in _costs:
        try:
            _costs[work.model] = check_rules(work.model, work.losses, work.examples)
        except NoRule as error:
            _costs[work.model] = error
    return _costs[work.model]


def _most_sites(works: list[Work], cost: Cost, wanted: int | str) -> int:
    """Return the number of sites in a stack: as wanted, or by memory, cores and work."""
    if isinstance(wanted, int):
        return wanted
    if devices.is_gpu(works[0].start.device):
        return _most_in_free_memory(works, cost)

    sites = len(works)
    all_rows = sum(len(work.examples) for work in works)
    rows_in_step = works[0].plan.sampling_rate * all_rows / sites  # expected at a site

    # Few enough sites for the memory of a stack: float32 numbers, roughly counted.
    floats_of_site = 6 * cost.parameters + 3 * cost.floats * (rows_in_step + 1)
    most_in_memory = int(_MEMORY / (4 * floats_of_site))

    # Enough sites for a stack to be worth a thread of its own.
    worthwhile_stacks = int(sites * rows_in_step * cost.products / _PRODUCTS)
    stacks = min(cores_to_cut_for(), max(1, worthwhile_stacks))
    sites_in_stack = -(-sites // stacks)  # rounded up
    return max(1, min(most_in_memory, sites_in_stack))


def _most_in_free_memory(works: list[Work], cost: Cost) -> int:
    """Return how many sites fit into a GPU's free memory, by a rough count of float32 numbers.

    Too many are trained in halves. No more than what was left of a stack then are tried again.
    """
    plan = works[0].plan

    # Batches are filled up to the longest of all sites: its expected rows, and some deviations more.
    most_rows = max(len(work.examples) for work in works)
    expected_rows = plan.sampling_rate * most_rows
    rows = min(most_rows, expected_rows + 4 * expected_rows**0.5) + 16

    # Parameters, gradients, the optimizer's and the rule's memory, the points of a path, and the words of noise.
    vectors = 6 + len(works[0].memory) + plan.steps * works[0].follow + (8 if plan.noise else 0)
    bytes_of_site = 4 * (vectors * cost.parameters + 3 * cost.floats * rows)
    model = works[0].model
    fit = int(_SHARE_OF_GPU * devices.free_bytes(works[0].start.device) / bytes_of_site)
    fit = max(fit, sites_in_place(model))  # what an earlier round took for its graph is not free, and serves this one
    return max(1, min(fit, _fitted.get(model, fit)))


def _tell(cause: str) -> None:
    """Warn that sites can't be stacked, once for each cause."""
    if cause not in _told:
        _told.add(cause)
        _log.warning("cohort: %s; these sites are trained one after another", cause)
