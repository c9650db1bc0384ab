"""Reads single files of a run: JSON with its kinds checked, pictures, points.

A damaged file is a `RecordError` of one line; a picture that cannot be shown leaves a note.
"""

import io
import struct
import zlib
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from equilibrist.errors import RecordError
from equilibrist.files.npy import read_npy
from equilibrist.files.reading import JSON_BYTES, parse_json, read_regular, reason
from equilibrist.report._record import Json, Sample

FORMAT = 1
T = TypeVar("T")

_PNG_START = b"\x89PNG\r\n\x1a\n"
_SAMPLE_BYTES = 2**25  # of a picture or of points: a page holds dozens


def read_json_if_there(path: Path) -> Any:
    """The file's JSON value, or None where there is no such file."""
    try:
        raw = read_regular(path, JSON_BYTES)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise RecordError(f"{path}: cannot be read ({reason(error)})") from None
    try:
        return parse_json(raw)
    except ValueError as error:
        raise RecordError(f"{path}: damaged, not JSON ({short(error)})") from None


def short(value: object) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= 80 else text[:77] + "..."


def expect(data: Json, name: str, kind: type[T], words: str, path: Path) -> T | None:
    """`data[name]` where it has the kind that the format says; None where it is absent or null."""
    value = data.get(name)
    if value is None:
        return None
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise RecordError(f"{path}: '{name}' should be {words}, found {short(repr(value))}")
    return value


def json_object(value: object, path: Path) -> Json:
    if not isinstance(value, dict):
        raise RecordError(f"{path}: should hold a JSON object, found {short(repr(value))}")
    written = value.get("format", FORMAT)
    if written != FORMAT:
        raise RecordError(
            f"{path}: written in format {short(written)}, this version reads format {FORMAT}"
        )
    return value


def read_sample(path: Path, step: int | None, notes: list[str]) -> Sample | None:
    """The picture or the points in `path`; None, with a note, where they cannot be shown."""
    try:
        raw = read_regular(path, _SAMPLE_BYTES)
        if path.suffix == ".npy":
            values = read_npy(io.BytesIO(raw), len(raw))
            if values.ndim > 2 or (values.ndim == 2 and values.shape[1] > 2):
                shape = list(values.shape[1:])
                note = f"Samples of shape {shape} lie beside the record as NumPy files; points in the plane are drawn."
                notes += [] if note in notes else [note]
                return None
            return _points(path.name, step, values)
        width, height = _png_size(raw)
        return Sample(path.name, step, png=raw, width=width, height=height)
    except (OSError, ValueError) as error:
        notes.append(f"{path.name} cannot be read ({reason(error)}) and is not shown.")
        return None


def _points(name: str, step: int | None, points: NDArray[np.generic]) -> Sample:
    if points.ndim != 2 or points.shape[1] != 2 or points.dtype.kind not in "fiu":
        raise ValueError(f"an array of shape {points.shape}, not points")
    with np.errstate(all="ignore"):  # what is beyond float64 becomes infinite
        return Sample(name, step, points=points.astype(np.float64))


def _png_size(raw: bytes) -> tuple[int, int]:
    """(width, height) of a PNG picture all of whose parts are there and have their checksum. ValueError
    for any other."""
    if not raw.startswith(_PNG_START):
        raise ValueError("not a whole PNG picture")
    at = len(_PNG_START)
    kinds: list[bytes] = []
    while at + 12 <= len(raw) and kinds[-1:] != [b"IEND"]:
        length = int.from_bytes(raw[at : at + 4])
        part, total = raw[at + 4 : at + 8 + length], raw[at + 8 + length : at + 12 + length]
        if len(total) < 4 or zlib.crc32(part) != int.from_bytes(total):
            break
        kinds.append(part[:4])
        at += 12 + length
    if (
        kinds[:1] != [b"IHDR"]
        or kinds[-1] != b"IEND"
        or b"IDAT" not in kinds
        or raw[at:].strip(b"\0")
    ):
        raise ValueError("not a whole PNG picture")
    width, height = struct.unpack_from(">II", raw, 16)
    if not 0 < width * height <= 2**26:
        raise ValueError(f"a picture of {width} x {height} pixels")
    return width, height
