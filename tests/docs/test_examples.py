"""The examples run, end to end, through the command that their docstrings name."""

from __future__ import annotations

from pathlib import Path

import pytest

from equilibrist.cli import main

EXAMPLE = Path(__file__).parents[2] / "examples/own_recipe.py"


def test_own_recipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    name = f"{EXAMPLE}:rings"
    assert main(["run", name, "--set", "steps=20", "--progress", "none"]) == 0
    where = "runs/own_recipe-rings"
    small = ["--set", "steps=5", "--set", "starts=2", "--set", "groups=3", "--progress", "none"]
    assert main(["audit", where, *small]) == 3
    assert f"add --recipe {name}" in capsys.readouterr().err
    assert main(["audit", where, "--recipe", name, *small]) == 0
    assert "nash/generator" in capsys.readouterr().out
    assert (tmp_path / where / "report.html").exists()
