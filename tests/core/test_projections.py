"""Projections onto feasible sets."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from equilibrist.core.field import VectorField
from equilibrist.errors import GameError
from equilibrist.formulations import WGAN
from equilibrist.games import GAN
from equilibrist.projections import EigenvalueCap, NormBall, SpectralBall, WeightClipping

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


# -- spectral, norm and eigenvalue limits ---------------------------------------------------------

F64 = torch.float64


def random(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def symmetric_top(A: Tensor) -> float:
    return float(torch.linalg.eigvalsh((A + A.mT) / 2).max())


# Each with a parameter's shape and the number that it limits.
LIMITS: list[Any] = [
    (
        SpectralBall("generator", "p", 0.8),
        (4, 3),
        lambda p: float(torch.linalg.svdvals(p).max()),
        0.8,
    ),
    (SpectralBall("generator", "p"), (2, 5), lambda p: float(torch.linalg.svdvals(p).max()), 1.0),
    (NormBall("generator", "p", 0.7), (6,), lambda p: float(p.norm()), 0.7),
    (NormBall("generator", "p", 0.7), (2, 3), lambda p: float(p.norm()), 0.7),
    (EigenvalueCap("critic", "p", 0.4), (4, 4), symmetric_top, 0.4),
    (EigenvalueCap("critic", "p", -0.3), (4, 4), symmetric_top, -0.3),
]
limits = pytest.mark.parametrize(("projection", "shape", "measure", "limit"), LIMITS)


@limits
def test_result_is_feasible_and_others_are_untouched(
    projection: Any, shape: tuple[int, ...], measure: Any, limit: float
) -> None:
    params = {"p": 3 * random(*shape, seed=0), "other": random(2, seed=1)}
    before = params["p"].clone()
    assert measure(params["p"]) > limit
    found = projection(params)
    assert measure(found["p"]) == pytest.approx(limit, abs=1e-13)
    assert found["other"] is params["other"]
    assert list(found) == ["p", "other"]
    assert torch.equal(params["p"], before), "the argument was overwritten"


@limits
def test_feasible_values_come_back_bit_for_bit(
    projection: Any, shape: tuple[int, ...], measure: Any, limit: float
) -> None:
    value = random(*shape, seed=2)
    value = value * 0.1 if limit > 0 else value * 0.01 - torch.eye(4, dtype=F64)
    assert measure(value) < limit
    assert torch.equal(projection({"p": value})["p"], value)


@limits
def test_no_feasible_value_is_nearer(
    projection: Any, shape: tuple[int, ...], measure: Any, limit: float
) -> None:
    """The variational inequality of a projection: <p - Pp, q - Pp> <= 0 for every feasible q."""
    p = 3 * random(*shape, seed=3)
    nearest = projection({"p": p})["p"]
    assert float((p - nearest).norm()) > 0.1
    for seed in range(40):
        feasible = projection({"p": nearest + random(*shape, seed=10 + seed)})["p"]
        assert float(((p - nearest) * (feasible - nearest)).sum()) <= 1e-12
    # Not merely some feasible point: scaling everything would be one as well.
    if not isinstance(projection, NormBall) and limit > 0:
        scaled = p * (limit / measure(p))
        assert measure(scaled) <= limit + 1e-12
        assert float((p - nearest).norm()) < float((p - scaled).norm()) - 1e-3


@limits
def test_stacked_equals_a_loop(
    projection: Any, shape: tuple[int, ...], measure: Any, limit: float
) -> None:
    stack = torch.stack([0.05 * random(*shape, seed=4), 3 * random(*shape, seed=5)])
    together = torch.func.vmap(lambda p: projection({"p": p})["p"])(stack)
    alone = torch.stack([projection({"p": p})["p"] for p in stack])
    torch.testing.assert_close(together, alone, rtol=1e-12, atol=1e-12)


def test_below_keeps_the_antisymmetric_part() -> None:
    A = 3 * random(4, 4, seed=6)
    found = EigenvalueCap("critic", "A", 0.5)({"A": A})["A"]
    torch.testing.assert_close(found - found.T, A - A.T, rtol=1e-12, atol=1e-12)


def test_norm_ball_at_zero() -> None:
    zero = torch.zeros(3, dtype=F64)
    assert torch.equal(NormBall("generator", "u", 2.0)({"u": zero})["u"], zero)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: SpectralBall("critic", "W", 0.0), r"SpectralBall\.limit"),
        (lambda: SpectralBall("critic", "W", math.nan), r"SpectralBall\.limit"),
        (lambda: NormBall("critic", "u", -1.0), r"NormBall\.limit"),
        (lambda: EigenvalueCap("critic", "A", math.inf), r"EigenvalueCap\.ceiling"),
        (lambda: EigenvalueCap("critic", "A", math.nan), r"EigenvalueCap\.ceiling"),
    ],
)
def test_bad_numbers(build: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        build()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("projection", "message"),
    [
        (
            SpectralBall("generator", "wieght"),
            r"'wieght' of the generator \(did you mean weight\?\)",
        ),
        (NormBall("generator", "u", 1.0), "name one of weight, bias"),
        (SpectralBall("generator", "bias"), "needs a matrix"),
        (EigenvalueCap("generator", "weight", 1.0), "needs a square matrix"),
    ],
)
def test_parameters_that_do_not_fit(projection: Any, message: str) -> None:
    """Said when the game is built."""
    with pytest.raises(GameError, match=message) as caught:
        GAN(nn.Linear(2, 3), nn.Linear(3, 1), WGAN(), latent=2, projections=[projection])
    assert "\n" not in str(caught.value)


def test_game_keeps_the_limits() -> None:
    torch.manual_seed(0)
    g = GAN(
        nn.Linear(2, 3, dtype=F64),
        nn.Linear(3, 1, dtype=F64),
        WGAN(),
        latent=2,
        projections=[SpectralBall("generator", "weight", 0.1), NormBall("generator", "bias", 0.2)],
    )
    players = g.init().players["generator"]
    assert float(torch.linalg.svdvals(players["weight"]).max()) == pytest.approx(0.1, abs=1e-14)
    assert float(players["bias"].norm()) <= 0.2 + 1e-14
