"""Keep large buffers that the process has freed, instead of handing them back to the operating system."""

import ctypes
import functools
import sys

__all__ = ["keep_freed_memory"]

# Parameters of glibc's mallopt(3). The largest mmap threshold that it accepts is half a heap, 32 MiB.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3


@functools.cache
def keep_freed_memory() -> bool:
    """Tell glibc to reuse freed buffers up to 32 MiB; return whether the allocator took it (False off glibc).

    An inner step frees and asks for the same megabytes again and again; by default each round maps fresh pages, and the page faults cost
    more than the arithmetic (measured: 6.9 ms against 2.6 ms a step for 32 particles of a 2,410-parameter network). Process-wide, once.
    """
    if not sys.platform.startswith("linux"):
        return False
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "gnu_get_libc_version"):
        return False
    settings = ((_M_MMAP_THRESHOLD, 1 << 25), (_M_TRIM_THRESHOLD, (1 << 31) - 1), (_M_TOP_PAD, 1 << 26))
    return all(libc.mallopt(name, value) == 1 for name, value in settings)
