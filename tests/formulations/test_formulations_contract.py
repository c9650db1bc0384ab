"""What every formulation promises, held for each of them on one pair of smooth networks."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from equilibrist import tree
from equilibrist.core.field import VectorField
from equilibrist.formulations import (
    FGAN,
    W2GAN,
    WGAN,
    Hinge,
    LeastSquares,
    Relativistic,
    Vanilla,
)
from equilibrist.formulations.divergences import DIVERGENCES
from equilibrist.games import GAN
from equilibrist.networks.affine import LinearGenerator, QuadraticCritic

F64 = torch.float64
TABLE = [
    Vanilla(),
    Vanilla(saturating=True),
    WGAN(),
    *[FGAN(name) for name in DIVERGENCES],
    FGAN("kl", saturating=False),
    FGAN("squared_hellinger", saturating=False),
    Hinge(),
    LeastSquares(),
    LeastSquares(1, 0, 1),
    Relativistic(),
    Relativistic(saturating=True),
    W2GAN(1.0, steps=80),
]
ZERO_SUM = [
    Vanilla(saturating=True),
    WGAN(),
    *[FGAN(name) for name in DIVERGENCES],
    Relativistic(saturating=True),
    W2GAN(1.0, steps=80),
]
each = pytest.mark.parametrize("formulation", TABLE, ids=repr)


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def game(formulation: Any) -> GAN:
    torch.manual_seed(0)
    generator = nn.Sequential(nn.Linear(2, 4, dtype=F64), nn.Tanh(), nn.Linear(4, 3, dtype=F64))
    critic = nn.Sequential(nn.Linear(3, 5, dtype=F64), nn.Tanh(), nn.Linear(5, 1, dtype=F64))
    return GAN(generator, critic, formulation, latent=2)


def at(g: GAN, seed: int = 1) -> tuple[Any, Any, Any]:
    """A point at which the scores are of the order of one, and a draw."""
    players, constants = g.init()
    players = {
        player: {
            k: p + 0.3 * normal(*p.shape, seed=seed + i) for i, (k, p) in enumerate(part.items())
        }
        for player, part in players.items()
    }
    return (
        players,
        constants,
        {
            "real": normal(6, 3, seed=seed + 50) + 0.5,
            "latent": normal(6, 2, seed=seed + 60),
        },
    )


def direction(players: Any, seed: int = 90) -> Any:
    return {
        player: {k: normal(*p.shape, seed=seed + i) for i, (k, p) in enumerate(part.items())}
        for player, part in players.items()
    }


def moved(players: Any, u: Any, step: float) -> Any:
    return tree.map(lambda p, d: p + step * d, players, u)


def dot(a: Any, b: Any) -> float:
    return float(tree.flatten(a) @ tree.flatten(b))


@each
def test_gradients_equal_finite_differences(formulation: Any) -> None:
    """Each player's own loss along its own directions; the loss of `only` where it is asked for."""
    g = game(formulation)
    players, constants, draw = at(g)
    full = VectorField(g)(players, constants, draw)
    u = direction(players)
    for player in g.players:
        for only in (None, player):
            v = full.v if only is None else VectorField(g)(players, constants, draw, only).v
            along = {**tree.zeros_like(players), player: u[player]}
            ahead, behind = (
                float(g.losses(moved(players, along, h), constants, draw, only)[player])
                for h in (1e-5, -1e-5)
            )
            exact = dot({player: v[player]}, {player: u[player]})
            assert (ahead - behind) / 2e-5 == pytest.approx(exact, rel=1e-6, abs=1e-8)
            assert abs(exact) > 1e-4


@each
def test_only_agrees_with_the_full_losses(formulation: Any) -> None:
    """The same loss up to terms free of the player's parameters, and that player's entry alone."""
    g = game(formulation)
    players, constants, draw = at(g)
    for player in g.players:
        gaps = []
        for step in (0.0, 0.5, -1.0):
            along = {**tree.zeros_like(players), player: direction(players)[player]}
            point = moved(players, along, step)
            alone = g.losses(point, constants, draw, player)
            assert list(alone) == [player]
            assert alone[player].shape == ()
            gaps.append(float(g.losses(point, constants, draw)[player] - alone[player]))
        assert max(gaps) - min(gaps) < 1e-9


