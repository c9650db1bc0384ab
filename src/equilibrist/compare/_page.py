"""A comparison as one page that loads nothing. Every text passes through `escape`: it is data."""

from __future__ import annotations

import math
from collections.abc import Sequence
from importlib import resources
from typing import Literal

from equilibrist.compare import _words as say
from equilibrist.compare._facts import ComparisonFacts, CurveFacts, FigureFacts
from equilibrist.report import charts
from equilibrist.report.formatting import as_label, format_count, format_duration
from equilibrist.report.shell import document, escape, section

_COLOURS = 8
Axis = Literal["steps", "seconds"]


def comparison_page(facts: ComparisonFacts) -> str:
    """The whole page."""
    scored = [f for f in facts["figures"] if f["kind"] == "score"]
    lost = [f for f in facts["figures"] if f["kind"] == "loss"]
    parts = [
        _hero(facts, [*scored, *lost]),
        *(
            section(f"figure-{i}", as_label(figure["figure"]), _figure(facts, figure))
            for i, figure in enumerate(scored)
        ),
        section("losses", "Losses", _losses(facts, lost)),
        section("cost", "What a step costs", _cost(facts)),
        section("reading", "How to read this", _reading(facts)),
    ]
    title = f"{facts['title']}: solvers compared"
    sheet = resources.files(__package__).joinpath("compare.css").read_text(encoding="utf-8")
    return document(title, parts, sheet, "from the run directories beside it")


def _hero(facts: ComparisonFacts, figures: Sequence[FigureFacts]) -> str:
    names, total = _names(facts), len(facts["seeds"])
    lead = (
        f"{format_count(facts['steps'])} steps of batch {format_count(facts['batch'])}, {total} "
        f"seed{'s' if total > 1 else ''} of each."
    )
    failures = [
        f"{entry['name']}: {len(entry['diverged'])} of {total} diverged ({say.diverged(entry)})"
        for entry in facts["solvers"]
        if entry["diverged"]
    ]
    lost = "".join(f"<li>{escape(text)}</li>" for text in failures)
    warned = (
        f'<aside class="todo"><h2>Runs that broke down</h2><ul>{lost}</ul></aside>'
        if failures
        else ""
    )
    rows = "".join(
        f'<div class="s{i % _COLOURS}"><dt>{_key()}{escape(name)}</dt><dd>{escape(entry["text"])}</dd></div>'
        for i, (name, entry) in enumerate(zip(names, facts["solvers"], strict=True))
    )
    summary = f"<p>{escape(facts['summary'])}</p>" if facts["summary"] else ""
    return (
        f'<div class="top"><span><b>{escape(facts["title"])}</b></span><span>{escape(lead)}</span></div>'
        f'<main class="hero alone"><div><h1>{escape(_headline(facts, figures))}</h1>{summary}'
        f'<dl class="facts">{rows}</dl></div></main>{warned}'
    )


def _headline(facts: ComparisonFacts, figures: Sequence[FigureFacts]) -> str:
    """Where an interval of a paired difference leaves out zero; of the first figure with a good direction."""
    names = _names(facts)
    chosen = next((f for f in figures if f["better"]), None)
    if chosen is None or len(names) < 2:
        return f"{len(names)} solver{'s' if len(names) > 1 else ''} on {facts['title']}"
    verdicts: dict[str, list[str]] = {}
    for name in names[1:]:
        verdicts.setdefault(_verdict(chosen, name), []).append(name)
    clauses = [f"{_listed(group)} {relation} {names[0]}" for relation, group in verdicts.items()]
    return f"{as_label(chosen['figure'])}: {'; '.join(clauses)}, after as many steps."


def _verdict(figure: FigureFacts, name: str) -> str:
    difference = figure["iterations"][name]["difference"]
    if difference is None or difference["mean"] is None:
        return "cannot be told from"
    interval = difference["interval"]
    if interval is None or interval[0] <= 0 <= interval[1]:
        return "cannot be told from"
    better = (difference["mean"] > 0) == (figure["better"] == "higher")
    return "better than" if better else "worse than"


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _figure(facts: ComparisonFacts, figure: FigureFacts) -> str:
    hint = "; ".join(part for part in (str(figure["score"]), say.way(figure)) if part)
    lead = f'<p class="lead">{escape(hint)}.</p>'
    return f"{lead}{_legend(facts)}{_charts(facts, figure)}{_table(facts, figure)}"


