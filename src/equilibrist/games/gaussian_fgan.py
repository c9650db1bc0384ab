"""The Gaussian f-GAN in one dimension, without sampling (Farnia and Ozdaglar 2020)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import softplus

from equilibrist.core.draws import Draw
from equilibrist.core.game import Constants, Players
from equilibrist.formulations.divergences import LOG2
from equilibrist.games.gaussian import in_box, leading
from equilibrist.games.truth import Analytic, Kind, Point
from equilibrist.optimizers import Coupled
from equilibrist.validation import positive

if TYPE_CHECKING:
    from equilibrist.theory import FGaussian


class GaussianFGAN(Analytic):
    """1-d f-GAN with data N(0, s^2), generator w z + u, and the critics D(x) = f'(e^{q(x)}), q = a x^2 + b x + c.

        V = E f'(e^{q(x)}) - E psi(e^{q(w z + u)}),  psi(t) = f*(f'(t)) = t f'(t) - f(t)

    These critics contain the best one of every generator with w > 0, q = log(p / q_G), so that max over D of V is
    the divergence, as with all critics. Means by Gauss-Hermite quadrature (exact for quadratic D; to about
    (1 - 1/s^2)^(2 nodes) at the optimum). Feasible: |u| <= t, w in [0.01, 1] for s > 1 (Farnia and Ozdaglar 2020,
    Theorem 1), w >= 1 for s < 1; and a half-way to where E f*(D) (E D, from below) becomes infinite.
    Unit: that of the divergence.

    Players are {"generator": {"w": [1], "u": [1]}, "critic": {"a": [1], "b": [1], "c": [1]}}.

    Truth: w = 1, u = 0, D = f'(p/q). For s > 1 a minimax point and no Nash equilibrium; for s < 1 a
    Nash equilibrium.

    Args:
        divergence: a name of `equilibrist.formulations.divergences.DIVERGENCES`.
        s: standard deviation of the data, not 1.
        t: bound on |u|.
        nodes: of the quadrature.
        dtype: of the points.

    Raises:
        ValueError: s or t that are not positive, s = 1, fewer than 8 nodes, a divergence that is infinite at the
            optimum (Pearson for s^2 >= 2, Neyman for s^2 <= 1/2). GameError: no such divergence.
    """

    players = ("generator", "critic")
    zero_sum = True
    leader = "generator"

    def __init__(
        self,
        divergence: str = "kl",
        s: float = 2.0,
        t: float = 1.0,
        nodes: int = 120,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        positive("GaussianFGAN", s=s, t=t)
        if s == 1:
            raise ValueError("GaussianFGAN.s must not be 1: then D = f'(1) with w = 1 is Nash")
        if nodes < 8:
            raise ValueError(f"GaussianFGAN.nodes must be at least 8, not {nodes!r}")
        self.s, self.t, self.dtype = float(s), float(t), dtype
        from equilibrist.theory import FGaussian

        self._closed = FGaussian(divergence, 1, self.s, self.t)
        if not self._closed.finite:
            raise ValueError(
                f"GaussianFGAN: {self._closed.f.name} is infinite for every feasible generator at s = {s:g}"
            )
        self.divergence = self._closed.name
        z, weights = np.polynomial.hermite_e.hermegauss(nodes)
        self._z = torch.from_numpy(z).to(dtype)
        self._weights = torch.from_numpy(weights / weights.sum()).to(dtype)
        self._widths = (0.01, 1.0) if s > 1 else (1.0, math.inf)
        best = (1 - self.s**-2) / 2
        up, down = _GROWTH[self.divergence]
        ceiling = (best + 1 / (2 * up)) / 2 if up else math.inf
        self._curvatures = (
            (best - 1 / (2 * down * self.s**2)) / 2 if down else -math.inf,
            ceiling if s > 1 else min(ceiling, 0.0),
        )

    def losses(
        self, players: Players, constants: Constants, draw: Draw, only: str | None = None
    ) -> dict[str, Tensor]:
        w, u = (players["generator"][name].squeeze() for name in ("w", "u"))
        a, b, c = (players["critic"][name].squeeze() for name in ("a", "b", "c"))
        z, weights = self._z.to(w), self._weights.to(w)
        real, fake = self.s * z, w * z + u
        scores = _SCORES[self.divergence]
        earned, _ = scores((a * real + b) * real + c)
        _, paid = scores((a * fake + b) * fake + c)
        value = (weights * earned).sum() - (weights * paid).sum()
        return {"generator": value, "critic": -value}

    def project(self, players: Players) -> Players:
        """The nearest feasible pair."""
        critic = players["critic"]
        return {
            "generator": in_box(players["generator"], self._widths, self.t),
            "critic": {**critic, "a": critic["a"].clamp(*self._curvatures)},
        }

    coupled: Mapping[str, Coupled] = MappingProxyType({})  # a box

    def best_critic(self, w: Tensor, u: Tensor) -> dict[str, Tensor]:
        """q = log(p / q_G): a = (1/w^2 - 1/s^2) / 2, b = -u / w^2, c = u^2 / (2 w^2) + log(w / s)."""
        precision = w**-2
        a, b = (precision - self.s**-2) / 2, -u * precision
        return {"a": a, "b": b, "c": u.square() * precision / 2 + (w / self.s).log()}

    @property
    def value(self) -> float:
        """V at the optimum: the divergence."""
        return self._closed.optimal_value

    def shift_gain(self, u: Tensor) -> Tensor:
        """What the shift u gains the generator against the optimum's critic (negative for s < 1)."""
        return torch.tensor(self._closed.shift_gain(abs(float(u))), dtype=u.dtype, device=u.device)

    @property
    def closed_forms(self) -> FGaussian:
        """Values, deviations and max-min value."""
        return self._closed

    def points(self) -> tuple[Point, ...]:
        """The optimum."""
        one, zero = torch.ones(1, dtype=self.dtype), torch.zeros(1, dtype=self.dtype)
        generator = {"w": one, "u": zero}
        here: Players = {"generator": generator, "critic": self.best_critic(one, zero)}
        free = self.jacobian(here)[1:, 1:]  # w is held by the boundary
        attracts = bool(torch.linalg.eigvals(free).real.min() > 0)
        kind: Kind = "local minimax" if self.s > 1 else "local nash"
        return (Point(here, kind, attracts, leading(self.s), (("generator", "w"),)),)


