"""MNIST, from its four canonical files."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from equilibrist.data._idx_set import MNIST
from equilibrist.data.absent import reads
from equilibrist.data.arrays import ArraySource


@reads
def mnist(
    root: str | os.PathLike[str] | None = None,
    train: bool = True,
    value_range: tuple[float, float] = (0.0, 1.0),
    download: bool = True,
    *,
    mirrors: Sequence[str] = MNIST.mirrors,
    md5: Mapping[str, str] = MNIST.md5,
) -> ArraySource:
    """Handwritten digits, [60000, 1, 28, 28] (train) or [10000, 1, 28, 28], with labels.

    Source: Y. LeCun, L. Bottou, Y. Bengio and P. Haffner, "Gradient-Based Learning Applied to
    Document Recognition", Proceedings of the IEEE 86(11), 1998. Bytes are mapped linearly onto
    `value_range`.

    The files are looked for under `root`, else under the folder that the environment variable
    EQUILIBRIST_DATA names, each as ROOT/, ROOT/mnist/ or ROOT/MNIST/raw/, gzipped or not. A folder
    that was named is never written to. Where none was, they come from the user's cache folder;
    missing ones are fetched from `mirrors` and checked against the checksums `md5` (by file name),
    unless `download` is false.

    Args:
        root: the folder of the files; see above where they are looked for.
        train: the training part; else the test part.
        value_range: what the bytes 0 and 255 become.
        download: whether files may be fetched into the user's cache folder.
        mirrors: where from, in turn.
        md5: checksums by file name.

    Returns:
        The samples, as a source that a recipe takes.

    Raises:
        DataError: a folder or file that is missing, unreadable, truncated, damaged or of other content, or
            a download that fails.
    """
    return MNIST.load(root, train, value_range, download, mirrors, md5)
