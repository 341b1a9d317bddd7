"""Time limits: a site, a strategy or a task that hangs ends its training, or what is tried before it, and no more."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from fedsim.mistakes import Mistake, RunFailed, TooLate


@contextmanager
def limited(seconds: float | None, observe: Callable[[int], None]) -> Iterator[Callable[[int], None]]:
    """Give each round of a training so many seconds.

    Args:
        seconds: How long a round may take, with all that comes before the first; None for any time.
        observe: Called after each round with its number.

    Yields:
        What is to be called after each round in place of ``observe``.

    Raises:
        RunFailed: A round took longer.
        Mistake: There can be no limit here.
    """
    done = 0

    def late() -> RunFailed:
        return RunFailed(
            f"round {done + 1} took more than the {seconds:g} seconds of limits.round_seconds: a site, the strategy "
            "or the task hangs, or the limit is too low"
        )

    with within(seconds, late) as begin_anew:

        def next_round(number: int) -> None:
            nonlocal done
            done = number
            begin_anew()
            observe(number)

        yield next_round


@contextmanager
def paused() -> Iterator[None]:
    """Let no limited time pass while the body runs, which is not what is limited."""
    if not hasattr(signal, "setitimer"):
        yield
        return
    left, every = signal.setitimer(signal.ITIMER_REAL, 0)
    try:
        yield
    finally:
        if every:
            signal.setitimer(signal.ITIMER_REAL, left, every)


@contextmanager
def within(seconds: float | None, late: Callable[[], Exception]) -> Iterator[Callable[[], None]]:
    """Raise an error in what takes longer than so many seconds.

    Args:
        seconds: How long it may take; None for any time.
        late: Makes the error.

    Yields:
        What gives it all its time once more.

    Raises:
        Mistake: There can be no limit here.
    """
    if seconds is None:
        yield lambda: None
        return
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "setitimer"):
        raise Mistake("limits.round_seconds: expected none in a thread, and on systems without timers of signals")

    def end(*_: object) -> None:
        raise TooLate

    def begin() -> None:
        signal.setitimer(signal.ITIMER_REAL, seconds, seconds)

    before = signal.signal(signal.SIGALRM, end)
    begin()
    try:
        yield begin
    except TooLate:
        raise late() from None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
