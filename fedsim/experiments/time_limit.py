"""A time limit for the rounds of a training: a site or a strategy that hangs ends its training, and no other."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from fedsim.mistakes import Mistake, RunFailed


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
    if seconds is None:
        yield observe
        return
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "setitimer"):
        raise Mistake("limits.round_seconds: expected none in a thread, and on systems without timers of signals")

    done = 0

    def end(*_: object) -> None:
        raise RunFailed(
            f"round {done + 1} took more than the {seconds:g} seconds of limits.round_seconds: a site, the strategy "
            "or the task hangs, or the limit is too low"
        )

    def next_round(number: int) -> None:
        nonlocal done
        done = number
        signal.setitimer(signal.ITIMER_REAL, seconds, seconds)
        observe(number)

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, seconds, seconds)
    try:
        yield next_round
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
