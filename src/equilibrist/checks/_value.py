"""The zero-sum value V of a pair whose own losses are not zero-sum."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from equilibrist.core.draws import Draw
from equilibrist.core.game import Constants, Players


def order_of(game: Any) -> tuple[str, str]:
    """(leader, follower): the player that minimises V and the one that maximises it."""
    usual = "generator" if "generator" in game.players else game.players[0]
    leader = getattr(game, "leader", usual)
    (follower,) = (player for player in game.players if player != leader)
    return leader, follower


class ValueGame:
    """V = -(the follower's own loss), which the leader minimises and the follower maximises.

    Proximal equilibria are of one value V. Where a game's losses are not zero-sum (a non-saturating
    generator, a penalty that only the critic pays), V is minus what the critic minimises, penalties
    included: then the maximum over critics, and with it the envelope formula, is that of the critic
    that was trained. The critic's loss must hold the generator's samples with their graph, as it does when
    no player is singled out.
    """

    zero_sum = True

    def __init__(self, game: Any) -> None:
        self.game = game
        self.players: tuple[str, ...] = order_of(game)
        self.separable = game.separable
        self.why_not_separable = getattr(game, "why_not_separable", "")
        self.refresh, self.project = game.refresh, game.project

    def losses(
        self, players: Players, constants: Constants, draw: Draw, only: str | None = None
    ) -> dict[str, Tensor]:
        leader, follower = self.players
        paid = self.game.losses(players, constants, draw)[follower]
        return {leader: -paid, follower: paid}
