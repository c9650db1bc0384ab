"""Gaussian GANs without sampling: exact losses, feasible sets, equilibria (Farnia and Ozdaglar 2020)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor

from equilibrist.core.draws import Draw
from equilibrist.core.game import Constants, Players
from equilibrist.games.truth import Analytic, BestResponse, Kind, Point
from equilibrist.optimizers import Coupled
from equilibrist.projections import EigenvalueCap, NormBall, SpectralBall
from equilibrist.validation import positive

if TYPE_CHECKING:
    from equilibrist.theory import W2Gaussian, WGaussian1d


def in_box(
    generator: Mapping[str, Tensor], widths: tuple[float, float], t: float
) -> dict[str, Tensor]:
    """The nearest w z + u with w between the widths and |u| <= t."""
    return {"w": generator["w"].clamp(*widths), "u": generator["u"].clamp(-t, t)}


class GaussianW2GAN(Analytic):
    """W2GAN with data N(0, s^2 I_d), generator G(z) = W z + u, z ~ N(0, I_d), critic D(x) = x^T A x + b^T x.

        V = s^2 tr A - 1/4 tr[(eta I - A)^{-1} (4 eta^2 W W^T + y y^T)] + eta (|W|_F^2 + |u|^2),  y = b + 2 eta u

    the expectation of D(x) - D^c(G(z)) for the cost eta |x - x'|^2, with sym(A) for A. The generator
    minimises V, the critic maximises it. Feasible sets: |u| <= t; sym(A) <= ceiling I, below eta, where
    D^c is finite; and for s > 1 sigma_max(W) <= 1 (Theorem 1), for s < 1 sigma_min(W) >= 1
    (Remark 1). Unit: that of the cost.

    Truth: W orthogonal, u = 0, A = eta (1 - 1/s) I, b = 0 is optimal, with value eta d (s - 1)^2. For s > 1
    it is a minimax point and no Nash equilibrium (there is none): the shift u gains eta (s - 1) |u|^2.
    For s < 1 it is a Nash equilibrium. Rotations of W and the antisymmetric part of A change nothing, so
    for d > 1 J is singular and the optimum, one of a continuum, does not attract. `points` gives it at
    W = I; degenerate stationary points with a singular W on the critic's boundary are left out.

    Args:
        s: standard deviation of the data, not 1.
        dim: d.
        eta: the cost's factor (1/2 in the paper's section 3.1).
        t: bound on |u|.
        ceiling: bound on the eigenvalues of sym(A); eta (1 - 0.1 / max(s, 1)) if None, which leaves room for
            best critics of generators with sigma_min(W) >= 0.1 min(s, 1).
        dtype: of the points.

    Raises:
        ValueError: s, eta or t that are not positive, s = 1, a ceiling that excludes the optimum or
            reaches eta.
    """

    players = ("generator", "critic")
    zero_sum = True
    leader = "generator"
    concave_critic = True  # V(G, .) is concave, `sobolev_distance` a quadratic form
    critic_class = "quadratic critics x^T A x + b^T x, A <= ceiling I"

    def __init__(
        self,
        s: float = 2.0,
        dim: int = 2,
        eta: float = 0.5,
        t: float = 1.0,
        ceiling: float | None = None,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        positive("GaussianW2GAN", s=s, eta=eta, t=t)
        if s == 1:
            raise ValueError(
                "GaussianW2GAN.s must not be 1: then any D with G = identity is optimal"
            )
        if dim < 1:
            raise ValueError(f"GaussianW2GAN.dim must be at least 1, not {dim!r}")
        self.s, self.dim, self.eta, self.t, self.dtype = float(s), dim, float(eta), float(t), dtype
        self.ceiling = eta * (1 - 0.1 / max(s, 1.0)) if ceiling is None else ceiling
        if not eta * (1 - 1 / s) <= self.ceiling < eta:
            raise ValueError(
                f"GaussianW2GAN.ceiling must lie in [eta (1 - 1/s), eta) = [{eta * (1 - 1 / s):g}, {eta:g}), "
                f"not {self.ceiling!r}"
            )
        self._sets = (
            NormBall("generator", "u", self.t),
            *((SpectralBall("generator", "W", 1.0),) if s > 1 else ()),
            EigenvalueCap("critic", "A", self.ceiling),
        )

    def losses(
        self, players: Players, constants: Constants, draw: Draw, only: str | None = None
    ) -> dict[str, Tensor]:
        W, u = players["generator"]["W"], players["generator"]["u"]
        A, b = players["critic"]["A"], players["critic"]["b"]
        A = (A + A.mT) / 2
        y = b + 2 * self.eta * u
        gap = self.eta * torch.eye(self.dim, dtype=A.dtype, device=A.device) - A
        moment = 4 * self.eta**2 * W @ W.mT + torch.outer(y, y)
        answered = torch.linalg.solve(gap, moment).diagonal().sum() / 4
        value = (
            self.s**2 * A.diagonal().sum()
            - answered
            + self.eta * (W.square().sum() + u.square().sum())
        )
        return {"generator": value, "critic": -value}

    def project(self, players: Players) -> Players:
        """The nearest feasible pair (for sigma_min(W) >= 1 the nearest W with the same singular vectors)."""
        for nearest in self._sets:
            players = {**players, nearest.player: nearest(players[nearest.player])}
        if self.s < 1:
            W = players["generator"]["W"]
            left, sigma, right = torch.linalg.svd(W)
            missing = (1 - sigma).clamp_min(0)
            players = {
                **players,
                "generator": {**players["generator"], "W": W + (left * missing) @ right},
            }
        return players

    coupled: Mapping[str, Coupled] = MappingProxyType({"generator": ("u", "W"), "critic": ("A",)})

    def best_critic(self, W: Tensor, u: Tensor) -> dict[str, Tensor]:
        """The maximiser of V: A = eta (I - (W W^T)^{1/2} / s), b = -2 eta u (feasible where `ceiling` leaves
        room for it)."""
        left, sigma, _ = torch.linalg.svd(W)
        unit = torch.eye(self.dim, dtype=W.dtype, device=W.device)
        return {"A": self.eta * (unit - (left * sigma) @ left.mT / self.s), "b": -2 * self.eta * u}

    def best_value(self, W: Tensor, u: Tensor) -> Tensor:
        """max over D of V: eta (|u|^2 + sum_i (s - sigma_i)^2), eta times the squared 2-Wasserstein distance."""
        sigma = torch.linalg.svdvals(W)
        return cast(Tensor, self.eta * (u.square().sum() + (self.s - sigma).square().sum()))

    def best_response(self, player: str, players: Players) -> BestResponse | None:
        """The player's exact best response; None for the critic where `ceiling` cuts it off."""
        W, u = players["generator"]["W"], players["generator"]["u"]
        A, b = players["critic"]["A"], players["critic"]["b"]
        if player == "critic":
            answer = self.best_critic(W, u)
            highest = float(torch.linalg.eigvalsh(answer["A"])[-1])
            return BestResponse(answer) if highest <= self.ceiling * (1 + 1e-12) else None
        best = self.closed_forms.best_generator(A, b)
        return BestResponse(
            {"W": torch.as_tensor(best.W).to(W), "u": torch.as_tensor(best.u).to(u)},
            math.isfinite(best.value),
        )

    def sobolev_distance(self, critic: dict[str, Tensor], other: dict[str, Tensor]) -> Tensor:
        """E_P |grad D~ - grad D|^2 = 4 s^2 |sym(A~ - A)|_F^2 + |b~ - b|^2 (the square of equation 15)."""
        A = critic["A"] - other["A"]
        A = (A + A.mT) / 2
        return 4 * self.s**2 * A.square().sum() + (critic["b"] - other["b"]).square().sum()

    def sobolev(self, players: Players) -> Tensor:
        """M = E_P[(d_w grad D)^T (d_w grad D)], a square matrix of d^2 + d rows, w = (A, b) as `tree.flatten` orders
        them: grad D(x) = (A + A^T) x + b, so ||D||^2 = s^2 |A + A^T|_F^2 + |b|^2 and M A = 2 s^2 (A + A^T), M b = b."""
        A, b = players["critic"]["A"], players["critic"]["b"]
        n = A.numel()
        M = torch.eye(n + b.numel(), dtype=A.dtype, device=A.device)
        swap = torch.arange(n, device=A.device).reshape(A.shape).mT.reshape(-1)
        M[:n, :n] = 2 * self.s**2 * (M[:n, :n] + M[:n, :n][swap])
        return M

    @property
    def value(self) -> float:
        """V at the optimum: eta d (s - 1)^2."""
        return self.eta * self.dim * (self.s - 1) ** 2

    def shift_gain(self, u: Tensor) -> Tensor:
        """What the shift u gains the generator against the optimum's critic: eta (s - 1) |u|^2 (a loss for s < 1)."""
        return self.eta * (self.s - 1) * u.square().sum()

    @property
    def lambda_star(self) -> float:
        """The largest lambda at which the optimum is a proximal equilibrium, s / (4 eta (s - 1)); infinite
        for s < 1."""
        return self.s / (4 * self.eta * (self.s - 1)) if self.s > 1 else math.inf

    @property
    def closed_forms(self) -> W2Gaussian:
        """Deviations, gaps, V_prox, profile and max-min value (with A < eta I only: no `ceiling`)."""
        from equilibrist.theory import W2Gaussian

        return W2Gaussian(self.dim, self.s, self.eta, self.t)

    def points(self) -> tuple[Point, ...]:
        """The optimum at W = I."""
        unit = torch.eye(self.dim, dtype=self.dtype)
        zero = torch.zeros(self.dim, dtype=self.dtype)
        here: Players = {
            "generator": {"W": unit, "u": zero},
            "critic": {"A": self.eta * (1 - 1 / self.s) * unit, "b": zero.clone()},
        }
        # Of (u, b): trace 2 eta (1 - s) + s / (2 eta), determinant s > 0; of A: positive.
        attracts = self.dim == 1 and self.s / (2 * self.eta) > 2 * self.eta * (self.s - 1)
        kind: Kind = "local minimax" if self.s > 1 else "local nash"
        leaders = leading(self.s) if self.dim == 1 else ()  # strict where nothing is free to turn
        return (Point(here, kind, attracts, leaders, (("generator", "W"),)),)


