"""Steps of any solver on any game, and where they went."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from equilibrist import tree
from equilibrist.core.draws import Draw, Draws
from equilibrist.core.field import VectorField
from equilibrist.core.game import Constants, Game, Players
from equilibrist.errors import GameError
from equilibrist.games import GAN
from equilibrist.solvers.base import Solver, Step
from equilibrist.validation import at_least


class Trajectory(NamedTuple):
    """Where the steps of a solver went.

    Attributes:
        steps: [t], the steps that were kept: 0, every, 2 every, ...
        players: what the players chose then: each tensor [t, ...] (`tree.member` takes one time out).
        last: players, constants, state and measurements after the last step.
    """

    steps: Tensor
    players: Players
    last: Step


def iterate(
    game: Game,
    solver: Solver,
    start: Players | tuple[Players, Constants],
    steps: int,
    seed: int = 0,
    every: int = 1,
    draw: Callable[[np.random.Generator], Draw] | None = None,
) -> Trajectory:
    """Step a solver on a game, without records and files: `equilibrist.train` is for those.

    Args:
        game, solver: any.
        start: the players, or players and constants (`GAN.init(seed)`); they are left as they are.
        steps: how many.
        seed: of everything that is drawn, addressed by (seed, step).
        every: steps between two recorded players.
        draw: makes a minibatch of a generator, `lambda rng: game.draw(rng, data, 64)` for a GAN; None for games
            that draw nothing.

    Raises:
        GameError: a start that is neither; a GAN without `draw`.
        ValueError: a negative number of steps, or `every` below 1.

    Examples:
        >>> import equilibrist as eq
        >>> start = {"x": {"value": torch.ones(1)}, "y": {"value": torch.zeros(1)}}
        >>> found = iterate(eq.bilinear(), eq.Simultaneous(eq.SGD(0.5)), start, 4, every=2)
        >>> found.steps.tolist()
        [0, 2, 4]
        >>> found.players["x"]["value"].flatten().tolist()
        [1.0, 0.75, -0.4375]
    """
    at_least("iterate", 0, steps=steps)
    at_least("iterate", 1, every=every)
    pair = start if isinstance(start, tuple) else (start, {p: {} for p in game.players})
    if len(pair) != 2 or any(player not in pair[0] for player in game.players):
        raise GameError(
            f"iterate: start must hold the parameters of {', '.join(game.players)}, or be (players, constants)"
        )
    if draw is None and isinstance(game, GAN):
        raise GameError(
            "iterate: a GAN's losses are means over samples: give draw=lambda rng: game.draw(rng, data, 64), or take "
            "the FiniteGAN of rows of your own"
        )
    field = VectorField(game)
    players, constants = (tree.clone(part) for part in pair)
    last = Step(players, constants, solver.init(players), {})
    kept = [tree.clone(players)]
    for step in range(steps):
        draws = Draws(draw or (lambda rng: {}), seed, step)
        last = solver.step(field, last.players, last.constants, last.state, draws)
        if (step + 1) % every == 0:
            kept.append(tree.clone(last.players))
    return Trajectory(torch.arange(0, steps + 1, every), tree.stack(kept), last)
