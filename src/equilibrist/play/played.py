"""`play`: solvers on a two-parameter game from the same starts, and what became of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from equilibrist.certificates import Json
from equilibrist.errors import RecipeError
from equilibrist.games.truth import Known
from equilibrist.optimizers import SGD
from equilibrist.play import boards, pictures
from equilibrist.play.trajectories import (
    DIVERGED,
    NEAR,
    NONE,
    Array,
    LocalRate,
    Table,
    halton_starts,
    rate,
    starts_near,
)
from equilibrist.report.formatting import format_number
from equilibrist.solvers import Averaged, Simultaneous, Solver
from equilibrist.solvers.named import solver_from_text

_CELLS = 60  # a basin's grid has so many cells a side
_FAR = 50.0  # windows from the origin: what goes there counts as diverged
_REACH = 0.01  # of the window's side: what stays so close to a stationary point has reached it
_MOST = 12  # solvers, starts


@dataclass(frozen=True)
class PlayedSolver:
    """One solver on a game.

    Attributes:
        name: the text that names it, with all options that are not its own defaults.
        solver: the solver.
        paths: trajectories [steps + 1, starts, 2].
        outcomes: of each start: the index of the stationary point it reached, `NONE` or `DIVERGED`.
        rates: at each stationary point.
        basins: outcomes on a grid of starts [cells, cells], rows from below, or None.
    """

    name: str
    solver: Solver
    paths: Array
    outcomes: NDArray[np.int64]
    rates: tuple[LocalRate, ...]
    basins: NDArray[np.int64] | None


@dataclass(frozen=True)
class Played:
    """What `play` returns: everything that its page shows.

    Attributes: `table`, the game in the plane; `window`; `lr`, `steps`; `starts` [S, 2]; `shown`, one entry a
    solver; `title`, `line`, `options` of the game.
    """

    title: str
    line: str
    options: Json
    table: Table
    window: tuple[float, float, float, float]
    lr: float
    steps: int
    starts: Array
    shown: tuple[PlayedSolver, ...]

    def rows(self) -> list[tuple[str, ...]]:
        """The table: stationary point, its kind, solver, predicted and observed factor per step."""
        found: list[tuple[str, ...]] = []
        for k, point in enumerate(self.table.points):
            for shown in self.shown:
                rate_ = shown.rates[k]
                observed = "too fast to fit" if rate_.observed is None else _factor(rate_.observed)
                predicted = rate_.why if rate_.predicted is None else _factor(rate_.predicted)
                place = place_text(self.table.places[k])
                found.append(
                    (place, point.kind.replace("nash", "Nash"), shown.name, predicted, observed)
                )
        return found

    def ends(self, outcomes: NDArray[np.int64]) -> str:
        """What became of the starts, in words."""
        parts = []
        for k in sorted({int(o) for o in outcomes if o >= 0}):
            count = int((outcomes == k).sum())
            parts.append(f"{count} at {place_text(self.table.places[k])}")
        for kind, words in ((NONE, "at no stationary point"), (DIVERGED, "diverged")):
            if count := int((outcomes == kind).sum()):
                parts.append(f"{count} {words}")
        return ", ".join(parts)


def play(
    name: str = "bilinear",
    solvers: Sequence[str] = (),
    *,
    settings: Mapping[str, str] | None = None,
    lr: float | None = None,
    steps: int | None = None,
    starts: int | str = 4,
    window: Sequence[float] | None = None,
    basins: bool | None = None,
) -> Played:
    """Play a two-parameter game by several solvers from the same starts.

    Args:
        name: a game of `equilibrist.play.boards.BOARDS`, or file.py:function.
        solvers: texts such as "consensus:gamma=10"; the game's own choice if empty.
        settings: the game's options, as text or values.
        lr: step size of every solver that has none of its own in its text.
        steps: of each solver.
        starts: how many, or places as text "1,0;0.5,-1".
        window: least and largest first coordinate, then of the second.
        basins: whether to find where a grid of starts ends.

    Raises:
        RecipeError: unknown names and options, numbers out of range. GameError: a game with more or
            fewer than two parameters.
    """
    chosen = boards.board(name)
    game, options = boards.build(name, chosen, settings or {})
    lr = chosen.lr if lr is None else lr
    steps = chosen.steps if steps is None else steps
    basins = chosen.basins if basins is None else basins
    _check(lr, steps)
    frame = _window(window if window is not None else chosen.window)
    laid = Table(game)
    initial = _starts(starts, frame)
    texts = list(solvers) or list(chosen.solvers)
    if len(texts) > _MOST:
        raise RecipeError(f"--solver is given {len(texts)} times: at most {_MOST} fit on a page")
    made = [_solver(text, lr, game, chosen.options) for text in texts]
    grid = pictures.arrows_at(frame, _CELLS) if basins else np.zeros((0, 2))
    near = [starts_near(laid, k) for k in range(len(laid.points))]
    every = np.concatenate([initial, *near, grid])
    side, count, kept = frame[1] - frame[0], len(initial), len(every) - len(grid)
    far = _FAR * side + max(map(abs, frame))
    shown = []
    for solver, text in made:
        walk = laid.walk(solver, every, steps, far, kept)
        ends = laid.outcomes(walk, _REACH * side)
        rates = tuple(
            rate(laid, solver, k, walk.path[:, count + NEAR * k : count + NEAR * (k + 1)])
            for k in range(len(laid.points))
        )
        cells = ends[kept:].reshape(_CELLS, _CELLS) if basins else None
        shown.append(PlayedSolver(text, solver, walk.path[:, :count], ends[:count], rates, cells))
    return Played(name, chosen.line, options, laid, frame, lr, steps, initial, tuple(shown))


def _solver(
    text: str, lr: float, game: Known, defaults: Mapping[str, Mapping[str, str]]
) -> tuple[Solver, str]:
    """(the solver, its whole text): plain SGD of step `lr`, the board's own options where the text gives none,
    the game's players for leader and follower."""
    name, _, tail = text.partition(":")
    if name == "proximal":
        raise RecipeError(
            "--solver proximal: it needs a critic's slopes in x, and these games have none"
        )
    given = [piece.partition("=")[0].strip() for piece in tail.split(",")]
    own = [f"{k}={v}" for k, v in defaults.get(name, {}).items() if k not in given]
    full = ",".join([*filter(None, [tail]), *own])
    text = f"{name}:{full}" if full or text.endswith(":") else name
    solver: Any = solver_from_text(text, Simultaneous(SGD(lr)))
    if isinstance(solver, Averaged):
        raise RecipeError(
            f"--solver {text}: the board draws iterates, not averages of them: leave average out"
        )
    fields = {f.name for f in dataclasses.fields(solver)}
    if {"leader", "follower"} <= fields and len(game.players) == 2:
        (other,) = (p for p in game.players if p != game.leader)
        named_here = {"leader": game.leader, "follower": other}
        chosen = {k: v for k, v in named_here.items() if k not in given}
        solver = dataclasses.replace(solver, **chosen)
        for role in named_here:
            if getattr(solver, role) not in game.players:
                raise RecipeError(
                    f"--solver {text}: {role}={getattr(solver, role)} names no player of this game: "
                    f"choose from {', '.join(game.players)}"
                )
    return solver, text


