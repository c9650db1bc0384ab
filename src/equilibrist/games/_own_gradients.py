"""What the gradients of a user's losses are like: where they are stopped, and what may be computed once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from equilibrist import tree
from equilibrist.core.draws import Draw
from equilibrist.core.field import VectorField
from equilibrist.core.game import Constants, Players
from equilibrist.errors import GameError
from equilibrist.games._own_players import called_modules
from equilibrist.games._own_returned import AGREE, failure
from equilibrist.nn.memo import Memo
from equilibrist.nn.stop_gradient import place_name

if TYPE_CHECKING:
    from equilibrist.games.adversarial import AdversarialGame


def check_differentiable(
    game: AdversarialGame, players: Players, constants: Constants, draw: Draw
) -> None:
    """Find whether the functions differentiate within themselves, and check that each loss depends on its player."""
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
        # A hinge loss is flat where all samples are beyond the margin.
        if not any(bool(t.any()) for t in part.values()) and not _reaches(
            game, players, constants, draw, p
        ):
            name = game.names[p]
            raise GameError(
                f"the {name}'s loss does not depend on the {name}'s parameters: take the modules from the function's "
                "first argument, not from its own scope, and keep .detach() and no_grad away from the player's own part"
            )


def _reaches(
    game: AdversarialGame, players: Players, constants: Constants, draw: Draw, player: str
) -> bool:
    """Whether a player's loss is computed from its weights, even if its gradient is zero."""
    leaves = {k: t.detach().requires_grad_() for k, t in players[player].items()}
    with torch.enable_grad():
        loss = game.losses({**players, player: leaves}, constants, draw)[player]
    if not loss.requires_grad:
        return False
    return any(
        t is not None for t in torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
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


def find_memos(game: AdversarialGame, players: Players, constants: Constants, draw: Draw) -> None:
    """Keep outputs where a module is shown an input twice, and where that changes neither losses nor gradients:
    not, for example, where a module is switched in between to compute something else, or where a graph is freed."""
    made = (
        []
        if game.noise
        else [Memo(m) for p in game.players for m in called_modules(game._pure[p].module)]
    )

    def seen() -> tuple[list[Tensor], dict[str, Tensor]]:
        with torch.no_grad():
            losses = game.losses(players, constants, draw)
        v = VectorField(game)(players, constants, draw).v
        return list(losses.values()), {p: tree.flatten(part) for p, part in v.items()}

    for memo in made:
        memo.resting = True
    losses, v = seen()
    for memo in made:
        memo.resting = False
    game._memos = made
    try:
        kept, same = seen()
    except Exception:
        kept, same = [], {}
    if not all(map(torch.equal, losses, kept)) or not _alike(same, v):
        for memo in made:
            memo.hits = 0
    for memo in made:  # one that saves nothing costs ten microseconds a call
        if not memo.hits:
            memo.remove()
    game._memos = [memo for memo in made if memo.hits]


def _alike(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> bool:
    """Whether every player's gradient is the same, up to rounding: one player's may be a thousand times another's."""
    return set(found) == set(wanted) and all(
        float((found[p] - v).norm()) <= AGREE * float(v.norm()) for p, v in wanted.items()
    )


def find_precision(
    game: AdversarialGame, players: Players, constants: Constants, draw: Draw
) -> None:
    """Find whether the losses can be computed in float64, in which audits score, only where what they make in float32
    (`torch.randn(64, 8)`, `x.float()`) follows."""

    def wide() -> bool:
        try:
            with torch.no_grad():
                losses = game.losses(*_wide(players, constants, draw))
            return all(loss.dtype == torch.float64 for loss in losses.values())
        except Exception:
            return False

    if game.native == torch.float32 and not wide():
        game._follows = True
        game._follows = wide()


def _wide(players: Players, constants: Constants, draw: Draw) -> tuple[Players, Constants, Draw]:
    """The same in float64."""
    wide = torch.float64
    return tree.to(players, dtype=wide), tree.to(constants, dtype=wide), tree.to(draw, dtype=wide)


def find_stops(game: AdversarialGame, players: Players, constants: Constants, draw: Draw) -> None:
    """Find at which of the new places a gradient is stopped for another player's sake only, so that it may pass."""
    game._stopping = bool(game._seen) or game._froze
    fresh = [place for place in game._seen if place not in game._known]
    game._known.update(fresh)
    if not fresh:
        return
    field, former = VectorField(game), game._passing
    at, wide = (players, constants, draw), _wide(players, constants, draw)
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
    kept = (place_name(place) for place in game._seen if place not in game._passing)
    game.stops = tuple(dict.fromkeys(kept))


def find_new_stops(
    game: AdversarialGame, players: Players, constants: Constants, draw: Draw
) -> bool:
    """Look at places that the probe did not meet (a branch that few batches take); whether there were any."""
    if not game._probed or game._looking or all(place in game._known for place in game._seen):
        return False
    game._looking = True
    try:
        with torch.enable_grad():
            find_stops(game, tree.detach(players), constants, draw)
    finally:
        game._looking = False
    return True
