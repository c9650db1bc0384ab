"""Arrays on disk: .npy, .npz and .safetensors."""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open

from equilibrist._errors import DataError, did_you_mean
from equilibrist.data._idx import shown
from equilibrist.data._source import Kind
from equilibrist.data.arrays import ArraySource

READABLE = (".npy", ".npz", ".safetensors")
REFUSED = (".pt", ".pth", ".pkl", ".pickle")
_CHANNELS = (1, 3, 4)

Values = torch.Tensor | np.ndarray[Any, Any]


def array_file(
    path: str | os.PathLike[str],
    key: str | None = None,
    labels_key: str | None = None,
    value_range: tuple[float, float] | None = None,
    dtype: torch.dtype = torch.float32,
) -> ArraySource:
    """The samples that an array file holds; nothing in a file is ever executed.

    Arguments:
        path: a file .npy, .npz or .safetensors.
        key: which array of a .npz or .safetensors; None where there is but one beside the labels.
        labels_key: which array holds the labels, integers [N]; None for none.
        value_range, dtype: as in `ArraySource`.

    Shapes: [N, d] are points. Images are [N, C, H, W]; [N, H, W] are grey and get one channel;
    [N, H, W, C] is recognised by a last side of 1, 3 or 4 where the second is none of these, and
    turned. `origin` says what was done. Values: uint8 (mapped onto `value_range`) or floats in it.

    Raises `DataError`, one line, for a file that is missing, damaged, executes code when read or
    holds objects, for a key that is missing or not chosen, and for what `ArraySource` refuses.
    """
    file = Path(path).expanduser()
    where, ending = shown(file), file.suffix.lower()
    if ending in REFUSED:
        raise DataError(
            f"{where}: reading {ending} files executes code that they hold; save the array with "
            "numpy.save or safetensors.torch.save_file"
        )
    if ending not in READABLE:
        raise DataError(f"{where}: not an array file; give {', '.join(READABLE)}")
    if not file.exists():
        raise DataError(f"{where}: not found; name an array file")
    try:
        values, labels, chosen = _READERS[ending](file, key, labels_key)
    except DataError:
        raise
    except OSError as error:
        why = f"cannot be read ({error.strerror})" if error.strerror else "truncated or damaged"
        raise DataError(f"{where}: {why}; save or copy it again") from None
    except (
        ValueError,
        EOFError,
        SyntaxError,
        KeyError,
        OverflowError,
        MemoryError,  # a damaged header may promise terabytes
        SafetensorError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        why = (
            "holds Python objects, which only running code could read"
            if "Object arrays" in str(error) or "Python objects" in str(error)
            else "truncated or damaged"
        )
        raise DataError(f"{where}: {why}; save the array again, as numbers") from None
    values, kind, turned = _arranged(values)
    shape = "x".join(map(str, values.shape[1:]))
    what = "points" if kind == "points" else "images"
    return ArraySource(
        values,
        name=shown(Path(file.name)),
        origin=(
            f"{len(values) if values.ndim else 0} {what} {shape} of "
            f"{str(values.dtype).removeprefix('torch.')} from {shown(Path(file.name))}"
            f"{'' if chosen is None else f', array {chosen!r}'}{turned}"
        ),
        kind=kind,
        value_range=value_range,
        labels=labels,
        dtype=dtype,
    )


def _npy(
    file: Path, key: str | None, labels_key: str | None
) -> tuple[Values, Values | None, str | None]:
    if key is not None or labels_key is not None:
        raise DataError(f"{shown(file)}: a .npy file has no keys; leave them out")
    with file.open("rb") as stream:
        if stream.read(2) == b"PK":
            raise DataError(f"{shown(file)}: a .npz file by its content; name it so")
    return np.load(file, mmap_mode="r", allow_pickle=False), None, None


def _npz(
    file: Path, key: str | None, labels_key: str | None
) -> tuple[Values, Values | None, str | None]:
    # Opened here: NumPy leaves the files that it cannot read open.
    with file.open("rb") as stream:
        held = np.load(stream, allow_pickle=False)
        if isinstance(held, np.ndarray):
            raise DataError(f"{shown(file)}: a .npy file by its content; name it so")
        chosen = _choose(file, held.files, key, labels_key)
        return held[chosen], None if labels_key is None else held[labels_key], chosen


def _safetensors(
    file: Path, key: str | None, labels_key: str | None
) -> tuple[Values, Values | None, str | None]:
    with safe_open(file, framework="pt") as held:
        chosen = _choose(file, list(held.keys()), key, labels_key)
        labels = None if labels_key is None else held.get_tensor(labels_key)
        return held.get_tensor(chosen), labels, chosen


_READERS: dict[
    str,
    Callable[[Path, str | None, str | None], tuple[Values, Values | None, str | None]],
] = {".npy": _npy, ".npz": _npz, ".safetensors": _safetensors}


def _choose(file: Path, keys: list[str], key: str | None, labels_key: str | None) -> str:
    for wanted in (key, labels_key):
        if wanted is not None and wanted not in keys:
            hint = did_you_mean(wanted, keys) or f" (it has {', '.join(sorted(keys)) or 'none'})"
            raise DataError(f"{shown(file)}: no array {wanted!r}; choose another key{hint}")
    if key is not None:
        return key
    left = [name for name in keys if name != labels_key]
    if len(left) != 1:
        raise DataError(
            f"{shown(file)}: holds {len(left)} arrays ({', '.join(sorted(left)) or 'none'}); "
            "choose one by key"
        )
    return left[0]


def _arranged(values: Values) -> tuple[Values, Kind, str]:
    """The values as [N, d] or [N, C, H, W], which of them, and what was done, in words."""
    if values.ndim == 2:
        return values, "points", ""
    if values.ndim == 3:
        return values[:, None], "images", ", one channel added to [N, H, W]"
    if values.ndim == 4 and values.shape[3] in _CHANNELS and values.shape[1] not in _CHANNELS:
        turned: Values
        if isinstance(values, torch.Tensor):
            turned = values.permute(0, 3, 1, 2)
        else:
            turned = values.transpose(0, 3, 1, 2)
        return turned, "images", ", channels moved from [N, H, W, C]"
    return values, "images", ""
