"""The serial engine trains one site after another in this process.

It is the reference that other engines are checked against.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

from flwr.app import Context, Error, Message
from flwr.clientapp import ClientApp

from fedsim.flower.grid import CLIENT_APP_RAISED, Execute, own_copy
from fedsim.mistakes import Mistake, said_by
from fedsim.training.steps import train
from fedsim.training.work import Done, Work

T = TypeVar("T")


def execute(app: ClientApp, cohort_size: int | str = "auto") -> Execute:
    """Build the function that runs a ClientApp on messages, one after another in their order.

    An exception in a site becomes an error reply that names the exception, as in Flower's runtimes,
    and the other sites go on. A user's Mistake concerns all sites and ends the run.

    Args:
        app: The ClientApp of every site.
        cohort_size: Has no meaning here: this engine makes no stacks.
    """

    def execute_round(messages: Sequence[Message], contexts: Sequence[Context]) -> list[Message]:
        # A strategy may put the same RecordDict into all messages, and an app may change its own.
        for message in messages:
            if message.has_content():
                message.content = own_copy(message.content)

        replies = []
        for message, context in zip(messages, contexts, strict=True):
            run_app = partial(app, message, context)
            replies.append(guarded(run_app, message, context))
        return replies

    return execute_round


def train_all(works: Sequence[Work], cohort_size: int | str = "auto") -> list[Done]:
    """Train all works in their order."""
    return [train(work) for work in works]


def guarded(do: Callable[[], T], message: Message, context: Context) -> T | Message:
    """Call a site's function; if it fails, return an error reply to the site's message."""
    private = "noise-multiplier" in context.run_config or "secure-aggregation" in context.run_config
    try:
        return do()
    except Mistake:
        raise
    except Exception as error:
        return Message(Error(code=CLIENT_APP_RAISED, reason=said_by(error, private)), reply_to=message)
