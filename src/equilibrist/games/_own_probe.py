"""What a game of own losses shows on one batch while it is built."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from equilibrist import tree
from equilibrist.core.draws import Draw, Use
from equilibrist.core.field import VectorField
from equilibrist.core.game import Constants, Players, check_separable
from equilibrist.errors import GameError
from equilibrist.games._own_players import tops
from equilibrist.games._probe import moved_off
from equilibrist.nn import noise
from equilibrist.nn.memo import Memo
from equilibrist.nn.pure import Watch
from equilibrist.nn.stop_gradient import named

if TYPE_CHECKING:
    from equilibrist.games.adversarial import AdversarialGame

SEEDS = 6  # under which noise is looked for
ODD = 7  # rows that no packing of samples divides
AGREE = 1e-5  # of a gradient: two ways of computing the same


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
    rows = game.batch if game.data.size is None else min(game.batch, game.data.size)
    draw = game.draw(rng, game.data, rows, anchor.dtype, anchor.device)
    _look(game, start.players, start.constants, draw)
    draw = game.with_noise(rng, draw)
    players = game.project(moved_off(start.players, rng))
    at = players, start.constants, draw
    _only(game, *at)
    _differentiated(game, *at)
    _stops(game, *at)
    _memos(game, *at)
    _forms(game, *at)
    _pieces(game, *at)


def _look(game: AdversarialGame, players: Players, constants: Constants, draw: Draw) -> None:
    """The losses, twice under one seed, with an eye on every layer."""
    game._needs_gradients = game._stopping = True
    before = {key: (t.clone(), t._version) for key, t in draw.items()}
    watch = Watch()
    for p in game.players:
        watch.begin(game._pure[p].module, game.names[p])
    try:
        with noise.seeded(0, noise.GLOBAL):
            watch.start()
            losses = _tried(game, lambda: game.losses(players, constants, draw))
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
    game._sources = noise.of(watch.sources | watch.between)


def _tried(game: AdversarialGame, evaluate: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
    """The losses; GameError with the line of the user's function where it fails, or where it returns no losses."""
    try:
        return evaluate()
    except GameError:
        raise
    except Exception as error:
        raise GameError(f"the losses fail on a batch: {failure(error)}") from error


def failure(error: Exception) -> str:
    """An error in a line, with the place in the user's code at which it came up."""
    first = str(error).splitlines()[0] if str(error) else ""
    ours = str(Path(__file__).parents[1])
    frames = traceback.extract_tb(error.__traceback__)
    own = [
        f for f in frames if "site-packages" not in f.filename and not f.filename.startswith(ours)
    ]
    where = f" ({Path(own[-1].filename).name}:{own[-1].lineno})" if own else ""
    return f"{type(error).__name__}: {first}{where}"


def returned(game: AdversarialGame, given: Any, only: str | None) -> Mapping[str, Tensor]:
    """What the user's one function returned, seen to hold each player's loss, or that of one alone.

    Raises:
        GameError: a player without a loss, or a loss that is no number.
    """
    names = list(game.names.values()) if only is None else [game.names[only]]
    if not isinstance(given, Mapping):
        kind = type(given).__name__
        raise GameError(
            f"the losses return {kind}: return a dictionary, {{{', '.join(f'{n!r}: loss' for n in names)}}}"
        )
    for name in names:
        if name not in given:
            raise GameError(f"the losses return no {name!r}, only {', '.join(map(repr, given))}")
    return given


def number(name: str, loss: Any) -> Tensor:
    """A player's loss as a 0-d tensor; GameError where it is none."""
    if not isinstance(loss, Tensor):
        kind = type(loss).__name__
        raise GameError(
            f"the {name}'s loss is of type {kind}: return a tensor (no .item()), a mean over the batch"
        )
    if loss.numel() != 1:
        raise GameError(
            f"the {name}'s loss has shape {list(loss.shape)}: return one number, a mean over the batch"
        )
    return loss.reshape(())


def _differentiated(
    game: AdversarialGame, players: Players, constants: Constants, draw: Draw
) -> None:
    """Whether the functions differentiate within themselves; and whether each loss depends on its player."""
    try:
        reference = VectorField(game)(players, constants, draw)
    except Exception as error:
        # What is computed again on the way back finds modules without values.
        again = "; switch gradient checkpointing off" if "meta" in str(error) else ""
        raise GameError(
            f"the losses cannot be differentiated on a batch: {failure(error)}{again}"
        ) from error
    game._needs_gradients = False
    game._needs_gradients = not _alike_without(game, players, constants, draw, reference.losses)
    for p, part in reference.v.items():
        if not any(bool(t.any()) for t in part.values()):
            name = game.names[p]
            raise GameError(
                f"the {name}'s loss does not depend on the {name}'s parameters: take the modules from the function's "
                "first argument, not from its own scope, and keep .detach() and no_grad away from the player's own part"
            )


