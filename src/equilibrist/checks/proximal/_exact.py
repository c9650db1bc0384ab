"""V_prox of games without draws: damped Newton steps inside, a spectral projected gradient outside."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from equilibrist import tree
from equilibrist.checks.context import AuditContext, Tick
from equilibrist.checks.proximal.inner import Answer, Part, Search, perturbed_critic

_ROUNDS = 60  # Newton steps of one inner problem; a dozen do where V is concave
_SMALL = 1e-11  # the residual at which an inner problem counts as solved
_TINY = 1e-12  # eigenvalues below this share of the largest are flat directions


class ExactProx:
    """`Prox` where V and the semi-norm are exact (`game.sobolev_distance`).

    Inside: projected Newton steps with |eigenvalues| of the Hessian, backtracking, gradient steps where
    they fail. Where the game says `concave_critic` (V(G, .) concave, the semi-norm a quadratic form with least
    positive curvature mu), V_prox exceeds F(w) by at most

        g . (p - w) - mu |p - w|^2 / 2,   p = P(w + g / mu)

    with g = grad F(w): the maximum over the feasible set of the paraboloid that lies above F. Elsewhere
    several starts are tried, and no bound is given.

    Outside: Birgin, Martinez and Raydan's spectral projected gradient, with Proposition 4's gradient.
    """

    def __init__(self, context: AuditContext, tick: Tick) -> None:
        self.context, self.tick = context, tick
        self.game: Any = context.game
        self.trained, self.constants = context.wide
        self.anchor = self.trained["critic"]
        self.concave = bool(getattr(self.game, "concave_critic", False))
        self.mass = self._mass() if self.concave else 0.0

    # -- inside -----------------------------------------------------------------------------------

    def solve(
        self, generator: Part, lam: float, effort: int = 1, fresh: int = 0, warm: Part | None = None
    ) -> Answer:
        if lam == math.inf:
            return Answer(self.anchor, 0.0, 0.0)
        starts = [self.anchor if warm is None else warm]
        if not self.concave:
            far = perturbed_critic(self.context, self.anchor, 100 * fresh + 30, 0.3)
            # Both sides: a kink of the penalty at the trained critic holds what starts there.
            back = {k: 2 * x - far[k] for k, x in self.anchor.items()}
            starts = [self.anchor, far, back] if warm is None else [self.anchor, warm]
        found = [self._ascend(generator, lam, start, effort) for start in starts]
        critic, _, slope, rounds = max(found, key=lambda one: one[1])
        gap, residual = self._bound(generator, critic, slope, lam)
        return Answer(critic, gap, residual, rounds)

    def measure(self, generator: Part, critic: Part, lam: float, part: str) -> Tensor:
        with torch.no_grad():
            value = self._value(generator, critic)
            if 0 < lam < math.inf:
                value = value - lam * self.game.sobolev_distance(critic, self.anchor)
        return value.reshape(1)

    def feasible(self, generator: Part) -> Part:
        with torch.no_grad():
            projected: Part = self.game.project({**self.trained, "generator": generator})[
                "generator"
            ]
        return projected

    def _value(self, generator: Part, critic: Part) -> Tensor:
        losses = self.game.losses({"generator": generator, "critic": critic}, self.constants, {})
        value: Tensor = -losses["critic"]
        return value

    def _objective(self, generator: Part, lam: float) -> Callable[[Tensor], Tensor]:
        def objective(w: Tensor) -> Tensor:
            critic = tree.unflatten(w, self.anchor)
            value = self._value(generator, critic)
            if lam > 0:
                value = value - lam * self.game.sobolev_distance(critic, self.anchor)
            return value

        return objective

    def _project(self, w: Tensor) -> Tensor:
        players = {**self.trained, "critic": tree.unflatten(w, self.anchor)}
        return tree.flatten(self.game.project(players)["critic"])

    def _ascend(
        self, generator: Part, lam: float, start: Part, effort: int
    ) -> tuple[Part, float, Tensor, int]:
        """(critic, value, gradient there, rounds)."""
        objective = self._objective(generator, lam)
        w = self._project(tree.flatten(start).detach())
        value, slope, bend = _derivatives(objective, w)
        rounds, stalled = 0, False
        for rounds in range(1, _ROUNDS * effort + 1):  # noqa: B007
            self.tick(1 + len(w))
            moved = self._project(w + slope) - w
            if not float(moved.norm()) > _SMALL:
                break
            free = ~((moved == 0) & (slope != 0))
            step = _newton(slope, bend, free)
            taken = None if stalled else self._line(objective, w, value, slope, step)
            if taken is None:
                length = 1 / max(float(bend.abs().max()), 1e-12)
                taken = self._line(objective, w, value, slope, length * slope)
            if taken is None:
                break
            w, before = taken, float(value)
            value, slope, bend = _derivatives(objective, w)
            # Without concavity a kink of the penalty can make ascents creep.
            # Projected after a Newton step, a point can stand still that is not stationary: the set's metric is
            # another one. Only where the plain gradient stalls as well is it the end.
            still = float(value) - before <= (1e-15 if self.concave else 1e-10) * (1 + abs(before))
            if still and stalled:
                break
            stalled = still
        return tree.unflatten(w, self.anchor), float(value), slope, rounds

    def _line(
        self,
        objective: Callable[[Tensor], Tensor],
        w: Tensor,
        value: Tensor,
        slope: Tensor,
        step: Tensor,
    ) -> Tensor | None:
        size, shrink = 1.0, 0.5 if self.concave else 0.25
        with torch.no_grad():
            for _ in range(30 if self.concave else 12):
                there = self._project(w + size * step)
                promise = float(slope @ (there - w))
                new = float(objective(there))
                if promise > 0 and new >= float(value) + 1e-4 * promise and new > float(value):
                    return there
                size *= shrink
        return None

    def _bound(
        self, generator: Part, critic: Part, slope: Tensor, lam: float
    ) -> tuple[float | None, float]:
        w = tree.flatten(critic)
        residual = float((self._project(w + slope) - w).norm())
        strength = lam * self.mass
        if not self.concave or strength <= 0:
            return None, residual
        with torch.no_grad():
            move = self._project(w + slope / strength) - w
        return max(float(slope @ move - strength * move.square().sum() / 2), 0.0), residual

    def _mass(self) -> float:
        """The least positive eigenvalue of the Hessian of |D~ - D|^2."""

        def distance(w: Tensor) -> Tensor:
            moved: Tensor = self.game.sobolev_distance(tree.unflatten(w, self.anchor), self.anchor)
            return moved

        _, _, bend = _derivatives(distance, tree.flatten(self.anchor))
        values = torch.linalg.eigvalsh(bend)
        return float(values[values > _TINY * values[-1]].min())

    # -- outside ----------------------------------------------------------------------------------

    def descend(
        self, start: Part, lam: float, within: float = math.inf, share: float = 1.0
    ) -> Search:
        like = self.trained["generator"]
        warm: Part | None = None

        def there(flat: Tensor) -> tuple[float, Tensor, Part]:
            generator = tree.unflatten(flat, like)
            answer = self.solve(generator, lam, warm=warm).critic
            value, slope = self._slope(generator, answer)
            if 0 < lam < math.inf:
                value -= lam * float(self.game.sobolev_distance(answer, self.anchor))
            return value, slope, answer

        def nearest(flat: Tensor) -> Tensor:
            return tree.flatten(self.feasible(tree.unflatten(flat, like)))

        x = nearest(tree.flatten(start).detach())
        value, slope, warm = there(x)
        best, least = x, value
        recent = [value]
        length = 1 / max(float(slope.abs().max()), 1e-12)
        for _ in range(self.context.settings.prox_steps):
            direction = nearest(x - length * slope) - x
            promise = float(slope @ direction)
            if float(direction.norm()) <= 1e-12 or promise >= 0:
                break
            size, accepted = 1.0, False
            for _ in range(25):
                candidate = nearest(x + size * direction)
                new, new_slope, new_warm = there(candidate)
                if new <= max(recent[-5:]) + 1e-4 * size * promise:
                    accepted = True
                    break
                size /= 2
            if not accepted:
                break
            s, y = candidate - x, new_slope - slope
            bend = float(s @ y)
            length = float(s @ s) / bend if bend > 0 else 10 * length
            length = min(max(length, 1e-8), 1e6)
            settled = float(s.norm()) <= 1e-11 * (1 + float(x.norm()))
            x, slope, warm = candidate, new_slope, new_warm
            recent.append(new)
            if new < least:
                best, least = x, new
            if settled or (len(recent) > 10 and max(recent[-10:]) - min(recent[-10:]) < 1e-14):
                break
        return Search([tree.unflatten(best, like)])

    def _slope(self, generator: Part, critic: Part) -> tuple[float, Tensor]:
        """V, and its gradient in the generator, that of V_prox where `critic` answers best (Proposition 4)."""
        flat = tree.flatten(generator).detach().requires_grad_()
        value = self._value(tree.unflatten(flat, generator), critic)
        (slope,) = torch.autograd.grad(value, flat, materialize_grads=True)
        self.tick()
        return float(value.detach()), slope


def _derivatives(objective: Callable[[Tensor], Tensor], w: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Value, gradient [n] and Hessian [n, n]."""
    w = w.detach().requires_grad_()
    value = objective(w)
    (slope,) = torch.autograd.grad(value, w, create_graph=True, materialize_grads=True)
    if not slope.requires_grad:
        return value.detach(), slope.detach(), torch.zeros(len(w), len(w), dtype=w.dtype)
    rows = [
        torch.autograd.grad(one, w, retain_graph=True, materialize_grads=True)[0] for one in slope
    ]
    bend = torch.stack(rows)
    return value.detach(), slope.detach(), (bend + bend.mT) / 2


def _newton(slope: Tensor, bend: Tensor, free: Tensor) -> Tensor:
    """The step of a Newton method that climbs: |eigenvalues| of the Hessian, blocked coordinates left out."""
    step = torch.zeros_like(slope)
    values, vectors = torch.linalg.eigh(bend[free][:, free])
    size = values.abs()
    floor = _TINY * max(float(size.max()) if len(size) else 0.0, 1e-300)
    own = vectors.mT @ slope[free]
    # Flat directions carry no slope but rounding; they must not be divided by their curvature.
    step[free] = vectors @ torch.where(size > floor, own / size.clamp_min(floor), 0.0 * own)
    return step
