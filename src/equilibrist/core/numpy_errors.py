"""Settings of the process around us that would make a computation fail."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import numpy as np

P = ParamSpec("P")
T = TypeVar("T")


def usual_errors(function: Callable[P, T]) -> Callable[P, T]:
    """`function` under NumPy's own settings for errors, whatever the host has made of them: strict ones
    raise at an underflow, which is rounded to the zero that is meant."""

    @functools.wraps(function)
    def called(*args: P.args, **kwargs: P.kwargs) -> T:
        with np.errstate(divide="warn", over="warn", under="ignore", invalid="warn"):
            return function(*args, **kwargs)

    return called
