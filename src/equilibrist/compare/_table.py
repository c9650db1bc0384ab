"""A comparison as plain text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from equilibrist.compare import _words as say
from equilibrist.compare._facts import ComparisonFacts, SideFacts
from equilibrist.report.formatting import format_count, format_duration


def comparison_table(facts: ComparisonFacts) -> str:
    """Every figure at equal iterations and at equal compute, then what the solvers cost."""
    names = [entry["name"] for entry in facts["solvers"]]
    total, limit = len(facts["seeds"]), facts["seconds_at_equal_compute"]
    level = f"{100 * facts['confidence']:g}%"
    lines = [
        f"{facts['title']}: {len(names)} solvers, {total} seeds, {format_count(facts['steps'])} steps",
        f"mean over seeds [{level} interval], seeds counted, paired difference from {names[0]}",
        say.shared(facts),
    ]
    for figure in facts["figures"]:
        hint = say.way(figure)
        lines += ["", say.title(figure) + (f" ({hint})" if hint else "")]
        lines += [f"  after {format_count(facts['steps'])} steps"]
        lines += _rows(figure["iterations"], names, total, [""] * len(names))
        if limit is not None:
            lines += [f"  after {format_duration(limit)} of training a seed"]
            steps = [f"step {say.looked_at(figure['compute'][name])}" for name in names]
            lines += _rows(figure["compute"], names, total, steps)
    lines += ["", "Cost of a step"]
    cells = [("solver", "gradients", "J^T u", "J u", "a seed", "diverged")]
    cells += [
        (
            entry["name"],
            say.gradients_by_player(entry),
            str(entry["cost"]["J^T u"]),
            str(entry["cost"]["J u"]),
            say.per_step(entry),
            say.diverged(entry),
        )
        for entry in facts["solvers"]
    ]
    lines += _aligned(cells, "  ")
    lines += [say.clock(facts)]
    return "\n".join(lines)


def _rows(
    side: Mapping[str, SideFacts], names: list[str], total: int, more: list[str]
) -> list[str]:
    cells = []
    for name, extra in zip(names, more, strict=True):
        own = side[name]
        difference = say.difference(own, total)
        cells.append((name, say.mean_and_interval(own), say.seeds(own, total), extra, difference))
    return _aligned(cells, "    ")


def _aligned(rows: Sequence[tuple[str, ...]], indent: str) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        (indent + "  ".join(f"{c:{w}}" for c, w in zip(row, widths, strict=True) if w)).rstrip()
        for row in rows
    ]
