"""Sets of images that are published as four IDX files: MNIST, and those made to replace it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from equilibrist.data._folders import cached, named_root, searching
from equilibrist.data._idx import read_idx
from equilibrist.data.arrays import ArraySource, check_range
from equilibrist.errors import DataError
from equilibrist.files.reading import printable_path


@dataclass(frozen=True)
class IdxSet:
    """What tells one set of four files from another, for their names are the same.

    Attributes:
        name: as `load` and recipes know it; also its folder in the user's cache.
        title, credit: its name in print, and who made it when.
        mirrors, md5: where its files are published, and their checksums by name.
        folders: where they may lie below the folder of all data.
        class_names: what its labels 0..9 are called.
        not_a_class: what an error says of another label.
    """

    name: str
    title: str
    credit: str
    mirrors: tuple[str, ...]
    md5: Mapping[str, str]
    folders: tuple[str, ...]
    class_names: tuple[str, ...]
    not_a_class: str

    def load(
        self,
        root: str | os.PathLike[str] | None,
        train: bool,
        value_range: tuple[float, float],
        download: bool,
        mirrors: Sequence[str],
        md5: Mapping[str, str],
    ) -> ArraySource:
        """The training or test part. Arguments and errors are those of `mnist`."""
        check_range(self.name, value_range)
        stem = "train" if train else "t10k"
        names = (f"{stem}-images-idx3-ubyte", f"{stem}-labels-idx1-ubyte")
        if (named := named_root(root)) is not None:
            paths = self._find(*named, names, mirrors)
        else:
            paths = [
                cached(self.name, f"{name}.gz", self.title, download, mirrors, md5)
                for name in names
            ]
        images, labels = (
            read_idx(path, shape, self._again(path, mirrors))
            for path, shape in zip(paths, ((None, 28, 28), (None,)), strict=True)
        )
        for path, file in zip(paths, (images, labels), strict=True):
            for other in SETS:
                if other is not self and file.md5 in other.md5.values():
                    raise DataError(
                        f"{printable_path(path)}: a file of {other.title}, not of {self.title}; "
                        f"{self._again(path, mirrors)}"
                    )
        if len(images.values) != len(labels.values):
            raise DataError(
                f"{printable_path(paths[1])}: {len(labels.values)} labels for {len(images.values)} images; "
                f"fetch both files again from {self._site(mirrors)}"
            )
        if labels.values.max() > 9:
            raise DataError(
                f"{printable_path(paths[1])}: a label of {labels.values.max()} is {self.not_a_class}; "
                f"{self._again(paths[1], mirrors)}"
            )
        return ArraySource(
            images.values[:, None],
            copy=False,
            name=self.name,
            origin=(
                f"{self.title}, {'training' if train else 'test'} part, {len(images.values)} "
                f"images ({self.credit}), from {paths[0].name} (MD5 {images.md5})"
            ),
            value_range=value_range,
            labels=labels.values,
            class_names=self.class_names,
        )

    def _site(self, mirrors: Sequence[str]) -> str:
        return mirrors[0] if mirrors else self.mirrors[0]

    def _again(self, path: Path, mirrors: Sequence[str]) -> str:
        name = path.name.removesuffix(".gz") + ".gz"
        return f"fetch it again from {self._site(mirrors).rstrip('/')}/{name}"

    def _find(
        self, root: Path, setting: str, names: Sequence[str], mirrors: Sequence[str]
    ) -> list[Path]:
        """The files of `names` in the first folder under `root` that holds the first of them."""
        with searching(root, setting, self.title):
            for folder in (root / name for name in self.folders):
                # The gzipped file goes first: it carries a checksum of its own.
                found = [
                    next((p for p in (folder / f"{n}.gz", folder / n) if p.exists()), None)
                    for n in names
                ]
                if found[0] is not None:
                    if found[1] is None:
                        raise self._lack(folder / f"{names[1]}.gz", mirrors)
                    return [path for path in found if path is not None]
        raise self._lack(root / self.folders[0] / f"{names[0]}.gz", mirrors)

    def _lack(self, path: Path, mirrors: Sequence[str]) -> DataError:
        return DataError(
            f"{printable_path(path)}: not found; put it there from {self._site(mirrors).rstrip('/')}/"
            f"{path.name}, or name no folder to have it fetched"
        )


MNIST = IdxSet(
    name="mnist",
    title="MNIST",
    credit="LeCun, Bottou, Bengio and Haffner, 1998",
    mirrors=(
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
    ),
    md5={
        "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
        "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
        "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
        "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
    },
    folders=(".", "mnist", "MNIST/raw"),
    class_names=tuple("0123456789"),
    not_a_class="no digit",
)

FASHION = IdxSet(
    name="fashion-mnist",
    title="Fashion-MNIST",
    credit="Xiao, Rasul and Vollgraf, 2017",
    mirrors=(
        "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
    ),
    md5={
        "train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        "train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
        "t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
        "t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
    },
    # Not the folder itself: MNIST's files, which have the same names, may lie there.
    folders=("fashion-mnist", "FashionMNIST/raw"),
    class_names=(
        "T-shirt/top",
        "trouser",
        "pullover",
        "dress",
        "coat",
        "sandal",
        "shirt",
        "sneaker",
        "bag",
        "ankle boot",
    ),
    not_a_class="no class of clothes",
)

SETS = (MNIST, FASHION)
