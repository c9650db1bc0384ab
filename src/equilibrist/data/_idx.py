"""A reader for IDX files of unsigned bytes, plain or gzipped.

The format: two zero bytes, a type code (8 for unsigned bytes), the number of dimensions, each
dimension as a big-endian 32-bit count, then the values in row-major order.
"""

import gzip
import hashlib
import math
import struct
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from equilibrist._errors import DataError

_GZIP = b"\x1f\x8b"
_UNSIGNED_BYTE = 8


class Idx(NamedTuple):
    """What a file held: its `values` (read-only) and the `md5` of the file as it lies on disk."""

    values: NDArray[np.uint8]
    md5: str


def shown(path: Path) -> str:
    """The path as a message may show it: on one line, whatever its name holds."""
    text = str(path)
    return text if text.isprintable() else repr(text)


def read_idx(path: Path, shape: tuple[int | None, ...], remedy: str) -> Idx:
    """Read an array of `shape`, where None leaves a dimension free.

    Whether the file is gzipped is told from its first bytes, not from its name. Raises `DataError`
    with one line (the file, its defect, then `remedy`) for a file that cannot be read, is
    truncated, damaged or too long, or holds something else.
    """

    def defect(text: str) -> DataError:
        return DataError(f"{shown(path)}: {text}; {remedy}")

    try:
        raw = path.read_bytes()
    except OSError as error:
        raise DataError(
            f"{shown(path)}: cannot be read ({error.strerror}); make it a file that you may read"
        ) from None
    try:
        body = gzip.decompress(raw) if raw.startswith(_GZIP) else raw
    except EOFError:
        raise defect("truncated, the gzip stream has no end") from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise defect(f"damaged gzip stream ({error})") from None

    start = 4 + 4 * len(shape)
    if body[:2] != b"\0\0"[: len(body)]:
        raise defect(f"not an IDX file (it begins with {body[:4].hex(' ')})")
    if len(body) > 2 and body[2] != _UNSIGNED_BYTE:
        raise defect(f"holds values of IDX type {body[2]:#04x}, not unsigned bytes (0x08)")
    if len(body) > 3 and body[3] != len(shape):
        raise defect(f"has {body[3]} dimensions, not {len(shape)}")
    if len(body) < start:
        raise defect(f"truncated, {len(body)} bytes are less than its header")
    found = struct.unpack_from(f">{len(shape)}I", body, 4)
    if 0 in found or any(want not in (None, have) for have, want in zip(found, shape, strict=True)):
        wanted = " x ".join("N" if want is None else str(want) for want in shape)
        raise defect(f"holds {' x '.join(map(str, found))} values, not {wanted}")
    # Compared before anything is allocated: a damaged header may promise terabytes.
    surplus = len(body) - start - math.prod(found)
    if surplus < 0:
        raise defect(f"truncated, {-surplus} bytes are missing")
    if surplus > 0:
        raise defect(f"damaged, {surplus} bytes follow its end")
    values = np.frombuffer(body, np.uint8, offset=start).reshape(found)
    return Idx(values, hashlib.md5(raw, usedforsecurity=False).hexdigest())
