"""Step sizes that change over time, and gradients of bounded size: update rules around update rules."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from equilibrist.optimizers import Coupled, Optimizer, Params, levelled, metric
from equilibrist.tree import Tree
from equilibrist.validation import is_number, positive


class Schedule(Protocol):
    """The factor of the step size at update t = 0, 1, ... (a 0-d float tensor)."""

    def __call__(self, t: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class Piecewise:
    """Straight lines between the points (t, factor), constant before the first and after the last.

    Warm-up over 100 updates: ((0, 0.01), (100, 1.0)). Linear decay from update 5,000 to 20,000:
    ((5000, 1.0), (20000, 0.0)). A drop: ((999, 1.0), (1000, 0.1)).

    Args:
        points: (number of updates, factor), in order.

    Examples:
        >>> import torch
        >>> from equilibrist import Piecewise
        >>> float(Piecewise(((5000, 1.0), (20000, 0.0)))(torch.tensor(12500.0)))
        0.5
    """

    points: tuple[tuple[float, float], ...]

    def __post_init__(self) -> None:
        pairs = isinstance(self.points, tuple | list) and all(
            isinstance(p, tuple | list) and len(p) == 2 and all(map(is_number, p))
            for p in self.points
        )
        if not pairs:
            raise ValueError(f"Piecewise needs pairs of numbers (t, factor), not {self.points!r}")
        times = [t for t, _ in self.points]
        if len(times) < 2 or not all(
            -math.inf < a < b < math.inf for a, b in itertools.pairwise(times)
        ):
            raise ValueError(
                f"Piecewise needs two points or more with growing t, not {self.points}"
            )
        if any(not 0 <= factor < math.inf for _, factor in self.points):
            raise ValueError(f"Piecewise needs factors that are not negative, not {self.points}")

    def __call__(self, t: Tensor) -> Tensor:
        value = torch.full_like(t, self.points[0][1])
        for (t0, f0), (t1, f1) in itertools.pairwise(self.points):
            share = ((t - t0) / (t1 - t0)).clamp(0, 1)
            value = value + share * (f1 - f0)
        return value


@dataclass(frozen=True)
class Cosine:
    """end + (1 - end) (1 + cos(pi t / steps)) / 2 up to t = steps, `end` from there on
    (Loshchilov and Hutter 2017, equation 5, one period).

    Args:
        steps: where `end` is reached.
        end: the last factor.

    Examples:
        >>> import torch
        >>> from equilibrist import Cosine
        >>> round(float(Cosine(100)(torch.tensor(50.0))), 4)
        0.5
    """

    steps: int
    end: float = 0.0

    def __post_init__(self) -> None:
        numbers = is_number(self.steps) and is_number(self.end)
        if not numbers or not 1 <= self.steps < math.inf or not 0 <= self.end <= 1:
            raise ValueError(f"Cosine needs steps >= 1 and an end in [0, 1], not {self}")

    def __call__(self, t: Tensor) -> Tensor:
        share = (t / self.steps).clamp(0, 1)
        return self.end + (1 - self.end) * (1 + torch.cos(math.pi * share)) / 2


@dataclass(frozen=True)
class WrappedRule:
    """An update rule around another one, by itself that rule: what `Scheduled`, `Clipped` and
    `equilibrist.per_member.PerMember` have in common. `members` says how many stacked players there are."""

    rule: Optimizer

    def __post_init__(self) -> None:
        if isinstance(self.rule, type) or not hasattr(self.rule, "update"):
            raise ValueError(
                f"{type(self).__name__}.rule must be Adam(1e-3), say, not {self.rule!r}"
            )

    def init(self, params: Params) -> Tree:
        return {"rule": self.rule.init(params)}

    def metric(self, state: Tree) -> Params | None:
        """The inner rule's."""
        return metric(self.rule, state["rule"])

    def update(
        self, grads: Params, state: Tree, params: Params, members: int | None = None
    ) -> None:
        update(self.rule, grads, state["rule"], params, members)


def part_way(
    factor: Callable[[Tensor], Tensor],
    rule: Optimizer,
    grads: Params,
    state: Tree,
    params: Params,
    members: int | None,
) -> None:
    """x <- x + factor(x) (rule(x) - x): the rule's own step, times a factor that fits the parameter's shape."""
    before = [p.clone() for p in params.values()]
    update(rule, grads, state, params, members)
    for old, new in zip(before, params.values(), strict=True):
        new.copy_(torch.lerp(old, new, factor(new)))


