"""Laws of real samples: sets of images, folders and arrays, and laws with a density."""

import difflib
import inspect
import os
from collections.abc import Callable
from typing import Any

from equilibrist.data._cifar10 import cifar10
from equilibrist.data._digits import digits
from equilibrist.data._fashion import fashion_mnist
from equilibrist.data._mnist import mnist
from equilibrist.data._source import Paired, Source
from equilibrist.data.absent import reads
from equilibrist.data.arrays import ArraySource
from equilibrist.data.augment import Augmented
from equilibrist.data.files import READABLE, REFUSED, array_file
from equilibrist.data.folder import folder
from equilibrist.data.gaussian import Gaussian
from equilibrist.data.loaders import source_of
from equilibrist.data.mixtures import Mixture2D, eight_gaussians, twenty_five_gaussians
from equilibrist.data.roll import SwissRoll, swiss_roll
from equilibrist.errors import DataError
from equilibrist.files.reading import expanded_path, printable_path, reason

__all__ = [
    "SOURCES",
    "ArraySource",
    "Augmented",
    "DataError",
    "Gaussian",
    "Mixture2D",
    "Paired",
    "Source",
    "SwissRoll",
    "array_file",
    "cifar10",
    "digits",
    "eight_gaussians",
    "fashion_mnist",
    "folder",
    "load",
    "mnist",
    "source_of",
    "swiss_roll",
    "twenty_five_gaussians",
]

SOURCES: dict[str, Callable[..., Source]] = {
    "cifar10": cifar10,
    "digits": digits,
    "eight-gaussians": eight_gaussians,
    "fashion-mnist": fashion_mnist,
    "mnist": mnist,
    "swiss-roll": swiss_roll,
    "twenty-five-gaussians": twenty_five_gaussians,
}
"""What `load` knows by name, and the functions that make it."""


@reads
def load(
    name: str | os.PathLike[str], root: str | os.PathLike[str] | None = None, **settings: Any
) -> Source:
    """The source called `name`, or at the path `name`, made by its function with `settings`.

    A name of `SOURCES` goes first (write ./digits for a folder of that name). A path of a folder is
    read by `folder`, one of an array file by `array_file`. Sources that need no files ignore `root`.

    Args:
        name: a name of `SOURCES`, or a path.
        root: the folder of data files.
        settings: arguments of the function that makes the source.

    Returns:
        The source.

    Raises:
        DataError: a name or setting that does not exist, with the nearest that does.

    Examples:
        >>> from equilibrist.data import load
        >>> load("eight-gaussians", radius=2.0).sigma
        0.01
    """
    text = os.fspath(name)
    key = text.lower().replace("_", "-")
    make = SOURCES.get(key)
    if make is not None and not isinstance(name, os.PathLike):
        _check_settings(key, make, settings)
        known = inspect.signature(make).parameters
        return make(root=root, **settings) if "root" in known else make(**settings)
    path = expanded_path(text)
    try:
        is_folder, exists = path.is_dir(), path.exists()
    except OSError as error:
        raise DataError(f"{printable_path(path)}: cannot be read ({reason(error)})") from None
    if is_folder:
        read: Callable[..., Source] = folder
    elif exists or path.suffix.lower() in READABLE + REFUSED:
        read = array_file
    elif isinstance(name, os.PathLike) or os.sep in text:
        raise DataError(
            f"{printable_path(path)}: no such folder or file; name one that holds samples"
        )
    else:
        raise DataError(f"{printable_path(path)}: no such data; {_hint(key, list(SOURCES))}")
    _check_settings(printable_path(path), read, settings)
    return read(path, **settings)


def _check_settings(name: str, make: Callable[..., Source], settings: dict[str, Any]) -> None:
    known = [setting for setting in inspect.signature(make).parameters if setting != "path"]
    for setting in settings:
        if setting not in known:
            raise DataError(f"{name}: no setting {setting}; {_hint(setting, known)}")


def _hint(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {close[0]}?" if close else f"choose one of {', '.join(known)}"
