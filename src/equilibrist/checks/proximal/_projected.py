"""Minimisation over a feasible set, its step sizes taken from the weights and from the curvature it meets.

A size per tensor is a metric in which the nearest feasible point is still the one that a projection gives, as long as
the set is a product of sets of single tensors: weight clipping, balls, spectral balls and half-spaces of one matrix all
are. In other metrics, those of Adam and of quasi-Newton steps, projected steps end where nothing is stationary: so
such a step is taken only where the projection leaves it as it is. Where a set joins several tensors the line search
still asks that the value falls.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from equilibrist import tree

Part = dict[str, Tensor]
Objective = Callable[[Part], tuple[float, Part]]  # value and gradient
Project = Callable[[Part], Part]

_FIRST = 0.03  # the first step, relative to the weights
_LONGER = 8.0  # how much longer the next step is where the curvature is not positive
_FAR = 100.0  # the longest step that is tried where the curvature is not known, relative to the weights
_VALUES = 4  # values among which the largest must be undercut
_PAIRS = 10  # changes of place and slope that quasi-Newton steps remember
_LENGTHS = 8  # step lengths, of which the longest says what is left
_HALVINGS = 12  # of one step
_ARMIJO = 1e-4


@dataclass(frozen=True)
class Descent:
    """Where a search ended.

    Attributes:
        point: the best feasible point.
        value: the objective there.
        left: what it may still fall by: the projected gradient's promise in a quadratic model whose curvature
            is the least that was met on the last steps.
        settled: whether it stopped because nothing was left, and not because its evaluations were spent.
        evaluations: how many were.
        length: the last step length, for a search of the same kind to begin with.
    """

    point: Part
    value: float
    left: float
    settled: bool
    evaluations: int
    length: float | None = None


def scales(part: Part) -> dict[str, float]:
    """The size of each tensor: its root mean square, at least that of all entries together (a shift that happens to
    be 1e-6 may have far to go); 1 where all are zero."""
    count = sum(x.numel() for x in part.values())
    squares = {k: float(x.double().square().sum()) for k, x in part.items()}
    overall = math.sqrt(sum(squares.values()) / max(count, 1)) or 1.0
    return {k: max(math.sqrt(squares[k] / max(x.numel(), 1)), overall) for k, x in part.items()}


def minimise(
    objective: Objective,
    project: Project,
    start: Part,
    evaluations: int,
    nothing: float,
    sizes: dict[str, float] | None = None,
    length: float | None = None,
) -> Descent:
    """A spectral projected gradient (Birgin, Martinez and Raydan 2000) in units of each tensor's own size, with
    quasi-Newton steps (L-BFGS) wherever they stay inside the feasible set.

    It stops where the promise of the projected gradient is below `nothing`, in the objective's unit. A value
    that is not finite counts as infinite: the step is made shorter. `length`: a step length to begin with, in
    place of a small step relative to the weights.

    Returns:
        The best point; that is `start`, projected, where nothing lower was found.
    """
    units = _Units(objective, project, start, sizes or scales(start))
    here = units.near(units.flat(start))
    value, slope = units.at(here)
    spent, best, lowest, left, curved = 1, here, value, math.inf, False

    def ended(settled: bool, length: float | None = None) -> Descent:
        return Descent(units.part(best), lowest, left, settled, spent, length)

    first = _first(slope)
    if not math.isfinite(value) or not first > 0:
        stationary = math.isfinite(value) and first == 0
        left = 0.0 if stationary else math.inf
        return ended(stationary)
    length = first if length is None else length
    values, lengths = deque([value], maxlen=_VALUES), deque([length], maxlen=_LENGTHS)
    pairs: deque[tuple[Tensor, Tensor]] = deque(maxlen=_PAIRS)
    while spent < evaluations:
        if not curved:  # a promise is only small if it is along a long step too
            length = _stretched(units.near, here, slope, length, nothing)
        lengths.append(length)
        left = _left(units.near, here, slope, max(lengths))
        if left <= nothing:
            return ended(True, length)
        step = _inside(units.near, here, _newton(slope, pairs) if curved else None, slope)
        if step is None:
            step = units.near(here - length * slope) - here
        promise, most = -float(slope @ step), evaluations - spent
        there, new, new_slope, used, moved = units.search(here, step, max(values), promise, most)
        spent += used
        if not moved:
            # Rounding, or a kink: shorter steps from the same place would not be seen to gain either.
            return ended(promise <= 1e-6 * (1 + abs(value)))
        s, y = there - here, new_slope - slope
        here, value, slope = there, new, new_slope
        values.append(value)
        if value < lowest:
            best, lowest = here, value
        if not float(s @ s) > 0:
            return ended(True, length)
        curved, length = _curvature_met(pairs, s, y, length)
    return ended(False, length)


@dataclass(frozen=True)
class _Units:
    """The objective on flat vectors, in units of each tensor's own size."""

    objective: Objective
    project: Project
    start: Part
    size: dict[str, float]

    def flat(self, part: Part) -> Tensor:
        return torch.cat([x.reshape(-1) / self.size[k] for k, x in part.items()])

    def part(self, x: Tensor) -> Part:
        return {k: self.size[k] * v for k, v in tree.unflatten(x, self.start).items()}

    def near(self, x: Tensor) -> Tensor:
        """The nearest feasible point."""
        return self.flat(self.project(self.part(x)))

    def at(self, x: Tensor) -> tuple[float, Tensor]:
        """Value and gradient."""
        value, slope = self.objective(self.part(x))
        return value, torch.cat([self.size[k] * slope[k].reshape(-1) for k in self.start])

    def search(
        self, here: Tensor, step: Tensor, value: float, promise: float, evaluations: int
    ) -> tuple[Tensor, float, Tensor, int, bool]:
        """(point, value and gradient there, evaluations, whether it is low enough): the step, made shorter until it
        undercuts `value` by enough of the promise."""
        share = 1.0
        for spent in range(1, _HALVINGS + 1):
            there = self.near(here + share * step)
            new, slope = self.at(there)
            moved = math.isfinite(new) and new <= value - _ARMIJO * share * promise
            if moved or spent >= evaluations:
                break
            share *= 0.5 if math.isfinite(new) else 0.1
        return there, new, slope, spent, moved


