"""Feasible sets that are no boxes: Theorem 1's game of Farnia and Ozdaglar 2020, by its closed forms.

With D(x) = x^T A x + b^T x, cost eta |x - x'|^2, X ~ N(0, s^2 I) and G(z) = W z + u:
V = s^2 tr A - tr[(eta I - A)^-1 (4 eta^2 W W^T + y y^T)] / 4 + eta (|W|^2 + |u|^2), y = b + 2 eta u.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from audit_games import F64, Gaussian, audit_game, boxed, context
from torch import nn

from equilibrist import Recipe, VectorField, Verdict, WeightClipping, audit_pair, resolve
from equilibrist.checks import Audit, Settings
from equilibrist.checks._second_order import feasible_direction
from equilibrist.checks.stationarity import unblocked
from equilibrist.core.game import Plain
from equilibrist.games import GAN
from equilibrist.optimizers import SGD
from equilibrist.projections import NormBall

MOVE = 0.01


def recipe(**settings: Any) -> Recipe:
    built: Recipe = resolve("gaussian-w2gan", settings).build()
    return built


def rotation(d: int, seed: int = 0) -> np.ndarray:
    q, r = np.linalg.qr(np.random.default_rng(seed).standard_normal((d, d)))
    return np.asarray(q * np.sign(np.diag(r)))


def pair(
    W: np.ndarray, u: Any = 0.0, A: Any = None, b: Any = 0.0, s: float = 2.0, eta: float = 0.5
) -> dict[str, Any]:
    d = len(W)
    A = eta * (1 - 1 / s) * np.eye(d) if A is None else A
    u, b = np.broadcast_to(u, d), np.broadcast_to(b, d)
    return {
        "generator": {"W": torch.tensor(W, dtype=F64), "u": torch.tensor(u, dtype=F64)},
        "critic": {"A": torch.tensor(A, dtype=F64), "b": torch.tensor(b, dtype=F64)},
    }


def audited(built: Recipe, players: Any, *checks: str, seed: int = 0, **settings: Any) -> Audit:
    rule = SGD(0.05)
    chosen: dict[str, Any] = {"batch": built.batch, "move": MOVE, "tolerance": 1e-6, **settings}
    return audit_game(
        built.game,
        players,
        built.game.init().constants,
        built.data,
        Settings(optimizers=dict.fromkeys(("generator", "critic"), rule), **chosen),
        seed=seed,
        checks=checks or ("stationary",),
        progress="none",
    )


def gradients(
    players: Any, s: float = 2.0, eta: float = 0.5
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Of each player's own loss, by hand."""
    W, u = (players["generator"][k].numpy() for k in "Wu")
    A, b = (players["critic"][k].numpy() for k in "Ab")
    K = np.linalg.inv(eta * np.eye(len(W)) - A)
    y = b + 2 * eta * u
    of_generator = {
        "W": 2 * eta * W - 2 * eta**2 * K @ W,
        "u": 2 * eta * u - eta * K @ y,
    }
    M = 4 * eta**2 * W @ W.T + np.outer(y, y)
    of_critic = {"A": -(s**2 * np.eye(len(W)) - K @ M @ K / 4), "b": K @ y / 2}
    return of_generator, of_critic


def residual(x: dict[str, np.ndarray], v: dict[str, np.ndarray], t: float = 1.0) -> float:
    """MOVE |x| |(x - P(x - h v)) / h|, the generator's projections by NumPy."""
    norm = math.sqrt(sum(float((p**2).sum()) for p in x.values()))
    steep = math.sqrt(sum(float((p**2).sum()) for p in v.values()))
    h = MOVE * norm / steep
    W = x["W"] - h * v["W"]
    left, sigma, right = np.linalg.svd(W)
    W = left @ np.diag(np.minimum(sigma, 1.0)) @ right
    u = x["u"] - h * v["u"]
    u = u * min(1.0, t / max(float(np.linalg.norm(u)), 1e-300))
    moved = math.sqrt(((x["W"] - W) ** 2).sum() + ((x["u"] - u) ** 2).sum())
    return MOVE * norm * moved / h


@pytest.mark.parametrize(("d", "s", "eta"), [(2, 2.0, 0.5), (3, 1.5, 1.0)])
def test_the_optimum_is_stationary_though_its_gradient_is_not_zero(
    d: int, s: float, eta: float
) -> None:
    built = recipe(dim=d, s=s, eta=eta)
    for seed in range(3):
        players = pair(rotation(d, seed), s=s, eta=eta)
        draw = built.game.draw(np.random.default_rng(0), built.data, built.batch, F64)
        v, losses = VectorField(built.game)(players, {"generator": {}, "critic": {}}, draw)
        steep = float(v["generator"]["W"].norm())
        assert steep == pytest.approx(2 * eta * (s - 1) * math.sqrt(d), rel=1e-10)
        assert float(losses["generator"]) == pytest.approx(eta * d * (s - 1) ** 2, rel=1e-10)
        found = audited(built, players)
        for player in ("generator", "critic"):
            certificate = found[f"stationary/{player}"]
            assert certificate.verdict is Verdict.VERIFIED, certificate.summary
            assert certificate.evidence["residual"] == pytest.approx(0, abs=1e-10)


