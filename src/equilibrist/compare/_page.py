"""A comparison as one page that loads nothing. Every text passes through `escape`: it is data."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources

from equilibrist.compare import _words as say
from equilibrist.compare._charts import COLOURS, figure_charts, legend, line_key, solver_names
from equilibrist.compare._facts import ComparisonFacts, FigureFacts
from equilibrist.report.formatting import as_label, format_count, format_duration
from equilibrist.report.shell import document, escape, section


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
    names, total = solver_names(facts), len(facts["seeds"])
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
        f'<div class="s{i % COLOURS}"><dt>{line_key()}{escape(name)}</dt><dd>{escape(entry["text"])}</dd></div>'
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
    names = solver_names(facts)
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
    return f"{lead}{legend(facts)}{figure_charts(facts, figure)}{_table(facts, figure)}"


def _losses(facts: ComparisonFacts, figures: Sequence[FigureFacts]) -> str:
    lead = (
        "Means over the steps since the row before, as each solver records them. Losses of two solvers are the "
        "same quantity only if both take them at the same point: an alternating solver leaves out of the "
        "generator's loss what does not depend on the generator, and takes it against the new critic."
    )
    body = "".join(
        f"<h3>{escape(say.title(figure))}</h3>{figure_charts(facts, figure)}{_table(facts, figure)}"
        for figure in figures
    )
    return f'<p class="lead">{escape(lead)}</p>{legend(facts)}{body}'


def _table(facts: ComparisonFacts, figure: FigureFacts) -> str:
    names, total, limit = (
        solver_names(facts),
        len(facts["seeds"]),
        facts["seconds_at_equal_compute"],
    )
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
        rows.append(f'<tr class="s{i % COLOURS}"><td>{line_key()}{escape(name)}</td>{body}</tr>')
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
            f'<tr class="s{i % COLOURS}"><td>{line_key()}{escape(entry["name"])}</td>{body}</tr>'
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
    first = solver_names(facts)[0]
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