@each
def test_zero_sum_claim(formulation: Any) -> None:
    g = game(formulation)
    losses = g.losses(*at(g))
    assert (float(losses["generator"] + losses["critic"]) == 0) is formulation.zero_sum
    assert formulation.zero_sum is (formulation in ZERO_SUM)
    assert g.zero_sum is formulation.zero_sum
    assert g.separable, g.why_not_separable


@each
def test_stacked_equals_a_loop(formulation: Any) -> None:
    g = game(formulation)
    points = [at(g, seed) for seed in (1, 7, 13)]
    together = [
        tree.map(lambda *leaves: torch.stack(leaves), *parts) for parts in zip(*points, strict=True)
    ]
    for only in (None, "generator", "critic"):
        stacked = VectorField(g, stacked=3)(*together, only=only)
        for index, point in enumerate(points):
            alone = VectorField(g)(*point, only=only)
            mine = tree.map(lambda leaf, i=index: leaf[i], stacked.v)
            torch.testing.assert_close(
                tree.flatten(mine), tree.flatten(alone.v), rtol=1e-10, atol=1e-11
            )
            for player, loss in alone.losses.items():
                assert float(stacked.losses[player][index]) == pytest.approx(float(loss), rel=1e-11)


@pytest.mark.parametrize(
    "formulation", [f for f in TABLE if getattr(f, "second_order", True)], ids=repr
)
def test_jacobian_products_equal_finite_differences(formulation: Any) -> None:
    """J u by differences of v, and J^T w by w^T J u = u^T J^T w: two derivatives of each loss, three of f*."""
    g = game(formulation)
    players, constants, draw = at(g)
    field, u, w = VectorField(g), direction(players), direction(players, seed=70)
    forward = field.jvp(players, constants, u, draw)
    ahead, behind = (
        tree.flatten(field(moved(players, u, h), constants, draw).v) for h in (1e-5, -1e-5)
    )
    torch.testing.assert_close(tree.flatten(forward), (ahead - behind) / 2e-5, rtol=1e-5, atol=1e-6)
    back = field.vjp(players, constants, w, draw)
    assert dot(back, u) == pytest.approx(dot(w, forward), rel=1e-10)
    assert tree.norm(forward) > 1e-3


def test_jacobian_products_of_w2gan_with_a_closed_form() -> None:
    g = GAN(LinearGenerator(2, 3, dtype=F64), QuadraticCritic(3, dtype=F64), W2GAN(2.0), latent=2)
    players, constants, draw = at(g)
    field, u = VectorField(g), direction(players)
    forward = tree.flatten(field.jvp(players, constants, u, draw))
    ahead, behind = (
        tree.flatten(field(moved(players, u, h), constants, draw).v) for h in (1e-5, -1e-5)
    )
    torch.testing.assert_close(forward, (ahead - behind) / 2e-5, rtol=1e-5, atol=1e-6)


def test_w2gan_with_a_closed_form_stacked_equals_a_loop() -> None:
    g = GAN(LinearGenerator(2, 3, dtype=F64), QuadraticCritic(3, dtype=F64), W2GAN(2.0), latent=2)
    points = [at(g, seed) for seed in (1, 7)]
    together = [
        tree.map(lambda *leaves: torch.stack(leaves), *parts) for parts in zip(*points, strict=True)
    ]
    stacked = VectorField(g, stacked=2)(*together)
    for index, point in enumerate(points):
        mine = tree.map(lambda leaf, i=index: leaf[i], stacked.v)
        alone = VectorField(g)(*point)
        torch.testing.assert_close(
            tree.flatten(mine), tree.flatten(alone.v), rtol=1e-10, atol=1e-11
        )


@each
def test_scale_and_words(formulation: Any) -> None:
    g = game(formulation)
    players, constants, draw = at(g)
    scale = g.scale(players, constants, draw)
    assert scale.shape == ()
    assert scale.dtype == F64
    assert 0 < float(scale) < float("inf")
    assert not scale.requires_grad
    words = f"{formulation.formula} {formulation} {formulation.unit}"
    assert "\n" not in words
    assert type(formulation).__name__ in repr(formulation)
