"""A comparison's numbers in words, for the table and for the page."""

from __future__ import annotations

from equilibrist.compare._facts import (
    ComparisonFacts,
    FigureFacts,
    SideFacts,
    SolverFacts,
)
from equilibrist.report.formatting import as_label, format_count, format_estimate, format_number
from equilibrist.statistics import EstimateFacts


def mean_and_interval(side: EstimateFacts | None, signed: bool = False) -> str:
    """ "mean [low, high]", to the digits that the interval justifies."""
    if side is None or side["mean"] is None:
        return "none" if side is not None else ""
    interval = side["interval"]
    sign = "+" if signed and side["mean"] > 0 else ""
    if interval is None:
        return f"{sign}{format_number(side['mean'])}"
    mean, low, high = format_estimate(side["mean"], (interval[0], interval[1]))
    return f"{sign}{mean} [{low}, {high}]"


def seeds(side: EstimateFacts, total: int) -> str:
    """How many seeds a mean is over."""
    return f"{side['n']} of {total}"


def difference(side: SideFacts, total: int) -> str:
    """A paired difference; with how many pairs, where some seed has no pair."""
    found = side["difference"]
    if not found:
        return ""
    pairs = f"{found['n']} pair{'' if found['n'] == 1 else 's'}"
    return mean_and_interval(found, signed=True) + (f" ({pairs})" if 0 < found["n"] < total else "")


def shared(facts: ComparisonFacts) -> str:
    """What the solvers have in common, seed by seed."""
    own = list(facts["seeds"])
    run = len(own) > 1 and own == list(range(own[0], own[-1] + 1))
    listed = f"{own[0]} to {own[-1]}" if run else ", ".join(map(str, own))
    return (
        f"every solver: seed{'s' if len(own) > 1 else ''} {listed}, and from each seed the same initial weights "
        "and minibatches"
    )


def title(figure: FigureFacts) -> str:
    """A figure's name: a score's with the score's own name where that says more."""
    if figure["kind"] == "loss":
        return f"Loss of the {figure['figure']}"
    caption = as_label(figure["figure"])
    score = str(figure["score"])
    return score if score.lower().startswith(caption.lower()) else f"{caption} ({score})"


def way(figure: FigureFacts) -> str:
    """Which direction is good, and what real data get."""
    parts = [f"{figure['better']} is better"] if figure["better"] else []
    if figure["floor"] is not None:
        parts.append(f"real against real: {format_number(figure['floor'])}")
    return "; ".join(parts)


def diverged(entry: SolverFacts) -> str:
    """Which seeds diverged, and when."""
    rows = [f"seed {s} at step {format_count(at)}" for s, at in entry["diverged"].items()]
    return ", ".join(rows) or "none"


def gradients_by_player(entry: SolverFacts) -> str:
    """Gradients by player."""
    return ", ".join(f"{p} {n}" for p, n in entry["cost"]["gradients"].items())


def per_step(entry: SolverFacts) -> str:
    """Milliseconds of a step and seed."""
    spent = entry["seconds_per_step"]
    return "none" if spent is None else f"{format_number(1e3 * spent)} ms"


def looked_at(side: SideFacts) -> str:
    """The steps at which the figures of equal compute were taken."""
    if side["steps"] is None:
        return "none"
    low, high = side["steps"]
    return format_count(low) if low == high else f"{format_count(low)} to {format_count(high)}"


def clock(facts: ComparisonFacts) -> str:
    """What the seconds are, in one sentence."""
    together = sorted({n for entry in facts["solvers"] for n in entry["members"]})
    stacked = " or ".join(map(str, together))
    return (
        f"Seconds are those of one seed: the time of a stack of {stacked} members trained together, over that "
        "number. They hold draws, steps and the search for non-finite numbers, and no scores, sample sheets or "
        f"checkpoints. Device: {facts['device']}."
    )
