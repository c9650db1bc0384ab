"""Reads single files of a run: JSON with its kinds checked, pictures, points.

A damaged file is a `RecordError` of one line; a picture that cannot be shown leaves a note.
"""

import json
import struct
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from equilibrist._errors import RecordError

from ._record import Json, Sample

FORMAT = 1
T = TypeVar("T")

_PNG_START, _PNG_END = b"\x89PNG\r\n\x1a\n", b"IEND\xaeB`\x82"


def parse(raw: bytes) -> Any:
    try:
        return json.loads(raw.decode("utf-8"))
    except RecursionError:
        raise ValueError("nested too deeply") from None


def read_json(path: Path) -> Any:
    """The file's JSON value, or None where there is no such file."""
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise RecordError(f"{path}: cannot be read ({error.strerror})") from None
    try:
        return parse(raw)
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


def json_object(value: Any, path: Path) -> Json:
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
        if path.suffix == ".npy":
            points = np.load(path, allow_pickle=False)
            if points.ndim != 2 or points.shape[1] != 2 or points.dtype.kind not in "fiu":
                notes.append(f"{path.name} holds an array of shape {points.shape}, not points.")
                return None
            return Sample(path.name, step, points=points.astype(np.float64))
        raw = path.read_bytes()
    except (OSError, ValueError, EOFError):
        notes.append(f"{path.name} cannot be read and is not shown.")
        return None
    if not raw.startswith(_PNG_START) or not raw.rstrip(b"\0").endswith(_PNG_END):
        notes.append(f"{path.name} is not a whole PNG picture and is not shown.")
        return None
    width, height = struct.unpack(">II", raw[16:24])
    return Sample(path.name, step, png=raw, width=width, height=height)