# E e^{k q} is finite under the generator's law for 2 k a w^2 < 1, and E e^{-k q} under the data's for
# -2 k a s^2 < 1: the largest k that D and f*(D) have of either kind.
_GROWTH: dict[str, tuple[float, float]] = {
    "kl": (1.0, 0.0),
    "reverse_kl": (0.0, 1.0),
    "jensen_shannon": (0.0, 0.0),
    "vanilla": (0.0, 0.0),
    "pearson": (2.0, 0.0),
    "neyman": (0.0, 2.0),
    "squared_hellinger": (0.5, 0.5),
    "jeffreys": (1.0, 1.0),
}


# (f'(e^q), psi(e^q)) without overflow where they have limits.
_SCORES: dict[str, Callable[[Tensor], tuple[Tensor, Tensor]]] = {
    "kl": lambda q: (q + 1, q.exp()),
    "reverse_kl": lambda q: (-(-q).exp(), q - 1),
    "jensen_shannon": lambda q: (LOG2 - softplus(-q), softplus(q) - LOG2),
    "vanilla": lambda q: (-softplus(-q), softplus(q)),
    "pearson": lambda q: (2 * torch.expm1(q), torch.expm1(2 * q)),
    "neyman": lambda q: (-torch.expm1(-2 * q), -2 * torch.expm1(-q)),
    "squared_hellinger": lambda q: (-torch.expm1(-q / 2), torch.expm1(q / 2)),
    "jeffreys": lambda q: (q + 1 - (-q).exp(), torch.expm1(q) + q),
}
