"""One site after another in this process: the reference the other engines are checked against."""

import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

from flwr.app import Context, Error, Message
from flwr.clientapp import ClientApp

from fedsim.grid import Execute
from fedsim.mistakes import Mistake
from fedsim.privacy.ledger import Mechanism
from fedsim.training import Work, train

T = TypeVar("T")
_CLIENT_APP_RAISED = 2  # flwr.common.constant.ErrorCode.CLIENT_APP_RAISED_EXCEPTION


def execute(app: ClientApp) -> Execute:
    """Return what executes messages with a ClientApp, in the order they come.

    An exception in a site becomes an error reply that names it, as in Flower's runtimes; the other sites go on. A
    user's Mistake is everybody's and ends the run.
    """

    def execute_round(messages: list[Message], contexts: list[Context]) -> list[Message]:
        return [guarded(partial(app, m, c), m, c) for m, c in zip(messages, contexts, strict=True)]

    return execute_round


def train_all(works: list[Work]) -> list[Mechanism | None]:
    """Train all works in place, in their order; return what was done to each site's rows."""
    return [train(work) for work in works]


def guarded(do: Callable[[], T], message: Message, context: Context) -> T | Message:
    """Do something for a site; if that raises, return an error reply to its message."""
    private = "noise-multiplier" in context.run_config
    try:
        return do()
    except Mistake:
        raise
    except Exception as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        text = "" if private else f": {error}"  # the text may hold values of a row
        reason = f"{type(error).__name__}{text} ({Path(frame.filename).name}:{frame.lineno})"
        return Message(Error(code=_CLIENT_APP_RAISED, reason=reason), reply_to=message)