def test_without_its_projections_the_same_pair_is_refuted() -> None:
    built = recipe()
    free = GAN(
        built.game.modules["generator"],
        built.game.modules["critic"],
        built.game.formulation,
        latent=built.game.latent,
    )
    players = pair(rotation(2))
    found = audit_game(
        free,
        players,
        free.init().constants,
        built.data,
        Settings(batch=64, move=MOVE, tolerance=1e-6),
        checks=("stationary",),
        progress="none",
    )["stationary/generator"]
    assert found.verdict is Verdict.REFUTED
    assert found.evidence["residual"] == pytest.approx(MOVE * 2.0, rel=1e-9)  # |W| |dV/dW| = 2


@pytest.mark.parametrize(
    ("shrunk", "expected"),
    [
        (0.9, MOVE * 0.9 * 0.9 * 2),  # the whole step fits inside of the ball: MOVE |W| |dV/dW|
        (0.995, MOVE * 0.995 * 0.5 * 2),  # half of it does: from 0.995 to 1, not to 1.005
        (1.0, 0.0),
    ],
)
def test_the_residual_of_a_generator_inside_its_ball(shrunk: float, expected: float) -> None:
    found = audited(recipe(), pair(shrunk * rotation(2)))["stationary/generator"]
    assert found.evidence["residual"] == pytest.approx(expected, rel=2e-3, abs=1e-10)
    assert found.verdict is (Verdict.REFUTED if expected else Verdict.VERIFIED)
    if shrunk == 0.9:
        assert found.evidence["residual"] == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("seed", range(6))
def test_residuals_anywhere(seed: int) -> None:
    """Random matrices at and inside of the ball, shifts at and inside of theirs, any critic."""
    rng = np.random.default_rng(seed)
    sigma = np.array([1.0, rng.uniform(0.2, 1.0)])
    W = rotation(2, seed) @ np.diag(sigma) @ rotation(2, seed + 50)
    u = rng.standard_normal(2)
    u *= (1.0 if seed % 2 else 0.4) / np.linalg.norm(u)
    A = rng.standard_normal((2, 2)) * 0.1
    players = pair(W, u, (A + A.T) / 2 - 0.1 * np.eye(2), rng.standard_normal(2) * 0.3)
    of_generator, of_critic = gradients(players)
    found = audited(recipe(), players)
    assert found["stationary/generator"].evidence["residual"] == pytest.approx(
        residual({"W": W, "u": u}, of_generator), rel=1e-7, abs=1e-10
    )
    critic = {k: t.numpy() for k, t in players["critic"].items()}
    norm = math.sqrt(sum(float((p**2).sum()) for p in critic.values()))
    steep = math.sqrt(sum(float((p**2).sum()) for p in of_critic.values()))
    assert found["stationary/critic"].evidence["residual"] == pytest.approx(
        MOVE * norm * steep, rel=1e-9
    )


def test_a_critic_at_its_ceiling() -> None:
    """A = 0.95 eta I: pushed up against it by a narrow generator it rests, pushed down it moves."""
    ceiling = 0.475 * np.eye(2)
    up = audited(recipe(), pair(0.01 * rotation(2), A=ceiling))["stationary/critic"]
    assert up.verdict is Verdict.VERIFIED
    assert up.evidence["residual"] == pytest.approx(0, abs=1e-10)
    down = audited(recipe(), pair(rotation(2), A=ceiling))["stationary/critic"]
    assert down.verdict is Verdict.REFUTED
    steep = (1 / 0.05**2 - 4) * math.sqrt(2)  # eta^2 / (eta - a)^2 - s^2 on the diagonal
    assert down.evidence["gradient_norm"] == pytest.approx(steep, rel=1e-9)


def test_noise_along_a_ball_is_not_taken_for_motion() -> None:
    """Samples with their own, noisy moments: dV/dW varies, and what points outwards must not count."""
    built = recipe(exact=False)
    for seed in range(4):
        found = audited(built, pair(rotation(2, seed)), seed=seed, tolerance=0.02, groups=8)
        generator = found["stationary/generator"]
        assert generator.evidence["interval"][0] == 0, generator.summary
        assert generator.evidence["noise_floor"] > 0
        assert generator.verdict is Verdict.VERIFIED
    moving = audited(built, pair(0.5 * rotation(2)), tolerance=1e-4, groups=8)
    assert moving["stationary/generator"].verdict is Verdict.REFUTED


def test_each_player_is_held_to_its_own_set() -> None:
    """A box for the critic beside the generator's ball: its blocked coordinates are exact zeros."""
    built = recipe()
    game = GAN(
        built.game.modules["generator"],
        built.game.modules["critic"],
        built.game.formulation,
        latent=built.game.latent,
        projections=[built.game.projections[0], WeightClipping(0.25)],
    )
    from equilibrist.checks.context import AuditContext

    players = pair(rotation(2))
    context = AuditContext(game, players, game.init().constants, built.data, Settings(batch=64), 0)
    rng = torch.Generator().manual_seed(0)
    groups = torch.randn(5, 6, dtype=F64, generator=rng) - 5  # every entry pushed upwards
    seen = unblocked(context, "critic", groups)
    assert torch.equal(seen[:, 0], torch.zeros(5, dtype=F64))  # A_00 = 0.25 is at the wall
    assert torch.equal(seen[:, 1:3], groups[:, 1:3])  # A_01, A_10 = 0 are not


