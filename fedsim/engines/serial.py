"""One site after another in this process: the reference the other engines are checked against."""

import traceback
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

from flwr.app import Context, Error, Message
from flwr.clientapp import ClientApp

from fedsim.flower.grid import Execute, own_copy
from fedsim.mistakes import Mistake
from fedsim.training.steps import train
from fedsim.training.work import Done, Work

T = TypeVar("T")
_CLIENT_APP_RAISED = 2  # flwr.common.constant.ErrorCode.CLIENT_APP_RAISED_EXCEPTION


def execute(app: ClientApp, cohort_size: int | str = "auto") -> Execute:
    """Return what executes messages with a ClientApp, in the order they come; there are no stacks to size.

    An exception in a site becomes an error reply that names it, as in Flower's runtimes; the other sites go on. A
    user's Mistake is everybody's and ends the run.
    """

    def execute_round(messages: Sequence[Message], contexts: Sequence[Context]) -> list[Message]:
        for message in messages:
            if message.has_content():  # a strategy may put one RecordDict into all messages, and an app change it
                message.content = own_copy(message.content)
        return [guarded(partial(app, m, c), m, c) for m, c in zip(messages, contexts, strict=True)]

    return execute_round


def train_all(works: Sequence[Work], cohort_size: int | str = "auto") -> list[Done]:
    """Do all works in their order."""
    return [train(work) for work in works]


def guarded(do: Callable[[], T], message: Message, context: Context) -> T | Message:
    """Do something for a site; if that raises, return an error reply to its message."""
    private = "noise-multiplier" in context.run_config or "secure-aggregation" in context.run_config
    try:
        return do()
    except Mistake:
        raise
    except Exception as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        text = "" if private else f": {error}"  # the text may hold values of a row
        reason = f"{type(error).__name__}{text} ({Path(frame.filename).name}:{frame.lineno})"
        return Message(Error(code=_CLIENT_APP_RAISED, reason=reason), reply_to=message)