def _check(lr: float, steps: int) -> None:
    if not 0 < lr < float("inf"):
        raise RecipeError(f"--lr {lr:g}: a step size must be positive")
    if not 1 <= steps <= 100_000:
        raise RecipeError(f"--steps {steps}: it must lie between 1 and 100,000")


def _starts(starts: int | str, window: Sequence[float]) -> Array:
    text = str(starts).strip()
    if text.isdigit():
        if not 1 <= int(text) <= _MOST:
            raise RecipeError(f"--starts {text}: it must lie between 1 and {_MOST}")
        return halton_starts(window, int(text))
    places = []
    for part in text.split(";"):
        try:
            place = [float(word) for word in part.split(",")]
        except ValueError:
            place = []
        if len(place) != 2 or not np.isfinite(place).all():
            raise RecipeError(f"--starts {text}: write a number, or places such as 1,0;0.5,-1")
        places.append(place)
    if len(places) > _MOST:
        raise RecipeError(f"--starts has {len(places)} places: at most {_MOST}")
    return np.array(places)


def _window(window: Sequence[float]) -> tuple[float, float, float, float]:
    values = tuple(float(v) for v in window)
    if (
        len(values) != 4
        or not np.isfinite(values).all()
        or values[0] >= values[1]
        or values[2] >= values[3]
    ):
        raise RecipeError(
            f"--window {','.join(f'{v:g}' for v in values)}: write four numbers, least and largest first "
            "coordinate, then of the second, such as -2,2,-2,2"
        )
    return pictures.squared(values)


def place_text(place: Array) -> str:
    """A place in the plane as text: (1, -0.5)."""
    return f"({', '.join(format_number(float(v) if abs(v) > 1e-12 else 0.0) for v in place)})"


def _factor(value: float) -> str:
    return f"{value:.6f}"
