"""A field whose projections outlive one member's infinite weights."""

from __future__ import annotations

from typing import Any

import torch

from equilibrist import tree
from equilibrist.core.field import VectorField
from equilibrist.core.game import Game, Players


class GuardedField(VectorField):
    """A field in which one member's infinite weights do not stop the others: a decomposition inside of a
    projection raises on them."""

    def __init__(self, game: Game, **options: Any) -> None:
        super().__init__(game, **options)
        self.options = options
        walls = getattr(game, "projections", ())
        self.guarded = any(not getattr(wall, "coordinatewise", False) for wall in walls)

    def of(self, game: Game) -> VectorField:
        inner = GuardedField(game, **self.options)
        inner.guarded = self.guarded  # the parts of the outer game are projected there
        return inner

    def project(self, players: Players) -> Players:
        if not self.guarded:
            return super().project(players)
        sound = tree.map(lambda t: torch.where(torch.isfinite(t), t, 0.0), players)
        projected = super().project(sound)
        return tree.map(lambda p, t: torch.where(torch.isfinite(t), p, t), projected, players)
