"""Errors that a user meets: one line that names the thing, what is wrong with it and what to do."""

import difflib
import sys
import warnings
from collections.abc import Iterable


class EquilibristError(Exception):
    """Base of all errors of this library that a user can act upon. `exit_code` is the command's."""

    exit_code = 2


class GameError(EquilibristError):
    """A game that is not what it must be: impure, mis-shaped, or not what it claims."""


class DataError(EquilibristError):
    """A data file or array that is missing, damaged or of the wrong kind."""

    exit_code = 3


class RecordError(EquilibristError):
    """A run directory that is missing, damaged, or belongs to another recipe."""

    exit_code = 3


class UnwritableError(RecordError, OSError):
    """A file or folder that cannot be written: the disk is full, a permission is missing."""


class RecipeError(EquilibristError):
    """A recipe or a setting that does not exist or does not fit."""


class CompilationError(EquilibristError):
    """A step that cannot be compiled, with the reason: it can be taken eagerly all the same."""


class NonFiniteError(EquilibristError):
    """Training met an infinite or undefined loss or gradient.

    Attributes: `step`, the first step concerned; `player`; `quantity` ("loss" or "gradient");
    `checkpoint`, the newest one that is sound (or None).
    """

    exit_code = 4

    def __init__(
        self, message: str, *, step: int, player: str, quantity: str, checkpoint: str | None
    ) -> None:
        super().__init__(message)
        self.step, self.player, self.quantity, self.checkpoint = step, player, quantity, checkpoint


class RankLostError(EquilibristError):
    """Another process of a training by several is gone, or does not answer: what to run again."""

    exit_code = 6


class StoppedError(EquilibristError):
    """A command was asked to stop (Ctrl-C): what is kept, and how to go on."""

    exit_code = 130


class RequirementError(EquilibristError):
    """A claim that was required does not hold, or could not be assessed."""

    exit_code = 5


class UnknownClaimError(RequirementError, KeyError):
    """An audit holds no such claim: a KeyError as well, for an audit is a mapping."""

    __str__ = Exception.__str__  # not KeyError's, which quotes the message


def first_line(error: BaseException, otherwise: str = "") -> str:
    """The first line of an error's message; `otherwise` where the message is empty."""
    return (str(error).splitlines() or [otherwise])[0]


def did_you_mean(word: str, options: Iterable[str], n: int = 1, cutoff: float = 0.6) -> str:
    """ " (did you mean ...?)" with the `n` options closest to `word`; empty where none is close."""
    by_letters = {option.lower(): option for option in options}  # "Gan" is near "GAN"
    near = [
        by_letters[found]
        for found in difflib.get_close_matches(word.lower(), list(by_letters), n=n, cutoff=cutoff)
    ]
    return f" (did you mean {' or '.join(near)}?)" if near else ""


def warn_user(text: str) -> None:
    """A warning at the line of the user's that led here: the innermost one outside of this package."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back and frame.f_globals.get("__name__", "").partition(".")[0] == "equilibrist":
        level, frame = level + 1, frame.f_back
    warnings.warn(text, stacklevel=level + 1)
