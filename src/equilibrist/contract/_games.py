"""The checks of a game that carries its truth."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

import torch
from torch import Tensor

from equilibrist import tree
from equilibrist.contract._arena import Arena, arena
from equilibrist.contract._checks import gives, stated_points
from equilibrist.contract._outcomes import CheckOutcome, NotApplicable, ensure, outcome_of
from equilibrist.core.field import VectorField
from equilibrist.core.game import Game, Players, check_zero_sum
from equilibrist.errors import GameError
from equilibrist.games.truth import classify, sizes_of


def check_game(
    where: Game | Arena, *, only: Iterable[str] | None = None
) -> tuple[CheckOutcome, ...]:
    """Every check of `GAME_CHECKS` on one game (or `Arena`), in float64.

    Args:
        where: a game that carries its truth, or an `Arena`.
        only: names of the checks to run; all if None.

    Returns:
        What each check saw, in order.

    Examples:
        >>> from equilibrist import contract
        >>> from equilibrist.games import Dirac
        >>> contract.require(contract.check_game(Dirac("wgan", gamma=0.5)))  # nothing failed
    """
    place = where if isinstance(where, Arena) else arena(where)
    return tuple(
        outcome_of(name, partial(check, place), failures=(AssertionError, GameError))
        for name, check in GAME_CHECKS.items()
        if only is None or name in only
    )


def _pure(where: Arena) -> str:
    """Losses are a function of their arguments, which they leave alone; the zero-sum claim holds."""
    players, constants = where.start(0)
    draw = where.draws(0, 0).batch()
    kept = tree.clone({"p": players, "c": constants, "d": draw})
    first, second = (where.game.losses(players, constants, draw) for _ in range(2))
    ensure(set(first) == set(where.game.players), f"losses are of {sorted(first)}")
    for player in first:
        ensure(first[player].ndim == 0, f"the {player}'s loss is no 0-d tensor")
        ensure(torch.equal(first[player], second[player]), f"the {player}'s loss changes")
    same = tree.leaves({"p": players, "c": constants, "d": draw})
    ensure(
        all(torch.equal(a, b) for a, b in zip(same, tree.leaves(kept), strict=True)),
        "losses overwrite their arguments",
    )
    check_zero_sum(where.game, players, constants, draw)
    return "zero-sum" if where.game.zero_sum else "not zero-sum, nor claimed to be"


def _only(where: Arena) -> str:
    """With only=player, the player's gradient is the one without it."""
    players, constants = where.start(0)
    field, draw = VectorField(where.game), where.draws(0, 0).batch()
    whole = field(players, constants, draw).v
    worst = 0.0
    for player in where.game.players:
        own = field(players, constants, draw, only=player).v[player]
        worst = max(worst, _gap(tree.flatten(own), tree.flatten(whole[player])))
        ensure(worst < 1e-12, f"only={player!r} changes its gradient by {worst:.1e}")
    return f"{worst:.1e}"


def _projected(where: Arena) -> str:
    """Projections are idempotent, and starts are feasible."""
    players, _ = where.start(0)
    here = tree.flatten(players)
    ensure(_gap(tree.flatten(where.game.project(players)), here) < 1e-12, "a start is infeasible")
    wide = where.game.project(tree.map(lambda x: 3 * x + 2, players))
    worst = _gap(tree.flatten(where.game.project(wide)), tree.flatten(wide))
    ensure(worst < 1e-12, f"projecting twice moves by {worst:.1e}")
    return f"{worst:.1e}"


def _stationary(where: Arena) -> str:
    """The projected gradient step vanishes at every point."""
    worst = 0.0
    for point in stated_points(where):
        v = VectorField(where.game)(point.players, {p: {} for p in point.players}, {}).v
        there = where.game.project(tree.axpy(-0.1, v, point.players))
        worst = max(worst, _gap(tree.flatten(there), tree.flatten(point.players)))
        ensure(worst < 1e-10, f"a {point.kind} moves by {worst:.1e} in one step of 0.1")
    return f"{len(stated_points(where))} points, {worst:.1e}"


def _jacobian(where: Arena) -> str:
    """The Jacobian equals central differences of the field, at a start and at every point."""
    game = where.game
    if not gives(game, "jacobian"):
        raise NotApplicable(f"{type(game).__name__} does not give its Jacobian")
    field, worst = VectorField(game), 0.0
    for players in [where.start(0)[0], *(point.players for point in game.points())]:
        J, h = game.jacobian(players), 1e-5

        def v(u: Tensor, players: Players = players) -> Tensor:
            there = tree.axpy(1.0, tree.unflatten(u, players), players)
            return tree.flatten(field(there, {p: {} for p in players}, {}).v)

        columns = [(v(h * e) - v(-h * e)) / (2 * h) for e in torch.eye(len(J), dtype=J.dtype)]
        error = float((torch.stack(columns, 1) - J).abs().max() / (1 + J.abs().max()))
        worst = max(worst, error)
        ensure(error < 1e-6, f"the Jacobian differs from finite differences by {error:.1e}")
    return f"{worst:.1e}"


def _kinds(where: Arena) -> str:
    """Kinds, attraction and leaders are those of J's eigenvalues. Points that the feasible set holds, or
    with a singular own Hessian, need proofs of their own."""
    game, reported = where.game, []
    for point in stated_points(where):
        assert gives(game, "jacobian")
        J = game.jacobian(point.players)
        sizes = sizes_of(point.players)
        sure = not point.held
        for part in tree.slices(sizes).values():
            own = torch.linalg.eigvalsh(J[part, part])
            sure &= bool(own.abs().min() > 1e-9 * (1 + J.abs().max()))
        if not sure:
            continue
        found = classify(J, sizes, game.leader, game.zero_sum)
        stated = (point.kind, point.attracts, point.leaders)
        ensure(found == stated, f"the point says {stated}, its Jacobian {found}")
        reported.append(point.kind)
    if not reported:
        raise NotApplicable("second derivatives decide at no point (held, or singular)")
    return ", ".join(reported)


GAME_CHECKS: dict[str, Callable[[Arena], str]] = {
    "pure": _pure,
    "only": _only,
    "projection": _projected,
    "stationary": _stationary,
    "jacobian": _jacobian,
    "kinds": _kinds,
}


def _gap(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max() / (1 + b.abs().max()))
