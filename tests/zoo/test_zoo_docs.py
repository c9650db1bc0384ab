"""The page zoo.md: its blocks run in order and print what it says."""

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
    for block in to_run("docs/zoo.md"):
        exec(block, space)
        said.append(capsys.readouterr().out)
    assert said[0] == ("gradient-leak | development | zero-grad-after-the-step-ring-twin\n")
    assert "| never-stepped | 1 of 1 | never-stepped 1 |" in said[1]
    assert "critic-loss-generator-step-ring wrong-optimizer never-stepped" in said[1]
