"""`play`: a two-parameter game, its solvers side by side, on one page."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from equilibrist.errors import RecipeError
from equilibrist.files.owned import publish
from equilibrist.optimizers import SGD
from equilibrist.play import boards, pictures
from equilibrist.play.trajectories import (
    DIVERGED,
    NEAR,
    NONE,
    Array,
    Rate,
    Table,
    Walk,
    beside,
    rate,
    spread,
)
from equilibrist.report.shell import document, e, table
from equilibrist.report.words import number
from equilibrist.solvers import Averaged, Simultaneous
from equilibrist.solvers.named import named

_CELLS = 60  # a basin's grid has so many cells a side
_FAR = 50.0  # windows from the origin: what goes there counts as diverged
_REACH = 0.01  # of the window's side: what stays so close to a stationary point has reached it
_MOST = 12  # solvers, starts


@dataclass(frozen=True)
class Shown:
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
    solver: Any
    paths: Array
    outcomes: NDArray[np.int64]
    rates: tuple[Rate, ...]
    basins: NDArray[np.int64] | None


@dataclass(frozen=True)
class Played:
    """What `play` returns: everything that its page shows.

    Attributes: `table`, the game in the plane; `window`; `lr`, `steps`; `starts` [S, 2]; `shown`, one entry a
    solver; `title`, `line`, `options` of the game.
    """

    title: str
    line: str
    options: dict[str, Any]
    table: Table
    window: tuple[float, float, float, float]
    lr: float
    steps: int
    starts: Array
    shown: tuple[Shown, ...]

    def rows(self) -> list[tuple[str, ...]]:
        """The table: stationary point, its kind, solver, predicted and observed factor per step."""
        found: list[tuple[str, ...]] = []
        for k, point in enumerate(self.table.points):
            for shown in self.shown:
                rate_ = shown.rates[k]
                observed = "too fast to fit" if rate_.observed is None else _factor(rate_.observed)
                predicted = rate_.why if rate_.predicted is None else _factor(rate_.predicted)
                place = _place(self.table.places[k])
                found.append(
                    (place, point.kind.replace("nash", "Nash"), shown.name, predicted, observed)
                )
        return found

    def ends(self, outcomes: NDArray[np.int64]) -> str:
        """What became of the starts, in words."""
        parts = []
        for k in sorted({int(o) for o in outcomes if o >= 0}):
            count = int((outcomes == k).sum())
            parts.append(f"{count} at {_place(self.table.places[k])}")
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
    if not 0 < lr < float("inf"):
        raise RecipeError(f"--lr {lr:g}: a step size must be positive")
    if not 1 <= steps <= 100_000:
        raise RecipeError(f"--steps {steps}: it must lie between 1 and 100,000")
    frame = _window(window if window is not None else chosen.window)
    laid = Table(game)
    begun = _starts(starts, frame)
    texts = list(solvers) or list(chosen.solvers)
    if len(texts) > _MOST:
        raise RecipeError(f"--solver is given {len(texts)} times: at most {_MOST} fit on a page")
    made = [_solver(text, lr, game, chosen.options) for text in texts]
    grid = pictures.arrows_at(frame, _CELLS) if basins else np.zeros((0, 2))
    near = [beside(laid, k) for k in range(len(laid.points))]
    every = np.concatenate([begun, *near, grid])
    side = frame[1] - frame[0]
    far = _FAR * side + max(map(abs, frame))
    shown = []
    for solver, text in made:
        kept = len(every) - len(grid)
        walk = laid.walk(solver, every, steps, far, kept)
        ends = laid.outcomes(walk, _REACH * side)
        rates = tuple(
            rate(laid, solver, k, walk.path[:, len(begun) + NEAR * k : len(begun) + NEAR * (k + 1)])
            for k in range(len(laid.points))
        )
        cells = ends[kept:].reshape(_CELLS, _CELLS) if basins else None
        shown.append(
            Shown(text, solver, _until(walk, len(begun)), ends[: len(begun)], rates, cells)
        )
    return Played(name, chosen.line, options, laid, frame, lr, steps, begun, tuple(shown))


def write_play(played: Played, path: Path) -> Path:
    """The page of `play`: one self-contained HTML file; an earlier one is replaced, a user's file never."""
    publish(path.parent, {path.name: page(played).encode()})
    return path


