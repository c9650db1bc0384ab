"""Solvers on two-parameter games: trajectories, basins, rates, as stacked computations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from equilibrist import tree
from equilibrist.core.draws import Draw, Draws
from equilibrist.core.field import VectorField
from equilibrist.core.game import Constants, Players, Wrapped
from equilibrist.errors import GameError
from equilibrist.games.truth import Known, Point
from equilibrist.solvers import Solver
from equilibrist.spectra import local_convergence

Array = NDArray[np.float64]

# What became of an iterate that reached no stationary point.
NONE, DIVERGED = -1, -2
_RADII = (1e-5, 1e-10)  # what shrinks is seen from the first, what grows from the second
NEAR = 1 + 8 * len(_RADII)


class Flat(Wrapped):
    """`game` with every parameter as a vector, whatever shape it has: solvers that work on stacked members
    read a leaf's dimensions after the first as one member's."""

    def __init__(self, game: Known, like: Players) -> None:
        super().__init__(game)
        self._shapes = {p: {k: t.shape for k, t in part.items()} for p, part in like.items()}

    def losses(
        self, players: Players, constants: Constants, draw: Draw, only: str | None = None
    ) -> dict[str, Tensor]:
        return super().losses(self.shaped(players), constants, draw, only)

    def refresh(
        self, players: Players, constants: Constants, draw: Draw, exact: bool = False
    ) -> Constants:
        return super().refresh(self.shaped(players), constants, draw, exact)

    def project(self, players: Players) -> Players:
        nearest = super().project(self.shaped(players))
        return tree.map(lambda t: t.reshape(-1), nearest)

    coupled = Wrapped.coupled  # names are the game's, whatever shape they have

    def shaped(self, players: Players) -> Players:
        return {
            p: {k: t.reshape(self._shapes[p][k]) for k, t in part.items()}
            for p, part in players.items()
        }


@dataclass(frozen=True)
class Walk:
    """Where the members of a stacked computation went.

    Attributes:
        path: positions [steps + 1, kept, 2] of the first members.
        late, last: positions [S, 2] of all at 3/4 of the steps and at the end.
        left: step at which each left, -1 where none did.
    """

    path: Array
    late: Array
    last: Array
    left: NDArray[np.int64]


class Table:
    """A two-parameter game laid out in the plane.

    Args:
        game: a game with its truth.

    Raises:
        GameError: a game that does not have two parameters, or says nowhere what they look like.

    Attributes: `points`, the stationary points; `places` [k, 2], where they lie; `names`, of the two
    axes; `sizes`, each player's number of parameters.
    """

    def __init__(self, game: Known) -> None:
        self.game, self.points = game, game.points()
        like = self._like()
        n = tree.count(like)
        if n != 2:
            raise GameError(
                f"{type(game).__name__} has {n} parameters: pictures are of games with two"
            )
        self.like: Players = tree.map(lambda t: t.detach().double(), like)
        self.flat = Flat(game, self.like)
        self.sizes = {p: tree.count(part) for p, part in self.like.items()}
        self.places: Array = np.array(
            [tree.flatten(p.players).double().numpy() for p in self.points]
        ).reshape(-1, 2)
        self.names = [
            (player if name == "value" else name) + (f"[{i}]" if leaf.numel() > 1 else "")
            for player, part in self.like.items()
            for name, leaf in part.items()
            for i in range(leaf.numel())
        ]

    def _like(self) -> Players:
        if self.points:
            return self.points[0].players
        init = getattr(self.game, "init", None)
        if init is None:
            raise GameError(
                f"{type(self.game).__name__} has no stationary point ({self.game.why_none}) and no init(): "
                "nothing says what its parameters look like"
            )
        return dict(init(0).players)

    def stacked(self, positions: Tensor) -> Players:
        """Players of S members at positions [S, 2]."""
        columns = iter(positions.split([leaf.numel() for leaf in tree.leaves(self.like)], dim=1))
        return tree.map(lambda _: next(columns).clone(), self.like)

    def positions(self, players: Players) -> Tensor:
        """Their positions [S, 2]."""
        return torch.cat(tree.leaves({p: players[p] for p in self.like}), dim=1)

    def field(self, positions: Array) -> Array:
        """v at positions [S, 2]: gradients of own losses."""
        at = torch.as_tensor(positions, dtype=torch.float64)
        players = self.stacked(at)
        field = VectorField(self.flat, stacked=len(at))
        v, _ = field(players, self._nothing(), self._draws(len(at), 0).batch())
        return self.positions(v).numpy()

    def walk(
        self, solver: Solver, starts: Array, steps: int, limit: float, kept: int | None = None
    ) -> Walk:
        """`steps` of the solver from starts [S, 2].

        All members move by the solver's own step, as one stacked computation. A member that is further
        than `limit` from the origin, or not finite, has left: it is held where it last was and does
        not disturb the others. Of members after the first `kept` only the ends are returned.

        Raises:
            GameError: the solver cannot step there.
        """
        here = torch.as_tensor(starts, dtype=torch.float64)
        members = len(here)
        kept = members if kept is None else kept
        field = VectorField(self.flat, stacked=members)
        players, constants = self.stacked(here), self._nothing()
        state = solver.init(players)
        left = torch.full((members,), -1, dtype=torch.int64)
        path, late = [here[:kept]], here
        for step in range(1, steps + 1):
            try:
                players, constants, state, _ = solver.step(
                    field, players, constants, state, self._draws(members, step - 1)
                )
            except torch.linalg.LinAlgError as error:  # type: ignore[attr-defined]
                raise GameError(
                    f"{type(solver).__name__} cannot step here: {str(error).splitlines()[0]}"
                ) from error
            now = self.positions(players).clone()
            left = torch.where((left < 0) & ~(now.norm(dim=1) <= limit), step, left)
            if (left >= 0).any():
                now = torch.where((left >= 0)[:, None], here, now)
                players = self.stacked(now)
            here = now
            path.append(here[:kept])
            if step == 3 * steps // 4:
                late = here
        return Walk(torch.stack(path).numpy(), late.numpy(), here.numpy(), left.numpy())

    def outcomes(self, walk: Walk, reach: float) -> NDArray[np.int64]:
        """For each member the index of the stationary point it is at, `NONE` or `DIVERGED`: within `reach` of it
        at the end, and no further away than at 3/4 of the steps."""
        found = np.full(len(walk.last), NONE)
        if len(self.places):
            far = np.linalg.norm(walk.last[:, None] - self.places, axis=2)
            before = np.linalg.norm(walk.late[:, None] - self.places, axis=2)
            rows, nearest = np.arange(len(far)), far.argmin(axis=1)
            d, was = far[rows, nearest], before[rows, nearest]
            found = np.where((d <= reach) & (d <= was + 1e-9 * reach), nearest, found)
        return np.where(walk.left >= 0, DIVERGED, found)

    def distances(self, positions: Array) -> Array:
        """To the nearest stationary point: [T, S] for positions [T, S, 2]."""
        gaps = np.linalg.norm(positions[:, :, None] - self.places, axis=3)
        return cast(Array, gaps.min(axis=2))

    def _nothing(self) -> Constants:
        return {player: {} for player in self.like}

    def _draws(self, members: int, step: int) -> Draws:
        """Every member sees the same numbers."""
        draw = getattr(self.game, "draw", None)

        def make(rng: np.random.Generator) -> Draw:
            one = draw(rng, 1, torch.float64, None) if draw is not None else {}
            return {k: t.expand(members, *t.shape) for k, t in one.items()}

        return Draws(make, 0, step)


@dataclass(frozen=True)
class LocalRate:
    """How a solver behaves at one stationary point.

    Attributes:
        point: the index of the point.
        predicted: spectral radius of the solver's `linear_map` there; None without one.
        why: why there is none.
        observed: factor per step by which the solver's own steps shrink, or grow, a small displacement.
        steps: steps it was seen over; 0 where nothing could be fitted.
    """

    point: int
    predicted: float | None
    why: str
    observed: float | None
    steps: int


def starts_near(table: Table, index: int) -> Array:
    """Starts [NEAR, 2] for `rate`: stationary point `index`, and eight around it at each of two radii."""
    place = table.places[index]
    angles = np.arange(8) * np.pi / 4 + 0.3
    circle = _unit(place) * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    return np.concatenate([place[None], *(place + radius * circle for radius in _RADII)])


def rate(table: Table, solver: Solver, index: int, path: Array) -> LocalRate:
    """Prediction against observation at stationary point `index`, from the path [T, NEAR, 2] of `starts_near`.

    Observed: members start 1e-5 and 1e-10 (times max(1, |x*|)) beside one that starts at x*. The factor is
    exp of the slope of the mean of log |x_t - x_t*| by least squares, over the last two thirds of the steps at
    which every distance of a circle lies between 1e-13 and 1e-3 in that unit (above rounding, below where
    the field bends), of the circle for which these are more.
    """
    predicted, why = _predicted(table, solver, table.points[index])
    unit = _unit(table.places[index])
    best: tuple[int, int, Array] = (0, 0, np.zeros(0))
    for k in range(len(_RADII)):
        circle = path[:, 1 + 8 * k : 9 + 8 * k]
        gaps = np.linalg.norm(circle - path[:, :1], axis=2)
        sound = ((gaps > 1e-13 * unit) & (gaps < 1e-3 * unit)).all(axis=1)
        end = len(sound) if sound.all() else int(sound.argmin())
        if end > best[1]:
            best = (end // 3, end, gaps)
    first, end, gaps = best
    if end - first < 3:
        return LocalRate(index, predicted, why, None, 0)
    slope = np.polyfit(np.arange(first, end), np.log(gaps[first:end]).mean(axis=1), 1)[0]
    return LocalRate(index, predicted, why, float(np.exp(slope)), end - first)


def _unit(place: Array) -> float:
    return max(1.0, float(np.linalg.norm(place)))


def _predicted(table: Table, solver: Solver, point: Point) -> tuple[float | None, str]:
    if not hasattr(solver, "linear_map"):
        return None, f"{type(solver).__name__} has no linear map"
    # Its leader's rows use that the losses add up to zero.
    if type(solver).__name__ == "Unrolled" and not table.game.zero_sum:
        return None, "the linear map of Unrolled is that of zero-sum games"
    J = table.game.jacobian(tree.to(point.players, dtype=torch.float64))
    try:
        return local_convergence(solver, J, table.sizes).radius, ""
    except GameError as error:
        return None, str(error)


def halton_starts(window: Sequence[float], count: int) -> Array:
    """`count` starts in the window: Halton's points of bases 2 and 3 (first to be kept when more are asked
    for), in the middle 80% of each side."""

    def halton(index: int, base: int) -> float:
        value, share = 0.0, 1.0
        while index:
            share /= base
            value += share * (index % base)
            index //= base
        return value

    unit = np.array([[halton(i, 2), halton(i, 3)] for i in range(1, count + 1)]).reshape(-1, 2)
    x0, x1, y0, y1 = window
    return cast(Array, np.array([x0, y0]) + (0.1 + 0.8 * unit) * np.array([x1 - x0, y1 - y0]))