class GaussianWGAN(Analytic):
    """1-d WGAN with data N(0, s^2), generator w z + u, and the critics D(x) = a |x - c|, |a| <= 1.

        V = a (m(s, c) - m(w, u - c))
        m(r, k) = E |r Z + k| = r sqrt(2/pi) e^{-k^2 / (2 r^2)} + k erf(k / (r sqrt 2))

    These critics are 1-Lipschitz and contain a best one for every feasible generator with |w| != s: so
    max over D of V is the 1-Wasserstein distance, as with all 1-Lipschitz critics. Feasible: |u| <= t,
    w in [0.01, 1] for s > 1 (Farnia and Ozdaglar 2020, Theorem 1), w >= 1 for s < 1 (Remark 1); w > 0
    without loss. Unit: that of the data.

    Players are {"generator": {"w": [1], "u": [1]}, "critic": {"a": [1], "c": [1]}}.

    Truth: w = 1, u = 0, c = 0, a = sign(s - 1), with value |s - 1| sqrt(2/pi). For s > 1 a minimax point and no Nash
    equilibrium: the shift u gains sqrt(2/pi) (e^{-u^2/2} - 1) + u erf(u / sqrt 2), and no lambda > 0 makes it a
    proximal equilibrium. For s < 1 a Nash equilibrium.

    Args:
        s: standard deviation of the data, not 1.
        t: bound on |u|.
        dtype: of the points.

    Raises:
        ValueError: s or t that are not positive, s = 1.
    """

    players = ("generator", "critic")
    zero_sum = True
    leader = "generator"
    critic_class = (
        "D(x) = a |x - c|, |a| <= 1: two parameters, a small part of the 1-Lipschitz critics"
    )

    def __init__(self, s: float = 2.0, t: float = 1.0, dtype: torch.dtype = torch.float64) -> None:
        positive("GaussianWGAN", s=s, t=t)
        if s == 1:
            raise ValueError("GaussianWGAN.s must not be 1: then any D with w = 1 is optimal")
        self.s, self.t, self.dtype = float(s), float(t), dtype
        self._widths = (0.01, 1.0) if s > 1 else (1.0, math.inf)

    def losses(
        self, players: Players, constants: Constants, draw: Draw, only: str | None = None
    ) -> dict[str, Tensor]:
        w, u = (players["generator"][name].squeeze() for name in ("w", "u"))
        a, c = (players["critic"][name].squeeze() for name in ("a", "c"))
        value = a * (_mean_modulus(torch.full_like(c, self.s), c) - _mean_modulus(w, u - c))
        return {"generator": value, "critic": -value}

    def project(self, players: Players) -> Players:
        """The nearest feasible pair."""
        critic = players["critic"]
        return {
            "generator": in_box(players["generator"], self._widths, self.t),
            "critic": {"a": critic["a"].clamp(-1, 1), "c": critic["c"]},
        }

    coupled: Mapping[str, Coupled] = MappingProxyType({})  # a box

    def best_critic(self, w: Tensor, u: Tensor) -> dict[str, Tensor]:
        """a = sign(s - w), c = u s / (s - w): the point that the transport map w x / s + u leaves in place."""
        return {"a": torch.sign(self.s - w), "c": u * self.s / (self.s - w)}

    def best_value(self, w: Tensor, u: Tensor) -> Tensor:
        """max over D of V: the 1-Wasserstein distance m(|s - w|, u)."""
        return _mean_modulus((self.s - w).abs(), u)

    def best_response(self, player: str, players: Players) -> BestResponse | None:
        """The player's exact best response; None for the critic where |w| = s, whose best one is affine."""
        w, u, a, c = (
            players[p][k]
            for p, k in (*(("generator", k) for k in "wu"), *(("critic", k) for k in "ac"))
        )
        if player == "critic":
            return None if float(w) == self.s else BestResponse(self.best_critic(w, u))
        best = self.closed_forms.best_generator(float(a), float(c))
        bounded = math.isfinite(best.value)
        width = max(best.w, self._widths[0]) if bounded else 1e6
        return BestResponse(
            {"w": torch.full_like(w, width), "u": torch.full_like(u, best.u)}, bounded
        )

    def sobolev_distance(self, critic: dict[str, Tensor], other: dict[str, Tensor]) -> Tensor:
        """E_P (D~' - D')^2 = (a~ - a)^2 + 4 a~ a |Phi(c~ / s) - Phi(c / s)| (the square of equation 15): between the
        two kinks the slopes have opposite signs."""
        (a, c), (a_, c_) = ((part["a"].squeeze(), part["c"].squeeze()) for part in (critic, other))
        root = self.s * 2**0.5
        between = (torch.erf(c / root) - torch.erf(c_ / root)).abs() / 2
        return (a - a_).square() + 4 * a * a_ * between

    def sobolev(self, players: Players) -> Tensor:
        """M [2, 2], w = (a, c): diag(1, infinity). D'(x) = a sign(x - c) jumps at the kink c, whose move by h costs
        4 a^2 |h| p(c), p the data's density, of first order: no answer in c is possible for any lambda > 0."""
        a = players["critic"]["a"]
        return torch.diag(torch.tensor([1.0, math.inf], dtype=a.dtype, device=a.device))

    @property
    def value(self) -> float:
        """V at the optimum: |s - 1| sqrt(2/pi)."""
        return abs(self.s - 1) * math.sqrt(2 / math.pi)

    def shift_gain(self, u: Tensor) -> Tensor:
        """What the shift u gains the generator against the optimum's critic (negative for s < 1)."""
        moved = math.sqrt(2 / math.pi) * torch.expm1(-u.square() / 2) + u * torch.erf(u / 2**0.5)
        return math.copysign(1.0, self.s - 1) * moved

    @property
    def lambda_star(self) -> float:
        """The largest lambda at which the optimum is a proximal equilibrium: 0 for s > 1, infinite for s < 1."""
        return 0.0 if self.s > 1 else math.inf

    @property
    def closed_forms(self) -> WGaussian1d:
        """Deviations, gaps, V_prox, profile and max-min value."""
        from equilibrist.theory import WGaussian1d

        return WGaussian1d(self.s, self.t)

    def points(self) -> tuple[Point, ...]:
        """The optimum."""
        one, zero = torch.ones(1, dtype=self.dtype), torch.zeros(1, dtype=self.dtype)
        here: Players = {
            "generator": {"w": one, "u": zero},
            "critic": {"a": math.copysign(1.0, self.s - 1) * one, "c": zero.clone()},
        }
        kind: Kind = "local minimax" if self.s > 1 else "local nash"
        held = (("generator", "w"), ("critic", "a"))
        # Of (u, c): the trace has the sign of 1 - s, and the determinant is positive.
        return (Point(here, kind, self.s < 1, leading(self.s), held),)


def _mean_modulus(r: Tensor, k: Tensor) -> Tensor:
    """E |r Z + k| for r > 0, Z ~ N(0, 1)."""
    spread = math.sqrt(2 / math.pi) * r * torch.exp(-k.square() / (2 * r.square()))
    return spread + k * torch.erf(k / (r * 2**0.5))


def leading(s: float) -> tuple[str, ...]:
    """A strict Nash equilibrium is a minimax point whoever leads."""
    return ("generator",) if s > 1 else ("generator", "critic")
