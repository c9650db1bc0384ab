"""Projections onto feasible sets."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from equilibrist._errors import GameError
from equilibrist._field import VectorField
from equilibrist.formulations import WGAN
from equilibrist.games import GAN
from equilibrist.projections import WeightClipping

PARAMS = {"w": torch.tensor([[-3.0, 0.2], [0.05, 9.0]]), "b": torch.tensor(-0.7)}


def test_clipping_is_the_nearest_point_of_the_box() -> None:
    clipped = WeightClipping(0.5)(PARAMS)
    assert torch.equal(clipped["w"], torch.tensor([[-0.5, 0.2], [0.05, 0.5]]))
    assert torch.equal(clipped["b"], torch.tensor(-0.5))
    assert float(PARAMS["w"][0, 0]) == -3, "the argument was overwritten"
    again = WeightClipping(0.5)(clipped)
    assert all(torch.equal(again[k], clipped[k]) for k in clipped)


@pytest.mark.parametrize("limit", [0.0, -1.0, math.nan])
def test_bad_limits(limit: float) -> None:
    with pytest.raises(ValueError, match=r"WeightClipping\.limit") as caught:
        WeightClipping(limit)
    assert "\n" not in str(caught.value)


def test_game_projects_its_player_at_the_start_and_afterwards() -> None:
    torch.manual_seed(0)
    game = GAN(
        nn.Linear(2, 3), nn.Linear(3, 1), WGAN(), latent=2, projections=[WeightClipping(0.1)]
    )
    players, _ = game.init()
    assert max(float(p.abs().max()) for p in players["critic"].values()) == pytest.approx(0.1)
    assert max(float(p.abs().max()) for p in players["generator"].values()) > 0.1
    outside = {**players, "critic": {k: 5 * p for k, p in players["critic"].items()}}
    inside = VectorField(game).project(outside)
    assert max(float(p.abs().max()) for p in inside["critic"].values()) == pytest.approx(0.1)
    assert inside["generator"] is players["generator"]
    assert max(float(p.abs().max()) for p in outside["critic"].values()) > 0.1


def test_projection_of_the_generator() -> None:
    torch.manual_seed(0)
    game = GAN(
        nn.Linear(2, 3),
        nn.Linear(3, 1),
        WGAN(),
        latent=2,
        projections=[WeightClipping(0.1, "generator")],
    )
    assert max(
        float(p.abs().max()) for p in game.init().players["generator"].values()
    ) == pytest.approx(0.1)


def test_unknown_player() -> None:
    with pytest.raises(GameError, match="choose 'generator' or 'critic'"):
        GAN(
            nn.Linear(2, 3),
            nn.Linear(3, 1),
            WGAN(),
            latent=2,
            projections=[WeightClipping(0.1, "discriminator")],
        )
