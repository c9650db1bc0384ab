"""Memory that a process holds without using it."""

from __future__ import annotations

import ctypes
import sys


def give_back() -> None:
    """Return to the system what was freed and is still held.

    glibc puts blocks of up to 32 MiB on a heap, of which only the free end goes back: after work with vectors of that
    size a process holds several times what it uses. Does nothing where the C library has no `malloc_trim`.
    """
    if not sys.platform.startswith("linux"):
        return
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(ctypes.c_size_t(0))
