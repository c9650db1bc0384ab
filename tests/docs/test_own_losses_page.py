"""The page on losses of your own, run block after block as a reader would."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fences import ROOT, blocks


def test_the_page_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    held: dict[str, Any] = {}
    for block in blocks(ROOT / "docs/own_losses.md", "python"):
        exec(block.text, held)
    printed = capsys.readouterr().out
    assert "critic.2 (Dropout)" in held["found"]["nash"].limits[-1]
    assert (tmp_path / "own-audit" / "report.html").is_file()
    assert held["run"].step == 20
    assert "shift" in printed.splitlines()[-2]