@dataclass(frozen=True)
class Scheduled(WrappedRule):
    """The rule's own step times schedule(t), t its updates so far: x <- x + schedule(t) (rule(x) - x).

    For rules whose step is proportional to their step size (all of `equilibrist.optimizers`) that is
    the rule with step size lr * schedule(t).

    Args:
        rule: what steps.
        schedule: the factor by number of updates.

    Examples:
        >>> from equilibrist import Adam, Piecewise, Scheduled
        >>> warm = Scheduled(Adam(2e-4), Piecewise(((0, 0.01), (100, 1.0))))
    """

    schedule: Schedule

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.schedule, type) or not callable(self.schedule):
            raise ValueError(f"Scheduled.schedule must be Cosine(...), say, not {self.schedule!r}")

    def init(self, params: Params) -> Tree:
        device = next(iter(params.values())).device
        # Counted in float64: float32 stands still at 2^24.
        return {**super().init(params), "t": torch.zeros((), dtype=torch.float64, device=device)}

    def update(
        self, grads: Params, state: Tree, params: Params, members: int | None = None
    ) -> None:
        factor = self.schedule(state["t"])
        part_way(lambda x: factor.to(x.dtype), self.rule, grads, state["rule"], params, members)
        state["t"] += 1


@dataclass(frozen=True)
class Clipped(WrappedRule):
    """The rule on g * min(1, limit / |g|), |g| the norm over all of the player's parameters
    (Pascanu et al. 2013, Algorithm 1). Of stacked players each has its own norm.

    Args:
        rule: what steps.
        limit: of the gradient's norm.
    """

    limit: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, limit=self.limit)

    def update(
        self, grads: Params, state: Tree, params: Params, members: int | None = None
    ) -> None:
        start = 0 if members is None else 1
        shape = (-1,) if members is None else (members, -1)
        norms = [torch.linalg.vector_norm(g.reshape(shape), dim=-1) for g in grads.values()]
        size = torch.linalg.vector_norm(torch.stack(norms), dim=0)
        # The smallest number beside it keeps 0 / 0 away and changes nothing else; an infinite norm
        # stays visible as 0 * inf, and the run stops for it.
        factor = (self.limit / size.clamp_min(torch.finfo(size.dtype).tiny)).clamp_max(1.0)
        shaped = {
            k: g * factor.reshape(factor.shape + (1,) * (g.ndim - start)) for k, g in grads.items()
        }
        super().update(shaped, state, params, members)


def update(
    rule: Optimizer,
    grads: Params,
    state: Tree,
    params: Params,
    members: int | None = None,
    coupled: Coupled = (),
) -> None:
    """One update of a rule; `members` of stacked players reach the rules that look at whole players.

    Parameters that are `coupled` by a feasible set take the rule's step with its preconditioner D reduced to
    one number d, the root mean square of D (as Adam-mini does by block, Zhang et al. 2024):
    x + (D / d)(rule(x) - x). With the nearest feasible point P after it, x = P(x - lr g / d) at rest, which
    is what stationary means on a convex set; x = P(x - lr D^-1 g) is not, unless the set is a box.
    """
    kept = params if coupled is None else [k for k in coupled if k in params]
    before = {k: params[k].clone() for k in kept}
    if members is not None and isinstance(rule, WrappedRule):
        rule.update(grads, state, params, members)
    else:
        rule.update(grads, state, params)
    divided = metric(rule, state) if before else None
    if divided is not None:
        level = levelled(divided, coupled, members)
        for k, old in before.items():
            params[k].copy_(old + (params[k] - old) * (divided[k] / level[k]))


def base(rule: Optimizer) -> Optimizer:
    """The rule inside of schedules and clipping: what a search begins with.

    Args:
        rule: an update rule, wrapped or not.

    Returns:
        The innermost rule.

    Examples:
        >>> from equilibrist import SGD, Clipped
        >>> from equilibrist.schedules import base
        >>> base(Clipped(SGD(0.1)))
        SGD(lr=0.1, momentum=0.0)
    """
    while isinstance(rule, WrappedRule):
        rule = rule.rule
    return rule
