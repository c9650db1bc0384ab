"""Closed forms of Gaussian f-GANs (Farnia and Ozdaglar 2020, Theorem 1's first bullet)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.linalg import solveh_banded
from scipy.optimize import brentq
from scipy.special import gammaln, ive

from equilibrist.errors import GameError
from equilibrist.formulations.divergences import DIVERGENCES, Divergence, divergence
from equilibrist.theory._checks import Array, weight
from equilibrist.theory._quadrature import panels
from equilibrist.validation import not_negative, positive

# The divergences in closed form at two centred Gaussians; the others are integrated.
_INTEGRATED = ("jensen_shannon", "vanilla")


@dataclass(frozen=True)
class FGaussian:
    """f-GAN with data P = N(0, s^2 I_d), generator W z + u, z ~ N(0, I_d), and every critic.

        V(G, D) = E D(X) - E f*(D(G(z))),  max over D of V = the integral of q f(p/q),  D = f'(p/q)

    Feasible generators: |u| <= t and sigma_max(W) <= 1 where s > 1 (Theorem 1), sigma_min(W) >= 1 where s < 1.
    The optimum is W = I (or any rotation), u = 0, D*(x) = f'(r(x)), r = p/q = s^{-d} e^{(1 - 1/s^2) |x|^2 / 2}.
    Against D* the generator pays psi(r), psi(t) = f*(f'(t)) = t f'(t) - f(t), which rises with t for every strictly
    convex f; so for s > 1 any shift gains, most the longest, and for s < 1 any feasible change loses.
    Unit: that of the divergence.

    Args:
        name: a name of `equilibrist.formulations.divergences.DIVERGENCES`.
        d, s, t: dimension, the data's standard deviation (not 1), bound on |u|.

    Raises:
        ValueError: d below 1, s that is not positive or is 1, a negative t. GameError: no such divergence.

    Examples:
        >>> from equilibrist.theory import FGaussian
        >>> round(float(FGaussian("kl", d=2, s=2.0, t=1.0).optimal_value), 6)  # 1/2 d (s^2 - 1 - ln s^2)
        1.613706
    """

    name: str = "kl"
    d: int = 1
    s: float = 2.0
    t: float = 1.0

    def __post_init__(self) -> None:
        divergence(self.name)
        object.__setattr__(
            self, "name", self.name.strip().lower().replace("-", "_").replace(" ", "_")
        )
        if self.d < 1 or self.d != int(self.d):
            raise ValueError(f"FGaussian.d must be a whole number, at least 1, not {self.d!r}")
        positive("FGaussian", s=self.s)
        not_negative("FGaussian", t=self.t)
        if self.s == 1:
            raise ValueError(
                "FGaussian.s must not be 1: then the generator realises the data's law"
            )

    @property
    def f(self) -> Divergence:
        return divergence(self.name)

    @property
    def finite(self) -> bool:
        """Whether the divergence at the optimum is finite: not Pearson for s^2 >= 2, nor Neyman for
        s^2 <= 1/2 (then no feasible generator has a finite one)."""
        if self.name == "pearson":
            return self.s**2 < 2
        return self.name != "neyman" or self.s**2 > 0.5

    def log_ratio(self, x: Array) -> Array:
        """log r at x [n, d] or at distances x [n] from 0."""
        squares = x**2 if x.ndim == 1 else (x**2).sum(1)
        return np.asarray(-self.d * math.log(self.s) + (1 - self.s**-2) * squares / 2)

    @property
    def optimal_value(self) -> float:
        """min over G of max over D of V, the divergence at W = I, u = 0; inf where not `finite`."""
        if not self.finite:
            return math.inf
        d, s2 = self.d, self.s**2
        log = math.log(s2)
        kl, reverse = d * (s2 - 1 - log) / 2, d * (1 / s2 - 1 + log) / 2
        if self.name in _INTEGRATED:
            return self._integral(*self._laws(0.0))
        closed: dict[str, Callable[[], float]] = {
            "kl": lambda: kl,
            "reverse_kl": lambda: reverse,
            "jeffreys": lambda: kl + reverse,
            "pearson": lambda: math.pow(s2 * (2 - s2), -d / 2) - 1,
            "neyman": lambda: s2**d * math.pow(2 * s2 - 1, -d / 2) - 1,
            "squared_hellinger": lambda: 2 - 2 * math.pow(2 * self.s / (s2 + 1), d / 2),
        }
        return closed[self.name]()

    def shift_gain(self, rho: float) -> float:
        """What a shift of length rho gains the generator against D*, E psi(r(z + u)) - E psi(r(z)); positive
        for s > 1, negative for s < 1.

        Raises:
            ValueError: a negative rho. GameError: an infinite divergence; there is no D* then.
        """
        not_negative("shift_gain", rho=rho)
        if not self.finite:
            raise GameError(
                f"{self.f.name} is infinite for every feasible generator at s = {self.s:g}: no critic is best"
            )
        q, s2 = rho**2, self.s**2
        kl, reverse = _expm1((s2 - 1) * q / 2), (1 - 1 / s2) * q / 2
        if self.name in _INTEGRATED:
            return self._mean_psi(rho) - self._mean_psi(0.0)
        return {
            "kl": lambda: kl,
            "reverse_kl": lambda: reverse,
            "jeffreys": lambda: kl + reverse,
            "pearson": lambda: (self.optimal_value + 1) * _expm1((s2 - 1) * q / (2 - s2)),
            "neyman": lambda: (
                -2 * (self.optimal_value + 1) * _expm1(-(s2 - 1) * q / (2 * (2 * s2 - 1)))
            ),
            "squared_hellinger": lambda: (
                (1 - self.optimal_value / 2) * _expm1((s2 - 1) * q / (2 * (s2 + 1)))
            ),
        }[self.name]()

    @property
    def nash_gain(self) -> float:
        """The most that a feasible deviation gains the generator at the optimum, the duality gap there: the shift of
        length t for s > 1, 0 for s < 1 (psi(r) rises, or falls, with |x|, and |W z + u| is stochastically
        largest, or least, there)."""
        return self.shift_gain(self.t) if self.s > 1 else 0.0

    @property
    def max_min_value(self) -> float | None:
        """max over D of min over G of V; None where no closed form is known.

        For s > 1 and t^2 <= d (1 - 1/s^2): the divergence between P and Q, the mixture of N(u, I), u uniform on
        |u| = t; there p/q rises with |x|, so that every such shift is a best response to f'(p/q). For s < 1 the
        optimal value. Infinite where the divergence is.
        """
        if not self.finite:
            return None if self.s**2 in (2.0, 0.5) else math.inf
        if self.s < 1:
            return self.optimal_value
        if self.t**2 > self.d * (1 - self.s**-2):
            return None
        return self._integral(*self._laws(self.t))

    # -- proximal equilibria ------------------------------------------------------------------------------

    @property
    def lambda_star(self) -> float | None:
        """The largest lambda at which the optimum is a proximal equilibrium (both inequalities of Proposition 2,
        semi-norm of equation 15): s^2 / (2 (s^2 - 1)) for KL, s > 1 and t > 0; infinite where the optimum is Nash; None
        where no closed form is known (`local_lambda_star` bounds it from above).

        KL, from below: against any shift the critic's answer D* + beta x + gamma leaves V_prox - V* at least
        |u|^2 / 2 (1 - 2 lambda s^2 / (s^2 + 2 lambda)), and a smaller W pays less. From above: to second order in u
        that answer is the best.
        """
        if self.finite and (self.s < 1 or self.t == 0):
            return math.inf
        return self.s**2 / (2 * (self.s**2 - 1)) if self.name == "kl" else None

    def curvature(self, lam: float) -> float:
        """Second derivative of |u| -> V_prox(I, u; D*) at u = 0; at lam = inf that of V.

        The critic's answer, to first order in u, maximises -E_P[u.x delta] - 1/2 E_Q[delta^2 / f''(r)]
        - lam E_P |grad delta|^2. It is h(|x|) times the first spherical harmonic: linear finite elements in |x|.

        Raises:
            ValueError: a negative lam. GameError: an infinite divergence.
        """
        lam = weight(lam)
        bend = self._bend
        if lam == math.inf:
            return -bend
        return float(self._answered(lam) - bend)

    @property
    def local_lambda_star(self) -> float:
        """Where `curvature` becomes negative: an upper bound of lambda*, and its value among small shifts. By
        finite elements, to about 1e-4; infinite for s < 1.

        Raises:
            GameError: an infinite divergence, or one so near to it that the elements do not resolve it.
        """
        if self.s < 1 and self.finite:
            return math.inf
        bend, low = self._bend, -40.0
        if self._answered(math.exp(low)) <= bend:
            raise GameError(
                f"local_lambda_star: {self.f.name} at s = {self.s:g} is too near to where it becomes infinite: "
                "take s further from there"
            )
        root = brentq(lambda k: self._answered(math.exp(k)) - bend, low, 12.0, xtol=1e-10)
        return math.exp(float(root))

    @property
    def _bend(self) -> float:
        """Second derivative of `shift_gain` at 0: E psi(r(z)) (|z|^2 / d - 1)."""
        self.shift_gain(0.0)  # refuses what is not finite
        log_p, log_q, weights = self._laws(0.0)
        x, _ = self._radii(0.0)
        moment = x**2 / self.d - 1
        return float(weights @ (_psi(self.name, log_p, log_q) * moment))

    def _answered(self, lam: float) -> float:
        """c^T A^{-1} c / d of the finite elements: twice the most that the critic's answer adds, per |u|^2."""
        reach = max(self.s, 1.0) * (math.sqrt(self.d) + 8)
        if self.name == "pearson":  # p^2 / q is a wider bell; up to where p underflows
            reach = max(reach, min(float(self._radii(0.0)[0].max()), 36 * self.s))
        x, h = np.linspace(0, reach, 4001, retstep=True)
        middle = (x[1:] + x[:-1]) / 2
        sphere = (
            (self.d - 1) * np.log(middle) - (self.d / 2 - 1) * math.log(2) - gammaln(self.d / 2)
        )
        log_p = sphere - (middle / self.s) ** 2 / 2 - self.d * math.log(self.s)
        log_q = sphere - middle**2 / 2
        p = np.exp(log_p)
        mass = h * np.exp(np.minimum(log_q - _log_second(self.name, log_p - log_q), 600.0))
        mass = mass + 2 * lam * (self.d - 1) * p / middle**2 * h
        stiff, load = 2 * lam * p / h, middle * p * h / 2
        bands, c = np.zeros((2, len(x))), np.zeros(len(x))
        for side in (slice(0, -1), slice(1, None)):
            bands[1, side] += mass / 2 + stiff
            c[side] += load
        bands[0, 1:] = -stiff
        return float(c[1:] @ solveh_banded(bands[:, 1:], c[1:])) / self.d  # the answer is 0 at 0

    # -- inside -------------------------------------------------------------------------------------------

    def _radii(self, reach: float) -> tuple[Array, Array]:
        widest = max(self.s, 1.0) * (math.sqrt(self.d) + 12) + reach
        if self.name in ("pearson", "neyman"):  # p^2/q (or q^2/p) is a wider bell
            s2 = self.s**2
            left = (2 - s2) / s2 if self.name == "pearson" else (2 * s2 - 1) / s2
            widest = max(widest, (math.sqrt(self.d) + 12 + 2 * reach) / math.sqrt(left))
        return panels(np.linspace(0, widest, 241))

    def _laws(self, shift: float) -> tuple[Array, Array, Array]:
        """Radial log densities, of P and of N(u, I), u uniform on |u| = shift; and the weights."""
        x, weights = self._radii(shift)
        sphere = (self.d - 1) * np.log(x) - (self.d / 2 - 1) * math.log(2) - gammaln(self.d / 2)
        log_p = sphere - (x / self.s) ** 2 / 2 - self.d * math.log(self.s)
        return log_p, sphere - x**2 / 2 + _log_mean(shift, x, self.d), weights

    def _integral(self, log_p: Array, log_q: Array, weights: Array) -> float:
        """The integral of q f(p/q), from log densities, without overflow."""
        p, q, log_r = np.exp(log_p), np.exp(log_q), log_p - log_q
        if self.name in _INTEGRATED:
            two = math.log(2) if self.name == "jensen_shannon" else 0.0
            values = p * (two - np.logaddexp(0, -log_r)) + q * (two - np.logaddexp(0, log_r))
        else:
            rules: dict[str, Callable[[], Array]] = {
                "kl": lambda: p * log_r - p + q,
                "reverse_kl": lambda: -q * log_r + p - q,
                "jeffreys": lambda: (p - q) * log_r,
                "pearson": lambda: np.exp(2 * log_p - log_q) - 2 * p + q,
                "neyman": lambda: np.exp(2 * log_q - log_p) - 2 * q + p,
                "squared_hellinger": lambda: (np.exp(log_p / 2) - np.exp(log_q / 2)) ** 2,
            }
            values = rules[self.name]()
        return float(weights @ values)

    def _mean_psi(self, rho: float) -> float:
        """E log(1 + r(z + u)), |u| = rho: psi of Jensen-Shannon and vanilla, up to a constant."""
        _, log_q, weights = self._laws(rho)
        x, _ = self._radii(rho)
        return float(weights @ (np.exp(log_q) * np.logaddexp(0, self.log_ratio(x))))


def _psi(name: str, log_p: Array, log_q: Array) -> Array:
    """q psi(p/q) from log densities, psi up to a constant."""
    p, q, log_r = np.exp(log_p), np.exp(log_q), log_p - log_q
    rules: dict[str, Callable[[], Array]] = {
        "kl": lambda: p,
        "reverse_kl": lambda: q * log_r,
        "jensen_shannon": lambda: q * np.logaddexp(0, log_r),
        "vanilla": lambda: q * np.logaddexp(0, log_r),
        "pearson": lambda: np.exp(2 * log_p - log_q),
        "neyman": lambda: -2 * np.exp(2 * log_q - log_p),
        "squared_hellinger": lambda: np.exp((log_p + log_q) / 2),
        "jeffreys": lambda: p + q * log_r,
    }
    return rules[name]()


def _log_second(name: str, log_t: Array) -> Array:
    """log f''(t)."""
    rules: dict[str, Callable[[], Array]] = {
        "kl": lambda: -log_t,
        "reverse_kl": lambda: -2 * log_t,
        "jensen_shannon": lambda: -log_t - np.logaddexp(0, log_t),
        "vanilla": lambda: -log_t - np.logaddexp(0, log_t),
        "pearson": lambda: np.full_like(log_t, math.log(2)),
        "neyman": lambda: math.log(2) - 3 * log_t,
        "squared_hellinger": lambda: -math.log(2) - 1.5 * log_t,
        "jeffreys": lambda: np.logaddexp(-log_t, -2 * log_t),
    }
    return rules[name]()


def _expm1(x: float) -> float:
    """e^x - 1; infinite where a double cannot hold it."""
    return math.expm1(x) if x < 709 else math.inf


def _log_mean(shift: float, x: Array, d: int) -> Array:
    """log of the mean of e^{u x - |u|^2 / 2} over u uniform on |u| = shift: of 0F1(; d/2; shift^2 x^2 / 4), less
    shift^2 / 2."""
    if shift == 0:
        return np.zeros_like(x)
    z, order = shift * x, d / 2 - 1
    if d == 1:
        rise = np.logaddexp(z, -z) - math.log(2)
    else:
        with np.errstate(divide="ignore", invalid="ignore"):
            bessel = gammaln(d / 2) - order * np.log(z / 2) + np.log(ive(order, z)) + z
        rise = np.where(z > 1e-8, bessel, z**2 / (2 * d))
    return np.asarray(rise - shift**2 / 2)


def condition(name: str, reverse: bool = False) -> tuple[bool, Array, Array]:
    """(holds, t, t^2 f''(t)): Theorem 1's condition that t^2 f'' never falls, looked at on a grid of t.

    f'' by automatic differentiation. `reverse`: of the paper's own direction, the integral of p f(q/p), whose f is
    t f(1/t): its t^2 f''(t) is f''(1/t) / t.
    """
    import torch

    f = divergence(name)
    grid = torch.logspace(-3, 3, 241, dtype=torch.float64)
    at = (1 / grid if reverse else grid.clone()).requires_grad_()
    (second,) = torch.autograd.grad(f.derivative(at).sum(), at)
    values = (second / grid if reverse else second * grid**2).numpy()
    falls = np.diff(values) < -1e-9 * np.abs(values[1:])
    return not bool(falls.any()), grid.numpy(), values


NAMES = tuple(DIVERGENCES)
