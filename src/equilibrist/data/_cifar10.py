"""CIFAR-10, from its canonical archives or what was unpacked from them."""

from __future__ import annotations

import gzip
import hashlib
import os
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

import numpy as np
from numpy.typing import NDArray

from equilibrist.data._batches import LARGEST, Batch, read_pickle, read_rows, unpacked
from equilibrist.data._folders import cached, named_root, searching
from equilibrist.data.absent import reads
from equilibrist.data.arrays import ArraySource, check_range
from equilibrist.errors import DataError
from equilibrist.files.reading import open_regular, printable_path, read_regular, reason

MIRRORS = ("https://www.cs.toronto.edu/~kriz/",)

MD5: Mapping[str, str] = {
    "cifar-10-binary.tar.gz": "c32a1d4ab5d03f1284b67883e8d87530",
    "cifar-10-python.tar.gz": "c58f30108f718f92721af3b95e74349a",
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "test_batch": "40351d587109b95175f43aff81a1287e",
}

CLASSES = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)

_BINARY = "cifar-10-binary.tar.gz"


@dataclass(frozen=True)
class _Form:
    """One of the two forms: its archive, the folder in it, the ends of file names, its reader."""

    archive: str
    folder: str
    suffix: str
    read: Callable[[bytes], Batch]


_FORMS = (
    _Form("cifar-10-python.tar.gz", "cifar-10-batches-py", "", read_pickle),
    _Form(_BINARY, "cifar-10-batches-bin", ".bin", read_rows),
)


@reads
def cifar10(
    root: str | os.PathLike[str] | None = None,
    value_range: tuple[float, float] = (-1.0, 1.0),
    train: bool = True,
    download: bool = True,
    *,
    mirrors: Sequence[str] = MIRRORS,
    md5: Mapping[str, str] = MD5,
) -> ArraySource:
    """Small photographs, [50000, 3, 32, 32] (train) or [10000, 3, 32, 32], with labels.

    Source: A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009. Bytes are
    mapped linearly onto `value_range`.

    Both published forms are read: the folders cifar-10-batches-py (pickles) and
    cifar-10-batches-bin (rows of bytes), and the archives of each. They are looked for under
    `root`, else under the folder that the environment variable EQUILIBRIST_DATA names, as ROOT/
    (also if it is one of those folders) or ROOT/cifar10/. A folder that was named is never written
    to. Where none was, the binary archive comes from the user's cache folder; if it is missing there it
    is fetched from `mirrors`, unless `download` is false. Nothing that the pickles name is executed.

    Every archive and every pickled batch is held against the checksum that `md5` has for its name
    (unpacked binary batches have no published ones; they are held against their format).

    Args:
        root: the folder of the files; see above where they are looked for.
        value_range: what the bytes 0 and 255 become.
        train: the training part; else the test part.
        download: whether the archive may be fetched into the user's cache folder.
        mirrors: where from, in turn.
        md5: checksums by file name.

    Returns:
        The samples, as a source that a recipe takes.

    Raises:
        DataError: a folder or file that is missing, unreadable, truncated, damaged or of other content, or
            a download that fails.
    """
    check_range("cifar10", value_range)
    stems = [f"data_batch_{i}" for i in range(1, 6)] if train else ["test_batch"]
    if (named := named_root(root)) is not None:
        form, place = _find(*named, mirrors)
    else:
        form, place = _FORMS[1], cached("cifar10", _BINARY, "CIFAR-10", download, mirrors, md5)
    images, labels, checksum = _read(form, place, stems, md5, (mirrors or MIRRORS)[0])
    return ArraySource(
        images,
        copy=False,
        name="cifar10",
        origin=(
            f"CIFAR-10, {'training' if train else 'test'} part, {len(images)} images "
            f"(Krizhevsky, 2009), from {place.name} (MD5 of the batches {checksum})"
        ),
        value_range=value_range,
        labels=labels,
        class_names=CLASSES,
    )