def _losses(facts: ComparisonFacts, figures: Sequence[FigureFacts]) -> str:
    lead = (
        "Means over the steps since the row before, as each solver records them. Losses of two solvers are the "
        "same quantity only if both take them at the same point: an alternating solver leaves out of the "
        "generator's loss what does not depend on the generator, and takes it against the new critic."
    )
    body = "".join(
        f"<h3>{escape(say.title(figure))}</h3>{_charts(facts, figure)}{_table(facts, figure)}"
        for figure in figures
    )
    return f'<p class="lead">{escape(lead)}</p>{_legend(facts)}{body}'


def _table(facts: ComparisonFacts, figure: FigureFacts) -> str:
    names, total, limit = _names(facts), len(facts["seeds"]), facts["seconds_at_equal_compute"]
    after = f"After {format_count(facts['steps'])} steps"
    later = f"After {format_duration(limit)} a seed" if limit is not None else "Equal compute"
    columns = ["Solver", after, "Difference", later, "Difference then", "At step", "Seeds"]
    rows = []
    for i, name in enumerate(names):
        here, there = figure["iterations"][name], figure["compute"][name]
        cells = [
            say.mean_and_interval(here),
            say.difference(here, total),
            say.mean_and_interval(there),
            say.difference(there, total),
            say.looked_at(there),
            say.seeds(here, total),
        ]
        body = "".join(
            f'<td data-name="{escape(c)}">{_whole(text)}</td>' if text else "<td></td>"
            for c, text in zip(columns[1:], cells, strict=True)
        )
        rows.append(f'<tr class="s{i % _COLOURS}"><td>{_key()}{escape(name)}</td>{body}</tr>')
    return _framed(columns, rows)


def _whole(text: str) -> str:
    """A value whose interval is not torn apart at the end of a line."""
    mean, bracket, rest = text.partition(" [")
    return f'{escape(mean)} <span class="ends">[{escape(rest)}</span>' if bracket else escape(text)


