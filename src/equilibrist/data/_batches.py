"""Readers of CIFAR's two forms: rows of bytes, and pickles of which nothing is executed."""

from __future__ import annotations

import io
import pickle
from typing import Any

import numpy as np
from numpy.typing import NDArray

PIXELS = 3 * 32 * 32
Batch = tuple[NDArray[np.uint8], NDArray[np.int64]]


class _Array:
    """What a pickle says of an array: its state, not yet an array."""

    state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Dtype:
    """What a pickle says of a dtype: its code."""

    def __init__(self, code: Any = None, *flags: Any) -> None:
        self.code = code

    def __setstate__(self, state: Any) -> None:
        pass


def _reconstruct(*arguments: Any) -> _Array:
    return _Array()


class _Reader(pickle.Unpickler):
    """Builds lists, dictionaries, numbers and texts, and the stand-ins above.

    A pickle names functions that are to be called. Of the three that these files name each is
    replaced by one of this module that only keeps its arguments; any other name is refused. So no
    code but this module's runs, not even NumPy's.
    """

    _KNOWN = {  # noqa: RUF012 - read only
        ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
        ("numpy", "ndarray"): _Array,
        ("numpy", "dtype"): _Dtype,
    }

    def find_class(self, module: str, name: str) -> Any:
        try:
            return self._KNOWN[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"names {module}.{name}, which is no array") from None

    def persistent_load(self, pid: Any) -> Any:
        raise pickle.UnpicklingError("names an object outside of the file")


def read_pickle(raw: bytes) -> Batch:
    """Pixels [N, 3072] and labels [N] of a python batch. ValueError (its defect) for any other."""
    try:
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


def read_rows(raw: bytes) -> Batch:
    """Pixels [N, 3072] and labels [N] of a binary batch: rows of a label and its pixels."""
    if not raw or len(raw) % (1 + PIXELS):
        raise ValueError(f"truncated or damaged, {len(raw)} bytes are no rows of {1 + PIXELS}")
    table = np.frombuffer(raw, np.uint8).reshape(-1, 1 + PIXELS)
    if table[:, 0].max() > 9:
        raise ValueError(f"has a label of {table[:, 0].max()}, not 0 to 9")
    return table[:, 1:], table[:, 0].astype(np.int64)
