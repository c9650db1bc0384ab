"""README's code runs as it stands, and what it prints is what it says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_python_block_runs(tmp_path: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", README, re.S)
    assert len(blocks) == 1
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", blocks[0]],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "runs/mine/report.html").stat().st_size > 20_000
    assert "Nash" in done.stdout
    assert str(Path("runs/mine/report.html")) in done.stdout


def test_links_and_targets_exist() -> None:
    for link in re.findall(r"\]\(([^)#]+)\)", README):
        if not link.startswith("http"):
            assert (ROOT / link).exists(), link
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"make (\w+)", README):
        assert re.search(rf"^{target}:", makefile, re.M), target


def test_commands_are_real() -> None:
    from equilibrist.arguments import parameters
    from equilibrist.recipe_lookup import catalogue

    for name, settings in re.findall(
        r"equilibrist run ([\w-]+)(?!\S)((?: --set \w+=\S+)*)", README
    ):
        assert name in catalogue(), name
        for key in re.findall(r"--set (\w+)=", settings):
            assert key in parameters(catalogue()[name]), key