def within_radius(point: Part, centre: Part, radius: float) -> Part:
    """The point itself, or where the straight line from it to the centre meets the ball of that radius."""
    distance = math.sqrt(sum(float((x - centre[k]).square().sum()) for k, x in point.items()))
    if distance <= radius:
        return point
    return {k: centre[k] + radius / distance * (x - centre[k]) for k, x in point.items()}


def _first(slope: Tensor) -> float:
    """The length at which the largest entry moves by `_FIRST` of its tensor's size; 0 where nothing has a slope."""
    most = float(slope.abs().max()) if len(slope) else 0.0
    return _FIRST / most if 0 < most < math.inf else 0.0


def _stretched(
    near: Callable[[Tensor], Tensor], here: Tensor, slope: Tensor, length: float, nothing: float
) -> float:
    """The length, made longer until the projected step promises something or would be `_FAR` times the weights."""
    far = _first(slope) / _FIRST * _FAR
    while length < far and _left(near, here, slope, length) <= nothing:
        length *= _LONGER
    return length


def _left(near: Callable[[Tensor], Tensor], here: Tensor, slope: Tensor, length: float) -> float:
    """What a quadratic model of curvature 1 / length falls by along the projected gradient."""
    step = near(here - length * slope) - here
    return max(-float(slope @ step) - float(step @ step) / (2 * length), 0.0)


def _curvature_met(
    pairs: deque[tuple[Tensor, Tensor]], s: Tensor, y: Tensor, length: float
) -> tuple[bool, float]:
    """(whether it was positive along the last step, the next step length); positive ones are remembered."""
    span, bend = float(s @ s), float(s @ y)
    if bend > 1e-12 * span / length:
        pairs.append((s, y))
        return True, span / bend
    pairs.clear()
    return False, _LONGER * length


def _newton(slope: Tensor, pairs: deque[tuple[Tensor, Tensor]]) -> Tensor:
    """The step of L-BFGS (Nocedal and Wright 2006, algorithm 7.4)."""
    q, shares = slope, []
    for s, y in reversed(pairs):
        share = (s @ q) / (s @ y)
        q = q - share * y
        shares.append(share)
    s, y = pairs[-1]
    q = q * ((s @ y) / (y @ y))
    for (s, y), share in zip(pairs, reversed(shares), strict=True):
        q = q + s * (share - (y @ q) / (s @ y))
    return -q


def _inside(
    near: Callable[[Tensor], Tensor], here: Tensor, step: Tensor | None, slope: Tensor
) -> Tensor | None:
    """The step, where it goes down and the projection leaves it as it is."""
    if step is None or not float(slope @ step) < 0:
        return None
    there = here + step
    moved = float((near(there) - there).norm())
    return step if moved <= 1e-6 * float(step.norm()) else None
