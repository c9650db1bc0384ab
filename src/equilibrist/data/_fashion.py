"""Fashion-MNIST, from its four canonical files."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from equilibrist.data._idx_set import FASHION
from equilibrist.data.absent import reads
from equilibrist.data.arrays import ArraySource


@reads
def fashion_mnist(
    root: str | os.PathLike[str] | None = None,
    train: bool = True,
    value_range: tuple[float, float] = (0.0, 1.0),
    download: bool = True,
    *,
    mirrors: Sequence[str] = FASHION.mirrors,
    md5: Mapping[str, str] = FASHION.md5,
) -> ArraySource:
    """Pictures of clothes, [60000, 1, 28, 28] (train) or [10000, 1, 28, 28], with labels.

    Source: H. Xiao, K. Rasul and R. Vollgraf, "Fashion-MNIST: a Novel Image Dataset for
    Benchmarking Machine Learning Algorithms", arXiv:1708.07747, 2017 (MIT licence). Bytes are
    mapped linearly onto `value_range`.

    The files have the names of MNIST's, so they must lie in a folder of their own:
    ROOT/fashion-mnist/ or ROOT/FashionMNIST/raw/, where ROOT, download, checksums and errors are
    as in `mnist`.

    Args:
        root, train, value_range, download, mirrors, md5: as in `mnist`.

    Returns:
        The samples, as a source that a recipe takes.
    """
    return FASHION.load(root, train, value_range, download, mirrors, md5)