def page(played: Played) -> str:
    """The page as one HTML document."""
    t = played.table
    points = [
        (place, point.kind)
        for place, point in zip(t.places, t.points, strict=True)
        if _inside(place, played.window)
    ]
    fields = {
        size.bins: t.field(pictures.arrows_at(played.window, size.bins)) for size in pictures.SQUARE
    }
    colours = _basin_colours(played)
    figures = []
    for i, shown in enumerate(played.shown):
        coloured = None
        if shown.basins is not None:
            coloured = np.vectorize(lambda k: colours.get(k, k), otypes=[np.int64])(shown.basins)
        words = (
            f"{shown.name} on {played.title}: trajectories from {len(played.starts)} starts; "
            f"{played.ends(shown.outcomes)}"
        )
        picture = pictures.plane(
            played.window, t.names, fields, shown.paths, points, i, coloured, words
        )
        caption = f"After {played.steps:,} steps: {played.ends(shown.outcomes)}."
        figures.append(
            f"<figure><h3>{e(_title(shown.name))}</h3>{picture}<figcaption>{e(caption)}</figcaption></figure>"
        )
    chart = _chart(played, single=len(figures) % 2 == 1)
    if chart and len(figures) % 2 == 1:
        figures.append(f"<figure>{chart}</figure>")
        chart = ""
    options = ", ".join(f"{k} = {v}" for k, v in played.options.items())
    lead = (
        f"Step size {played.lr:g} unless a solver names its own, {played.steps:,} steps, plain gradient "
        f"rules{'; ' + options if options else ''}."
    )
    head = ["Stationary point", "Kind", "Solver", "Predicted factor", "Observed factor"]
    parts = [
        f'<div class="top"><span><b>equilibrist play {e(played.title)}</b></span></div>',
        f'<main class="head"><h1>{e(_title(played.title))}</h1><p>{e(played.line)}</p>'
        f'<p class="lead">{e(lead)}</p></main>',
        _legend(
            points,
            bool(colours) or any(s.basins is not None for s in played.shown),
            played,
            colours,
        ),
        f'<div class="charts">{"".join(figures)}</div>',
        f"<section><h2>Distance to the nearest stationary point</h2>{chart}</section>"
        if chart
        else "",
        f"<section><h2>Prediction and observation</h2><p>{e(_READING)}</p>"
        f"{table(head, played.rows(), (3, 4))}</section>"
        if t.points
        else f"<section><p>No stationary point: {e(t.game.why_none)}.</p></section>",
    ]
    return document(f"{played.title}: {', '.join(s.name for s in played.shown)}", parts)


_READING = (
    "Predicted: the spectral radius of the solver's exact linear map at the stationary point. Observed: the factor "
    "per step by which the solver's own steps shrink (below 1) or grow (above 1) a tiny displacement. Near "
    "the point the two agree (slowly where two eigenvalues coincide); far from it only the picture tells."
)


def _legend(
    points: Sequence[tuple[Array, str]],
    basins: bool,
    played: Played,
    colours: Mapping[int, int],
) -> str:
    items = ["<li>Grey arrows: gradient steps, \N{MINUS SIGN}v; longer is faster</li>"]
    items.append("<li>Dots: starts, the same for all</li>")
    for kind in dict.fromkeys(kind for _, kind in points):
        items.append(f"<li><b>{pictures.MARKS[kind]}</b>{e(_KINDS[kind])}</li>")
    if basins:
        shared = [k for k, c in colours.items() if c == pictures.CHOICES - 1]
        for point, colour in colours.items():
            if point in shared[1:]:
                continue
            several = point in shared and len(shared) > 1
            where = (
                f"one of {len(shared)} others" if several else _place(played.table.places[point])
            )
            items.append(
                f'<li><span class="key {pictures.basin_class(colour)}"></span>starts that end at '
                f"{e(where)}</li>"
            )
        seen = {int(k) for s in played.shown if s.basins is not None for k in np.unique(s.basins)}
        if DIVERGED in seen:
            items.append('<li><span class="key gone"></span>diverged</li>')
        if NONE in seen:
            items.append('<li><span class="key none"></span>at no stationary point yet</li>')
    return f'<ul class="legend">{"".join(items)}</ul>'


