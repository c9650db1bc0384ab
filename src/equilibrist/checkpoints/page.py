"""A choice as files beside the run: checkpoints.json, and checkpoints.html with its curves."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from equilibrist.checkpoints.choice import Choice
from equilibrist.checks import Interval
from equilibrist.files.atomic import json_bytes
from equilibrist.files.owned import publish
from equilibrist.report.lines import Line, legend, line_chart
from equilibrist.report.shell import document, escape, table


def write_choice(choice: Choice, folder: Path) -> Path:
    """Write checkpoints.json and checkpoints.html into a folder, atomically.

    Returns:
        The page's path.

    Raises:
        RecordError: a file of the user's has such a name.
    """
    page = _page(choice).encode("utf-8", "replace")
    publish(folder, {"checkpoints.json": json_bytes(choice.describe()), "checkpoints.html": page})
    return folder / "checkpoints.html"


def _page(choice: Choice) -> str:
    name, unit = choice.about.get("score", "score"), choice.about.get("unit", "")
    rows = [
        (
            f"{look.step:,}{' (take)' if look.step == choice.step else ''}",
            _cell(look.score) or look.failed,
            _cell(look.gap),
        )
        for look in choice.looks
    ]
    notes = "".join(f"<li>{escape(note)}</li>" for note in choice.notes)
    parts = [
        f'<div class="top"><span><b>{escape(str(choice.about.get("run", "Checkpoints")))}</b></span></div>',
        f'<main class="head"><h1>Checkpoints</h1><p>{escape(choice.sentence)}</p>'
        f'<p class="lead">By the {escape(choice.by)} of held-out rows. Intervals of a column hold together with '
        f"{choice.confidence:.0%}, however many checkpoints are looked at.</p></main>",
        '<div class="charts">'
        + _chart(choice, "score", name)
        + _chart(choice, "gap", unit)
        + "</div>",
        "<section><h2>Every look</h2>"
        + table(("step", name, f"gap{f' ({unit})' if unit else ''}"), rows, (0,))
        + "</section>",
        f"<section><h2>Notes</h2><ul>{notes}</ul></section>" if notes else "",
    ]
    return document("Checkpoints", parts)


def _cell(found: Interval | None) -> str:
    return "" if found is None else found.in_words()


def _chart(choice: Choice, what: str, words: str) -> str:
    seen = [(look.step, getattr(look, what)) for look in choice.looks]
    found = [(step, v) for step, v in seen if v is not None and np.isfinite(v.ends).all()]
    if len(found) < 2:
        return ""
    x = np.array([step for step, _ in found], dtype=float)
    ends = np.array([[v.mean, v.low, v.high] for _, v in found])
    lines = [
        Line(f"{what}: {words}", x, ends[:, 0], 0),
        Line("lower end", x, ends[:, 1], 3),
        Line("upper end", x, ends[:, 2], 3),
    ]
    marks = [] if choice.step is None else [float(choice.step)]
    picture = line_chart(lines, "step", f"{what} of every checkpoint, with its interval", marks)
    return f"<figure>{picture}{legend(lines, 'the checkpoint to take')}</figure>"
