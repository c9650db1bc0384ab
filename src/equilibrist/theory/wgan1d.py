"""Closed forms of the one-dimensional Gaussian WGAN (Farnia and Ozdaglar 2020, Theorems 1 and 3, Remark 1)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.optimize import brentq, minimize
from scipy.special import erf, ndtr

from equilibrist.errors import GameError
from equilibrist.theory._checks import Array, weight
from equilibrist.theory._quadrature import panels
from equilibrist.validation import not_negative, positive

_ROOT = math.sqrt(2 / math.pi)
_LEAST = 1e-6  # the narrowest generator that a search tries


class Generator1d(NamedTuple):
    """A generator w, u and the value that it reaches."""

    w: float
    u: float
    value: float


@dataclass(frozen=True)
class WGaussian1d:
    """1-d WGAN with data N(0, s^2), generator w z + u, z ~ N(0, 1), against every 1-Lipschitz critic.

    V = E D(x) - E D(w z + u). Critics are written D(x) = a |x - c|, |a| <= 1: they contain a best
    one for every w with |w| != s. The critic's answers in V_prox are all 1-Lipschitz functions. Feasible generators:
    |u| <= t and |w| <= 1 where s >= 1 (Theorem 1), |w| >= 1 where s < 1 (Remark 1). m(r, k) = E |r z + k| below.
    Unit: that of the data.

    Args:
        s: standard deviation of the data.
        t: bound on |u|.

    Raises:
        ValueError: s that is not positive, a negative t.

    Examples:
        >>> from equilibrist.theory import WGaussian1d
        >>> round(float(WGaussian1d(s=2.0, t=1.0).lambda_star), 6)
        0.0
    """

    s: float = 2.0
    t: float = 1.0

    def __post_init__(self) -> None:
        positive("WGaussian1d", s=self.s)
        not_negative("WGaussian1d", t=self.t)

    # -- values and best responses ------------------------------------------------------------------------

    def value(self, w: float, u: float, a: float, c: float) -> float:
        """V = a (m(s, c) - m(w, u - c))."""
        a = _slope(a)
        return a * (mean_modulus(self.s, c) - mean_modulus(w, u - c))

    def max_value(self, w: float, u: float) -> float:
        """max over D of V: the 1-Wasserstein distance, m(s - |w|, u)."""
        return mean_modulus(self.s - abs(w), u)

    def best_critic(self, w: float, u: float) -> tuple[float, float]:
        """(a, c): a = sign(s - |w|), c = u s / (s - |w|), the point that the transport map leaves in place.

        Raises:
            GameError: |w| = s, where the best critic is -sign(u) x.
        """
        gap = self.s - abs(w)
        if gap == 0:
            raise GameError("best_critic: for |w| = s the best critic is affine, not a |x - c|")
        return math.copysign(1.0, gap), u * self.s / gap

    def best_generator(self, a: float, c: float) -> Generator1d:
        """A minimiser of V over the feasible generators, against D = a |x - c|."""
        a = _slope(a)
        away = -math.copysign(self.t, c)
        near = min(max(c, -self.t), self.t)
        if self.s < 1:
            if a > 0:
                return Generator1d(math.inf, away, -math.inf)
            return Generator1d(1.0, near, self.value(1.0, near, a, c))
        w, u = (1.0, away) if a > 0 else (0.0, near)
        return Generator1d(w, u, self.value(w, u, a, c))

    @property
    def optimum(self) -> tuple[float, float, float, float]:
        """(w, u, a, c) = (1, 0, sign(s - 1), 0)."""
        return 1.0, 0.0, math.copysign(1.0, self.s - 1) if self.s != 1 else 0.0, 0.0

    @property
    def optimal_value(self) -> float:
        """min over G of max over D of V: |s - 1| sqrt(2/pi)."""
        return abs(self.s - 1) * _ROOT

    def shift_gain(self, u: float) -> float:
        """What the shift u gains the generator at the optimum, sqrt(2/pi) (e^{-u^2/2} - 1) + u erf(u / sqrt 2); its
        negative for s < 1."""
        moved = _ROOT * math.expm1(-(u**2) / 2) + u * math.erf(u / math.sqrt(2))
        return moved if self.s > 1 else -moved if self.s < 1 else 0.0

    @property
    def nash_gain(self) -> float:
        """The most that a feasible deviation gains at the optimum, the duality gap there: `shift_gain` at t for
        s > 1, else 0."""
        return self.shift_gain(self.t) if self.s > 1 else 0.0

    def duality_gap(self, w: float, u: float, a: float, c: float) -> float:
        """max over D of V(G, .) - min over feasible G of V(., D)."""
        return self.max_value(w, u) - self.best_generator(a, c).value

    @property
    def max_min_value(self) -> float | None:
        """max over D of min over G of V: s sqrt(2/pi) - m(1, t) where s > 1 and t^2 <= 2 log s, the optimal value
        where s <= 1; None elsewhere, where no closed form is known.

        There D = |x| is the best critic of the mixture of the two shifts +-t of N(0, 1), and both are best responses
        to it.
        """
        if self.s <= 1:
            return self.optimal_value
        if self.t**2 > 2 * math.log(self.s):
            return None
        return self.s * _ROOT - mean_modulus(1.0, self.t)

    # -- proximal equilibria ------------------------------------------------------------------------------

    @property
    def lambda_star(self) -> float:
        """The largest lambda at which the optimum is a proximal equilibrium: 0 for s > 1 and t > 0, else infinite."""
        return 0.0 if self.s > 1 and self.t > 0 else math.inf

    def v_prox(self, w: float, u: float, a: float, c: float, lam: float) -> float:
        """max over 1-Lipschitz D~ of V(G, D~) - lam E_P (D~' - D')^2, D = a |x - c| (equations 11 and 15).

        As V = integral of D~' (F_Q - F_P) dx, each slope is chosen for itself:
        D~' = clip(D' + (F_Q - F_P) / (2 lam p), -1, 1). By quadrature, to about 1e-12.
        """
        lam = weight(lam)
        if lam == 0:
            return self.max_value(w, u)
        if lam == math.inf:
            return self.value(w, u, a, c)
        x, weights, slope, drift, density = self._answer(w, u, _slope(a), c, lam)
        held = a * np.sign(x - c)
        return float(weights @ (slope * drift - lam * density * (slope - held) ** 2))

    def v_prox_gradient(
        self, w: float, u: float, a: float, c: float, lam: float
    ) -> tuple[float, float]:
        """(d/dw, d/du) of `v_prox` for 0 < lam < inf, w != 0: -E[D~'(w z + u) z] and -E D~'(w z + u) at the answering
        critic (Proposition 4)."""
        if w == 0:
            raise GameError("v_prox_gradient: w must not be 0, where V_prox has a kink")
        if not 0 < weight(lam) < math.inf:
            raise ValueError(f"v_prox_gradient: lam must be positive and finite, not {lam!r}")
        x, weights, slope, _, _ = self._answer(w, u, _slope(a), c, lam)
        z = (x - u) / abs(w)
        mass = weights * slope * np.exp(-(z**2) / 2) / (abs(w) * math.sqrt(2 * math.pi))
        return float(-mass @ z) * math.copysign(1.0, w), float(-mass.sum())

    def profile(self, lam: float) -> float:
        """r(lam) = V* - min over feasible G of V_prox(G, D*): 0 where s <= 1; by search for s > 1, from below."""
        lam = weight(lam)
        if self.s <= 1 or lam == 0 or self.t == 0:
            return 0.0
        if lam == math.inf:
            return self.nash_gain
        return max(self.optimal_value - self.least_v_prox(lam).value, 0.0)

    def lambda_at(
        self, w: float, u: float, a: float, c: float, tolerance: float = 1e-6
    ) -> float | None:
        """The largest lambda at which (w, u) and D = a |x - c| are a lambda-proximal equilibrium, to a tolerance.

        Both inequalities of Proposition 2 are held to `tolerance` in the unit of V: no critic gains more, and no
        feasible generator lowers V_prox by more. Found by bisection, to about 1e-6 relative; lambda is less where the
        search misses a generator that gains more. At the optimum it tends to `lambda_star` as the
        tolerance falls to 0, as its square root where s > 1 (`small_lambda`).

        Args:
            w, u: a feasible generator.
            a, c: the critic, |a| <= 1.
            tolerance: positive.

        Returns:
            lambda between 0 and infinity; infinite for a Nash equilibrium. None where there is none: the critic
            gains, or the generator does although the critic answers freely.

        Raises:
            ValueError: a generator that is not feasible, a critic that is not 1-Lipschitz, a tolerance that is not
                positive.

        Examples:
            >>> game = WGaussian1d(2.0, 1.0)
            >>> round(game.lambda_at(*game.optimum, tolerance=1e-4), 4)
            0.0137
            >>> game.lambda_at(1.0, 0.0, 0.5, 0.0) is None
            True
        """
        positive("WGaussian1d.lambda_at", tolerance=tolerance)
        inside = abs(w) <= 1 if self.s >= 1 else abs(w) >= 1
        if not inside or not abs(u) <= self.t:
            side = "at most" if self.s >= 1 else "at least"
            raise ValueError(
                f"lambda_at: w={w!r}, u={u!r} is not feasible: take |w| {side} 1 and |u| at most {self.t:g}"
            )
        held = self.value(w, u, a, c)
        if max(self.max_value(w, u) - held, held - self.optimal_value) > tolerance:
            return None
        if held - self.best_generator(a, c).value <= tolerance:
            return math.inf

        def beyond(log: float) -> float:
            return held - self.least_v_prox(math.exp(log), a, c).value - tolerance

        low, high = math.log(1e-9), math.log(1e6)
        if beyond(low) > 0:
            return 0.0
        if beyond(high) < 0:
            return math.inf
        return math.exp(float(brentq(beyond, low, high, xtol=1e-6)))

    def least_v_prox(
        self, lam: float, a: float | None = None, c: float | None = None
    ) -> Generator1d:
        """A minimiser over feasible generators of V_prox(G, D), D = a |x - c| (None: that of the optimum), as far as
        a search finds one."""
        if a is None or c is None:
            _, _, a, c = self.optimum
        near = (
            2 * lam * min(1.0, 4 * (self.s - 1) / self.s**2)
        )  # where the law for small lam has it
        starts = np.unique(np.append(np.geomspace(1e-3, 1.0, 13) * self.t, min(near, self.t)))
        if c != 0:
            starts = np.concatenate([-starts, starts])
        # A wider one's distance, less all that an answer may cost, is more than V_prox at w = 1.
        widest = 1.0 if self.s >= 1 else 1 + (self.t + 4 * lam) / _ROOT
        tried = [(self.v_prox(1.0, u, a, c, lam), u) for u in starts]
        _, u = min(tried)

        def both(g: Array) -> tuple[float, Array]:
            w, u = float(g[0]), float(g[1])
            return self.v_prox(w, u, a, c, lam), np.array(self.v_prox_gradient(w, u, a, c, lam))

        done = minimize(
            both,
            np.array([1.0, u]),
            jac=True,
            bounds=[
                (_LEAST if self.s >= 1 else 1.0, widest),
                (-self.t if c != 0 else 0.0, self.t),
            ],
            method="L-BFGS-B",
            options={"ftol": 1e-15, "gtol": 1e-12},
        )
        best = (float(done.fun), float(done.x[0]), float(done.x[1]))
        value, w, u = min(best, (min(tried)[0], 1.0, u))
        return Generator1d(w, u, value)

    def small_lambda(self, lam: float) -> float:
        """The law of `profile` as lam tends to 0, for s > 1:
        phi(0) lam^2 times 64 (s - 1)^2 / (3 s^4) for s <= 2, 4 (3 s - 4) / (3 s (s - 1)) for s >= 2."""
        s = self.s
        if s <= 1:
            return 0.0
        factor = 64 * (s - 1) ** 2 / (3 * s**4) if s <= 2 else 4 * (3 * s - 4) / (3 * s * (s - 1))
        return float(factor * weight(lam) ** 2 / math.sqrt(2 * math.pi))

    # -- inside -------------------------------------------------------------------------------------------

    def _answer(
        self, w: float, u: float, a: float, c: float, lam: float
    ) -> tuple[Array, Array, Array, Array, Array]:
        """Nodes, weights, the answering slope D~', F_Q - F_P and p there."""
        w = abs(w)

        def drift(x: Array) -> Array:
            side = np.where(
                x > 0, -1.0, 1.0
            )  # the smaller tails, where differences keep their digits
            theirs = ndtr(side * x / self.s)
            mine = ndtr(side * (x - u) / w) if w > 0 else ((x >= u) == (side > 0)).astype(float)
            return np.asarray(side * (mine - theirs))

        def density(x: Array) -> Array:
            return np.asarray(np.exp(-((x / self.s) ** 2) / 2) / (self.s * math.sqrt(2 * math.pi)))

        def wanted(x: Array) -> Array:
            with np.errstate(divide="ignore", invalid="ignore"):
                moved = drift(x) / (2 * lam * density(x))
            return np.asarray(
                a * np.sign(x - c) + np.nan_to_num(moved, nan=0.0, posinf=9e9, neginf=-9e9)
            )

        reach = 9 * max(self.s, w) + abs(u)
        crossing = u * self.s / (self.s - w) if self.s != w else 0.0
        inner = [p for p in (0.0, u, c, crossing) if abs(p) < reach]
        coarse = np.linspace(-reach, reach, 181)
        fine = [
            np.linspace(x, y, 33)
            for x, y in zip(sorted(inner)[:-1], sorted(inner)[1:], strict=True)
        ]
        grid = np.unique(np.concatenate([coarse, np.array(inner), *fine]))
        kinks = []
        for level in (-1.0, 1.0):
            # Just inside each cell, for D' jumps at c.
            left, right = grid[:-1] + 1e-12 * reach, grid[1:] - 1e-12 * reach
            before, after = wanted(left) - level, wanted(right) - level
            for i in np.flatnonzero((before * after < 0) & (right > left)):
                kinks.append(
                    brentq(lambda y: float(wanted(np.array([y]))[0]) - level, left[i], right[i])  # noqa: B023
                )
        x, weights = panels(np.concatenate([grid, kinks]))
        return x, weights, np.clip(wanted(x), -1.0, 1.0), drift(x), density(x)


def mean_modulus(r: float, k: float) -> float:
    """m(r, k) = E |r z + k|, z ~ N(0, 1): |r| sqrt(2/pi) e^{-k^2 / (2 r^2)} + k erf(k / (|r| sqrt 2))."""
    r = abs(r)
    if r == 0:
        return abs(k)
    return float(r * _ROOT * math.exp(-(k**2) / (2 * r**2)) + k * erf(k / (r * math.sqrt(2))))


def _slope(a: float) -> float:
    if not -1 <= a <= 1:
        raise ValueError(f"a must lie between -1 and 1 (D = a |x - c| is 1-Lipschitz), not {a!r}")
    return float(a)