def _read(
    form: _Form, place: Path, stems: Sequence[str], md5: Mapping[str, str], site: str
) -> tuple[NDArray[np.uint8], NDArray[np.int64], str]:
    """Images [N, 3, 32, 32], labels [N] and the checksum of the batches that they are in."""
    names = [stem + form.suffix for stem in stems]
    again = f"fetch {form.archive} again from {site}"
    files = _from_folder if place.is_dir() else _from_archive
    pixels, labels, sums = [], [], hashlib.md5(usedforsecurity=False)
    for name, raw in files(place, form.folder, names, md5, again):
        where = place / name
        found = hashlib.md5(raw, usedforsecurity=False).hexdigest()
        if md5.get(name, found) != found:
            raise DataError(
                f"{printable_path(where)}: truncated, damaged or another file (MD5 {found} instead of "
                f"{md5[name]}); {again}"
            )
        try:
            batch = form.read(raw)
        except ValueError as error:
            raise DataError(f"{printable_path(where)}: {error}; {again}") from None
        sums.update(raw)
        pixels.append(batch[0])
        labels.append(batch[1])
    images = np.concatenate(pixels).reshape(-1, 3, 32, 32)
    return images, np.concatenate(labels), sums.hexdigest()


def _find(root: Path, setting: str, mirrors: Sequence[str]) -> tuple[_Form, Path]:
    """The first form that lies under `root`, unpacked or not, and where."""
    with searching(root, setting, "CIFAR-10"):
        for form in _FORMS:
            for folder in (root / form.folder, root / "cifar10" / form.folder):
                if folder.is_dir():
                    return form, folder
            # A folder that holds some of the batches: missing ones are named later.
            stems = [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]
            if any((root / (stem + form.suffix)).exists() for stem in stems):
                return form, root
        for form in _FORMS:
            for archive in (root / form.archive, root / "cifar10" / form.archive):
                if archive.exists():
                    return form, archive
    raise DataError(
        f"{printable_path(root / _BINARY)}: not found, nor the other forms of CIFAR-10; put it there from "
        f"{(mirrors or MIRRORS)[0].rstrip('/')}/{_BINARY}, or name no folder to have it fetched"
    )


@contextmanager
def _readable(path: Path, again: str) -> Iterator[None]:
    try:
        yield
    except (ValueError, EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(
            f"{printable_path(path)}: truncated or damaged archive ({reason(error)}); {again}"
        ) from None
    except FileNotFoundError:
        raise DataError(f"{printable_path(path)}: not found; {again}") from None
    except OSError as error:
        raise DataError(
            f"{printable_path(path)}: cannot be read ({reason(error)}); make it a file that you "
            f"may read, or {again}"
        ) from None


def _from_folder(
    folder: Path, _: str, names: Sequence[str], md5: Mapping[str, str], again: str
) -> Iterator[tuple[str, bytes]]:
    for name in names:
        with _readable(folder / name, again):
            raw = read_regular(folder / name, LARGEST)
        yield name, raw


def _from_archive(
    path: Path, folder: str, names: Sequence[str], md5: Mapping[str, str], again: str
) -> Iterator[tuple[str, bytes]]:
    with _readable(path, again), open_regular(path) as file:
        if path.name in md5:
            found = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False))
            if found.hexdigest() != md5[path.name]:
                raise DataError(
                    f"{printable_path(path)}: truncated, damaged or another file (MD5 {found.hexdigest()} "
                    f"instead of {md5[path.name]}); {again}"
                )
            file.seek(0)
        with gzip.GzipFile(fileobj=file) as stream:
            held = unpacked(cast(IO[bytes], stream), {f"{folder}/{name}": name for name in names})
    for name in names:
        if name not in held:
            raise DataError(f"{printable_path(path)}: lacks {folder}/{name}; {again}")
        yield name, held.pop(name)
