"""What a game of own losses shows on one batch while it is built."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from equilibrist import tree
from equilibrist.core.draws import Draw, Use
from equilibrist.core.field import VectorField
from equilibrist.core.game import Constants, Players, check_separable
from equilibrist.errors import GameError
from equilibrist.games._own_gradients import (
    check_differentiable,
    find_memos,
    find_precision,
    find_stops,
)
from equilibrist.games._own_returned import AGREE, check_only, evaluated, failure
from equilibrist.games._probe import moved_off
from equilibrist.nn import noise
from equilibrist.nn.layer_watch import LayerWatch

if TYPE_CHECKING:
    from equilibrist.games.adversarial import AdversarialGame

SEEDS = 6  # under which noise is looked for
ODD = 7  # rows that no packing of samples divides


def probe(game: AdversarialGame) -> None:
    """Look at one batch, and set what the game is seen to be.

    Raises:
        GameError: losses that are no numbers, do not depend on their player, or are no function of weights and draw.
    """
    start = game.init()
    for p in game.players:
        if not start.players[p]:
            raise GameError(
                f"the {game.names[p]} has no trained parameters, so it has nothing to choose: call "
                "requires_grad_(True) on those that were trained, or hand the module over as frozen={...}"
            )
    rng = Use.PROBE.at().generator(0)
    anchor = tree.leaves(start.players)[0]
    game.native = anchor.dtype
    rows = game.batch if game.data.size is None else min(game.batch, game.data.size)
    draw = game.draw(rng, game.data, rows, anchor.dtype, anchor.device)
    _look(game, start.players, start.constants, draw)
    draw = game.with_noise(rng, draw)
    players = game.project(moved_off(start.players, rng))
    at = players, start.constants, draw
    check_only(game, *at)
    check_differentiable(game, *at)
    find_precision(game, *at)
    find_stops(game, *at)
    find_memos(game, *at)
    _forms(game, *at)
    _pieces(game, *at)


def _look(game: AdversarialGame, players: Players, constants: Constants, draw: Draw) -> None:
    """The losses, twice under one seed, with an eye on every layer."""
    game._needs_gradients = game._stopping = True
    before = {key: (t.clone(), t._version) for key, t in draw.items()}
    watch = LayerWatch()
    for p in game.players:
        watch.begin(game._pure[p].module, game.names[p])
    try:
        with noise.seeded(0, noise.GLOBAL):
            watch.start()
            losses = evaluated(game, lambda: game.losses(players, constants, draw))
            watch.start()
        # Some are drawn with a probability.
        for seed in range(1, SEEDS if watch.sources | watch.between else 1):
            with noise.seeded(seed, noise.GLOBAL):
                watch.start(afresh=True)
                game.losses(players, constants, tree.clone(draw))
                watch.start()
    finally:
        watch.end()
    if watch.impure:
        problem, remedy = watch.impure
        raise GameError(f"{problem}, so its loss is not a function of its parameters: {remedy}")
    # `x.add_(noise)`, `x.requires_grad_()`: from now on the function is handed copies.
    game._writes = any(t._version != before[k][1] or t.requires_grad for k, t in draw.items())
    draw.update({key: t for key, (t, _) in before.items()})
    with noise.seeded(0, noise.GLOBAL):
        again = game.losses(players, constants, draw)
    for p, loss in losses.items():
        if not bool(torch.isfinite(loss)):
            broken = next(iter(watch.unsound), "")
            where = f", and the output of {broken} is the first that is not" if broken else ""
            raise GameError(
                f"the {game.names[p]}'s loss is {float(loss.detach())} on a batch{where}: look at what it divides by"
            )
        if not torch.equal(loss, again[p]):
            raise GameError(
                f"the {game.names[p]}'s loss gives two answers on the same batch under the same seed: look for state "
                "kept between calls, or for random numbers from a generator of its own"
            )
    game.noise = tuple(dict.fromkeys([*watch.noise, *(["the losses"] if watch.between else [])]))
    game._sources = noise.sources_to_seed(watch.sources | watch.between)


def _forms(game: AdversarialGame, players: Players, constants: Constants, draw: Draw) -> None:
    """Zero-sum, a mean over samples, able to be stacked: seen, not claimed."""
    with torch.no_grad():
        losses = [float(loss) for loss in game.losses(players, constants, draw).values()]
    size = max(abs(loss) for loss in losses)
    game.zero_sum = (
        len(losses) == 2
        and abs(sum(losses)) <= 1e-6 * size
        and size > 0
        and _opposite(game, players, constants, draw)
    )
    game.separable, game.why_not_separable = _separable(game, players, constants, draw)
    game._stacks = (
        not game.noise and not game._needs_gradients and _stacked(game, players, constants, draw)
    )


def _opposite(game: AdversarialGame, players: Players, constants: Constants, draw: Draw) -> bool:
    """Whether the losses add up to zero in float64, at other weights too."""
    try:
        wide = [tree.to(t, dtype=torch.float64) for t in (players, constants, draw)]
        with torch.no_grad():
            for factor in (1.0, 0.9, 1.2):
                at = tree.scale(factor, wide[0])
                losses = [float(x) for x in game.losses(at, wide[1], wide[2]).values()]
                if not abs(sum(losses)) <= 1e-12 * max(abs(x) for x in losses) + 1e-15:
                    return False
    except RuntimeError:
        return False
    return True


def _separable(
    game: AdversarialGame, players: Players, constants: Constants, draw: Draw
) -> tuple[bool, str]:
    try:
        with torch.no_grad():
            game.losses(players, constants, {k: t[:ODD] if t.ndim else t for k, t in draw.items()})
    except Exception as error:
        game.any_rows = False
        return False, f"the losses need batches of their own size ({failure(error)})"
    if game.noise:
        return False, f"random numbers are drawn within {game.noise[0]}"
    separable, why = check_separable(game, players, constants, draw)
    for p, name in game.names.items():
        why = why.replace(f"the {p}'s", f"the {name}'s")
    return separable, "" if separable else why


def _stacked(game: AdversarialGame, players: Players, constants: Constants, draw: Draw) -> bool:
    """Whether torch's vmap over two members gives what the members do by themselves."""
    game._stacks = True
    other = tree.scale(0.9, players)
    try:
        # torch warns of every function that it batches by a loop: no news for who stacks nothing.
        with torch.no_grad(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "There is a performance drop", UserWarning)
            together = VectorField(game, stacked=2)(
                tree.stack([players, other]),
                tree.stack([constants, constants]),
                tree.stack([draw, draw]),
            )
            alone = [game.losses(at, constants, draw) for at in (players, other)]
    except Exception:
        return False
    return all(
        torch.allclose(together.losses[p][i], alone[i][p], rtol=AGREE, atol=1e-6)
        for p in game.players
        for i in (0, 1)
    )


