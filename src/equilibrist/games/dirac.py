"""The Dirac-GAN (Mescheder, Geiger and Nowozin 2018): data at 0, generator at theta, critic D(x) = psi x."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn.functional import softplus

from equilibrist.core.draws import Draw
from equilibrist.core.game import Constants, Players
from equilibrist.games.truth import Analytic, Point

Loss = Literal["vanilla", "non-saturating", "wgan"]
LOSSES: tuple[Loss, ...] = get_args(Loss)


class Dirac(Analytic):
    """L(theta, psi) = f(theta psi) + f(0): the generator minimises L, the critic maximises L - (gamma/2) psi^2.

    Args:
        loss: "vanilla": f(t) = -log(1 + e^-t), f'(0) = 1/2. "non-saturating": the same for the critic,
            while the generator minimises -f(-theta psi). "wgan": f(t) = t, f'(0) = 1.
        gamma: weight of the gradient penalty on real data, R1: here (gamma/2) psi^2, whatever the data.
        dtype: of the points.

    Mescheder et al. 2018, Definition 2.1 and Lemma 2.3 (their sign: the discriminator is low on
    real data). The only stationary point is (0, 0), a Nash equilibrium: theta is free where psi = 0, and
    psi where theta = 0 (with gamma, psi = 0 is then the strict best). The eigenvalues of J there are
    gamma/2 +- sqrt(gamma^2/4 - f'(0)^2): +- i f'(0) without the penalty. Players are
    {"generator": {"theta": [1]}, "critic": {"psi": [1]}}.

    Raises:
        ValueError: an unknown loss, a gamma that is negative.
    """

    players = ("generator", "critic")
    leader = "generator"

    def __init__(
        self, loss: Loss = "vanilla", gamma: float = 0.0, dtype: torch.dtype = torch.float64
    ) -> None:
        if loss not in LOSSES:
            raise ValueError(f"Dirac.loss must be one of {', '.join(LOSSES)}, not {loss!r}")
        if not 0 <= gamma < float("inf"):
            raise ValueError(f"Dirac.gamma must not be negative, not {gamma!r}")
        self.loss, self.gamma, self.dtype = loss, gamma, dtype
        self.zero_sum = loss != "non-saturating" and gamma == 0
        self.linear = loss == "wgan"

    def losses(
        self, players: Players, constants: Constants, draw: Draw, only: str | None = None
    ) -> dict[str, Tensor]:
        theta, psi = players["generator"]["theta"].squeeze(), players["critic"]["psi"].squeeze()
        value = self._f(theta * psi) + self._f(torch.zeros_like(psi))
        generator = -self._f(-theta * psi) if self.loss == "non-saturating" else value
        return {"generator": generator, "critic": self.gamma / 2 * psi.square() - value}

    def jacobian(self, players: Players) -> Tensor:
        """[[g''(t) psi^2, g''(t) t + g'(t)], [-f''(t) t - f'(t), gamma - f''(t) theta^2]] with t = theta psi and
        g(t) the generator's loss: f(t), or -f(-t) where it is non-saturating."""
        theta, psi = players["generator"]["theta"].squeeze(), players["critic"]["psi"].squeeze()
        t = theta * psi
        first, second = self._derivatives(t)
        own, bent = first, second
        if self.loss == "non-saturating":  # g(t) = -f(-t): g' = f'(-t), g'' = -f''(-t)
            own, bent = self._derivatives(-t)
            bent = -bent
        rows = [bent * psi**2, bent * t + own, -second * t - first, self.gamma - second * theta**2]
        return torch.stack(rows).reshape(2, 2)

    def points(self) -> tuple[Point, ...]:
        """(0, 0)."""
        zero = torch.zeros(1, dtype=self.dtype)
        here: Players = {"generator": {"theta": zero}, "critic": {"psi": zero.clone()}}
        return (Point(here, "local nash", self.gamma > 0),)

    def _f(self, t: Tensor) -> Tensor:
        return t if self.loss == "wgan" else -softplus(-t)

    def _derivatives(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """f'(t), f''(t)."""
        if self.loss == "wgan":
            return torch.ones_like(t), torch.zeros_like(t)
        share = torch.sigmoid(-t)
        return share, -share * (1 - share)
