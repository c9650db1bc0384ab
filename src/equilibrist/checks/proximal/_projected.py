"""Minimisation over a feasible set, its step sizes taken from the weights and from the curvature it meets."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Part = dict[str, Tensor]
Objective = Callable[[Part], tuple[float, Part]]  # value and gradient
Project = Callable[[Part], Part]

_FIRST = 0.03  # the first step, relative to the weights
_LONGER = 8.0  # how much longer the next step is where the curvature is not positive
_FAR = 100.0  # the longest step that is tried where the curvature is not known, relative to the weights
_MEMORY = 4  # values among which the largest must be undercut
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
    """

    point: Part
    value: float
    left: float
    settled: bool
    evaluations: int


def scales(part: Part) -> dict[str, float]:
    """The size of each tensor: its root mean square, at least that of all entries together (a shift that happens to
    be 1e-6 may have far to go); 1 where all are zero."""
    count = sum(x.numel() for x in part.values())
    overall = math.sqrt(sum(float(x.double().square().sum()) for x in part.values()) / max(count, 1))
    overall = overall if overall > 0 else 1.0
    own = {k: float(x.double().square().mean().sqrt()) if x.numel() else 0.0 for k, x in part.items()}
    return {k: max(size, overall) for k, size in own.items()}


def minimise(
    objective: Objective,
    project: Project,
    start: Part,
    evaluations: int,
    nothing: float,
    sizes: dict[str, float] | None = None,
) -> Descent:
    """A spectral projected gradient (Birgin, Martinez and Raydan 2000) in units of each tensor's own size.

    A step length per tensor is a metric in which the nearest feasible point is still the one that `project`
    gives, as long as the set is a product of sets of single tensors: weight clipping, balls, spectral balls
    and half-spaces of one matrix all are. (Adam's metric is another for every entry, and its projected steps end
    where nothing is stationary.) Where a set joins several tensors the line search still asks that the value falls.

    It stops where the promise of the projected gradient is below `nothing`, in the objective's unit. A value
    that is not finite counts as infinite: the step is halved.

    Returns:
        The best point; that is `start`, projected, where nothing lower was found.
    """
    size = {k: v * v for k, v in (sizes or scales(start)).items()}
    here = project(start)
    value, slope = objective(here)
    spent, best, lowest = 1, here, value
    recent: deque[float] = deque([value], maxlen=_MEMORY)
    lengths: deque[float] = deque(maxlen=8)
    length = _first(slope, size)
    left = math.inf
    if not math.isfinite(value) or not length > 0:
        return Descent(best, value, 0.0 if length == 0 else math.inf, length == 0, spent)
    curved = False
    while spent < evaluations:
        if not curved:  # a promise is only small if it is along a long step too
            length = _stretched(project, here, slope, size, length, nothing)
        lengths.append(length)
        step = _step(project, here, slope, size, length)
        promise = _promise(slope, step, size, length)
        left = _left(project, here, slope, size, max(lengths))
        if left <= nothing:
            return Descent(best, lowest, left, True, spent)
        inner = _dot(slope, step)
        share, moved = 1.0, False
        for _ in range(_HALVINGS):
            there = project({k: x + share * step[k] for k, x in here.items()})
            new, new_slope = objective(there)
            spent += 1
            if math.isfinite(new) and new <= max(recent) + _ARMIJO * share * inner:
                moved = True
                break
            if spent >= evaluations:
                break
            share *= 0.5 if math.isfinite(new) else 0.1
        if not moved:
            # Rounding, or a kink: shorter steps from the same place would not be seen to gain either.
            return Descent(best, lowest, left, promise <= _rounding(value), spent)
        s = {k: there[k] - here[k] for k in here}
        bend = _dot(s, {k: new_slope[k] - slope[k] for k in s})
        span = sum(float((x * x).sum()) / size[k] for k, x in s.items())
        here, value, slope = there, new, new_slope
        recent.append(value)
        if value < lowest:
            best, lowest = here, value
        if not span > 0:
            return Descent(best, lowest, left, True, spent)
        curved = bend > 1e-12 * span / length
        length = span / bend if curved else _LONGER * length
        length = min(max(length, 1e-12 * lengths[0]), 1e12 * lengths[0])
    return Descent(best, lowest, left, False, spent)


def _first(slope: Part, size: dict[str, float]) -> float:
    """The length at which the largest entry moves by `_FIRST` of its tensor's size; 0 where nothing has a slope."""
    most = max((float(g.abs().max()) * size[k] ** 0.5 for k, g in slope.items() if g.numel()), default=0.0)
    return _FIRST / most if 0 < most < math.inf else 0.0


def _stretched(
    project: Project, here: Part, slope: Part, size: dict[str, float], length: float, nothing: float
) -> float:
    """The length, made longer until the projected step promises something or would be `_FAR` times the weights."""
    far = _first(slope, size) / _FIRST * _FAR
    while length < far and _left(project, here, slope, size, length) <= nothing:
        length *= _LONGER
    return length


def _step(project: Project, here: Part, slope: Part, size: dict[str, float], length: float) -> Part:
    there = project({k: x - length * size[k] * slope[k] for k, x in here.items()})
    return {k: there[k] - x for k, x in here.items()}


def _promise(slope: Part, step: Part, size: dict[str, float], length: float) -> float:
    """What a quadratic model of curvature 1 / length falls by along the step."""
    span = sum(float((x * x).sum()) / size[k] for k, x in step.items())
    return -_dot(slope, step) - span / (2 * length)


def _left(project: Project, here: Part, slope: Part, size: dict[str, float], length: float) -> float:
    return max(_promise(slope, _step(project, here, slope, size, length), size, length), 0.0)


def _dot(a: Part, b: Part) -> float:
    return sum(float((x * b[k]).sum()) for k, x in a.items())


def _rounding(value: float) -> float:
    return 1e-6 * (1 + abs(value))


def finite_part(part: Part) -> bool:
    """Whether every entry is finite."""
    return all(bool(torch.isfinite(x).all()) for x in part.values())
