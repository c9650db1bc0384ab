"""docs/new_solver.md does what it says: its code runs as it stands, on every game."""

from __future__ import annotations

import re
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch

from equilibrist import contract
from equilibrist.contract import GAMES
from equilibrist.games import bilinear, hidden_minimax
from equilibrist.optimizers import SGD

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/new_solver.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page() -> Any:
    """The blocks of the page run as one module; what they print and the names they define."""
    module = types.ModuleType("new_solver_page")
    sys.modules[module.__name__] = module  # dataclasses look their module up
    printed: list[str] = []
    vars(module)["print"] = lambda *parts, sep=" ": printed.append(sep.join(map(str, parts)))
    blocks = re.findall(r"```python\n(.*?)```", PAGE, re.S)
    assert len(blocks) == 3
    for block in blocks:
        exec(compile(block, "docs/new_solver.md", "exec", dont_inherit=True), vars(module))
    yield module, printed
    del sys.modules[module.__name__]


def test_the_new_solver_keeps_the_contract(page: Any) -> None:
    _, printed = page
    passed = {line.split(", frozen")[0]: line for line in printed}
    assert set(passed) == set(GAMES)
    assert "linear map, factor" in passed["bilinear"]
    assert "two ranks" in passed["sampled vanilla GAN"]
    assert "attraction" in passed["three Nash"]


def test_the_table_of_checks_is_complete() -> None:
    rows = re.findall(r"^\| ([a-z ]+) \|", PAGE, re.M)
    assert rows == ["check", *contract.CHECKS]


def test_what_it_names_exists() -> None:
    for path in re.findall(r"`(src/[\w/]+\.py|tests/[\w/]+\.py)`", PAGE):
        assert (ROOT / path).exists() or path.endswith("hamiltonian.py"), path
    for name in re.findall(r"`(test_\w+\.py)`", PAGE):
        assert (ROOT / "tests/solvers" / name).exists(), name


def test_it_goes_to_every_stationary_point(page: Any) -> None:
    """Hamiltonian descent does not tell points apart: eigenvalues of J^T J are positive wherever J is regular."""
    module, _ = page
    for game in (bilinear(), hidden_minimax()):
        M = module.Hamiltonian(SGD(0.01)).linear_map(game.jacobian(), {"x": 1, "y": 1})
        assert float(torch.linalg.eigvals(M).abs().max()) < 1
