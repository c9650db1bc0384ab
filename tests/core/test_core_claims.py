"""check_zero_sum and check_separable: they accept what is true and catch games that lie."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from equilibrist.core.game import Plain, check_separable, check_zero_sum
from equilibrist.errors import GameError
from equilibrist.games import Quadratic

HERE = {p: {"v": torch.tensor([1.5, -0.5])} for p in ("x", "y")}


class Claimant(Plain):
    """Losses (scale * x.y, factor * scale * x.y)."""

    players = ("x", "y")
    zero_sum = True

    def __init__(self, factor: float, scale: float = 1.0) -> None:
        self.factor, self.size = factor, scale

    def losses(self, players: Any, constants: Any, draw: Any, only: Any = None) -> Any:
        f = self.size * (players["x"]["v"] * players["y"]["v"]).sum()
        return {"x": f, "y": self.factor * f}


def test_true_claims_pass() -> None:
    for scale in (1e-6, 1.0, 1e6):
        check_zero_sum(Claimant(-1.0, scale), HERE, {}, {})
    eye = torch.eye(2)
    check_zero_sum(Quadratic(eye, eye, eye), {p: {"value": HERE[p]["v"]} for p in HERE}, {}, {})


@pytest.mark.parametrize("factor", [1.0, -0.999, 0.0, float("nan")])
def test_lies_are_caught(factor: float) -> None:
    with pytest.raises(GameError, match=r"claims zero_sum|not finite") as caught:
        check_zero_sum(Claimant(factor, 100.0), HERE, {}, {})
    assert "\n" not in str(caught.value)


def test_no_claim_is_no_lie() -> None:
    game = Claimant(5.0)
    game.zero_sum = False
    check_zero_sum(game, HERE, {}, {})


def test_three_players_cannot_claim() -> None:
    game = Claimant(-1.0)
    game.players = ("x", "y", "z")
    with pytest.raises(GameError, match="exactly two"):
        check_zero_sum(game, HERE, {}, {})


def test_a_lie_in_small_losses_is_caught() -> None:
    with pytest.raises(GameError):
        check_zero_sum(Claimant(1.0, 1e-6), HERE, {}, {})


class Sampled(Plain):
    """A mean over samples of (w_i - shift)^2, where the shift may be the batch's mean."""

    players = ("x", "y")

    def __init__(self, kind: str, scale: float = 1.0) -> None:
        self.kind, self.size = kind, scale

    def losses(self, players: Any, constants: Any, draw: Any, only: Any = None) -> Any:
        w = draw["w"]
        shift = {"mean": 0.0, "centred": w.mean(), "sum": 0.0, "largest": 0.0}[self.kind]
        terms = self.size * (w - shift) ** 2 * players["x"]["v"].sum()
        loss = {"sum": terms.sum(), "largest": terms.max()}.get(self.kind, terms.mean())
        return {"x": players["x"]["v"].sum() * 0, "y": loss}


DRAW = {"w": torch.arange(8.0) ** 2 / 8}


@pytest.mark.parametrize("n", [2, 3, 8])
def test_means_are_separable(n: int) -> None:
    ok, seen = check_separable(Sampled("mean"), HERE, {}, {"w": DRAW["w"][:n]})
    assert ok
    assert "mean" in seen


@pytest.mark.parametrize("kind", ["centred", "sum", "largest"])
def test_what_mixes_samples_is_not_separable(kind: str) -> None:
    ok, seen = check_separable(Sampled(kind), HERE, {}, DRAW)
    assert not ok
    assert seen.startswith("the y's loss")
    assert "\n" not in seen


class Paired(Plain):
    """A mean over samples, and what one way of cutting a batch in halves cannot see: the difference of the
    halves' means where they are cut the other way."""

    players = ("x", "y")

    def __init__(self, seen_by: str) -> None:
        self.seen_by = seen_by

    def losses(self, players: Any, constants: Any, draw: Any, only: Any = None) -> Any:
        w = draw["w"]
        first, second = (w[: len(w) // 2], w[len(w) // 2 :])
        if self.seen_by == "even and odd":
            first, second = w[::2], w[1::2]
        return {"x": w.mean() * players["x"]["v"].sum(), "y": first.mean() - second.mean()}


@pytest.mark.parametrize("seen_by", ["front and back", "even and odd"])
def test_a_batch_is_cut_in_two_ways(seen_by: str) -> None:
    """Each game is separable by the other cut: rows in order, or by turns."""
    game, rows = Paired(seen_by), DRAW["w"]
    cuts = {
        "front and back": (rows[:4], rows[4:]),
        "even and odd": (rows[::2], rows[1::2]),
    }
    whole = game.losses(HERE, {}, DRAW)["y"]
    for cut, halves in cuts.items():
        mean = sum(game.losses(HERE, {}, {"w": half})["y"] for half in halves) / 2
        assert torch.isclose(whole, mean) == (cut != seen_by)
    assert not check_separable(game, HERE, {}, DRAW)[0]


def test_nothing_drawn() -> None:
    assert check_separable(Claimant(-1.0), HERE, {}, {}) == (True, "nothing is drawn")


def test_mixing_in_small_losses_is_seen() -> None:
    assert not check_separable(Sampled("centred", 1e-6), HERE, {}, DRAW)[0]


def test_a_draw_with_a_number_in_it() -> None:
    assert check_separable(Sampled("mean"), HERE, {}, {**DRAW, "temperature": torch.tensor(1.0)})[0]
