"""The frame of a page: the report's policy, style and footer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from importlib import resources

from equilibrist.report import _html
from equilibrist.report._html import escape, section
from equilibrist.report._page import POLICY

__all__ = ["document", "escape", "section", "table"]


def document(title: str, parts: Iterable[str], sheet: str | None = None, source: str = "") -> str:
    """One self-contained HTML page that loads nothing and runs nothing.

    Args:
        title: of the page, plain text.
        parts: its body, as HTML; empty ones are left out.
        sheet: CSS that follows the reports' own; that of wide pages if left out.
        source: what the footer says after "Made by equilibrist".
    """
    report = resources.files("equilibrist.report")
    style = report.joinpath("report.css").read_text(encoding="utf-8")
    style += report.joinpath("wide.css").read_text(encoding="utf-8") if sheet is None else sheet
    made = f"Made by equilibrist {source}".rstrip()
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<link rel="icon" href="data:,">\n'
        f"<title>{escape(title)}</title>\n<style>\n{style}</style>\n</head>\n<body>\n"
        '<div class="page">\n' + "\n".join(part for part in parts if part) + f"\n<footer>{made}. "
        "This file holds everything it shows: it loads nothing and runs nothing."
        "</footer>\n</div>\n</body>\n</html>\n"
    )


def table(head: Sequence[str], rows: Iterable[Sequence[str]], figures: Sequence[int]) -> str:
    """A table that stacks on a narrow screen; columns `figures` hold numbers. Cells are plain text."""
    return _html.table(head, rows, figures, loose=False)
