"""README's code runs as it stands, and what it prints is what it says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from fences import to_run
from torch import nn

import equilibrist as eq


def test_python_block_runs(tmp_path: Path) -> None:
    """All of it, with fewer steps: the demo in `make demo` takes as many as it says."""
    first, *_ = to_run("README.md")
    for many, few in (("steps=1000", "steps=50"), ("steps=200", "gradients=400")):
        assert first.count(many) == 1
        first = first.replace(many, few)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", first],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "runs/mine/report.html").stat().st_size > 20_000
    assert "Nash" in done.stdout
    assert str(Path("runs/mine/report.html")) in done.stdout


def test_the_lines_for_your_own_loop_run(capsys: pytest.CaptureFixture[str]) -> None:
    """Beside a generator, a critic and a loader; a thousand batches of it, so that one audit is due."""
    _, lines, *_ = to_run("README.md")
    torch.manual_seed(0)
    space = {
        "eq": eq,
        "generator": nn.Linear(64, 2),
        "critic": nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 1)),
        "loader": torch.utils.data.DataLoader(torch.randn(2002, 2), batch_size=2),
    }
    exec(lines, space)
    assert [step for step, _ in space["watch"].audits] == [1000]
    assert "Nash" in capsys.readouterr().out


def test_the_lines_for_any_adversarial_training_run(capsys: pytest.CaptureFixture[str]) -> None:
    """Beside what a reader has: two modules, data, samples of both kinds, and somebody's trainer."""
    *_, lines, _ = to_run("README.md")
    torch.manual_seed(0)
    space = {
        "eq": eq,
        "generator": nn.Linear(64, 2),
        "critic": nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 1)),
        "data": torch.randn(600, 2),
        "real": torch.randn(400, 2),
        "fake": torch.randn(400, 2) + 1,
    }

    def train_elsewhere() -> None:
        adams = {k: torch.optim.Adam(space[k].parameters()) for k in ("critic", "generator")}
        for _ in range(3):
            for player, adam in adams.items():
                fake = space["generator"](torch.randn(32, 64))
                score = space["critic"](space["data"][:32]).mean() - space["critic"](fake).mean()
                adam.zero_grad()
                (score if player == "generator" else -score).backward()
                adam.step()

    exec(lines, space | {"train_elsewhere": train_elsewhere})
    printed = capsys.readouterr().out
    assert "audit.details" in printed
    assert "best-of-class" in printed
    assert "3 steps" in printed


def test_the_lines_for_training_that_fails_name_its_fault(
    capsys: pytest.CaptureFixture[str],
) -> None:
    *_, lines = to_run("README.md")
    torch.manual_seed(0)
    generator, critic = nn.Linear(64, 2), nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 1))
    space = {
        "eq": eq,
        "torch": torch,
        "softplus": nn.functional.softplus,
        "generator": generator,
        "critic": critic,
        "adam_g": torch.optim.Adam(generator.parameters()),
        "adam_c": torch.optim.Adam(critic.parameters()),
        "data": torch.randn(600, 2),
    }
    exec(lines, space)
    printed = capsys.readouterr().out
    assert printed.startswith("Wiring: The critic's gradients are never cleared:")
