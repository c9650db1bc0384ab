"""docs/listen.md: its blocks run, and what it quotes is in the example."""

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


def test_the_page_on_listening_runs() -> None:
    space: dict[str, Any] = {}
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        for block in to_run("docs/listen.md"):
            exec(block, space)
    said = printed.getvalue()
    assert "400 steps of Adam" in said
    assert re.search(r"^not-saturated +[A-Z_]+ ", said, re.M)
    assert said.count("{'Sequential': ") == 2, "two looks on the way"
    assert space["early"]["not-saturated"].evidence != space["audit"]["not-saturated"].evidence
    assert said.splitlines()[-1] == "16 16"


def test_what_the_page_quotes_is_in_the_example() -> None:
    (quoted,) = (block for block in blocks("docs/listen.md") if block.reason)
    text = (ROOT / "examples/listen_ctgan.py").read_text(encoding="utf-8")
    assert quoted.reason == "lines of examples/listen_ctgan.py"
    for line in quoted.text.splitlines():
        assert f"{line.strip()}\n" in text, line
