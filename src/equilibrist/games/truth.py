"""Games whose truth is known: their stationary points, what kind each is, and the Jacobian."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol, get_args, runtime_checkable

import torch
from torch import Tensor

from equilibrist import tree
from equilibrist.core.draws import Draw
from equilibrist.core.field import VectorField
from equilibrist.core.game import Constants, Game, Plain, Players
from equilibrist.core.jacobian import JacobianOperator

Kind = Literal[
    "local nash", "local minimax", "non-nash attractor", "saddle of the dynamics", "neither"
]
KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True, eq=False)
class Point:
    """One stationary point: the residual of the projected gradient step vanishes there.

    Args:
        players: where it lies.
        kind: the first of these that holds.
            "local nash": no player lowers its own loss by a small feasible change of its own.
            "local minimax": the game's `leader` does not lower its own loss by a small change that
            the other player, the follower, answers best (a local Stackelberg point).
            "non-nash attractor": it attracts all the same.
            "saddle of the dynamics": J has an eigenvalue with negative real part.
            "neither": none of these (J has eigenvalues on the imaginary axis).
        attracts: every eigenvalue of J (rows and columns of `held` left out) has Re > 0, so that
            gradient flow and small simultaneous steps go there from nearby.
        leaders: the players for which it is a strict local minimax point when they lead: the follower's own
            Hessian and the leader's Schur complement are positive definite, `held` left out. Of
            zero-sum games.
        held: parameters (player, name) that the boundary of the feasible set holds in place.
    """

    players: Players
    kind: Kind
    attracts: bool
    leaders: tuple[str, ...] = ()
    held: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"Point.kind must be one of {', '.join(KINDS)}, not {self.kind!r}")


class BestResponse(NamedTuple):
    """What a player does best against the others held: `params` minimise its loss over its feasible set.
    Where `best` is False the loss falls without bound, and `params` are far along the way."""

    params: dict[str, Tensor]
    best: bool = True


@runtime_checkable
class Known(Game, Protocol):
    """A game that carries its truth.

    Attributes:
        leader: the player for which "local minimax" is meant; the minimiser of the zero-sum value.
        linear: the field is v(x) = J x + c everywhere.
        why_none: why `points` is empty; "" where it is not.
    """

    @property
    def leader(self) -> str: ...
    @property
    def linear(self) -> bool: ...
    @property
    def why_none(self) -> str: ...

    def points(self) -> tuple[Point, ...]:
        """The stationary points; empty where there is none."""
        ...

    def jacobian(self, players: Players) -> Tensor:
        """J = dv/dx [n, n] at `players`, v the field of own losses, in the order of `tree.flatten`."""
        ...


class Analytic(Plain):
    """Defaults for games that carry their truth: inherit, and give `losses` and `points`."""

    leader: str
    linear: bool = False

    def losses(
        self, players: Players, constants: Constants, draw: Draw, only: str | None = None
    ) -> dict[str, Tensor]:
        """Each player's own loss."""
        raise NotImplementedError(f"{type(self).__name__} does not give its losses")

    def points(self) -> tuple[Point, ...]:
        """The stationary points."""
        raise NotImplementedError(f"{type(self).__name__} does not give its points")

    @property
    def why_none(self) -> str:
        """Why there is no stationary point; "" where there is one."""
        return ""

    def jacobian(self, players: Players) -> Tensor:
        """J [n, n] at `players`, by differentiating the losses twice."""
        return exact_jacobian(self, players)


def exact_jacobian(game: Game, players: Players) -> Tensor:
    """J [n, n] of a game without draws and constants, by differentiating its losses twice."""
    nothing: Players = {player: {} for player in players}
    return JacobianOperator(VectorField(game), players, nothing, [{}]).dense()


def spans(players: Mapping[str, Mapping[str, Tensor]]) -> dict[tuple[str, str], slice]:
    """Where each parameter (player, name) stands in `tree.flatten(players)`."""
    found, start = {}, 0
    for player, part in players.items():
        for name, value in part.items():
            found[player, name] = slice(start, start + value.numel())
            start += value.numel()
    return found


def classify(
    jacobian: Tensor,
    sizes: Mapping[str, int],
    leader: str,
    zero_sum: bool = True,
    tolerance: float = 1e-9,
) -> tuple[Kind, bool, tuple[str, ...]]:
    """(kind, attracts, leaders) of an interior stationary point, from J [n, n] alone.

    Args:
        jacobian: J = dv/dx there; its diagonal blocks are the own Hessians.
        sizes: each player's number of parameters, in order.
        leader: the player for which "local minimax" is meant.
        zero_sum: whether J also tells the leaders (the losses of two players add up to zero).
        tolerance: what counts as zero, relative to the largest entry of J.

    Positive semi-definite own Hessians count as "local nash": right where the losses are quadratic;
    elsewhere a Hessian with a zero eigenvalue leaves it open.
    """
    zero = tolerance * max(float(jacobian.abs().max()), 1e-300)
    where = tree.slices(sizes)
    own = {p: float(torch.linalg.eigvalsh(jacobian[s, s]).min()) for p, s in where.items()}
    leaders: list[str] = []
    if zero_sum and len(where) == 2:
        for first in where:
            (second,) = (p for p in where if p != first)
            x, y = where[first], where[second]
            if own[second] <= zero:
                continue
            answer = torch.linalg.solve(jacobian[y, y], jacobian[y, x])
            schur = jacobian[x, x] - jacobian[x, y] @ answer
            if float(torch.linalg.eigvalsh((schur + schur.mT) / 2).min()) > zero:
                leaders.append(first)
    real = torch.linalg.eigvals(jacobian).real
    attracts = bool(real.min() > zero)
    kind: Kind
    if all(value >= -zero for value in own.values()):
        kind = "local nash"
    elif leader in leaders:
        kind = "local minimax"
    elif attracts:
        kind = "non-nash attractor"
    else:
        kind = "saddle of the dynamics" if real.min() < -zero else "neither"
    return kind, attracts, tuple(leaders)


def sizes_of(players: Players) -> dict[str, int]:
    """Each player's number of parameters."""
    return {player: tree.count(part) for player, part in players.items()}
