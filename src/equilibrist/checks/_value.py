"""The zero-sum value V of a pair whose own losses are not zero-sum."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from equilibrist.core.draws import Draw
from equilibrist.core.game import Constants, Players
from equilibrist.games import GAN


class ValueGame:
    """V = -(the critic's own loss), which the generator minimises and the critic maximises.

    Proximal equilibria are of one value V. Where a game's losses are not zero-sum (a non-saturating
    generator, a penalty that only the critic pays), V is minus what the critic minimises, penalties
    included: then the maximum over critics, and with it the envelope formula, is that of the critic
    that was trained. The critic's loss must hold the generator's samples with their graph, as it does when
    no player is singled out.
    """

    zero_sum = True

    def __init__(self, game: GAN) -> None:
        self.game: Any = game
        self.players, self.separable = game.players, game.separable
        self.why_not_separable = game.why_not_separable
        self.refresh, self.project = game.refresh, game.project

    def losses(
        self, players: Players, constants: Constants, draw: Draw, only: str | None = None
    ) -> dict[str, Tensor]:
        paid = self.game.losses(players, constants, draw)["critic"]
        return {"generator": -paid, "critic": paid}
