"""The memory that this process has taken from the system; nothing here imports torch or numpy."""

import ctypes
import gc
import sys
from functools import cache

_NEW_OBJECTS = 20_000  # after which Python looks for cycles among them; by default 700


def collect_seldom() -> None:
    """Let Python look for cycles of objects less often than by default.

    Imports make half a million objects that stay, and Python goes through all of them again and again while they are
    made: for a fifth of the time that the imports take. What holds tensors is freed by counting references, at once.
    """
    gc.set_threshold(_NEW_OBJECTS)


@cache
def keep_freed() -> None:
    """Let glibc keep the memory that is freed, for the next tensor: else every large one costs fresh pages.

    The steps of a training ask for the same tensors again and again. Without this, malloc hands each of them back to
    the system, which fills new pages with zeros every time. The price: a process holds what it had until it ends.
    Tensors of 32 MiB and more remain pages of their own: gaps between them would nearly double the memory of twenty
    sites with ten million parameters, and keeping them saved no time that could be seen. Where the C library is another
    one, nothing changes.

    Call it before the first thread is started: heaps that threads have by then remain, and are too small for large
    tensors.
    """
    if sys.platform != "linux":
        return
    library = ctypes.CDLL(None)
    if not hasattr(library, "gnu_get_libc_version"):
        return

    # By the numbers of malloc.h: M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD, M_ARENA_MAX.
    library.mallopt(-1, 2**31 - 1)  # bytes that may lie unused at the end of the heap
    library.mallopt(-2, 2**26)  # bytes by which the heap grows at a time
    library.mallopt(-3, 2**25)  # bytes from which a tensor is pages of its own, the most that glibc takes
    library.mallopt(-8, 1)  # heaps
