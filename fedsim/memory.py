"""The memory that this process has taken from the system; nothing here imports torch or numpy."""

import ctypes
import sys
from functools import cache


@cache
def keep_freed() -> None:
    """Let glibc keep the memory that is freed, for the next tensor: else every large one costs fresh pages.

    The steps of a training ask for the same tensors again and again. Without this, malloc hands each of them back to
    the system, which fills new pages with zeros every time. The price: a process holds what it had until it ends, and
    gaps between large tensors may cost more at its highest. Where the C library is another one, nothing changes.

    Call it before the first thread is started: heaps that threads have by then remain, and are too small for large
    tensors.
    """
    if sys.platform != "linux":
        return
    library = ctypes.CDLL(None)
    if not hasattr(library, "gnu_get_libc_version"):
        return

    # By the numbers of malloc.h: M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX, M_ARENA_MAX.
    library.mallopt(-1, 2**31 - 1)  # bytes that may lie unused at the end of the heap
    library.mallopt(-2, 2**26)  # bytes by which the heap grows at a time
    library.mallopt(-4, 0)  # tensors that are pages of their own
    library.mallopt(-8, 1)  # heaps
