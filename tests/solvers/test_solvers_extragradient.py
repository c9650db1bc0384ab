"""What extragradient steps with an anchor, and with two step sizes, are for: rates on monotone fields, and noise."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from equilibrist import tree
from equilibrist.core.field import VectorField
from equilibrist.games import Quadratic, bilinear
from equilibrist.optimizers import SGD
from equilibrist.schedules import Scheduled
from equilibrist.solvers import AnchoredExtragradient, Extragradient, iterate

F64 = torch.float64


# -- the anchor: |v|^2 falls like 1 / k^2 --------------------------------------------------------


def monotone(seed: int) -> Quadratic:
    """Strong interaction, and curvatures down to nothing: no linear rate to lean on."""
    g = torch.Generator().manual_seed(seed)
    A, C = (torch.randn(4, 2, generator=g, dtype=F64) for _ in range(2))
    B = torch.randn(4, 4, generator=g, dtype=F64)
    return Quadratic(0.05 * A @ A.mT, B, 0.05 * C @ C.mT)


def gradients(solver: Any, game: Quadratic, steps: int) -> tuple[np.ndarray, float]:
    """(k + 1)^2 |v(x_k)|^2 / |x_0 - x*|^2 along a run, with x* = 0, and R, the field's Lipschitz constant."""
    J = game.jacobian().numpy()
    start = {p: {"value": torch.ones_like(part)} for p, part in (("x", game.a), ("y", game.c))}
    found = iterate(game, solver, start, steps).players
    z = torch.cat([found[p]["value"] for p in "xy"], 1).numpy()
    size = ((z @ J.T) ** 2).sum(1) / (z[0] ** 2).sum()
    return (np.arange(steps + 1) + 1) ** 2 * size, float(np.linalg.norm(J, 2))


def spectrum() -> Quadratic:
    """x^T B y with singular values from 1 down to 1/1000: at any k some of them are just being learned."""
    zero = torch.zeros(12, 12, dtype=F64)
    return Quadratic(zero, torch.logspace(0, -3, 12, dtype=F64).diag(), zero)


@pytest.mark.parametrize("make", [bilinear, spectrum, *(lambda s=s: monotone(s) for s in range(3))])
def test_the_anchor_keeps_the_published_bound(make: Callable[[], Quadratic]) -> None:
    """Yoon and Ryu 2021: 260 R^2 at h = 1 / (8 R), for every k."""
    R = float(torch.linalg.matrix_norm(make().jacobian(), 2))
    scaled, seen = gradients(AnchoredExtragradient(SGD(1 / (8 * R))), make(), 1000)
    assert seen == pytest.approx(R)
    assert scaled.max() <= 260 * R**2
    # The order is no better than stated: what the bound scales with does not fall.
    assert scaled[333:].min() > 0.1 * scaled[333:].max()


def test_without_the_anchor_the_order_is_one_less() -> None:
    """Extragradient leaves sigma^2 (1 - h^2 sigma^2 + h^4 sigma^4)^k of each singular value sigma: 1 / (e h^2 k) of the
    worst one."""
    h = 1 / 8
    plain, _ = gradients(Extragradient(SGD(h)), spectrum(), 1000)
    sigma2 = np.logspace(0, -6, 12)
    left = sigma2 * (1 - h**2 * sigma2 + h**4 * sigma2**2) ** 1000
    assert plain[-1] == pytest.approx(1001**2 * left.mean(), rel=1e-9)
    assert plain[-1] > 260


def test_the_anchor_on_the_bilinear_game() -> None:
    """(k + 1)^2 |v|^2 tends to |x_0|^2 / h^2: the pull (x_0 - x) / k balances h v."""
    for h in (1 / 8, 0.4):
        scaled, _ = gradients(AnchoredExtragradient(SGD(h)), bilinear(), 1500)
        assert scaled[-1] == pytest.approx(1 / h**2, rel=1e-3)


def test_restarts_make_it_linear() -> None:
    """On the bilinear game |v| = |x|: by the bound a restart after K steps leaves at most sqrt(260) / (K + 1) of it."""
    K = 40
    start = {p: {"value": torch.ones(1, dtype=F64)} for p in "xy"}
    found = iterate(bilinear(), AnchoredExtragradient(SGD(1 / 8), restart=K), start, 6 * K, every=K)
    z = torch.cat([found.players[p]["value"] for p in "xy"], 1).norm(dim=1)
    ratio = (z[1:] / z[:-1]).numpy()
    assert ratio.max() <= math.sqrt(260) / (K + 1)
    np.testing.assert_allclose(ratio, ratio[0], rtol=1e-9)
    never = iterate(bilinear(), AnchoredExtragradient(SGD(1 / 8)), start, 6 * K).last.players
    assert float(tree.norm(never)) > 100 * float(z[-1])


# -- two step sizes: noise -----------------------------------------------------------------------

N, NOISE = 4000, 0.7


