"""The Gaussian W2GAN in mixed strategies, whose equilibrium is known."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple, cast

import torch
from torch import Tensor

from equilibrist.errors import GameError
from equilibrist.mixed.domains import Projected, Sphere
from equilibrist.mixed.measures import Measure
from equilibrist.mixed.payoff import NashGap, PayoffGame, Reply
from equilibrist.theory.ball import least_on_ball
from equilibrist.validation import not_negative, positive


class Generators(NamedTuple):
    """A mixture of generators x = W z + u: W [K, d, d], u [K, d], weights [K] of sum 1."""

    W: Tensor
    u: Tensor
    weights: Tensor


class Critics(NamedTuple):
    """A mixture of critics D(x) = x^T A x + b^T x: A [K, d, d], b [K, d], weights [K] of sum 1."""

    A: Tensor
    b: Tensor
    weights: Tensor


class Response(NamedTuple):
    """A pure best response, (W, u) or (A, b), and the payoff that it reaches."""

    matrix: Tensor
    vector: Tensor
    value: float


@dataclass(frozen=True)
class MixedW2Gaussian:
    """Mixed strategies in the Gaussian W2GAN of Farnia and Ozdaglar 2020, Theorem 1, which has no pure equilibrium.

    Data N(0, s^2 I_d), s > 1; generators x = W z + u, sigma_max(W) <= 1, |u| <= t; critics x^T A x + b^T x, A < eta I;
    for one pair, with H = eta I - sym(A) and y = b + 2 eta u,

        V = s^2 tr A - 1/4 tr[H^{-1} (4 eta^2 W W^T + y y^T)] + eta (|W|_F^2 + |u|^2).

    V is affine in (W W^T, u u^T, u), so a mixture nu of generators acts by E W W^T, m = E u and E u u^T alone; and
    V(nu, .) is concave in (A, b), so a mixture of critics gains nothing over the best one. With K = E W W^T + Cov u,
    the covariance of the mixture's samples,

        max over critics of V(nu, .) = eta (s^2 d - 2 s tr K^{1/2} + tr K + |m|^2)

    (eta times Gelbrich's distance), at A = eta (I - K^{1/2} / s), b = -2 eta m.

    Equilibrium: W = I, u uniform on the sphere of radius r = min(t, sqrt(d (s^2 - 1))), or any law with its first two
    moments, such as the 2 d points +- r e_i, against A = eta (1 - sqrt(1 + r^2 / d) / s) I, b = 0. Where
    s^2 d > d + t^2, r = t, A is positive and every (I, u), |u| = t, is a best response; the value is
    eta (s sqrt d - sqrt(d + t^2))^2. Elsewhere the mixture's covariance is the data's, A = 0, every generator is a best
    response, and the value is 0. The value is also the max-min value over pure critics
    (`theory.W2Gaussian.max_min_value`). With all c-concave critics this is no equilibrium: they see more than moments.
    Unit: that of the cost eta |x - x'|^2.

    Args:
        d, s, eta, t: as in `theory.W2Gaussian`, s > 1.

    Raises:
        ValueError: d below 1; eta that is not positive; a negative t; s not above 1 (for s < 1 the pure optimum is
            a Nash equilibrium).
    """

    d: int = 2
    s: float = 2.0
    eta: float = 0.5
    t: float = 1.0

    def __post_init__(self) -> None:
        if self.d < 1 or self.d != int(self.d):
            raise ValueError(
                f"MixedW2Gaussian.d must be a whole number, at least 1, not {self.d!r}"
            )
        positive(self, eta=self.eta)
        not_negative(self, t=self.t)
        if not 1 < self.s < math.inf:
            raise ValueError(
                f"MixedW2Gaussian.s must be above 1, not {self.s!r}: for s < 1 the pure optimum is an equilibrium"
            )

    # -- payoffs and best responses -----------------------------------------------------------------------

    def payoffs(self, nu: Generators, mu: Critics) -> Tensor:
        """V of each pair [K, L].

        Raises:
            GameError: shapes or weights that do not fit; a critic with A not below eta I.
        """
        self._check(nu)
        self._below(mu)
        x = torch.cat([nu.W.flatten(1), nu.u], 1)
        y = torch.cat([mu.A.flatten(1), mu.b], 1)
        return self.payoff(x[:, None], y)

    def payoff(self, x: Tensor, y: Tensor) -> Tensor:
        """V of points x = (W, u) and y = (A, b), both [..., d^2 + d] and flattened: for `PayoffGame`."""
        (W, u), (A, b) = self._parts(x), self._parts(y)
        H = self.eta * self._unit - (A + A.mT) / 2
        shift = b + 2 * self.eta * u
        moment = 4 * self.eta**2 * W @ W.mT + shift[..., :, None] * shift[..., None, :]
        answered = (torch.linalg.inv(H) * moment).sum((-1, -2)) / 4
        own = self.eta * (W.square().sum((-1, -2)) + u.square().sum(-1))
        return cast(Tensor, self.s**2 * A.diagonal(dim1=-1, dim2=-2).sum(-1) - answered + own)

    def value(self, nu: Generators, mu: Critics) -> float:
        """V(nu, mu)."""
        return float(nu.weights @ self.payoffs(nu, mu) @ mu.weights)

    def moments(self, nu: Generators) -> tuple[Tensor, Tensor]:
        """(m [d], K [d, d]): mean and covariance of the samples of a mixture of generators."""
        self._check(nu)
        m = nu.weights @ nu.u
        rest = nu.u - m
        K = torch.einsum("k,kim,kjm->ij", nu.weights, nu.W, nu.W)
        return m, K + torch.einsum("k,ki,kj->ij", nu.weights, rest, rest)

    def best_critic(self, nu: Generators, ceiling: float | None = None) -> Response:
        """The maximiser of V(nu, .) over A <= ceiling I (None: A < eta I), exactly.

        Eigenvalues of A above the ceiling are cut off there. Without one, where K is singular, A touches eta I and
        `value` is the supremum.
        """
        m, K = self.moments(nu)
        values, vectors = torch.linalg.eigh(K)
        k = values.clamp_min(0)
        h = self.eta * k.sqrt() / self.s  # of H = eta I - A
        if ceiling is not None:
            h = h.clamp_min(self.eta - ceiling)
        A = self.eta * self._unit - (vectors * h) @ vectors.mT
        answered = torch.where(k > 0, self.eta**2 * k / h, 0.0)
        best = self.s**2 * (self.eta - h) - answered + self.eta * k
        return Response(A, -2 * self.eta * m, float(best.sum() + self.eta * m.square().sum()))

    def best_generator(self, mu: Critics) -> Response:
        """A minimiser of V(., mu) over the feasible generators, exactly, for any finite mixture of critics.

        With Q = eta I - eta^2 E H^{-1} and q = E H^{-1} b, V(., mu) = const + tr[W W^T Q] + u^T Q u - eta q . u: W is
        the projector on the eigenvectors of Q below 0, and u solves a trust-region problem on |u| <= t.
        """
        H = self._below(mu)
        inverse = torch.linalg.solve(H, self._unit.expand_as(H))
        P = torch.einsum("l,lij->ij", mu.weights, inverse)
        q = torch.einsum("l,lij,lj->i", mu.weights, inverse, mu.b)
        Q = self.eta * self._unit - self.eta**2 * (P + P.mT) / 2
        values, vectors = torch.linalg.eigh(Q)
        W = (vectors * (values < 0)) @ vectors.mT
        shift, _ = least_on_ball(Q.numpy(), (-self.eta * q).numpy(), self.t)
        u = torch.from_numpy(shift)
        answer = Generators(W[None], u[None], self._one)
        return Response(W, u, self.value(answer, mu))

    def gap(self, nu: Generators, mu: Critics) -> NashGap:
        """The gap of a mixed profile, x the generator and y the critic: exact.

        Raises:
            GameError: as `payoffs`; a generator of nu that is not feasible.
        """
        self._feasible(nu)
        value = self.value(nu, mu)
        least, most = self.best_generator(mu).value, self.best_critic(nu).value
        return NashGap(value, value - least, most - value, True, True)

    # -- profiles -----------------------------------------------------------------------------------------

    @property
    def binding(self) -> bool:
        """s^2 d > d + t^2: the mixture cannot reach the data's covariance, so its value is positive."""
        return self.s**2 * self.d > self.d + self.t**2

    @property
    def radius(self) -> float:
        """|u| in the equilibrium: min(t, sqrt(d (s^2 - 1)))."""
        return min(self.t, math.sqrt(self.d * (self.s**2 - 1)))

    @property
    def optimal_value(self) -> float:
        """min over nu, max over mu of V: eta (s sqrt d - sqrt(d + t^2))^2 where `binding`, else 0."""
        reached = math.sqrt(self.d + self.t**2)
        return self.eta * max(self.s * math.sqrt(self.d) - reached, 0.0) ** 2

    def equilibrium(self, nodes: int | None = None) -> tuple[Generators, Critics]:
        """(nu*, mu*): W = I with u at the 2 d points +- r e_i or, given `nodes`, on the sphere's quadrature
        (`Sphere.grid`, at least 3 nodes for exact second moments); mu* is one critic."""
        if nodes is None:
            u = self.radius * torch.cat([self._unit, -self._unit])
            weights = torch.full((2 * self.d,), 1 / (2 * self.d), dtype=torch.float64)
        else:
            points, area = Sphere(self.d).grid(nodes)
            u, weights = self.radius * points, area / area.sum()
        a = self.eta * (1 - math.sqrt(1 + self.radius**2 / self.d) / self.s)
        nu = Generators(self._unit.expand(len(u), self.d, self.d), u, weights)
        return nu, Critics(a * self._unit[None], torch.zeros_like(u[:1]), self._one)

    def pure(self) -> tuple[Generators, Critics]:
        """The distance-minimising pure pair W = I, u = 0, A = eta (1 - 1/s) I, b = 0: its gap is what the shift gains,
        eta (s - 1) t^2."""
        zero = torch.zeros(1, self.d, dtype=torch.float64)
        a = self.eta * (1 - 1 / self.s)
        unit = self._unit[None]
        return Generators(unit, zero, self._one), Critics(a * unit, zero.clone(), self._one)

    def game(self, ceiling: float | None = None, scale: float = 0.3) -> PayoffGame:
        """The same as a `PayoffGame`, to be played by particles (W, u) and (A, b), with exact best responses.

        Args:
            ceiling: bound on the critics' A; eta (1 - 0.1 / s) if None, as in `games.GaussianW2GAN`.
            scale: standard deviation of the start, before its projection.

        Raises:
            ValueError: a ceiling that excludes the equilibrium's critic or reaches eta.
        """
        top = self.eta * (1 - 0.1 / self.s) if ceiling is None else ceiling
        least = float(self.equilibrium()[1].A[0, 0, 0])
        if not least <= top < self.eta:
            raise ValueError(f"game: ceiling must lie in [{least:g}, {self.eta:g}), not {top!r}")

        def generators(x: Tensor) -> Tensor:
            W, u = self._parts(x)
            left, sigma, right = torch.linalg.svd(W, full_matrices=False)
            W = (left * sigma.clamp_max(1)[..., None, :]) @ right
            u = u * torch.clamp_max(self.t / u.norm(dim=-1, keepdim=True).clamp_min(1e-300), 1)
            return torch.cat([W.flatten(-2), u], -1)

        def critics(y: Tensor) -> Tensor:
            A, b = self._parts(y)
            values, vectors = torch.linalg.eigh((A + A.mT) / 2)
            A = (vectors * values.clamp_max(top)[..., None, :]) @ vectors.mT
            return torch.cat([A.flatten(-2), b], -1)

        def best_x(mu: Measure) -> Reply:
            best = self.best_generator(Critics(*self._parts(mu.points), mu.masses))
            return Reply(torch.cat([best.matrix.flatten(), best.vector]), best.value, True)

        def best_y(nu: Measure) -> Reply:
            best = self.best_critic(Generators(*self._parts(nu.points), nu.masses), top)
            return Reply(torch.cat([best.matrix.flatten(), best.vector]), best.value, True)

        n = self.d**2 + self.d
        return PayoffGame(
            self.payoff,
            Projected(n, generators, scale),
            Projected(n, critics, scale),
            best_x,
            best_y,
            self.optimal_value,
        )

    # -- inside -------------------------------------------------------------------------------------------

    def _parts(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """The matrix [..., d, d] and the vector [..., d] of points [..., d^2 + d]."""
        matrix, vector = points.split([self.d**2, self.d], -1)
        return matrix.unflatten(-1, (self.d, self.d)), vector

    @property
    def _unit(self) -> Tensor:
        return torch.eye(self.d, dtype=torch.float64)

    @property
    def _one(self) -> Tensor:
        return torch.ones(1, dtype=torch.float64)

    def _check(self, mixture: Generators | Critics) -> None:
        matrix, vector, weights = mixture
        k, d = len(weights), self.d
        if matrix.shape != (k, d, d) or vector.shape != (k, d) or weights.ndim != 1:
            raise GameError(
                f"{type(mixture).__name__}: {k} weights and d = {d} need matrices {[k, d, d]} and vectors {[k, d]}, "
                f"not {list(matrix.shape)} and {list(vector.shape)}"
            )
        if bool((weights < 0).any()) or abs(float(weights.sum()) - 1) > 1e-9:
            raise GameError(
                f"{type(mixture).__name__}: weights must not be negative and must sum to 1, not to "
                f"{float(weights.sum()):g}: normalise them"
            )

    def _below(self, mu: Critics) -> Tensor:
        """H = eta I - sym(A) [L, d, d]."""
        self._check(mu)
        H = self.eta * self._unit - (mu.A + mu.A.mT) / 2
        least = float(torch.linalg.eigvalsh(H.detach()).amin())
        if least <= 0:
            raise GameError(
                f"Critics: A must lie below eta I, where D^c is finite: its largest eigenvalue is "
                f"{self.eta - least:g}, eta is {self.eta:g}"
            )
        return H

    def _feasible(self, nu: Generators) -> None:
        self._check(nu)
        sigma = float(torch.linalg.matrix_norm(nu.W.detach(), 2).amax())
        length = float(nu.u.detach().norm(dim=1).amax())
        if sigma > 1 + 1e-9 or length > self.t * (1 + 1e-9):
            raise GameError(
                f"Generators: sigma_max(W) = {sigma:g} must be at most 1 and |u| = {length:g} at most t = {self.t:g}: "
                "project them"
            )
