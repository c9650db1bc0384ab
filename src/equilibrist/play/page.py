"""The page of `play`: a two-parameter game, its solvers side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from equilibrist.files.owned import publish
from equilibrist.play import pictures
from equilibrist.play.played import Played, place_text
from equilibrist.play.trajectories import DIVERGED, NONE, Array
from equilibrist.report.formatting import format_number
from equilibrist.report.shell import document, escape, table


def write_play(played: Played, path: Path) -> Path:
    """The page of `play`: one self-contained HTML file; an earlier one is replaced, a user's file never."""
    publish(path.parent, {path.name: play_html(played).encode()})
    return path


def play_html(played: Played) -> str:
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
            f"<figure><h3>{escape(_title(shown.name))}</h3>{picture}<figcaption>{escape(caption)}</figcaption></figure>"
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
        f'<div class="top"><span><b>equilibrist play {escape(played.title)}</b></span></div>',
        f'<main class="head"><h1>{escape(_title(played.title))}</h1><p>{escape(played.line)}</p>'
        f'<p class="lead">{escape(lead)}</p></main>',
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
        f"<section><h2>Prediction and observation</h2><p>{escape(_READING)}</p>"
        f"{table(head, played.rows(), (3, 4))}</section>"
        if t.points
        else f"<section><p>No stationary point: {escape(t.game.why_none)}.</p></section>",
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
        items.append(f"<li><b>{pictures.MARKS[kind]}</b>{escape(_KINDS[kind])}</li>")
    if basins:
        shared = [k for k, c in colours.items() if c == pictures.CHOICES - 1]
        for point, colour in colours.items():
            if point in shared[1:]:
                continue
            several = point in shared and len(shared) > 1
            where = (
                f"one of {len(shared)} others"
                if several
                else place_text(played.table.places[point])
            )
            items.append(
                f'<li><span class="key {pictures.basin_class(colour)}"></span>starts that end at '
                f"{escape(where)}</li>"
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
        f"{name} ends at {format_number(float(d[-1]))}" for name, d in lines
    )
    sizes = pictures.SQUARE if single else pictures.broad()
    chart, note = pictures.distances(lines, sizes, words)
    legend = "".join(
        f'<li><i class="c{i % pictures.CHOICES}"></i>{escape(_title(name))}</li>'
        for i, (name, _) in enumerate(lines)
    )
    held = any((s.outcomes == DIVERGED).any() for s in played.shown)
    note += " What has diverged is held where it left." if held else ""
    caption = f"Median over the starts, logarithmic. {note}".strip()
    title = "<h3>Distance to the nearest stationary point</h3>" if single else ""
    return (
        f'{title}<ul class="legend">{legend}</ul>{chart}<figcaption>{escape(caption)}</figcaption>'
    )


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


def _inside(place: Array, window: Sequence[float]) -> bool:
    x0, x1, y0, y1 = window
    return bool(x0 <= place[0] <= x1 and y0 <= place[1] <= y1)


def _title(name: str) -> str:
    """ "consensus:gamma=1,batches=2" as "Consensus, gamma 1, batches 2"; a game's name likewise."""
    if ".py" in name:
        return name
    text = name.replace("nash", "Nash").replace(":", ", ").replace(",", ", ").replace(",  ", ", ")
    text = text.replace("=", " ").replace("-", " ") if "=" not in name else text.replace("=", " ")
    return text[:1].upper() + text[1:]
