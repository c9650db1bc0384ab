"""From an estimate, its interval and a tolerance to a verdict: the one place where numbers become verdicts."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum

from equilibrist.checks.certificate import Verdict


@dataclass(frozen=True)
class Interval:
    """An estimate with a two-sided interval."""

    mean: float
    low: float
    high: float

    @classmethod
    def at(cls, value: float) -> Interval:
        """A number that is known exactly, or not at all where it is not a number."""
        return cls(value, value, value)

    @property
    def ends(self) -> list[float]:
        """[low, high]."""
        return [self.low, self.high]

    @property
    def half_width(self) -> float:
        """Half of the interval's width: the statistical noise."""
        return (self.high - self.low) / 2

    def in_words(self, unit: str = "") -> str:
        """Such as "0.1 nats (0.05 to 0.15)"."""
        mean = f"{self.mean:.3g} {unit}".rstrip()
        return f"{mean} ({self.low:.3g} to {self.high:.3g})"


class Reason(Enum):
    """Why a verdict was reached."""

    NOT_FINITE = "the estimate is not finite"
    NO_TOLERANCE = "there is no tolerance to hold it against"
    ABOVE = "the whole interval is above the tolerance"
    NOISE = "the noise is above the tolerance"
    STRADDLES = "the estimate is above the tolerance, and the interval holds it"
    FITTED = "on the samples where the answer was found the gain that it leaves is not above the tolerance"
    UNFINISHED = "the search was still gaining when it stopped"
    BOUNDED = "a bound on the quantity is within the tolerance"
    BELOW = "nothing above the tolerance was found"


@dataclass(frozen=True)
class Decision:
    """A verdict and why it was reached."""

    verdict: Verdict
    reason: Reason


def decide(
    found: Interval,
    tolerance: float,
    *,
    exhaustive: bool = False,
    finished: bool = True,
    noise: float | None = None,
) -> Decision:
    """The verdict on "this quantity is at most `tolerance`".

    In this order: what is not a finite number is UNASSESSED; an interval that lies above the tolerance
    as a whole is REFUTED; noise above the tolerance is UNASSESSED; an exhaustive computation whose
    interval lies within the tolerance is VERIFIED; an estimate above the tolerance, or a search that
    was still gaining, is UNASSESSED; the rest is NOT_REFUTED.

    Args:
        found: the quantity (a gain, a residual) with its interval. Infinite ends are allowed: they say
            that the noise is unknown.
        tolerance: how much is called nothing; not a number where there is no yardstick.
        exhaustive: whether `found` bounds the quantity over everything that the claim speaks of. A
            search never does: it only bounds from below.
        finished: whether the search that produced `found` had stopped gaining.
        noise: what is held against the tolerance as noise (default: half of the interval's width).

    Returns:
        The verdict, with its reason.
    """
    noise = found.half_width if noise is None else noise
    if any(math.isnan(x) for x in (found.mean, found.low, found.high, noise)) or math.isinf(
        found.mean
    ):
        return Decision(Verdict.UNASSESSED, Reason.NOT_FINITE)
    if math.isnan(tolerance):
        return Decision(Verdict.UNASSESSED, Reason.NO_TOLERANCE)
    if found.low > tolerance:
        return Decision(Verdict.REFUTED, Reason.ABOVE)
    if noise > tolerance:
        return Decision(Verdict.UNASSESSED, Reason.NOISE)
    if exhaustive and found.high <= tolerance:
        return Decision(Verdict.VERIFIED, Reason.BOUNDED)
    if found.mean > tolerance:
        return Decision(Verdict.UNASSESSED, Reason.STRADDLES)
    if not finished:
        return Decision(Verdict.UNASSESSED, Reason.UNFINISHED)
    return Decision(Verdict.NOT_REFUTED, Reason.BELOW)
