"""What an interpreter or a notebook shows of an object: a few lines, or a small table."""

from __future__ import annotations

import html
from collections.abc import Sequence

# Colours come from the page around, so that the table can be read on light and on dark ones.
_CELL = "padding:2px 10px 2px 0;text-align:left;vertical-align:top;border:0;white-space:normal"
_RULE = "border-bottom:1px solid rgba(128,128,128,.4)"

Rows = Sequence[Sequence[str]]


class Shown:
    """Gives `__repr__` and `_repr_html_` to a class that says what it is in `_facts`."""

    def _facts(self) -> tuple[str, Rows]:
        """A title and rows of plain text, each a name and what stands beside it."""
        raise NotImplementedError

    def __repr__(self) -> str:
        title, rows = self._facts()
        width = max((len(row[0]) for row in rows), default=0)
        lines = [f"  {row[0]:{width}}  {'  '.join(row[1:])}".rstrip() for row in rows]
        return "\n".join([title, *lines])

    def _repr_html_(self) -> str:
        return notebook_table(*self._facts())


def notebook_table(title: str, rows: Rows) -> str:
    """HTML of a title above rows of plain text."""
    body = "".join(
        f'<tr style="background:none;{_RULE}">'
        + "".join(f'<td style="{_CELL}">{html.escape(cell)}</td>' for cell in row)
        + "</tr>"
        for row in rows
    )
    return (
        f'<div style="color:inherit"><b>{html.escape(title)}</b>'
        f'<table style="border-collapse:collapse;color:inherit">{body}</table></div>'
    )


def shortened(text: str, most: int = 160) -> str:
    """The text on one line of at most `most` characters."""
    line = " ".join(text.split())
    return line if len(line) <= most else line[: most - 3] + "..."
