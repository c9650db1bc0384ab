"""The examples in docstrings print what they say, and what docs/choose.md shows of convergence runs."""

from __future__ import annotations

import doctest
import importlib
import re
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src"
WITH_EXAMPLES = [
    ".".join(path.relative_to(SOURCE).with_suffix("").parts)
    for path in sorted((SOURCE / "equilibrist").rglob("*.py"))
    if "    >>> " in path.read_text(encoding="utf-8")
]


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_examples_run(name: str) -> None:
    done = doctest.testmod(importlib.import_module(name))
    assert done.attempted > 1
    assert done.failed == 0


def test_the_forecast_of_the_page_on_choosing(capsys: pytest.CaptureFixture[str]) -> None:
    page = (SOURCE.parent / "docs/choose.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```python\n(.*?)```", page, re.S)
    exec(block, {})
    lines = capsys.readouterr().out.splitlines()
    # 1 - 0.3 l, 1 - 0.3 l + (0.3 l)^2 and 1 - 0.3 (l + |l|^2), l = 0.1 + i: J is normal.
    l = 0.1 + 1j  # noqa: E741
    for line, factor in zip(
        lines,
        (1 - 0.3 * l, 1 - 0.3 * l + (0.3 * l) ** 2, 1 - 0.3 * (l + abs(l) ** 2)),
        strict=True,
    ):
        assert f"{abs(factor):.3f} a step, converges: {abs(factor) < 1}" in line