_KINDS = {
    "local nash": "local Nash equilibrium",
    "local minimax": "local minimax point, not Nash",
    "non-nash attractor": "attracts gradient steps and is no equilibrium",
    "saddle of the dynamics": "saddle of the dynamics",
    "neither": "stationary, none of these",
}


def _chart(played: Played, single: bool) -> str:
    if not played.table.points:
        return ""
    lines = [(s.name, np.nanmedian(played.table.distances(s.paths), axis=1)) for s in played.shown]
    words = "Distance to the nearest stationary point over steps: " + "; ".join(
        f"{name} ends at {number(float(d[-1]))}" for name, d in lines
    )
    sizes = pictures.SQUARE if single else pictures.broad()
    chart, note = pictures.distances(lines, sizes, words)
    legend = "".join(
        f'<li><i class="c{i % pictures.CHOICES}"></i>{e(_title(name))}</li>'
        for i, (name, _) in enumerate(lines)
    )
    held = any((s.outcomes == DIVERGED).any() for s in played.shown)
    note += " What has diverged is held where it left." if held else ""
    caption = f"Median over the starts, logarithmic. {note}".strip()
    title = "<h3>Distance to the nearest stationary point</h3>" if single else ""
    return f'{title}<ul class="legend">{legend}</ul>{chart}<figcaption>{e(caption)}</figcaption>'


def _basin_colours(played: Played) -> dict[int, int]:
    """A colour for each stationary point that some basin leads to, the largest first."""
    sizes: dict[int, int] = {}
    for shown in played.shown:
        if shown.basins is not None:
            for k, count in zip(*np.unique(shown.basins, return_counts=True), strict=True):
                if k >= 0:
                    sizes[int(k)] = sizes.get(int(k), 0) + int(count)
    ranked = sorted(sizes, key=lambda k: (-sizes[k], k))
    # Beyond the colours there are, all further points share the last one.
    return {k: min(i, pictures.CHOICES - 1) for i, k in enumerate(ranked)}


def _solver(
    text: str, lr: float, game: Any, defaults: Mapping[str, Mapping[str, str]]
) -> tuple[Any, str]:
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
    solver: Any = named(text, Simultaneous(SGD(lr)))
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


def _until(walk: Walk, count: int) -> Array:
    return walk.path[:, :count]


def _starts(starts: int | str, window: Sequence[float]) -> Array:
    text = str(starts).strip()
    if text.isdigit():
        if not 1 <= int(text) <= _MOST:
            raise RecipeError(f"--starts {text}: it must lie between 1 and {_MOST}")
        return spread(window, int(text))
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


def _inside(place: Array, window: Sequence[float]) -> bool:
    x0, x1, y0, y1 = window
    return bool(x0 <= place[0] <= x1 and y0 <= place[1] <= y1)


def _place(place: Array) -> str:
    return f"({', '.join(number(float(v) if abs(v) > 1e-12 else 0.0) for v in place)})"


def _factor(value: float) -> str:
    return f"{value:.6f}"


def _title(name: str) -> str:
    """ "consensus:gamma=1,batches=2" as "Consensus, gamma 1, batches 2"; a game's name likewise."""
    if ".py" in name:
        return name
    text = name.replace("nash", "Nash").replace(":", ", ").replace(",", ", ").replace(",  ", ", ")
    text = text.replace("=", " ").replace("-", " ") if "=" not in name else text.replace("=", " ")
    return text[:1].upper() + text[1:]
