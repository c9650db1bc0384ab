"""Readers of CIFAR's forms: rows of bytes, pickles of which nothing is executed, archives of either."""

from __future__ import annotations

import io
import pickle
import pickletools
from collections.abc import Mapping
from typing import IO, NoReturn

import numpy as np
from numpy.typing import NDArray

PIXELS = 3 * 32 * 32
LARGEST = 2**26
"""Bytes of a batch: those that are published have 31 million."""

_BLOCK = 512  # bytes; a tar consists of such blocks
_SUM = slice(148, 156)
_MOST = 2**29  # bytes beside the batches that are passed over in an archive

_USED = (
    "PROTO FRAME STOP MARK NONE NEWTRUE NEWFALSE MEMOIZE GET BINGET LONG_BINGET GLOBAL STACK_GLOBAL "
    "REDUCE BUILD INT LONG BININT BININT1 BININT2 LONG1 LONG4 STRING BINSTRING SHORT_BINSTRING UNICODE "
    "BINUNICODE SHORT_BINUNICODE BINBYTES SHORT_BINBYTES BINBYTES8 EMPTY_DICT DICT SETITEM SETITEMS "
    "EMPTY_LIST LIST APPEND APPENDS EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3"
)
_CODES = frozenset(_USED.split())
Batch = tuple[NDArray[np.uint8], NDArray[np.int64]]


class _Array:
    """What a pickle says of an array: its state, not yet an array."""

    def __init__(self, *arguments: object) -> None:
        self.state: object = None

    def __setstate__(self, state: object) -> None:
        self.state = state


class _Dtype:
    """What a pickle says of a dtype: its code."""

    def __init__(self, code: object = None, *flags: object) -> None:
        self.code = code

    def __setstate__(self, state: object) -> None:
        pass


class _Reader(pickle.Unpickler):
    """Builds lists, dictionaries, numbers and texts, and the stand-ins above.

    A pickle names functions that are to be called. Of the three that these files name each is
    replaced by a class of this module that only keeps its arguments; any other name is refused. So
    no code but this module's runs, not even NumPy's.
    """

    _KNOWN = {  # noqa: RUF012 - read only
        ("numpy.core.multiarray", "_reconstruct"): _Array,
        ("numpy", "ndarray"): _Array,
        ("numpy", "dtype"): _Dtype,
    }

    def find_class(self, module: str, name: str) -> type:
        try:
            return self._KNOWN[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"names {module}.{name}, which is no array") from None

    def persistent_load(self, pid: object) -> NoReturn:
        raise pickle.UnpicklingError("names an object outside of the file")


def read_pickle(raw: bytes) -> Batch:
    """Pixels [N, 3072] and labels [N] of a python batch. ValueError (its defect) for any other."""
    try:
        _check_codes(raw)
        held = _Reader(io.BytesIO(raw), encoding="bytes").load()
    except pickle.UnpicklingError as error:
        raise ValueError(f"not a batch of CIFAR-10 ({str(error) or 'a damaged pickle'})") from None
    except Exception as error:  # a damaged pickle may raise nearly anything
        raise ValueError(f"truncated or damaged ({type(error).__name__})") from None
    array, labels = (
        (held.get(b"data"), held.get(b"labels")) if isinstance(held, dict) else (None, None)
    )
    if not isinstance(array, _Array) or not isinstance(labels, list):
        raise ValueError("not a batch of CIFAR-10 (it has no data and labels)")
    match array.state:
        case (_, (int(rows), columns), _Dtype(code=b"u1"), False, bytes(body)):
            pass
        case _:
            raise ValueError("not a batch of CIFAR-10 (its data are not rows of bytes)")
    if rows < 1 or columns != PIXELS or len(body) != rows * PIXELS:
        raise ValueError(f"holds {len(body)} bytes of data, not {rows} rows of {PIXELS}")
    if len(labels) != rows or not all(type(label) is int for label in labels):
        raise ValueError(f"has {len(labels)} labels for {rows} images")
    if not all(0 <= label <= 9 for label in labels):
        raise ValueError("has a label that is not 0 to 9")
    return np.frombuffer(body, np.uint8).reshape(rows, PIXELS), np.array(labels, np.int64)


def _check_codes(raw: bytes) -> None:
    """Refuse a pickle that asks for memory which its bytes do not fill. Any error is a refusal."""
    memo = 0
    for code, argument, _ in pickletools.genops(raw):
        if code.name in ("PUT", "BINPUT", "LONG_BINPUT"):
            # The table of what is remembered is as long as its largest number.
            memo += 1
            if argument is not None and argument > 2 * memo + 2**16:
                raise pickle.UnpicklingError("numbers what it remembers beyond all reason")
        elif code.name not in _CODES:
            raise pickle.UnpicklingError(f"has a {code.name}, which no batch has")


def read_rows(raw: bytes) -> Batch:
    """Pixels [N, 3072] and labels [N] of a binary batch: rows of a label and its pixels."""
    if not raw or len(raw) % (1 + PIXELS):
        raise ValueError(f"truncated or damaged, {len(raw)} bytes are no rows of {1 + PIXELS}")
    table = np.frombuffer(raw, np.uint8).reshape(-1, 1 + PIXELS)
    if table[:, 0].max() > 9:
        raise ValueError(f"has a label of {table[:, 0].max()}, not 0 to 9")
    return table[:, 1:], table[:, 0].astype(np.int64)


def unpacked(stream: IO[bytes], wanted: Mapping[str, str]) -> dict[str, bytes]:
    """The regular files of a tar under the names that `wanted` gives them; missing ones are left out.

    Links and extensions are passed over: what Python's own reader does with them takes any amount of
    memory. Raises `ValueError`, with what is wrong, for a damaged archive.
    """
    held: dict[str, bytes] = {}
    passed = 0
    while len(held) < len(wanted):
        head = stream.read(_BLOCK)
        if len(head) < _BLOCK:
            raise ValueError("cut short")
        if not any(head):  # what marks the end
            break
        try:
            total, size = (
                int(head[part].strip(b" \0") or b"0", 8) for part in (_SUM, slice(124, 136))
            )
        except ValueError:
            raise ValueError("a damaged header") from None
        if total != sum(head[:148] + b" " * 8 + head[156:]) or size < 0:
            raise ValueError("a damaged header")
        prefix, name = (head[part].partition(b"\0")[0] for part in (slice(345, 500), slice(100)))
        if prefix and head[257:262] == b"ustar":
            name = prefix + b"/" + name
        key = wanted.get(name.decode("ascii", "replace").removeprefix("./"))
        if key is not None and head[156:157] in (b"0", b"\0"):
            if size > LARGEST:
                raise ValueError(f"{key} has {size} bytes, which no batch has")
            held[key] = stream.read(size)
            if len(held[key]) < size:
                raise ValueError(f"{key} is cut short")
            size = -size % _BLOCK
        else:
            size += -size % _BLOCK
        passed += size
        if passed > _MOST:
            raise ValueError("larger than any archive of CIFAR-10")
        while size > 0 and (piece := stream.read(min(size, 2**20))):
            size -= len(piece)
    return held