def _framed(columns: Sequence[str], rows: Sequence[str]) -> str:
    head = "".join(f'<th scope="col">{escape(c)}</th>' for c in columns)
    return (
        f'<div class="framed"><table class="compared"><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _cost(facts: ComparisonFacts) -> str:
    columns = ["Solver", "Gradients", "Products Jᵀu", "Products Ju", "Other passes"]
    columns += ["Time of a step", "Time in all", "Diverged"]
    rows = []
    for i, entry in enumerate(facts["solvers"]):
        spent = entry["cost"]
        cells = [
            say.gradients_by_player(entry),
            spent["J^T u"],
            spent["J u"],
            spent["passes"],
            say.per_step(entry),
            format_duration(entry["seconds"]),
            f"{len(entry['diverged'])} of {len(facts['seeds'])}",
        ]
        body = "".join(
            f'<td data-name="{escape(c)}">{escape(text)}</td>'
            for c, text in zip(columns[1:], cells, strict=True)
        )
        rows.append(
            f'<tr class="s{i % _COLOURS}"><td>{_key()}{escape(entry["name"])}</td>{body}</tr>'
        )
    lead = (
        "Counted while one real step was taken: gradients of each player's own loss on one minibatch, products with "
        "the Jacobian J of the gradient field, and passes through the networks for anything else. A product Ju builds "
        "a graph of its own and goes through it twice."
    )
    return f'<p class="lead">{escape(lead)}</p>{_framed(columns, rows)}<p>{escape(say.clock(facts))}</p>'


def _reading(facts: ComparisonFacts) -> str:
    level = f"{100 * facts['confidence']:g}%"
    limit = format_duration(facts["seconds_at_equal_compute"])
    first = _names(facts)[0]
    texts = [
        f"Lines and figures are means over seeds; bands and brackets are Student's {level} intervals of those "
        "means. Differences are paired: the same seed starts from the same weights and sees the same minibatches "
        f"under every solver and every step size (common random numbers), and the difference from {first} is taken "
        "seed by seed. Two settings that are close to each other differ by much less than two seeds do: look at the "
        "differences, not at whether the intervals of two means overlap.",
        f"Equal compute means {limit} of training a seed: the time of the fastest solver. Each solver is seen where "
        "it was last looked at within that time, so that a slow one may be seen a little early.",
        "Seeds that diverged are counted, and are in no mean: a solver that breaks down often looks better here than "
        "it is. Read the counts first.",
        "Each interval stands for one comparison. Among many, some will leave out the truth by chance.",
        "Step sizes are those of the recipe unless a solver's name says otherwise. A solver that was not tuned may "
        "lose for that reason alone.",
    ]
    return "".join(f"<p>{escape(text)}</p>" for text in texts)


# --- charts ---------------------------------------------------------------------------------------


def _legend(facts: ComparisonFacts) -> str:
    items = "".join(
        f'<li class="s{i % _COLOURS}">{_key()}{escape(name)}</li>'
        for i, name in enumerate(_names(facts))
    )
    return f'<ul class="legend">{items}</ul>'


def _key() -> str:
    return '<svg class="key" viewBox="0 0 32 12" aria-hidden="true"><path d="M0 6H32"/></svg>'


def _charts(facts: ComparisonFacts, figure: FigureFacts) -> str:
    over: tuple[tuple[Axis, str], ...] = (
        ("steps", "training step"),
        ("seconds", "seconds of training, one seed"),
    )
    drawn = [_chart(facts, figure, axis, axis_title) for axis, axis_title in over]
    return f'<div class="charts">{"".join(drawn)}</div>'


def _chart(facts: ComparisonFacts, figure: FigureFacts, axis: Axis, axis_title: str) -> str:
    """Mean lines within their intervals."""
    curves = [figure["curves"][name] for name in _names(facts)]
    bounds = [b for c in curves for b in _bounds(c)]
    means = [m for c in curves for m in c["mean"] if abs(m) < 1e150]
    bounds = [b for b in bounds if abs(b) < 1e150]
    xs = [x for c in curves for x in c[axis] if math.isfinite(x)]
    if not means or not xs:
        return (
            '<figure><figcaption class="note">No finite figure was recorded.</figcaption></figure>'
        )
    low, high = min(bounds + means), max(bounds + means)
    ordered = sorted(means)
    core = (ordered[round(0.02 * (len(means) - 1))], ordered[round(0.98 * (len(means) - 1))])
    logarithmic = min(means) > 0 and max(means) > 50 * min(means)
    if logarithmic:
        low, high, cut = min(means) / 1.3, max(means) * 1.3, False
    else:
        low, high, cut = charts.axis_range(low, high, core)
    x1 = max(xs) or 1.0

    def draw(size: charts.Size) -> str:
        axes = charts.Axes(size, 0.0, x1, low, high, logarithmic)
        both = [_marks(axes, c, axis) for c in curves]
        marks = "".join(  # bands first: no line lies under another solver's band
            f'<g class="s{i % _COLOURS}">{pair[layer]}</g>'
            for layer in (0, 1)
            for i, pair in enumerate(both)
        )
        return axes.draw(marks, axis_title)

    notes = ["logarithmic scale"] if logarithmic else []
    if cut:
        notes.append("some values lie beyond the frame")
    caption = ". ".join(n[:1].upper() + n[1:] for n in notes)
    label = f"{say.title(figure)}, over {axis_title}"
    return (
        f"<figure>{charts.render_sizes(draw, charts.WIDE, label)}"
        f"<figcaption>Over {escape(axis_title)}. {escape(caption)}{'.' if caption else ''}</figcaption></figure>"
    )


def _bounds(curve: CurveFacts) -> list[float]:
    return [end for pair in curve["interval"] if pair is not None for end in pair]


def _marks(axes: charts.Axes, curve: CurveFacts, axis: Axis) -> tuple[str, str]:
    """(band, line) of one solver."""
    rows = [
        (float(x), mean, interval)
        for x, mean, interval in zip(curve[axis], curve["mean"], curve["interval"], strict=True)
        if math.isfinite(x) and abs(mean) < 1e150
    ]
    floor = axes.y0 if axes.log else -1e150
    banded = [(x, i) for x, _, i in rows if i is not None and abs(i[0]) + abs(i[1]) < 1e150]
    line = [(axes.x(x), axes.y(mean)) for x, mean, _ in rows]
    band = ""
    if len(banded) > 1:
        upper = [(axes.x(x), axes.y(max(i[1], floor))) for x, i in banded]
        lower = [(axes.x(x), axes.y(max(i[0], floor))) for x, i in banded]
        band = charts.svg_path(upper + lower[::-1], "band mark")
    if len(line) == 1:
        x, y = line[0]
        return band, f'<circle class="dot mark" cx="{x:.1f}" cy="{y:.1f}" r="3.5"/>'
    return band, charts.svg_path(line, "line mark") if line else ""


def _names(facts: ComparisonFacts) -> list[str]:
    return [entry["name"] for entry in facts["solvers"]]