@pytest.mark.parametrize(("t", "s"), [(1.0, 2.0), (0.5, 1.5)])
def test_nash_is_refuted_by_exactly_the_shift(t: float, s: float) -> None:
    """Against D* the shift gains eta (s - 1) |u|^2, at most eta (s - 1) t^2."""
    found = audited(
        recipe(t=t, s=s),
        pair(rotation(2, 3), s=s),
        "nash",
        steps=200,
        starts=2,
        batches=4,
        look_batches=2,
        looks=5,
    )
    generator, critic = found["nash/generator"], found["nash/critic"]
    assert generator.verdict is Verdict.REFUTED
    assert generator.evidence["gain"] == pytest.approx(0.5 * (s - 1) * t**2, rel=1e-9)
    assert generator.witness is not None
    witness = generator.witness["generator"]
    assert float(witness["u"].norm()) == pytest.approx(t, rel=1e-9)
    assert float(torch.linalg.matrix_norm(witness["W"], 2)) <= 1 + 1e-12
    assert critic.verdict is Verdict.NOT_REFUTED
    assert critic.evidence["gain"] == pytest.approx(0, abs=1e-12)
    assert found["nash"].verdict is Verdict.REFUTED


def test_where_no_shift_is_allowed_nothing_is_gained() -> None:
    """t = 1e-6: the same pair is not refuted, so it is the shift that refutes it."""
    found = audited(
        recipe(t=1e-6), pair(rotation(2)), "nash", steps=50, starts=2, batches=4, looks=5
    )
    assert found["nash"].verdict is Verdict.NOT_REFUTED


@pytest.mark.parametrize(("share", "followed"), [(0.05, True), (0.2, False), (2.0, False)])
def test_a_direction_that_climbs_more_than_a_tenth_of_its_gain_is_not_followed(
    share: float, followed: bool
) -> None:
    """At a wall only one side of the direction is left, and there the loss climbs by `share` of the gain."""
    slope = 0.5
    b = context(boxed([-1.0], [-slope]), Gaussian(), move=MOVE, batch=16)
    climbs = slope * MOVE  # of a move of MOVE * |u| = MOVE
    found = feasible_direction(b, "generator", torch.ones(1, dtype=F64), climbs / share)
    assert (found is not None) == followed
    if found is not None:
        torch.testing.assert_close(found, torch.ones(1, dtype=F64))


@pytest.mark.parametrize("dtype", [torch.float32, F64])
@pytest.mark.parametrize("clip", [0.01, 0.05, 1 / 64])
def test_a_critic_in_the_corner_of_its_box_is_judged_in_every_precision(
    clip: float, dtype: torch.dtype
) -> None:
    """0.01 is another number in float32: the wall holds the weights all the same, and lambda* is that of a critic
    that cannot answer."""
    data = torch.randn(600, 2, generator=torch.Generator().manual_seed(0)) + torch.tensor([5, -5])
    torch.manual_seed(0)
    generator, critic = nn.Linear(2, 2).to(dtype), nn.Linear(2, 1).to(dtype)
    with torch.no_grad():
        critic.weight[:] = torch.tensor([[clip, -clip]])
        critic.bias[:] = 0
    critic.bias.requires_grad_(False)
    found = audit_pair(
        generator,
        critic,
        data.to(dtype),
        "wgan",
        latent=2,
        gradients=400,
        checks=("local", "proximal"),
        projections=[WeightClipping(clip)],
        progress="none",
    )
    assert "Walls hold all of the critic's parameters" in found["local-nash/critic"].summary
    assert found["local-nash/critic"].verdict is Verdict.NOT_REFUTED
    assert found["proximal"].evidence["infinite"]


class Turning(Plain):
    """A linear loss on a ball for x, and a bowl for y."""

    players = ("x", "y")
    zero_sum = False
    a = torch.tensor([1.0, 0.2], dtype=F64)

    def losses(self, players: Any, constants: Any, draw: Any, only: Any = None) -> Any:
        return {"x": self.a @ players["x"]["u"], "y": players["y"]["w"].square().sum()}

    def project(self, players: Any) -> Any:
        return {**players, "x": dict(NormBall("x", "u", 1.5)(players["x"]))}


def test_moves_along_the_surface_of_a_ball_are_not_called_judged() -> None:
    """V = a . u + w^2, u on the ball of radius 1.5 where V is least: no free coordinate is left, yet u may turn."""
    game = Turning()
    u = -1.5 * game.a / game.a.norm()
    pair_ = {"x": {"u": u}, "y": {"w": torch.zeros(1, dtype=F64)}}
    found = audit_game(game, pair_, checks=("local",), progress="none")
    assert found["local-nash/x"].verdict is Verdict.UNASSESSED
    assert "moves along their surface were not judged" in found["local-nash/x"].summary