def _pieces(game: AdversarialGame, players: Players, constants: Constants, draw: Draw) -> None:
    """Samples and scores, where they are given."""
    if game.lacks("samples"):
        game.samplewise = False
        return
    try:
        with torch.no_grad():
            real, fake = game._both(players, constants, draw)
    except GameError:
        raise
    except Exception as error:
        raise GameError(f"samples fails on a batch: {failure(error)}") from error
    for what, x in (("real", real), ("generated", fake)):
        if not isinstance(x, Tensor) or not x.ndim:
            raise GameError(
                f"samples must return (real, generated) tensors [n, ...]; its {what} ones are {_shape(x)}"
            )
    if real.shape[1:] != fake.shape[1:]:
        raise GameError(
            f"samples returns real ones of shape {list(real.shape[1:])} and generated ones of {list(fake.shape[1:])}: "
            "give both the form in which the critic sees them"
        )
    game.samplewise = not game.lacks("score") and _samplewise(game, players, constants, draw, real)


def _samplewise(
    game: AdversarialGame, players: Players, constants: Constants, draw: Draw, real: Tensor
) -> bool:
    """Whether a sample keeps its score where the others are changed."""
    moved = real.clone()
    moved[1::2] = real[1::2].flip(0) + 1
    try:
        with torch.no_grad():
            seen = [game.critic_of(players, constants, draw)(x) for x in (real, moved)]
    except GameError:
        raise
    except Exception as error:
        raise GameError(f"score fails on real samples: {failure(error)}") from error
    if any(s.numel() != len(real) for s in seen):
        raise GameError(
            f"score maps samples {list(real.shape)} to {list(seen[0].shape)} numbers: return one for each sample"
        )
    return torch.allclose(seen[0][::2], seen[1][::2], rtol=AGREE, atol=1e-6)


def _shape(x: object) -> str:
    return f"of shape {list(x.shape)}" if isinstance(x, Tensor) else f"of type {type(x).__name__}"
