"""The context of games whose losses are exact: nothing is drawn, intervals have no width."""

from __future__ import annotations

from typing import Any

import torch

from equilibrist import tree
from equilibrist.certificates import Json
from equilibrist.checks._decide import Interval
from equilibrist.checks._settings import Settings
from equilibrist.checks.context import AuditContext
from equilibrist.core.draws import Draw
from equilibrist.core.game import Constants, Game, Players


class ExactContext(AuditContext):
    """`AuditContext` of a game without draws (`equilibrist.games`: quadratic, planar, Dirac, Gaussian games).

    The game may give `unit` (default: "value units") and `scale`, a number (default 1), and
    `best_response(player, players)`: the player's parameters that minimise its own loss over its feasible set,
    the others held, or None where no such parameters exist.
    """

    sampled = False

    def __init__(self, game: Game, players: Players, settings: Settings, seed: int = 0) -> None:
        self.game: Any = game
        self.settings, self.seed, self.iterate = settings, seed, "last"
        self.players = tree.clone({p: players[p] for p in game.players})
        anchor = tree.leaves(self.players)[0]
        self.dtype, self.device = anchor.dtype, anchor.device
        self.constants: Constants = {player: {} for player in self.players}
        self.lag = None

    def exact(self, players: Players, constants: Constants) -> Constants:
        return constants

    def minibatch(self, step: int, part: str = "optimise", index: int = 0) -> Draw:
        return {}

    def bank(self, part: str) -> list[Draw]:
        return [{}]

    def linear_draws(self, part: str = "optimise") -> list[Draw]:
        return [{}]

    def resampling(self, part: str) -> float:
        return 1.0

    def interval(self, values: torch.Tensor, part: str = "score") -> Interval:
        mean = float(values.double().mean())
        return Interval(mean, mean, mean)

    @property
    def unit(self) -> str:
        return str(getattr(self.game, "unit", "value units"))

    def scale(self, player: str = "") -> float:
        return float(getattr(self.game, "scale", 1.0))

    def scope(self) -> Json:
        """What every certificate of this context is about; the game may give its own words, `scope`."""
        own = {
            "losses": "V (zero-sum)" if self.game.zero_sum else "own losses",
            "penalties": "none",
            "critic_class": "the game's own feasible set",
            "search_precision": str(self.dtype).removeprefix("torch."),
            "score_precision": "float64",
            "iterate": self.iterate,
            "data": "exact expectations",
        }
        return own | getattr(self.game, "scope", {})
