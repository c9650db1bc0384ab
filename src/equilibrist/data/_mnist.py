"""MNIST, from its four canonical files."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from equilibrist._errors import DataError
from equilibrist.data._download import fetch
from equilibrist.data._idx import read_idx, shown
from equilibrist.data.arrays import ArraySource, check_range

ENVIRONMENT = "EQUILIBRIST_DATA"

MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)

MD5: Mapping[str, str] = {
    "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
    "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
    "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
    "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
}

_FOLDERS = (".", "mnist", "MNIST/raw")


def mnist(
    root: str | os.PathLike[str] | None = None,
    train: bool = True,
    value_range: tuple[float, float] = (0.0, 1.0),
    download: bool = True,
    *,
    mirrors: Sequence[str] = MIRRORS,
    md5: Mapping[str, str] = MD5,
) -> ArraySource:
    """Handwritten digits, [60000, 1, 28, 28] (train) or [10000, 1, 28, 28], with labels.

    Source: Y. LeCun, L. Bottou, Y. Bengio and P. Haffner, "Gradient-Based Learning Applied to
    Document Recognition", Proceedings of the IEEE 86(11), 1998. Bytes are mapped linearly onto
    `value_range`.

    The files are looked for under `root`, else under the folder that the environment variable
    EQUILIBRIST_DATA names, each as ROOT/, ROOT/mnist/ or ROOT/MNIST/raw/, gzipped or not. A folder
    that was named is never written to. Where none was, they come from the user's cache folder;
    what it lacks is fetched from `mirrors` and held against the checksums `md5` (by file name),
    unless `download` is false.

    Raises `DataError`, one line, for a folder or file that is missing, unreadable, truncated,
    damaged or of other content, and for a download that fails.
    """
    check_range("mnist", value_range)
    stem = "train" if train else "t10k"
    names = (f"{stem}-images-idx3-ubyte", f"{stem}-labels-idx1-ubyte")
    named = root if root is not None else os.environ.get(ENVIRONMENT) or None
    if named is not None:
        setting = "--data-root" if root is not None else ENVIRONMENT
        paths = _find(Path(named).expanduser(), names, setting, mirrors)
    else:
        paths = [_cached(f"{name}.gz", download, mirrors, md5) for name in names]

    images, labels = (
        read_idx(path, shape, _again(path, mirrors))
        for path, shape in zip(paths, ((None, 28, 28), (None,)), strict=True)
    )
    if len(images.values) != len(labels.values):
        raise DataError(
            f"{shown(paths[1])}: {len(labels.values)} labels for {len(images.values)} images; "
            f"fetch both files again from {_site(mirrors)}"
        )
    if labels.values.max() > 9:
        raise DataError(
            f"{shown(paths[1])}: a label of {labels.values.max()} is no digit; "
            f"{_again(paths[1], mirrors)}"
        )
    return ArraySource(
        images.values[:, None],
        name="mnist",
        origin=(
            f"MNIST, {'training' if train else 'test'} part, {len(images.values)} images "
            f"(LeCun, Bottou, Bengio and Haffner, 1998), from {paths[0].name} (MD5 {images.md5})"
        ),
        value_range=value_range,
        labels=labels.values,
    )


def _site(mirrors: Sequence[str]) -> str:
    return mirrors[0] if mirrors else MIRRORS[0]


def _again(path: Path, mirrors: Sequence[str]) -> str:
    name = path.name.removesuffix(".gz") + ".gz"
    return f"fetch it again from {_site(mirrors).rstrip('/')}/{name}"


def _find(root: Path, names: Sequence[str], setting: str, mirrors: Sequence[str]) -> list[Path]:
    """The files of `names` in the first folder under `root` that holds the first of them."""
    try:
        if root.exists() and not root.is_dir():
            raise DataError(
                f"{shown(root)}: a file, not a folder; let {setting} name the folder of the files"
            )
        if not root.exists():
            raise DataError(
                f"{shown(root)}: no such folder; let {setting} name the folder of the MNIST files"
            )
        for folder in (root / name for name in _FOLDERS):
            # The gzipped file goes first: it carries a checksum of its own.
            found = [
                next((p for p in (folder / f"{n}.gz", folder / n) if p.exists()), None)
                for n in names
            ]
            if found[0] is not None:
                if found[1] is None:
                    raise _lack(folder / f"{names[1]}.gz", mirrors)
                return [path for path in found if path is not None]
    except OSError as error:
        raise DataError(
            f"{shown(root)}: cannot be read ({error.strerror}); change its permissions or let "
            f"{setting} name another folder"
        ) from None
    raise _lack(root / f"{names[0]}.gz", mirrors)


def _lack(path: Path, mirrors: Sequence[str]) -> DataError:
    return DataError(
        f"{shown(path)}: not found; put it there from {_site(mirrors).rstrip('/')}/{path.name}, "
        f"or name no folder to have it fetched"
    )


def _cached(name: str, download: bool, mirrors: Sequence[str], md5: Mapping[str, str]) -> Path:
    import pooch

    path = Path(pooch.os_cache("equilibrist")) / "mnist" / name
    elsewhere = f"let --data-root or {ENVIRONMENT} name a folder that holds the MNIST files"
    if name not in md5:
        raise DataError(f"{name}: no checksum is given, so it cannot be verified; add it to md5")
    if download:
        fetch(path, md5[name], mirrors, elsewhere)
    elif not path.is_file():
        raise DataError(f"{shown(path)}: not found and download is off; turn it on or {elsewhere}")
    return path
