"""What a statement on numbers consists of, and the numbers that may be chosen."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from equilibrist.theory._checks import Array
from equilibrist.theory.w2gan import W2Gaussian

Verdict = Literal["holds", "holds although its condition fails", "fails", "numbers disagree"]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)

# What a search or a quadrature is asked for, relative to 1 + |value|.
_CLOSE = 1e-6


@dataclass(frozen=True)
class Number:
    """One number twice.

    Attributes:
        name: what it is.
        closed: from the closed form.
        checked: from the definition, or None where that is beyond floating point.
        how: how `checked` was found.
        tolerance: how far the two may lie apart, relative to 1 + |closed|.
    """

    name: str
    closed: float
    checked: float | None
    how: str
    tolerance: float = _CLOSE

    @property
    def agrees(self) -> bool:
        if self.checked is None or self.closed == self.checked:
            return True
        return abs(self.closed - self.checked) <= self.tolerance * (1 + abs(self.closed))


@dataclass(frozen=True)
class CheckedStatement:
    """A statement of the paper on numbers.

    Attributes: `key`; `title`, where it stands; `claim`; `at`, the numbers chosen; `numbers`; `verdict`, one of
    `VERDICTS`; `why`, what the numbers show; `printed`: False where the paper does not claim it, and it shows what
    a hypothesis is for, or goes beyond it.
    """

    key: str
    title: str
    claim: str
    at: str
    numbers: tuple[Number, ...]
    verdict: Verdict
    why: str
    printed: bool = True


@dataclass(frozen=True)
class Setting:
    """The numbers that the statements are evaluated at. Theorem 1 needs s > 1 and Remark 1 s < 1: where s is on
    the other side, 1 / s is taken.

    Raises:
        ValueError: numbers out of the range in which double precision can check the statements.
    """

    d: int = 2
    s: float = 2.0
    eta: float = 0.5
    t: float = 1.0

    def __post_init__(self) -> None:
        ranges = {"d": (1, 6), "s": (0.25, 4.0), "eta": (0.01, 100.0), "t": (0.01, 3.0)}
        for name, (low, high) in ranges.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise ValueError(f"{name} must lie between {low:g} and {high:g}, not {value:g}")
        if self.d != int(self.d):
            raise ValueError(f"d must be a whole number, not {self.d!r}")
        if abs(math.log(self.s)) < 0.01:
            raise ValueError("s must not be 1: then the generator realises the data's law")

    @property
    def wide(self) -> W2Gaussian:
        return W2Gaussian(self.d, max(self.s, 1 / self.s), self.eta, self.t)

    @property
    def narrow(self) -> W2Gaussian:
        return W2Gaussian(self.d, min(self.s, 1 / self.s), self.eta, self.t)


def verdict_on(  # a statement has this many parts
    key: str,
    title: str,
    claim: str,
    at: str,
    numbers: list[Number],
    holds: bool,
    why: str,
    given: bool = True,
    printed: bool = True,
) -> CheckedStatement:
    """`given`: whether the statement's own condition holds."""
    verdict: Verdict = "fails"
    if not all(n.agrees for n in numbers):
        verdict = "numbers disagree"
    elif holds:
        verdict = "holds" if given else "holds although its condition fails"
    return CheckedStatement(key, title, claim, at, tuple(numbers), verdict, why, printed)


def game_in_words(game: W2Gaussian) -> str:
    return f"d = {game.d}, s = {game.s:g}, eta = {game.eta:g}, t = {game.t:g}"


def in_general_position(d: int, eta: float, seed: int = 0) -> tuple[Array, Array, Array, Array]:
    """A pair in general position, A < eta I."""
    rng = np.random.default_rng(seed)
    S = rng.standard_normal((d, d))
    A = 0.7 * eta * np.eye(d) - eta * S @ S.T / d
    return (
        rng.standard_normal((d, d)) / 2,
        rng.standard_normal(d) / 2,
        A,
        eta * rng.standard_normal(d),
    )
