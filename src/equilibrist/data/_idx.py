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
from typing import IO, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from equilibrist.errors import DataError
from equilibrist.files.reading import open_regular, printable_path, read_exactly, reason

_GZIP = b"\x1f\x8b"
_UNSIGNED_BYTE = 8
_RATIO = 1032  # deflate never makes more of a byte


class Idx(NamedTuple):
    """What a file held: its `values` (read-only) and the `md5` of the file as it lies on disk."""

    values: NDArray[np.uint8]
    md5: str


def read_idx(path: Path, shape: tuple[int | None, ...], remedy: str) -> Idx:
    """Read an array of `shape`, where None leaves a dimension free.

    Whether the file is gzipped is read from its first bytes, not from its name. Raises `DataError`
    with one line (the file, its defect, then `remedy`) for a file that cannot be read, is
    truncated, damaged or too long, or holds something else.
    """

    def defect(text: str) -> DataError:
        return DataError(f"{printable_path(path)}: {text}; {remedy}")

    try:
        with open_regular(path) as file:
            md5 = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
            size = file.tell()
            file.seek(0)
            zipped = file.read(2) == _GZIP
            file.seek(0)
            if not zipped:
                return Idx(_values(file, shape, size), md5)
            with gzip.GzipFile(fileobj=file) as body:
                return Idx(_values(cast(IO[bytes], body), shape, size * _RATIO), md5)
    except EOFError:
        raise defect("truncated, the gzip stream has no end") from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise defect(f"damaged gzip stream ({error})") from None
    except ValueError as error:
        raise defect(str(error)) from None
    except MemoryError:
        raise defect("damaged, its header promises more than the memory holds") from None
    except OSError as error:
        raise DataError(
            f"{printable_path(path)}: cannot be read ({reason(error)}); make it a file that you may read"
        ) from None


def _values(file: IO[bytes], shape: tuple[int | None, ...], most: int) -> NDArray[np.uint8]:
    """The values of an IDX file that is at most `most` bytes long. ValueError (its defect) where they
    are not of this shape."""
    start = 4 + 4 * len(shape)
    head = file.read(start)
    if head[:2] != b"\0\0"[: len(head)]:
        raise ValueError(f"not an IDX file (it begins with {head[:4].hex(' ')})")
    if len(head) > 2 and head[2] != _UNSIGNED_BYTE:
        raise ValueError(f"holds values of IDX type {head[2]:#04x}, not unsigned bytes (0x08)")
    if len(head) > 3 and head[3] != len(shape):
        raise ValueError(f"has {head[3]} dimensions, not {len(shape)}")
    if len(head) < start:
        raise ValueError(f"truncated, {len(head)} bytes are less than its header")
    found = struct.unpack_from(f">{len(shape)}I", head, 4)
    if 0 in found or any(want not in (None, have) for have, want in zip(found, shape, strict=True)):
        wanted = " x ".join("N" if want is None else str(want) for want in shape)
        raise ValueError(f"holds {' x '.join(map(str, found))} values, not {wanted}")
    # Compared before anything is allocated: a damaged header may promise terabytes.
    wanted_bytes = math.prod(found)
    if wanted_bytes > most - start:
        raise ValueError(f"truncated, at least {wanted_bytes - most + start} bytes are missing")
    values = np.empty(wanted_bytes, np.uint8)
    got = read_exactly(file, values.data)
    if got < wanted_bytes:
        raise ValueError(f"truncated, {wanted_bytes - got} bytes are missing")
    # What follows is not unpacked: it may be any amount. An end is read, and its checksum compared.
    if file.read(1):
        raise ValueError("damaged, more bytes follow its end")
    return values.reshape(found)
