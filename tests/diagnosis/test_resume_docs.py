"""docs/resume.md: its blocks run, and print what the page shows."""

from __future__ import annotations

import contextlib
import io
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests" / "docs"))
from fences import blocks, to_run  # noqa: E402

from equilibrist.diagnosis import VOCABULARY  # noqa: E402

PAGE = "docs/resume.md"


def test_the_page_runs_and_prints_what_it_shows() -> None:
    space: dict[str, Any] = {}
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        for block in to_run(PAGE):
            exec(block, space)
    said = printed.getvalue()
    (shown,) = blocks(PAGE, "text")
    page, now = (re.sub(r"\d+%", "%", " ".join(text.split())) for text in (shown.text, said))
    assert page in now, said
    assert "Resumes bit for bit" in said


def test_the_page_has_every_finding_of_resumption() -> None:
    text = (ROOT / PAGE).read_text(encoding="utf-8")
    for name, kind in VOCABULARY.items():
        assert (f"| {name} |" in text) == (kind.group == "resume" or name == "stale-parameters"), (
            name
        )
