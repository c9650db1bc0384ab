"""A game with the starts and draws that checks need."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from equilibrist import tree
from equilibrist.core.draws import Draw, Draws, Stream, generator, normal
from equilibrist.core.game import Constants, Game, Players
from equilibrist.games import Known, SampledGame
from equilibrist.games.sampled import Reals

Start = Callable[[int], tuple[Players, Constants]]


@dataclass(frozen=True)
class Arena:
    """Where a solver is checked.

    Args:
        game: the game.
        start: seed -> (players, constants), float64; another point for every seed.
        make: generator -> one draw; nothing for deterministic games.
    """

    game: Game
    start: Start
    make: Callable[[np.random.Generator], Draw]

    def draws(self, seed: int, step: int, rank: int = 0) -> Draws:
        """What step `step` of the run `seed` may draw."""
        return Draws(self.make, seed, step, rank)

    @property
    def drawn(self) -> bool:
        """Whether anything is drawn at all."""
        return bool(self.make(generator(0, Stream.DATA)))


def arena(game: Game, source: Reals | None = None, batch: int = 6, spread: float = 0.3) -> Arena:
    """The arena of a game that carries its truth, or of a GAN with data.

    Args:
        game: a game with points (`equilibrist.games.Known`): runs start from its first point, every
            number moved by `spread` times a normal one; or a `GAN`, which starts from its `init(seed)`.
        source: a GAN's data, as `equilibrist.data.Source`.
        batch: samples a draw.
        spread: how far from the point runs start.

    Returns:
        Where a solver is tried: game, start and draws.

    Raises:
        ValueError: neither of the two, or a GAN without data: build an `Arena` yourself.
    """
    if isinstance(game, SampledGame):
        if source is None:
            raise ValueError("arena(GAN) needs data: arena(game, source)")
        make = partial(game.draw, source=source, batch=batch, dtype=torch.float64)
        return Arena(game, partial(_fresh, game), make)
    if not isinstance(game, Known) or not game.points():
        raise ValueError(
            f"{type(game).__name__} has no points to start near: give Arena(game, start, make)"
        )
    return Arena(game, partial(_near, game, spread), _nothing)


def _fresh(game: SampledGame, seed: int) -> tuple[Players, Constants]:
    players, constants = game.init(seed, dtype=torch.float64)
    return players, constants


def _near(game: Known, spread: float, seed: int) -> tuple[Players, Constants]:
    rng = generator(seed, Stream.INIT)
    players: Players = tree.map(
        lambda x: x + spread * normal(rng, x.shape, x.dtype, x.device), game.points()[0].players
    )
    return tree.clone(game.project(players)), {player: {} for player in players}


def _nothing(rng: np.random.Generator) -> Draw:
    return {}
