"""The path-angle, where the field along a straight path is known: v(x_0 + a d) = (a - 1) J d."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from equilibrist.checks import Verdict, audit_game
from equilibrist.checks._audit import audit_game as audited
from equilibrist.checks.path_angle import WHERE
from equilibrist.games import Quadratic, bilinear
from equilibrist.games.quadratic import hidden_minimax

F64 = torch.float64


def game(a: float, b: float, c: float) -> Quadratic:
    return Quadratic(*(torch.full((1, 1), value, dtype=F64) for value in (a, b, c)))


def pair(x: float, y: float) -> dict[str, Any]:
    return {
        "x": {"value": torch.tensor([x], dtype=F64)},
        "y": {"value": torch.tensor([y], dtype=F64)},
    }


def angle(made: Quadratic, start: Any, end: Any) -> Any:
    found = audited(made, end, checks=["path-angle"], progress="none", origin=(start, "there"))
    return found["path-angle"]


def test_an_attractor_draws_along_the_path_and_back_behind_it() -> None:
    made = game(2.0, 1.0, 3.0)
    found = angle(made, pair(1.0, -2.0), pair(0.0, 0.0))
    assert found.verdict is Verdict.NOT_REFUTED
    # d = (-1, 2), J d = (2 d_x + d_y, -d_x + 3 d_y) = (0, 7): the cosine is 14 / (7 sqrt 5).
    for a, cosine in zip(WHERE, found.evidence["cosine"], strict=True):
        expected = 0.0 if a == 1 else math.copysign(2 / math.sqrt(5), a - 1)
        assert cosine == pytest.approx(expected, abs=1e-9)


def test_a_repeller_and_a_pair_that_still_moves_are_refuted() -> None:
    assert angle(hidden_minimax(), pair(1.0, 0.0), pair(0.0, 0.0)).verdict is Verdict.REFUTED
    made = game(2.0, 1.0, 3.0)
    short = angle(made, pair(1.0, 1.0), pair(0.5, 0.5))
    assert short.verdict is Verdict.REFUTED
    assert "pulls on" in short.summary


def test_pure_rotation_is_left_open() -> None:
    found = angle(bilinear(), pair(1.0, 1.0), pair(0.0, 0.0))
    assert found.verdict is Verdict.UNASSESSED
    assert max(map(abs, found.evidence["cosine"])) < 1e-12


def test_without_another_pair_nothing_is_said() -> None:
    found = audit_game(bilinear(), pair(0.0, 0.0), checks=["path-angle"], progress="none")
    assert found["path-angle"].verdict is Verdict.UNASSESSED
    same = angle(bilinear(), pair(0.0, 0.0), pair(0.0, 0.0))
    assert same.verdict is Verdict.UNASSESSED
    assert "length 0" in same.summary
