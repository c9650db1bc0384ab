"""The page critic.md: its blocks run in order and print what it says."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "docs"))

from fences import to_run


def test_the_blocks_of_the_page(capsys: pytest.CaptureFixture[str]) -> None:
    space: dict[str, Any] = {}
    said = []
    for block in to_run("docs/critic.md"):
        exec(block, space)
        said.append(capsys.readouterr().out)
    assert said[0].startswith("The critic is saturated: it separates 100.0%")
    assert "('saturated'" in said[0]
    assert said[1].startswith("The critic is memorising")
    assert said[2].startswith("The critic is lagging")
    assert "column 3" in said[2]
    assert "'name': 'income'" in said[3]