class Noisy:
    """f(x, y) = x . y with independent normal noise in every gradient, N coordinates a player: each is a run."""

    players = ("x", "y")
    zero_sum = False

    def losses(self, players: Any, constants: Any, draw: Any, only: str | None = None) -> Any:
        x, y = players["x"]["value"], players["y"]["value"]
        return {
            "x": (x * (y.detach() + draw["x"])).sum(),
            "y": (y * (draw["y"] - x.detach())).sum(),
        }

    def refresh(self, players: Any, constants: Any, draw: Any, exact: bool = False) -> Any:
        return constants

    def project(self, players: Any) -> Any:
        return players


def noise(rng: np.random.Generator) -> dict[str, Tensor]:
    return {p: torch.from_numpy(NOISE * rng.standard_normal(N)) for p in "xy"}


def moments(solver: Any, steps: int, every: int) -> np.ndarray:
    """Mean of x^2 and y^2 over coordinates, every so many steps, from (1, 1)."""
    start = {p: {"value": torch.ones(N, dtype=F64)} for p in "xy"}
    found = iterate(Noisy(), solver, start, steps, seed=3, every=every, draw=noise).players
    z = torch.cat([found[p]["value"] for p in "xy"], 1)
    return z.square().mean(1).numpy()


def foretold(ahead: Any, update: Any, steps: int) -> np.ndarray:
    """E x^2 = E y^2 exactly: with z = x + i y the step is z (1 - e g - i e) + e (g n + i n'), noises of their own."""
    E = [1.0]
    for t in range(steps):
        g, e = ahead(t), update(t)
        E.append(((1 - e * g) ** 2 + e**2) * E[-1] + e**2 * (1 + g**2) * NOISE**2)
    return np.array(E)


def agrees(seen: np.ndarray, truth: np.ndarray) -> None:
    """Means of 2 N squares of normal numbers, of equal variance at the end: five standard errors."""
    error = 5 * truth / math.sqrt(N)
    assert (np.abs(seen - truth) < error).all(), (seen, truth)


@pytest.mark.parametrize("h", [0.3, 0.1])
def test_equal_steps_stall_at_the_noise_however_small(h: float) -> None:
    steps = int(8 / h**2)
    truth = foretold(lambda t: h, lambda t: h, steps)
    agrees(moments(Extragradient(SGD(h), fresh=True), steps, steps)[-1:], truth[-1:])
    assert truth[-1] == pytest.approx(NOISE**2 * (1 + h**2) / (1 - h**2), rel=2e-3)


def test_a_larger_look_ahead_settles_where_it_is_said_to() -> None:
    g, e = 0.5, 0.05
    truth = foretold(lambda t: g, lambda t: e, 400)
    seen = moments(Extragradient(SGD(e), fresh=True, explore=g / e), 400, 50)
    agrees(seen[1:], truth[50::50])
    assert truth[-1] == pytest.approx(
        NOISE**2 * e * (1 + g**2) / (2 * g - e * (1 + g**2)), rel=1e-3
    )
    assert seen[-1] < NOISE**2 / 10


def test_falling_updates_converge_if_the_look_ahead_does_not_fall_with_them() -> None:
    """Updates 0.5 / (1 + t / 20): if looks stay at 0.5, x and y vanish like 1 / t; else they stop near the noise."""
    fall: Callable[[Any], Any] = lambda t: 1 / (1 + t / 20)  # noqa: E731
    rule, steps = Scheduled(SGD(0.5), fall), 1000
    stay = moments(Extragradient(rule, fresh=True, explore=lambda t: 1 + t / 20), steps, 250)
    truth = foretold(lambda t: 0.5, lambda t: 0.5 * fall(t), steps)
    agrees(stay[1:], truth[250::250])
    assert truth[1000] == pytest.approx(truth[500] / 2, rel=0.05)
    assert stay[-1] < NOISE**2 / 60

    equal = moments(Extragradient(rule, fresh=True), steps, steps)
    truth = foretold(lambda t: 0.5 * fall(t), lambda t: 0.5 * fall(t), steps)
    agrees(equal[-1:], truth[-1:])
    assert equal[-1] > 0.9 * NOISE**2


def test_the_plain_look_ahead_is_the_rules_own_step_bit_for_bit() -> None:
    """x + 1 (y - x) is not always y in floating point: with explore = 1 nothing is scaled."""
    game, solver = monotone(0), Extragradient(SGD(0.3))
    g = torch.Generator().manual_seed(0)
    players: Any = {p: {"value": torch.randn(100, generator=g)} for p in ("x", "y")}
    v: Any = {p: {"value": torch.randn(100, generator=g)} for p in ("x", "y")}
    field, rules = VectorField(game), solver.init(players)
    ahead = solver._ahead(field, v, rules, players, 1)
    there = solver.move(field, v, tree.clone(rules), tree.clone(players))
    for p in ("x", "y"):
        x, y = players[p]["value"], there[p]["value"]
        torch.testing.assert_close(y, x - 0.3 * v[p]["value"])
        assert torch.equal(ahead[p]["value"], y)
        assert not torch.equal(x + (y - x), y)
