"""Closed forms of the Gaussian W2GAN (Farnia and Ozdaglar 2020, Theorems 1 and 2, Remark 1)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from equilibrist.errors import GameError
from equilibrist.theory import _inner
from equilibrist.theory._checks import Array, Numbers, finite_array, weight
from equilibrist.theory.ball import least_on_ball
from equilibrist.validation import not_negative, positive


class GaussianPair(NamedTuple):
    """Generator W [d, d], u [d] and critic A [d, d], b [d]."""

    W: Array
    u: Array
    A: Array
    b: Array


class Generator(NamedTuple):
    """A generator W [d, d], u [d] and the value that it reaches (-inf: V has no minimum; W then stretches the
    directions in which it falls without end)."""

    W: Array
    u: Array
    value: float


class Between(NamedTuple):
    """A number known to lie in [lower, upper]; equal where it is exact."""

    lower: float
    upper: float

    @property
    def exact(self) -> bool:
        return self.lower == self.upper


@dataclass(frozen=True)
class W2Gaussian:
    """W2GAN with data N(0, s^2 I_d), generator W z + u, z ~ N(0, I_d), and critics x^T A x + b^T x, A < eta I.

        V = s^2 tr A - 1/4 tr[(eta I - A)^{-1} (4 eta^2 W W^T + y y^T)] + eta (|W|_F^2 + |u|^2),  y = b + 2 eta u

    for the cost eta |x - x'|^2; the generator minimises V, the critic maximises it. Only sym(A) counts.
    Feasible generators: |u| <= t and sigma_max(W) <= 1 where s >= 1 (Theorem 1), sigma_min(W) >= 1 where
    s < 1 (Remark 1). `lam` is always lambda of equation 11, 0 and infinity included. Arrays and CPU tensors are
    taken; NumPy float64 comes back. Unit: that of the cost.

    Args:
        d: dimension.
        s: standard deviation of the data.
        eta: the cost's factor (1/2 in the paper's section 3.1).
        t: bound on |u|; 0 allows no shift (Theorem 1 has t > 0).

    Raises:
        ValueError: d below 1; s or eta that are not positive; a negative t.

    Examples:
        >>> from equilibrist.theory import W2Gaussian
        >>> game = W2Gaussian(d=2, s=2.0, eta=0.5, t=1.0)
        >>> round(float(game.lambda_star), 6), round(float(game.nash_gain), 6)
        (1.0, 0.5)
    """

    d: int = 2
    s: float = 2.0
    eta: float = 0.5
    t: float = 1.0

    def __post_init__(self) -> None:
        if self.d < 1 or self.d != int(self.d):
            raise ValueError(f"W2Gaussian.d must be a whole number, at least 1, not {self.d!r}")
        positive("W2Gaussian", s=self.s, eta=self.eta)
        not_negative("W2Gaussian", t=self.t)

    # -- values and best responses ------------------------------------------------------------------------

    def value(self, W: Numbers, u: Numbers, A: Numbers, b: Numbers) -> float:
        """V(G, D).

        Raises:
            ValueError: A that does not lie below eta I, where D^c is infinite. GameError: wrong shapes.
        """
        W, u = self._generator(W, u)
        H, b = self._critic(A, b)
        y = b + 2 * self.eta * u
        answered = (
            self.eta**2 * np.trace(np.linalg.solve(H, W @ W.T)) + y @ np.linalg.solve(H, y) / 4
        )
        own = self.eta * ((W**2).sum() + u @ u)
        return float(self.s**2 * (self.eta * self.d - np.trace(H)) - answered + own)

    def best_critic(self, W: Numbers, u: Numbers) -> tuple[Array, Array]:
        """(A, b) = (eta (I - (W W^T)^{1/2} / s), -2 eta u), the maximiser of V.

        Raises:
            GameError: W is singular: the supremum is then approached, as A tends to eta I in part.
        """
        W, u = self._generator(W, u)
        left, sigma, _ = np.linalg.svd(W)
        if sigma[-1] <= 1e-15 * max(sigma[0], 1.0):
            raise GameError(
                "best_critic: W is singular, so the supremum over critics with A < eta I is not attained; "
                "max_value gives it"
            )
        return self.eta * (np.eye(self.d) - (left * sigma) @ left.T / self.s), -2 * self.eta * u

    def max_value(self, W: Numbers, u: Numbers) -> float:
        """sup over D of V: eta (|u|^2 + sum_i (s - sigma_i)^2) = eta W_2(P, Q_G)^2."""
        W, u = self._generator(W, u)
        sigma = np.linalg.svd(W, compute_uv=False)
        return float(self.eta * (u @ u + ((self.s - sigma) ** 2).sum()))

    def best_generator(self, A: Numbers, b: Numbers) -> Generator:
        """A minimiser of V over the feasible generators, and the least value.

        With H = eta I - A and M = W W^T, V is linear in M and quadratic in u:
        tr M (eta I - eta^2 H^{-1}) is least at the projector on the eigenvectors of A with positive
        eigenvalues (for s < 1, M >= I: at M = I where A <= 0, and unbounded below where not); u is the solution of
        a trust-region problem on |u| <= t.
        """
        H, b = self._critic(A, b)
        a, vectors = np.linalg.eigh(self.eta * np.eye(self.d) - H)
        rounding = 1e-14 * self.eta
        if self.s < 1 and a[-1] > rounding:
            stretched = np.where(a > rounding, 2.0, 1.0)
            return Generator((vectors * stretched) @ vectors.T, np.zeros(self.d), -math.inf)
        kept = np.ones(self.d) if self.s < 1 else (a > 0).astype(float)
        W = (vectors * kept) @ vectors.T
        slope = np.asarray(np.linalg.solve(H, b), np.float64)
        Q = self.eta * np.eye(self.d) - self.eta**2 * np.linalg.inv(H)
        u, _ = least_on_ball((Q + Q.T) / 2, -self.eta * slope, self.t)
        return Generator(W, u, self.value(W, u, self._a(H), b))

    def optimum(self) -> GaussianPair:
        """W = I, u = 0, A = eta (1 - 1/s) I, b = 0: the distance-minimising pair (W up to a rotation)."""
        unit, zero = np.eye(self.d), np.zeros(self.d)
        return GaussianPair(unit, zero, self.eta * (1 - 1 / self.s) * unit, zero.copy())

    @property
    def optimal_value(self) -> float:
        """min over G of max over D of V: eta d (s - 1)^2."""
        return self.eta * self.d * (self.s - 1) ** 2

    @property
    def max_min_value(self) -> float:
        """max over D of min over G of V: eta (s sqrt d - sqrt(d + t^2))^2 where s^2 d > d + t^2, else 0; for s < 1
        the optimal value, for the optimum is then a Nash equilibrium.

        V is concave in D and turns with it, so an isotropic critic, A = a I and b = 0, is best.
        """
        if self.s < 1:
            return self.optimal_value
        reach = math.sqrt(self.d + self.t**2)
        return self.eta * max(self.s * math.sqrt(self.d) - reach, 0.0) ** 2

    def max_min_critic(self) -> tuple[Array, Array]:
        """A critic (A, b) that attains `max_min_value`."""
        if self.s < 1:
            a = self.eta * (1 - 1 / self.s)
        else:
            reach = math.sqrt(1 + self.t**2 / self.d)
            a = self.eta * max(1 - reach / self.s, 0.0)
        return a * np.eye(self.d), np.zeros(self.d)

    # -- Nash ---------------------------------------------------------------------------------------------

    def shift_gain(self, u: Numbers) -> float:
        """What the shift u gains the generator at the optimum: eta (s - 1) |u|^2 (negative for s < 1)."""
        u = finite_array("u", u, self.d)
        return float(self.eta * (self.s - 1) * (u @ u))

    @property
    def nash_gain(self) -> float:
        """The most that a feasible deviation gains the generator at the optimum: eta (s - 1) t^2, 0 for s <= 1."""
        return self.eta * max(self.s - 1, 0.0) * self.t**2

    def duality_gap(self, W: Numbers, u: Numbers, A: Numbers, b: Numbers) -> float:
        """max over D of V(G, .) - min over feasible G of V(., D): 0 at a Nash equilibrium, else positive (inf for
        s < 1 and an A that is not negative semi-definite)."""
        return self.max_value(W, u) - self.best_generator(A, b).value

    # -- proximal equilibria ------------------------------------------------------------------------------

    @property
    def lambda_star(self) -> float:
        """The largest lambda at which the optimum is a proximal equilibrium: s / (4 eta (s - 1)) for s > 1 and
        t > 0, else infinite. Theorem 2's 1 / (4 eta) is its limit as s grows."""
        if self.s <= 1 or self.t == 0:
            return math.inf
        return self.s / (4 * self.eta * (self.s - 1))

    @property
    def theorem_2(self) -> float:
        """1 / (4 eta), Theorem 2's lambda."""
        return 1 / (4 * self.eta)

    def sobolev(self, A: Numbers, b: Numbers) -> float:
        """E_P |grad D|^2 = 4 s^2 |sym A|_F^2 + |b|^2, the square of equation 15."""
        A, b = finite_array("A", A, self.d, self.d), finite_array("b", b, self.d)
        A = (A + A.T) / 2
        return float(4 * self.s**2 * (A**2).sum() + b @ b)

    def v_prox(self, W: Numbers, u: Numbers, A: Numbers, b: Numbers, lam: float) -> float:
        """sup over D~ of V(G, D~) - lam E_P |grad(D~ - D)|^2 (equations 11 and 15).

        lam = 0: `max_value`, whatever D. lam = inf: V(G, D).

        Raises:
            ValueError: a negative lam, A that does not lie below eta I. GameError: wrong shapes.
        """
        return self._prox(W, u, A, b, lam)[0]

    def prox_critic(
        self, W: Numbers, u: Numbers, A: Numbers, b: Numbers, lam: float
    ) -> tuple[Array, Array]:
        """(A~, b~), the critic's answer in `v_prox`: unique where W is not singular.

        Raises:
            GameError: no critic attains the supremum (W is singular and lam small).
        """
        _, H, found, reached = self._prox(W, u, A, b, lam)
        if not reached:
            raise GameError(
                "prox_critic: W is singular, so the supremum over critics with A < eta I is not attained; "
                "v_prox gives it"
            )
        return self._a(H), found

    def v_prox_gradient(
        self, W: Numbers, u: Numbers, A: Numbers, b: Numbers, lam: float
    ) -> tuple[Array, Array]:
        """(d/dW, d/du) of `v_prox`: V's own at the answering critic (Proposition 4, the envelope theorem).

        dV/dW = 2 eta W - 2 eta^2 H~^{-1} W, dV/du = 2 eta u - eta H~^{-1} (b~ + 2 eta u).

        Raises:
            GameError: where no critic attains the supremum; V_prox has a kink there.
        """
        W, u = self._generator(W, u)
        A, b = self.prox_critic(W, u, A, b, lam)
        H = self.eta * np.eye(self.d) - A
        y = b + 2 * self.eta * u
        return (
            2 * self.eta * (W - self.eta * np.linalg.solve(H, W)),
            2 * self.eta * u - self.eta * np.linalg.solve(H, y),
        )

    def curvature(self, lam: float) -> float:
        """Second derivative of u -> V_prox(I, u; D*) along any direction at u = 0: 2 eta (1 - s m / (s + m)),
        m = 4 eta lam; -2 eta (s - 1) at lam = inf."""
        lam = weight(lam)
        m = 4 * self.eta * lam
        answered = self.s if lam == math.inf else self.s * m / (self.s + m)
        return 2 * self.eta * (1 - answered)

    def profile(self, lam: float) -> float:
        """r(lam) = V* - min over feasible G of V_prox(G, D*): 0 up to `lambda_star`, positive beyond.

        V_prox is a maximum of functions affine in (W W^T, u u^T), hence convex in them. Beyond lambda*,
        with kappa = 1 / (4 lam), the best deviation is W = I and a shift of length rho, with
        rho^2 = min(t^2, s^2 - eta^2 / h^2 + 8 lam s^2 (h - eta / s)) and h = eta - kappa; where t does not bind,

            r = s^2 h + eta^2 / h - 2 s eta + 4 lam s^2 (h - eta / s)^2

        and where it does, h solves the scalar stationarity condition. r(inf) = eta (s - 1) t^2.
        """
        if weight(lam) <= self.lambda_star:
            return 0.0
        _, _, A, b = self.optimum()
        return max(self.optimal_value - self.least_v_prox(A, b, lam).lower, 0.0)

    def worst_shift(self, lam: float) -> float:
        """|u| of the deviation that attains `profile`; 0 up to `lambda_star`."""
        lam = weight(lam)
        if lam <= self.lambda_star:
            return 0.0
        return math.sqrt(self._shift(lam, self.eta / self.s))

    def least_v_prox(
        self, A: Numbers, b: Numbers, lam: float, starts: int = 6, seed: int = 0
    ) -> Between:
        """min over feasible G of V_prox(G, D).

        Exact for A = a I, b = 0, for lam = inf (`best_generator`) and for lam = 0 (`optimal_value`).
        Else bracketed: above by projected gradient descent from several starts; below by weak duality, from
        the least value of V against the critics that answered, less their penalty.
        """
        lam = weight(lam)
        H, b = self._critic(A, b)
        if lam == 0:
            return Between(self.optimal_value, self.optimal_value)
        if lam == math.inf:
            least = self.best_generator(A, b).value
            return Between(least, least)
        h = float(np.trace(H)) / self.d
        if not b.any() and np.abs(H - h * np.eye(self.d)).max() <= 1e-14 * self.eta:
            exact = self._least_isotropic(h, lam)
            return Between(exact, exact)
        from equilibrist.theory._descent import bounds_by_descent

        return Between(*bounds_by_descent(self, self._a(H), b, lam, starts, seed))

    def proximal_gap(self, W: Numbers, u: Numbers, A: Numbers, b: Numbers, lam: float) -> Between:
        """max over D' of V_prox(G, D') - min over feasible G' of V_prox(G', D): 0 iff (G, D) is a
        lam-proximal equilibrium (Definition 1), for 0 < lam.

        The first term is `max_value`: V_prox(G, D') never exceeds it and reaches it at the best critic.
        At lam = inf the duality gap.
        """
        least = self.least_v_prox(A, b, lam)
        best = self.max_value(W, u)
        return Between(best - least.upper, best - least.lower)

    # -- inside -------------------------------------------------------------------------------------------

    def _prox(
        self, W: Numbers, u: Numbers, A: Numbers, b: Numbers, lam: float
    ) -> tuple[float, Array, Array, bool]:
        """(V_prox, H~, b~, attained)."""
        lam = weight(lam)
        W, u = self._generator(W, u)
        H, b = self._critic(A, b)
        if lam == math.inf:
            return self.value(W, u, A, b), H, b, True
        if lam == 0:
            left, sigma, _ = np.linalg.svd(W)
            reached = bool(sigma[-1] > 1e-15 * max(sigma[0], 1.0))
            root = (left * sigma) @ left.T
            return self.max_value(W, u), self.eta * root / self.s, -2 * self.eta * u, reached
        c = b + 2 * self.eta * u
        found, best, reached = _inner.solve(self.s, self.eta, lam, H, W, c)
        own = self.eta * ((W**2).sum() + u @ u) + self.s**2 * self.eta * self.d
        answer = b - np.linalg.solve(np.eye(self.d) + 4 * lam * found, c)
        return float(best + own), found, answer, reached

    def _term(self, lam: float, h0: float, m: float, v: float) -> tuple[float, float]:
        """(V_prox, h~) of one dimension with W W^T = m, u^2 = v, against h0 = eta - a and b = 0."""
        h, best, _ = _inner.scalar(self.s, self.eta, lam, h0, m, 4 * self.eta**2 * v)
        return best + self.eta * (m + v) + self.s**2 * self.eta, h

    def _shift(self, lam: float, h0: float) -> float:
        """|u|^2 of the best deviation with W = I against A = (eta - h0) I, b = 0."""
        if lam == math.inf:
            return self.t**2 if h0 < self.eta else 0.0
        h = self.eta - 1 / (4 * lam)
        if h <= 0 or self._term(lam, h0, 1.0, 0.0)[1] >= h:
            return 0.0
        free = self.s**2 - self.eta**2 / h**2 + 8 * lam * self.s**2 * (h - h0)
        return min(self.t**2, max(free, 0.0))

    def _least_isotropic(self, h0: float, lam: float) -> float:
        """By convexity in (m, v) = (eigenvalues of W W^T, |u|^2): the slope in m vanishes where h~ = eta, that in
        v where h~ = eta - kappa, and h~ grows with both."""
        flat = self.s**2 * (1 + 8 * lam * (self.eta - h0))  # the m at which h~ = eta
        m = max(1.0, flat) if self.s < 1 else min(1.0, max(flat, 0.0))
        v = self._shift(lam, h0) if m == 1 else 0.0
        along, across = self._term(lam, h0, m, v)[0], self._term(lam, h0, m, 0.0)[0]
        return along + (self.d - 1) * across

    def _generator(self, W: Numbers, u: Numbers) -> tuple[Array, Array]:
        return finite_array("W", W, self.d, self.d), finite_array("u", u, self.d)

    def _critic(self, A: Numbers, b: Numbers) -> tuple[Array, Array]:
        """(H, b), H = eta I - sym(A)."""
        A = finite_array("A", A, self.d, self.d)
        H = self.eta * np.eye(self.d) - (A + A.T) / 2
        least = float(np.linalg.eigvalsh(H)[0])
        if least <= 0:
            raise ValueError(
                f"A must lie below eta I, where D^c is finite: its largest eigenvalue is "
                f"{self.eta - least:g}, eta is {self.eta:g}"
            )
        return H, finite_array("b", b, self.d)

    def _a(self, H: Array) -> Array:
        return self.eta * np.eye(self.d) - H
