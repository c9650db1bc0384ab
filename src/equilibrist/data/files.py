"""Arrays on disk: .npy, .npz and .safetensors."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import IO

import torch

from equilibrist.data._source import Kind
from equilibrist.data.absent import reads
from equilibrist.data.arrays import Array, ArraySource
from equilibrist.errors import DataError, did_you_mean
from equilibrist.files.npy import read_npy
from equilibrist.files.reading import expanded_path, open_regular, printable_path, reason
from equilibrist.files.safetensors import Held

READABLE = (".npy", ".npz", ".safetensors")
REFUSED = (".pt", ".pth", ".pkl", ".pickle")
_CHANNELS = (1, 3, 4)


@reads
def array_file(
    path: str | os.PathLike[str],
    key: str | None = None,
    labels_key: str | None = None,
    value_range: tuple[float, float] | None = None,
    dtype: torch.dtype = torch.float32,
) -> ArraySource:
    """The samples that an array file holds; nothing in a file is ever executed.

    Args:
        path: a file .npy, .npz or .safetensors.
        key: which array of a .npz or .safetensors; None where there is but one beside the labels.
        labels_key: which array holds the labels, integers [N]; None for none.
        value_range, dtype: as in `ArraySource`.

    Shapes: [N, d] are points. Images are [N, C, H, W]; [N, H, W] are grey and get one channel;
    [N, H, W, C] is recognised by a last side of 1, 3 or 4 where the second is none of these, and
    turned. `origin` says what was done. Array: uint8 (mapped onto `value_range`) or floats in it.

    Returns:
        The samples, with their labels where there are any.

    Raises:
        DataError: a file that is missing, damaged, executes code when read or holds objects, a key that is
            missing or not chosen, or what `ArraySource` refuses.
    """
    file = expanded_path(path)
    values, labels, chosen = _read(file, key, labels_key)
    values, kind, turned = _arranged(values)
    shape = "x".join(map(str, values.shape[1:]))
    what = "points" if kind == "points" else "images"
    source = ArraySource(
        values,
        name=printable_path(file),  # as messages need it where the array is refused
        origin=(
            f"{len(values) if values.ndim else 0} {what} {shape} of "
            f"{str(values.dtype).removeprefix('torch.')} from {printable_path(Path(file.name))}"
            f"{'' if chosen is None else f', array {chosen!r}'}{turned}"
        ),
        kind=kind,
        value_range=value_range,
        labels=labels,
        dtype=dtype,
        copy=False,
    )
    source.name = printable_path(Path(file.name))
    return source


Read = tuple[Array, Array | None, str | None]  # samples, labels, and which array the samples are


def _read(file: Path, key: str | None, labels_key: str | None) -> Read:
    """What the file holds.

    Raises:
        DataError: a file that is missing, damaged or of another kind.
    """
    where, ending = printable_path(file), file.suffix.lower()
    if ending in REFUSED:
        raise DataError(
            f"{where}: reading {ending} files executes code that they hold; save the array with "
            "numpy.save or safetensors.torch.save_file"
        )
    if ending not in READABLE:
        raise DataError(f"{where}: not an array file; give {', '.join(READABLE)}")
    try:
        with open_regular(file) as stream:
            return _READERS[ending](file, stream, key, labels_key)
    except DataError:
        raise
    except FileNotFoundError:
        raise DataError(f"{where}: not found; name an array file") from None
    except OSError as error:
        raise DataError(
            f"{where}: cannot be read ({reason(error)}); save or copy it again"
        ) from None
    except Exception as error:  # damaged archives make their readers raise nearly anything
        why = reason(error)
        other = why.startswith("it holds ")  # intact, but no numbers
        why = why.removeprefix("it ") if other else f"truncated or damaged ({why})"
        raise DataError(f"{where}: {why}; save the array again, as numbers") from None


def _npy(file: Path, stream: IO[bytes], key: str | None, labels_key: str | None) -> Read:
    if key is not None or labels_key is not None:
        raise DataError(f"{printable_path(file)}: a .npy file has no keys; leave them out")
    if stream.read(2) == b"PK":
        raise DataError(f"{printable_path(file)}: a .npz file by its content; name it so")
    size = stream.seek(0, 2)
    stream.seek(0)
    return read_npy(stream, size), None, None


def _npz(file: Path, stream: IO[bytes], key: str | None, labels_key: str | None) -> Read:
    if stream.read(6) == b"\x93NUMPY":
        raise DataError(f"{printable_path(file)}: a .npy file by its content; name it so")
    with zipfile.ZipFile(stream) as held:
        members = {m.filename.removesuffix(".npy"): m for m in held.infolist()}
        chosen = _choose(file, list(members), key, labels_key)

        def array(name: str) -> Array:
            member = members[name]
            if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise ValueError("compressed in a way that NumPy does not use")
            with held.open(member) as body:
                return read_npy(body, member.file_size)

        return array(chosen), None if labels_key is None else array(labels_key), chosen


def _safetensors(file: Path, stream: IO[bytes], key: str | None, labels_key: str | None) -> Read:
    held = Held(stream)
    chosen = _choose(file, held.keys, key, labels_key)
    labels = None if labels_key is None else held.tensor(labels_key)
    return held.tensor(chosen), labels, chosen


_READERS: dict[str, Callable[[Path, IO[bytes], str | None, str | None], Read]] = {
    ".npy": _npy,
    ".npz": _npz,
    ".safetensors": _safetensors,
}


def _choose(file: Path, keys: list[str], key: str | None, labels_key: str | None) -> str:
    for wanted in (key, labels_key):
        if wanted is not None and wanted not in keys:
            hint = did_you_mean(wanted, keys) or f" (it has {_listed(keys)})"
            raise DataError(
                f"{printable_path(file)}: no array {wanted!r}; choose another key{hint}"
            )
    if key is not None:
        return key
    left = [name for name in keys if name != labels_key]
    if len(left) != 1:
        raise DataError(
            f"{printable_path(file)}: holds {len(left)} arrays ({_listed(left)}); choose one by key"
        )
    return left[0]


def _listed(keys: list[str]) -> str:
    text = ", ".join(sorted(keys)[:20]) + (", ..." if len(keys) > 20 else "")
    return (text if text.isprintable() else repr(text)) or "none"


def _arranged(values: Array) -> tuple[Array, Kind, str]:
    """The values as [N, d] or [N, C, H, W], which of them, and what was done, in words."""
    if values.ndim == 2:
        return values, "points", ""
    if values.ndim == 3:
        return values[:, None], "images", ", one channel added to [N, H, W]"
    if values.ndim == 4 and values.shape[3] in _CHANNELS and values.shape[1] not in _CHANNELS:
        turned: Array
        if isinstance(values, torch.Tensor):
            turned = values.permute(0, 3, 1, 2)
        else:
            turned = values.transpose(0, 3, 1, 2)
        return turned, "images", ", channels moved from [N, H, W, C]"
    return values, "images", ""
