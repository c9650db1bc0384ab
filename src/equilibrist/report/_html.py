"""Pieces of the page. Every text of the record passes through `e` on its way in: it is data."""

import base64
import html
import re
from collections.abc import Iterable, Sequence

from equilibrist.report import scatter
from equilibrist.report._claims import MARKS, TONES
from equilibrist.report._record import RunRecord, Sample
from equilibrist.report.formatting import format_count

_LINK = re.compile(r"https?://[^\s<>\"'`]+[^\s<>\"'`.,;:)\]}]")


def escape(value: object) -> str:
    """Escapes a value for text and for attributes."""
    return html.escape(str(value))


def section(name: str, title: str, body: str) -> str:
    """A titled section; `body` is HTML."""
    return f'<section id="{name}" aria-labelledby="{name}-title">\n' + (
        f'<h2 id="{name}-title">{escape(title)}</h2>\n{body}\n</section>'
    )


def part(name: str, title: str, body: str) -> str:
    """A section that opens when its title is clicked; `body` is HTML."""
    return (
        f'<section class="part" id="{name}" aria-labelledby="{name}-title"><details>\n'
        f'<summary><h2 id="{name}-title">{escape(title)}</h2></summary>\n{body}\n</details></section>'
    )


def badge(tone: str, text: str) -> str:
    """A verdict in words with its mark."""
    marks = {TONES[verdict]: mark for verdict, mark in MARKS.items()}
    mark = marks.get(tone, "\N{EN DASH}")
    return f'<span class="badge {tone}"><span aria-hidden="true">{mark}</span>{escape(text)}</span>'


def fact_list(rows: Iterable[tuple[str, str]], kind: str = "facts") -> str:
    """A list of labels and texts that stacks on a narrow screen."""
    body = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(text)}</dd></div>" for name, text in rows
    )
    return f'<dl class="{kind}">{body}</dl>' if body else ""


def table(
    head: Sequence[str],
    rows: Iterable[Sequence[str]],
    figures: Sequence[int] = (),
    loose: bool = True,
) -> str:
    """A table of plain texts that stacks on a narrow screen; columns `figures` hold numbers."""
    top = "".join(
        f'<th scope="col" class="figure">{escape(name)}</th>'
        if i in figures
        else f'<th scope="col">{escape(name)}</th>'
        for i, name in enumerate(head)
    )
    body = ""
    for row in rows:
        cells = ""
        for i, cell in enumerate(row):
            figure = ' class="figure"' if i in figures else ""
            name = f' data-name="{escape(head[i])}"' if i else ""
            cells += f"<td{figure}{name}>{escape(cell)}</td>"
        body += f"<tr>{cells}</tr>"
    kind = ' class="loose"' if loose else ""
    return f"<table{kind}><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"


def player_class(player: str) -> str:
    """The CSS class of a player. Names are data, so only known ones become a class."""
    return player if player in ("generator", "critic") else "other"


def fold(title: str, body: str) -> str:
    """A part that opens when its title is clicked; `body` is HTML."""
    return f"<details><summary>{escape(title)}</summary>{body}</details>"


def linked(text: str) -> str:
    """Escaped text whose web addresses are links (nothing is fetched until someone clicks)."""
    parts, end = [], 0
    for match in _LINK.finditer(text):
        parts.append(escape(text[end : match.start()]))
        parts.append(f'<a href="{escape(match[0])}" rel="noreferrer">{escape(match[0])}</a>')
        end = match.end()
    return "".join(parts) + escape(text[end:])


def window(record: RunRecord) -> scatter.Window:
    """The part of the plane that all scatter plots of the run share."""
    clouds = [s.points for s in (record.real, *record.samples) if s and s.points is not None]
    return scatter.window(clouds)


def picture(
    sample: Sample,
    real: Sample | None,
    frame: scatter.Window,
    caption: str,
    alt: str,
    kind: str = "",
) -> str:
    """A figure. `caption` is HTML, `alt` is text."""
    if sample.points is not None:
        under = real.points if real and real is not sample else None
        body, outside = scatter.scatter(
            sample.points, under, frame, alt, "real" if sample is real else "made"
        )
        if outside:
            caption += f". {escape(format_count(outside))} points lie outside the frame."
    else:
        data = base64.b64encode(sample.png or b"").decode("ascii")
        # A grid of small pictures is shown larger than it is: sharp pixels beat a blur.
        small = " pixelated" if sample.width <= 256 else ""
        body = (
            f'<img class="picture{small}" src="data:image/png;base64,{data}" '
            f'width="{sample.width}" height="{sample.height}" alt="{escape(alt)}">'
        )
    return f'<figure class="{kind}">{body}<figcaption>{caption}</figcaption></figure>'
