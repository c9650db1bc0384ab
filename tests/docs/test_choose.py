"""What docs/choose.md shows of convergence runs, and prints what the theory says."""

from __future__ import annotations

import pytest
from fences import to_run


def test_the_forecast_of_the_page_on_choosing(capsys: pytest.CaptureFixture[str]) -> None:
    (block,) = (one for one in to_run("docs/choose.md") if "local_convergence" in one)
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
