"""One site after another in this process: the reference the other engines are checked against."""

import traceback
from pathlib import Path

from flwr.app import Context, Error, Message
from flwr.clientapp import ClientApp

from fedsim.grid import Execute
from fedsim.mistakes import Mistake

_CLIENT_APP_RAISED = 2  # flwr.common.constant.ErrorCode.CLIENT_APP_RAISED_EXCEPTION


def engine(app: ClientApp) -> Execute:
    """Return what executes messages with a ClientApp, in the order they come.

    An exception in a site becomes an error reply that names it, as in Flower's runtimes; the other sites go on. A
    user's Mistake is everybody's and ends the run.
    """

    def execute(messages: list[Message], contexts: list[Context]) -> list[Message]:
        return [_reply(app, message, context) for message, context in zip(messages, contexts, strict=True)]

    return execute


def _reply(app: ClientApp, message: Message, context: Context) -> Message:
    try:
        return app(message, context)
    except Mistake:
        raise
    except Exception as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        reason = f"{type(error).__name__}: {error} ({Path(frame.filename).name}:{frame.lineno})"
        return Message(Error(code=_CLIENT_APP_RAISED, reason=reason), reply_to=message)