def _alike_without(
    game: AdversarialGame,
    players: Players,
    constants: Constants,
    draw: Draw,
    losses: Mapping[str, Tensor],
) -> bool:
    """Whether the losses are the same where no gradients can be taken within, or of one player's weights alone."""
    try:
        with torch.no_grad():
            plain = game.losses(players, constants, draw)
        for p in game.players:
            VectorField(game)(players, constants, draw, only=p)
    except Exception:
        return False
    return all(torch.allclose(plain[p], losses[p], rtol=AGREE, atol=1e-7) for p in losses)


def _memos(game: AdversarialGame, players: Players, constants: Constants, draw: Draw) -> None:
    """Outputs are kept where that changes neither losses nor gradients: not, say, where a module is told in between to
    compute something else, or where a graph is freed."""
    memos = [] if game.noise else [Memo(m) for p in game.players for m in tops(game._pure[p].module)]

    def seen() -> tuple[list[Tensor], dict[str, Tensor]]:
        with torch.no_grad():
            losses = game.losses(players, constants, draw)
        v = VectorField(game)(players, constants, draw).v
        return list(losses.values()), {p: tree.flatten(part) for p, part in v.items()}

    for memo in memos:
        memo.resting = True
    losses, v = seen()
    for memo in memos:
        memo.resting = False
    game._memos = memos
    try:
        kept, same = seen()
    except Exception:
        kept, same = [], {}
    if not all(map(torch.equal, losses, kept)) or not _alike(same, v):
        for memo in memos:
            memo.resting = True
        game._memos = []


def _alike(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> bool:
    """Whether every player's gradient is the same, up to rounding: one player's may be a thousand times another's."""
    return set(found) == set(wanted) and all(
        float((found[p] - v).norm()) <= AGREE * float(v.norm()) for p, v in wanted.items()
    )


def _only(game: AdversarialGame, players: Players, constants: Constants, draw: Draw) -> None:
    """Whether a function that is told whose loss is needed gives the same loss then.

    Raises:
        GameError: it does not, and random numbers that it draws in another order are not the reason.
    """
    if not game._asks:
        return
    with torch.no_grad():
        whole = game.losses(players, constants, draw)
        for p, name in game.names.items():
            alone = _tried(game, lambda p=p: game.losses(players, constants, draw, only=p))[p]  # type: ignore[misc]
            if torch.allclose(alone, whole[p], rtol=AGREE, atol=1e-7):
                continue
            if not game.noise:
                raise GameError(
                    f"the {name}'s loss is {float(alone):.6g} with only={name!r} and {float(whole[p]):.6g} without: "
                    "only may leave out other losses, not change this one"
                )
            game._asks = False  # what is left out would have drawn random numbers
            return


def _stops(game: AdversarialGame, players: Players, constants: Constants, draw: Draw) -> None:
    """At which of the places that were not yet looked at a stopped gradient is another player's affair, so that it may
    pass."""
    game._stopping = bool(game._seen) or game._froze
    fresh = [place for place in game._seen if place not in game._known]
    game._known.update(fresh)
    if not fresh:
        return
    field, former = VectorField(game), game._passing
    at: tuple[Any, ...] = players, constants, draw
    wide = tuple(tree.to(t, dtype=torch.float64) for t in at)
    try:  # what rounds less tells more
        reference, at = field(*wide).v, wide
    except Exception:
        reference = field(*at).v
    wanted = {p: tree.flatten(part) for p, part in reference.items()}

    def same() -> bool:
        try:
            found = field(*at).v
        except Exception:  # what is written in place has to stay without a graph
            return False
        return _alike({p: tree.flatten(part) for p, part in found.items()}, wanted)

    passing = set()
    for place in fresh:
        game._passing = former | {place}
        if same():
            passing.add(place)
    game._passing = former | passing
    if passing and not same():
        game._passing, passing = former, set()
    kept = (named(place) for place in game._seen if place not in game._passing)
    game.stops = tuple(dict.fromkeys(kept))


def met(game: AdversarialGame, players: Players, constants: Constants, draw: Draw) -> bool:
    """Places that the probe did not meet (a branch that few batches take) are looked at when they are met; whether
    there were any."""
    if not game._probed or game._looking or all(place in game._known for place in game._seen):
        return False
    game._looking = True
    try:
        with torch.enable_grad():
            _stops(game, tree.detach(players), constants, draw)
    finally:
        game._looking = False
    return True


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
        with torch.no_grad():
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
    except Exception as error:
        raise GameError(f"score fails on real samples: {failure(error)}") from error
    if any(s.numel() != len(real) for s in seen):
        raise GameError(
            f"score maps samples {list(real.shape)} to {list(seen[0].shape)} numbers: return one for each sample"
        )
    return torch.allclose(seen[0][::2], seen[1][::2], rtol=AGREE, atol=1e-6)


def _shape(x: Any) -> str:
    return f"of shape {list(x.shape)}" if isinstance(x, Tensor) else f"of type {type(x).__name__}"
