"""Laws of real samples: arrays in memory, mixtures with a density, and two sets of digits."""

import difflib
import inspect
import os
from collections.abc import Callable
from typing import Any

from equilibrist._errors import DataError
from equilibrist.data._digits import digits
from equilibrist.data._mnist import mnist
from equilibrist.data._source import Source
from equilibrist.data.arrays import ArraySource
from equilibrist.data.mixtures import Mixture2D, eight_gaussians

__all__ = [
    "SOURCES",
    "ArraySource",
    "DataError",
    "Mixture2D",
    "Source",
    "digits",
    "eight_gaussians",
    "load",
    "mnist",
]

SOURCES: dict[str, Callable[..., Source]] = {
    "digits": digits,
    "eight-gaussians": eight_gaussians,
    "mnist": mnist,
}
"""What `load` knows: names and the functions that make the sources."""


def load(name: str, root: str | os.PathLike[str] | None = None, **settings: Any) -> Source:
    """The source called `name`, made by its function with `settings`.

    `root` is the folder of data files; sources that need none ignore it. Raises `DataError` for a
    name or setting that does not exist, with the nearest that does.
    """
    key = name.lower().replace("_", "-")
    if key not in SOURCES:
        raise DataError(f"{name}: no such data; {_hint(key, list(SOURCES))}")
    make = SOURCES[key]
    known = list(inspect.signature(make).parameters)
    for setting in settings:
        if setting not in known:
            raise DataError(f"{key}: no setting {setting}; {_hint(setting, known)}")
    return make(root=root, **settings) if "root" in known else make(**settings)


def _hint(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {close[0]}?" if close else f"choose one of {', '.join(known)}"
