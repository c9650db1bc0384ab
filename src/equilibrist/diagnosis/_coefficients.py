"""Coefficients of declared parts over the steps of a player: medians, ranges, and how many steps agree."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence

from equilibrist.certificates import Json
from equilibrist.diagnosis._explain import Explained
from equilibrist.diagnosis._recorder import Recorder

LEAST = 3  # steps before a coefficient is spoken of
SHARE = 0.8  # of the steps that must agree
CLEAR = 0.3  # residuals above leave coefficients unclear
SMALL = 0.02  # coefficients below are none


def explained(recorder: Recorder, role: str) -> list[Explained]:
    """All steps of a player, explained."""
    found = (recorder.explained.get(id(s)) for s in recorder.steps if s.player == role)
    return [e for e in found if e is not None]


def median(steps: Sequence[Explained], part: str) -> float:
    """Of a part's coefficient over the steps."""
    return statistics.median(e.get(part) for e in steps) if steps else 0.0


def spread(steps: Sequence[Explained], part: str) -> tuple[float, float]:
    """The smallest and the largest coefficient."""
    values = [e.get(part) for e in steps]
    return min(values), max(values)


def share(steps: Sequence[Explained], test: Callable[[Explained], bool]) -> float:
    """Of the steps for which it holds."""
    return sum(map(test, steps)) / len(steps) if steps else 0.0


def constant(steps: Sequence[Explained], part: str) -> bool:
    """Whether a coefficient is the same at all steps, as that of a loss that is added up is."""
    return alike([e.get(part) for e in steps])


def alike(values: Sequence[float]) -> bool:
    """Whether numbers vary by less than a fifth of their mean."""
    return statistics.pstdev(values) < 0.2 * abs(statistics.fmean(values))


def within(part: str, size: float, *others: str) -> Callable[[Explained], bool]:
    """Whether these coefficients are below a size."""
    return lambda e: max(abs(e.get(p)) for p in (part, *others)) < size


def below(part: str, limit: float) -> Callable[[Explained], bool]:
    """Whether a coefficient is below a limit."""
    return lambda e: e.get(part) < limit


def as_evidence(steps: Sequence[Explained], *parts: str) -> Json:
    """Evidence: medians and ranges of coefficients, residuals, how many steps."""
    found: Json = {
        "coefficients": {p: round(median(steps, p), 4) for p in parts},
        "ranges": {p: [round(v, 4) for v in spread(steps, p)] for p in parts},
        "residual": round(statistics.median(e.residual for e in steps), 5),
        "steps": len(steps),
    }
    return found


def residuals(by: dict[str, list[Explained]]) -> dict[str, float]:
    """The median residual by player."""
    return {
        role: statistics.median(e.residual for e in steps) for role, steps in by.items() if steps
    }
