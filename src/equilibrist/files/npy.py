"""Arrays of numbers in NumPy's format, read without evaluating anything.

NumPy's own reader evaluates the header as a Python literal; damaged ones make it raise nearly
anything, or allocate terabytes.
"""

from __future__ import annotations

import math
import re
from typing import IO

import numpy as np
from numpy.typing import NDArray

from equilibrist.files.reading import read_exactly

_MAGIC = b"\x93NUMPY"
_LONGEST = 10_000  # bytes of a header; NumPy's own bound
_ENTRY = (
    r"""["']descr["']\s*:\s*["'](?P<descr>[<>|=]?[?biufcmMOSUV]\d{0,9})["']"""
    r"""|["']fortran_order["']\s*:\s*(?P<order>True|False)"""
    r"""|["']shape["']\s*:\s*\(\s*(?P<shape>(?:\d{1,19}L?\s*,\s*)*(?:\d{1,19}L?\s*)?)\)"""
)
_HEADER = re.compile(rf"\{{\s*(?:(?:{_ENTRY})\s*(?:,\s*|(?=\}})))+\}}\s*")
_KINDS = {"U": "text", "S": "text", "M": "dates", "m": "spans of time"}
_OBJECTS = re.compile(r"""["'][<>|=]?O\d*["']""")


def read_npy(file: IO[bytes], size: int) -> NDArray[np.generic]:
    """The array in the `size` bytes of `file`, in memory of its own.

    Raises `ValueError`, with what is wrong, for a header that is damaged or promises other than what
    follows it, for Python objects, and for all else that is no number.
    """
    start = file.read(8)
    if len(start) < 8 or not start.startswith(_MAGIC) or start[6] not in (1, 2, 3):
        raise ValueError("it does not begin as a .npy file")
    width = 2 if start[6] == 1 else 4
    length = int.from_bytes(file.read(width), "little")
    raw = file.read(min(length, _LONGEST))
    if len(raw) < length:
        raise ValueError("its header is cut short or too long")
    text = raw.decode("utf-8" if start[6] == 3 else "latin1")
    found = _HEADER.fullmatch(text)
    if found is None or None in found.groups():
        if _OBJECTS.search(text):
            raise ValueError("it holds Python objects, which only running code could read")
        raise ValueError("its header does not describe an array of numbers")
    shape = tuple(int(side.strip(" L\n\t")) for side in found["shape"].split(",") if side.strip())
    try:
        dtype = np.dtype(found["descr"])
    except TypeError:
        raise ValueError(f"its header names the type {found['descr']!r}") from None
    if dtype.hasobject:
        raise ValueError("it holds Python objects, which only running code could read")
    if dtype.kind not in "biufc" or not dtype.itemsize:
        raise ValueError(f"it holds {_KINDS.get(dtype.kind, 'bytes')}, not numbers")
    # Compared before anything is allocated: a damaged header may promise terabytes.
    promised, held = math.prod(shape) * dtype.itemsize, size - 8 - width - length
    if promised != held:
        raise ValueError(f"its header promises {promised} bytes of values, {held} follow it")
    values = np.empty(math.prod(shape), dtype)
    if held and read_exactly(file, values.view(np.uint8).data) != held:
        raise ValueError("it is cut short")
    if not dtype.isnative:
        values = values.byteswap(inplace=True).view(dtype.newbyteorder("="))
    return values.reshape(shape, order="F" if found["order"] == "True" else "C")
