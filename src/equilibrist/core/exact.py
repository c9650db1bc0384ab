"""A game whose spectral norms follow their weights: what a Jacobian of the trained pair is taken of."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from equilibrist.core.draws import Draw
from equilibrist.core.game import Constants, Players, Wrapped
from equilibrist.nn.spectral_norm import is_power_vector, newton_step, singular_vectors


class Exact(Wrapped):
    """`game` with the singular vectors of normalised weights as functions of the weights.

    With u and v held constant, W / (u^T W v) has the right gradient and a wrong second derivative: the
    norm's own curvature is left out. Games without spectral norm are unchanged.
    """

    follows = True  # by its own losses
    thrice = True  # penalties of a user's own may differentiate by themselves

    def losses(
        self, players: Players, constants: Constants, draw: Draw, only: str | None = None
    ) -> dict[str, Tensor]:
        seen = {p: followed(players.get(p, {}), held) for p, held in constants.items()}
        return super().losses(players, seen, draw, only)


def followed(part: Mapping[str, Tensor], held: dict[str, Tensor]) -> dict[str, Tensor]:
    """Constants with differentiable power vectors."""
    names = [k.split("/", 1)[1].removesuffix("/u") for k in held if is_power_vector(k)]
    renewed = dict(held)
    for name in names:
        if f"spectral_norm/{name}/u" in held and name in part:
            # A stack of particles has a stack of vectors.
            stacked = held[f"spectral_norm/{name}/u"].ndim > 1
            vectors = torch.func.vmap(singular_vectors) if stacked else singular_vectors
            u, v = vectors(part[name].flatten(1 + stacked))
            renewed[f"spectral_norm/{name}/u"], renewed[f"spectral_norm/{name}/v"] = u, v
    return renewed


def followed_leaves(players: Players, constants: Constants) -> tuple[Players, Constants]:
    """Second copies of the weights that power vectors belong to, as leaves, and constants whose power vectors are
    functions of these copies: of the same values, with the derivatives of singular vectors.

    A gradient taken in the players themselves is then that of training, whose power vectors are constants; what is
    differentiated again along the copies too has the norm's own curvature. Any leading dimensions (members,
    particles) are those of the vectors.
    """
    leaves: Players = {}
    seen = dict(constants)
    for player, held in constants.items():
        for key in [k for k in held if is_power_vector(k) and k.endswith("/u")]:
            name, other = key.split("/", 1)[1].removesuffix("/u"), key.removesuffix("u") + "v"
            if name not in players.get(player, {}) or other not in held:
                continue
            leaf = players[player][name].detach().requires_grad_()
            leaves.setdefault(player, {})[name] = leaf
            u, v = held[key], held[other]
            made = newton_step(leaf.flatten(u.ndim), u, v)
            # Values stay those that training uses, however far the power iteration has come.
            kept = [old + (new - new.detach()) for old, new in zip((u, v), made, strict=True)]
            seen[player] = {**seen[player], key: kept[0], other: kept[1]}
    return leaves, seen
