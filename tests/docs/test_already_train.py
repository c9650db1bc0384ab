"""The newcomers' page: every block, in its order, as a reader pastes it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from fences import ROOT, blocks

PAGE = ROOT / "docs/already_train.md"


def test_the_page_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    held: dict[str, Any] = {}
    for block in blocks(PAGE, "python"):
        exec(block.text, held)
    assert "column" not in capsys.readouterr().err
    assert held["found"].states is not None


def test_the_lines_of_ones_own_are_few() -> None:
    """What a reader writes for a kind: the losses as they are, and at most ten lines more."""
    for block in blocks(PAGE, "python")[1:]:
        own = block.text.partition("# yours\n")[2]
        assert own
        around = re.sub(r"(?ms)^def losses.*?^    return .*?$(\n    .*?$|\n    \}$)*", "", own)
        assert len([line for line in around.splitlines() if line.strip()]) <= 13
