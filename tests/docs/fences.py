"""The blocks of code of a page."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = (
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")),
    *sorted((ROOT / "docs").glob("*.md")),
)
FENCE = re.compile(
    r"(?:^<!-- not run: (?P<reason>.+?) -->\n)?^```(?P<language>\S*)\n(?P<text>.*?)^```$",
    re.M | re.S,
)


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text, and why it is not run; empty where it is."""

    language: str
    text: str
    reason: str


def blocks(page: Path | str, language: str | None = None) -> list[Block]:
    """The blocks of a page, named by its place in the repository; only those of one language."""
    text = (ROOT / page).read_text(encoding="utf-8")
    found = [Block(m["language"], m["text"], m["reason"] or "") for m in FENCE.finditer(text)]
    return [block for block in found if language in (None, block.language)]


def to_run(page: Path | str) -> list[str]:
    """The Python of a page that is to be run, in order."""
    return [block.text for block in blocks(page, "python") if not block.reason]
