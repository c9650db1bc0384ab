"""A game whose spectral norms follow their weights: what a Jacobian of the trained pair is taken of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from equilibrist._draws import Draw
from equilibrist._game import Constants, Players
from equilibrist.spectral_norm import is_power_vector, top_singular_vectors


class Exact:
    """`game` with the singular vectors of normalised weights as functions of the weights.

    With u and v held constant, W / (u^T W v) has the right gradient and a wrong second derivative: the
    norm's own curvature is left out. Games without spectral norm are unchanged.
    """

    thrice = True  # penalties of a user's own may differentiate by themselves

    def __init__(self, game: Any) -> None:
        self.game = game
        self.players, self.zero_sum = game.players, game.zero_sum
        self.separable = game.separable
        self.why_not_separable = getattr(game, "why_not_separable", "")
        self.refresh, self.project = game.refresh, game.project

    def losses(
        self, players: Players, constants: Constants, draw: Draw, only: str | None = None
    ) -> dict[str, Tensor]:
        seen = {p: _followed(players.get(p, {}), held) for p, held in constants.items()}
        losses: dict[str, Tensor] = self.game.losses(players, seen, draw, only)
        return losses


def _followed(part: Mapping[str, Tensor], held: dict[str, Tensor]) -> dict[str, Tensor]:
    """Constants with differentiable power vectors."""
    names = [k.split("/", 1)[1].removesuffix("/u") for k in held if is_power_vector(k)]
    renewed = dict(held)
    for name in names:
        if f"spectral_norm/{name}/u" in held and name in part:
            u, v = singular_vectors(part[name].flatten(1))
            renewed[f"spectral_norm/{name}/u"], renewed[f"spectral_norm/{name}/v"] = u, v
    return renewed


def singular_vectors(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Unit u, v with u^T M v = sigma_max(M), differentiable in M where sigma_max is simple.

    The vectors themselves come without a graph; one Newton step on (G - l I) u = 0, |u| = 1 (G the
    smaller Gram matrix), which changes no value, gives them their first derivative. (The derivative of
    an SVD divides by the differences of all singular values, and ties among the small ones make it NaN.)
    """
    left, right = top_singular_vectors(matrix)
    wide = matrix.shape[0] <= matrix.shape[1]
    m = matrix if wide else matrix.mT
    start = left if wide else right
    gram = m @ m.mT
    value = (start @ gram @ start).detach()
    size = len(start)
    shifted = gram - value * torch.eye(size, dtype=m.dtype, device=m.device)
    bordered = m.new_zeros(size + 1, size + 1)
    bordered[:size, :size] = shifted.detach()
    bordered[:size, size], bordered[size, :size] = -start, start
    # The matrix of a Newton step may be constant: its derivative is multiplied by a residual of zero.
    residual = torch.cat([shifted @ start, m.new_zeros(1)])
    first = normalize(start - torch.linalg.solve(bordered, residual)[:size], dim=0)
    second = normalize(m.mT @ first, dim=0)
    return (first, second) if wide else (second, first)
