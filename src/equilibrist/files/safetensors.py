"""Tensors in safetensors files, read into memory of their own.

The library's reader maps the file, which then must not change while it is read, and cannot open
names that are not UTF-8.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import torch
from torch import Tensor

from equilibrist.files.reading import open_regular, parse_json, read_exactly

_LONGEST = 2**23  # bytes of a header, which is about a hundred a tensor
_TYPES = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "I16": torch.int16,
    "I32": torch.int32,
    "I64": torch.int64,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F32": torch.float32,
    "F64": torch.float64,
    "C64": torch.complex64,
}


class Held:
    """An open safetensors file: the `keys` of its tensors, its `metadata`, and `tensor(key)`."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        size = file.seek(0, 2)
        file.seek(0)
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(size - 8, _LONGEST):
            raise ValueError("its header is cut short or too long")
        self._start = 8 + length
        header = parse_json(file.read(length))
        if not isinstance(header, dict):
            raise ValueError("its header is no JSON object")
        self.metadata = header.pop("__metadata__", {})
        if not isinstance(self.metadata, dict):
            raise ValueError("its metadata are no JSON object")
        self._entries = {key: _entry(key, about) for key, about in header.items()}
        end = 0
        for begin, stop, *_ in sorted(self._entries.values(), key=lambda entry: entry[:2]):
            if begin != end:
                raise ValueError("its tensors overlap or leave gaps")
            end = stop
        if end != size - self._start:
            raise ValueError(f"{size - self._start} bytes follow its header instead of {end}")
        self.keys = list(self._entries)

    def tensor(self, key: str) -> Tensor:
        """One tensor. Fresh, aligned memory: kernels may round differently on other alignments."""
        begin, end, dtype, shape = self._entries[key]
        raw = torch.empty(end - begin, dtype=torch.uint8)
        self._file.seek(self._start + begin)
        if end > begin and read_exactly(self._file, raw.numpy().data) != end - begin:
            raise ValueError("it is cut short")
        return raw.view(dtype).reshape(shape)


@contextmanager
def opened(path: Path) -> Iterator[Held]:
    """The safetensors file at `path`.

    Raises `OSError` as `open_regular`, and `ValueError`, in one line, where the file is damaged.
    """
    with open_regular(path) as file:
        yield Held(file)


def _entry(key: str, about: object) -> tuple[int, int, torch.dtype, list[int]]:
    if not isinstance(about, dict) or set(about) != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"its header does not describe {key[:80]!r}")
    code, shape, ends = about["dtype"], about["shape"], about["data_offsets"]
    if not isinstance(code, str) or code not in _TYPES:
        raise ValueError(f"{key[:80]!r} is of the type {str(code)[:20]!r}, which is not read")
    for numbers in (shape, ends):
        if not (
            isinstance(numbers, list)
            and len(numbers) <= 64
            and all(type(number) is int and 0 <= number < 2**63 for number in numbers)
        ):
            raise ValueError(f"its header does not describe {key[:80]!r}")
    dtype = _TYPES[code]
    if len(ends) != 2 or ends[1] - ends[0] != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"{key[:80]!r} has not the bytes that its shape needs")
    return ends[0], ends[1], dtype, shape
