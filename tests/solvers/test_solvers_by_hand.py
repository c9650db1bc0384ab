"""Iterates on nonlinear games against NumPy versions written from the papers: every solver, rules combined.

Derivatives here are complex steps, exact to rounding and independent of torch's autograd: for an analytic
function g, g'(x) = Im g(x + i h) / h with a tiny h.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from equilibrist import tree
from equilibrist.core.draws import Draws
from equilibrist.core.field import VectorField
from equilibrist.formulations import Vanilla
from equilibrist.games import GAN, Dirac, three_nash
from equilibrist.optimizers import SGD, Adam, RMSProp, TFRMSProp
from equilibrist.solvers import (
    Alternating,
    AnchoredExtragradient,
    Averaged,
    Competitive,
    Consensus,
    Extragradient,
    FollowTheRidge,
    Implicit,
    Lookahead,
    Optimistic,
    PastExtragradient,
    Proximal,
    Simultaneous,
    SymplecticAdjustment,
    Unrolled,
)

Vector = Any
STEPS = 8


# -- two games, in NumPy -------------------------------------------------------------------------


def dirac_v(z: Vector) -> Vector:
    """Non-saturating Dirac-GAN with R1 of weight 0.4: own-loss gradients at (theta, psi)."""
    theta, psi = z
    t = theta * psi
    own = 1 / (1 + np.exp(-t))  # d/dt log(1 + e^t), the generator's loss -f(-t)
    slope = 1 / (1 + np.exp(t))  # f'(t)
    return np.array([own * psi, -slope * theta + 0.4 * psi])


def pair(z: Vector) -> Vector:
    x, y = z
    return np.exp(-(x**2 + y**2) / 100) * ((0.3 * x**2 + y) ** 2 + (0.5 * y**2 + x) ** 2)


def pair_v(z: Vector) -> Vector:
    """x maximises, y minimises: own-loss gradients."""
    x, y = z
    p, q = 0.3 * x**2 + y, 0.5 * y**2 + x
    size, bell = p**2 + q**2, np.exp(-(x**2 + y**2) / 100)
    fx = bell * (-x / 50 * size + 2 * p * 0.6 * x + 2 * q)
    fy = bell * (-y / 50 * size + 2 * p + 2 * q * y)
    return np.array([-fx, fy])


def jacobian(v: Callable[[Vector], Vector], z: Vector) -> Vector:
    h = 1e-150
    return np.stack([v(z + 1j * h * e).imag / h for e in np.eye(2)], 1)


GAMES: dict[str, Any] = {
    # game, v, index of the leader, names in order, start, step size
    "dirac": (lambda: Dirac("non-saturating", 0.4), dirac_v, 0, [0.9, -0.6], 0.3),
    "pair": (three_nash, pair_v, 1, [-1.1, -0.9], 0.05),
}


# -- update rules, in NumPy ----------------------------------------------------------------------


class Rule:
    """One rule for all numbers; `change(g)` is what is added to x. `copy` for look-aheads."""

    def __init__(self, kind: str, h: float) -> None:
        # RMSProp's first change is ten times its step size.
        self.kind, self.h, self.t = kind, h / 10 if kind == "rmsprop" else h, 0
        self.m = np.zeros(2)
        self.s = np.ones(2) if kind == "tf" else np.zeros(2)

    def copy(self) -> Rule:
        other = Rule(self.kind, self.h)
        other.h, other.t, other.m, other.s = self.h, self.t, self.m.copy(), self.s.copy()
        return other

    def change(self, g: Vector, at: Vector = slice(None)) -> Vector:
        """With `at` (one index), of that player alone: its own moments move on."""
        h = self.h
        if self.kind == "sgd":
            return -h * g
        if self.kind == "momentum":
            self.m[at] = -0.4 * self.m[at] + g
            return -h * self.m[at]
        if self.kind == "adam":
            self.t = self.t + 1
            self.m[at] = 0.5 * self.m[at] + 0.5 * g
            self.s[at] = 0.9 * self.s[at] + 0.1 * g**2
            m, s = self.m[at] / (1 - 0.5**self.t), self.s[at] / (1 - 0.9**self.t)
            return -h * m / (np.sqrt(s) + 1e-8)
        if self.kind == "rmsprop":
            self.s[at] = 0.99 * self.s[at] + 0.01 * g**2
            return -h * g / (np.sqrt(self.s[at]) + 1e-8)
        self.s[at] = 0.9 * self.s[at] + 0.1 * g**2
        return -h * g / np.sqrt(self.s[at] + 1e-10)


OURS: dict[str, Callable[[float], Any]] = {
    "sgd": SGD,
    "momentum": lambda h: SGD(h, -0.4),
    "adam": lambda h: Adam(h, 0.5, 0.9),
    "rmsprop": lambda h: RMSProp(h / 10),
    "tf": lambda h: TFRMSProp(h),
}


# -- solvers, in NumPy: z, v, leader's index, rule -> iterates ------------------------------------


def simultaneous(z: Vector, v: Any, x: int, rule: Rule) -> Any:
    while True:
        z = z + rule.change(v(z))
        yield z


def alternating(k: int) -> Any:
    def run(z: Vector, v: Any, x: int, rule: Rule) -> Any:
        rules, y = [rule.copy(), rule.copy()], 1 - x
        while True:
            z = z.copy()
            for mover in [y] * k + [x]:
                z[mover] += rules[mover].change(v(z)[mover], mover)
            yield z

    return run


def consensus(z: Vector, v: Any, x: int, rule: Rule) -> Any:
    while True:
        z = z + rule.change(v(z) + 0.7 * jacobian(v, z).T @ v(z))
        yield z


def extragradient(z: Vector, v: Any, x: int, rule: Rule) -> Any:
    while True:
        ahead = z + rule.copy().change(v(z))
        z = z + rule.change(v(ahead))
        yield z


def exploring(factor: Callable[[int], float]) -> Any:
    """Hsieh et al. 2020: the look-ahead's step is a multiple of the update's."""

    def run(z: Vector, v: Any, x: int, rule: Rule) -> Any:
        for t in itertools.count():
            ahead = z + factor(t) * rule.copy().change(v(z))
            z = z + rule.change(v(ahead))
            yield z

    return run


def anchored(restart: int) -> Any:
    """Yoon and Ryu 2021, EAG-C; with a restart the count and the anchor begin anew."""

    def run(z: Vector, v: Any, x: int, rule: Rule) -> Any:
        anchor, k = z, 0
        while True:
            if k == restart:
                anchor, k = z, 0
            half = z + (anchor - z) / (k + 2) - rule.h * v(z)
            z = z + (anchor - z) / (k + 2) - rule.h * v(half)
            k += 1
            yield z

    return run


def past(z: Vector, v: Any, x: int, rule: Rule) -> Any:
    kept = np.zeros(2)
    while True:
        kept = v(z + rule.copy().change(kept))
        z = z + rule.change(kept)
        yield z


def optimistic(z: Vector, v: Any, x: int, rule: Rule) -> Any:
    last = None
    while True:
        u = rule.change(v(z))
        z = z + 2 * u - (u if last is None else last)
        last = u
        yield z


def symplectic(align: bool) -> Any:
    def run(z: Vector, v: Any, x: int, rule: Rule) -> Any:
        while True:
            J, xi = jacobian(v, z), v(z)
            twist = (J - J.T) / 2
            adjusted, hamiltonian = twist.T @ xi, J.T @ xi
            lam = 0.8
            if align:
                lam *= np.sign(xi @ hamiltonian * (adjusted @ hamiltonian) / 2 + 0.1)
            z = z + rule.change(xi + lam * adjusted)
            yield z

    return run


def competitive(z: Vector, v: Any, x: int, rule: Rule) -> Any:
    """Schaefer and Anandkumar 2019, equation 4, for each player."""
    eta = 0.2
    while True:
        J, g = jacobian(v, z), v(z)
        both = 1 - eta**2 * J[0, 1] * J[1, 0]
        first = (g[0] - eta * J[0, 1] * g[1]) / both
        second = (g[1] - eta * J[1, 0] * g[0]) / both
        z = z + rule.change(np.array([first, second]))
        yield z


def ridge(z: Vector, v: Any, x: int, rule: Rule) -> Any:
    y = 1 - x
    while True:
        J, step = jacobian(v, z), rule.change(v(z))
        step[y] -= J[y, x] / J[y, y] * step[x]
        z = z + step
        yield z


def implicit(z: Vector, v: Any, x: int, rule: Rule) -> Any:
    while True:
        start = z
        for _ in range(300):  # a contraction, for h |J| < 1
            z = start - rule.h * v(z)
        yield z


def lookahead(z: Vector, v: Any, x: int, rule: Rule) -> Any:
    slow, fast = z, simultaneous(z, v, x, rule)
    for count in range(1, 100):
        z = next(fast)
        if count % 3 == 0:
            z = slow = slow + 0.4 * (z - slow)
            fast = simultaneous(z, v, x, rule)
        yield z


X, Y = ("generator", "critic"), ("y", "x")  # (leader, follower) of the two games
CASES: dict[str, tuple[Any, Any, tuple[str, ...]]] = {
    "simultaneous": (simultaneous, lambda r, x, y: Simultaneous(r), tuple(OURS)),
    "alternating": (
        alternating(1),
        lambda r, x, y: Alternating(1, r, leader=x, follower=y),
        ("sgd", "adam", "rmsprop", "momentum"),
    ),
    "alternating 3": (
        alternating(3),
        lambda r, x, y: Alternating(3, r, leader=x, follower=y),
        ("sgd", "adam"),
    ),
    "consensus": (consensus, lambda r, x, y: Consensus(r, gamma=0.7), tuple(OURS)),
    "consensus, two minibatches": (
        consensus,
        lambda r, x, y: Consensus(r, gamma=0.7, batches=2),
        ("sgd", "tf"),
    ),
    "extragradient": (extragradient, lambda r, x, y: Extragradient(r), tuple(OURS)),
    "extragradient, exploring": (
        exploring(lambda t: 2.5),
        lambda r, x, y: Extragradient(r, explore=2.5),
        tuple(OURS),
    ),
    "extragradient, exploring ever further": (
        exploring(lambda t: 1 + t / 4),
        lambda r, x, y: Extragradient(r, explore=lambda t: 1 + t / 4),
        ("sgd", "adam"),
    ),
    "anchored": (anchored(-1), lambda r, x, y: AnchoredExtragradient(r), ("sgd",)),
    "anchored, restarted": (
        anchored(3),
        lambda r, x, y: AnchoredExtragradient(r, restart=3),
        ("sgd",),
    ),
    "past": (past, lambda r, x, y: PastExtragradient(r), ("sgd", "momentum", "tf")),
    "optimistic": (optimistic, lambda r, x, y: Optimistic(r), tuple(OURS)),
    "symplectic": (
        symplectic(False),
        lambda r, x, y: SymplecticAdjustment(r, strength=0.8),
        ("sgd", "adam"),
    ),
    "symplectic, aligned": (
        symplectic(True),
        lambda r, x, y: SymplecticAdjustment(r, strength=0.8, align=True),
        ("sgd", "rmsprop"),
    ),
    "competitive": (
        competitive,
        lambda r, x, y: Competitive(r, eta=0.2, iterations=2, tolerance=0.0),
        ("sgd", "adam"),
    ),
    "ridge": (
        ridge,
        lambda r, x, y: FollowTheRidge(r, leader=x, follower=y, iterations=1),
        ("sgd", "rmsprop", "momentum"),
    ),
    "implicit": (implicit, lambda r, x, y: Implicit(r, iterations=6), ("sgd",)),
    "lookahead": (
        lookahead,
        lambda r, x, y: Lookahead(Simultaneous(r), 3, 0.4),
        ("sgd", "adam"),
    ),
}


@pytest.mark.parametrize(
    ("name", "rule"), [(name, rule) for name, (*_, rules) in CASES.items() for rule in rules]
)
@pytest.mark.parametrize("game", GAMES)
def test_iterates(name: str, rule: str, game: str) -> None:
    by_hand, make, _ = CASES[name]
    build, v, x, start, h = GAMES[game]
    truth = build()
    solver = make(OURS[rule](h), *(X if game == "dirac" else Y))
    expected = by_hand(np.array(start), v, x, Rule(rule, h))
    field = VectorField(truth)
    players = tree.clone(
        tree.unflatten(torch.tensor(start, dtype=torch.float64), truth.points()[0].players)
    )
    state, constants = solver.init(players), {p: {} for p in players}
    for k in range(STEPS):
        draws = Draws(lambda rng: {}, 0, k)
        players, constants, state, _ = solver.step(field, players, constants, state, draws)
        there = next(expected)
        np.testing.assert_allclose(tree.flatten(players).numpy(), there, rtol=2e-11, atol=1e-11)
    assert np.abs(there - np.array(start)).max() > 1e-2, "nothing moved"


@pytest.mark.parametrize("rule", ["sgd", "adam"])
def test_unrolled(rule: str) -> None:
    """Metz et al. 2017: the leader's loss after three of the follower's steps, differentiated through them."""
    x, h, rate = 1, 0.05, 0.08
    truth = three_nash()
    solver = Unrolled(OURS[rule](h), unroll=3, rate=rate, leader="y", follower="x")

    def ahead(z: Vector) -> Vector:
        z = z.astype(complex)
        for _ in range(3):
            z[1 - x] = z[1 - x] - rate * pair_v(z)[1 - x]
        return pair(z)  # y minimises f

    def direction(z: Vector) -> Vector:
        step = 1e-150
        moved = z + 1j * step * np.eye(2)[x]
        d = pair_v(z).copy()
        d[x] = ahead(moved).imag / step
        return d

    z, mine = np.array([-1.1, -0.9]), Rule(rule, h)
    players = {
        p: {"value": torch.tensor([value], dtype=torch.float64)}
        for p, value in zip("xy", z, strict=True)
    }
    state, field = solver.init(players), VectorField(truth)
    for k in range(STEPS):
        draws = Draws(lambda rng: {}, 0, k)
        players, _, state, info = solver.step(field, players, {"x": {}, "y": {}}, state, draws)
        assert float(info["loss"]["y"]) == pytest.approx(float(ahead(z).real), rel=1e-12)
        z = z + mine.change(direction(z))
        np.testing.assert_allclose(tree.flatten(players).numpy(), z, rtol=2e-11, atol=1e-11)


def test_averaged() -> None:
    z, rule = np.array([0.9, -0.6]), Rule("adam", 0.1)
    run, mean = simultaneous(z, dirac_v, 0, rule), z
    truth = Dirac("non-saturating", 0.4)
    solver = Averaged(Simultaneous(Adam(0.1, 0.5, 0.9)), 0.8, ("generator", "critic"))
    players = tree.clone(tree.unflatten(torch.as_tensor(z), truth.points()[0].players))
    state, field = solver.init(players), VectorField(truth)
    for k in range(STEPS):
        draws = Draws(lambda rng: {}, 0, k)
        players, _, state, _ = solver.step(field, players, {}, state, draws)
        mean = 0.8 * mean + 0.2 * next(run)
        np.testing.assert_allclose(tree.flatten(state["average"]).numpy(), mean, rtol=1e-12)


# -- proximal training, on the Dirac-GAN as a GAN of modules --------------------------------------


class _Shift(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.theta = nn.Parameter(torch.tensor([0.9], dtype=torch.float64))

    def forward(self, z: Tensor) -> Tensor:
        return self.theta + 0 * z


class _Parabola(nn.Module):
    """D(x) = psi x + x^2 psi^2: its slope at x is psi + 2 psi^2 x."""

    def __init__(self) -> None:
        super().__init__()
        self.psi = nn.Parameter(torch.tensor([-0.6], dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return self.psi * x + x**2 * self.psi**2


@pytest.mark.parametrize("reset", [True, False])
@pytest.mark.parametrize("fresh", [True, False])
@pytest.mark.parametrize("rule", ["sgd", "adam"])
def test_proximal(rule: str, reset: bool, fresh: bool) -> None:
    """Farnia and Ozdaglar 2020, Algorithm 1, with lambda of equation 11 (twice the printed half)."""
    T, lam, h = 3, 0.35, 0.1

    def data(step: int, index: int) -> Vector:
        return np.random.default_rng((step, index)).standard_normal((4, 1))

    class Given(Draws):
        def batch(self, index: int = 0) -> Any:
            real = torch.as_tensor(data(self.step, index))
            return {"real": real, "latent": torch.zeros(4, 1, dtype=torch.float64)}

    def sigmoid(a: Vector) -> Vector:
        return 1 / (1 + np.exp(-a))

    def score(psi: Vector, q: Vector) -> Vector:
        return psi * q + q**2 * psi**2

    def critic_loss(psi: Vector, theta: float, batch: Vector, anchor: float) -> Vector:
        """mean softplus(-D(real)) + softplus(D(theta)) + lam mean |D~'(x_i) - D'(x_i)|^2."""
        value = np.log(1 + np.exp(-score(psi, batch))).mean() + np.log(
            1 + np.exp(score(psi, theta))
        )
        moved = (psi + 2 * psi**2 * batch) - (anchor + 2 * anchor**2 * batch)
        return value + lam * (moved**2).mean()

    theta, psi, rules = 0.9, -0.6, {p: Rule(rule, h) for p in ("generator", "critic")}
    game = GAN(_Shift(), _Parabola(), Vanilla(), latent=1)
    solver = Proximal(T, lam, OURS[rule](h), reset=reset, fresh=fresh)
    players, constants = game.init()
    state, field = solver.init(players), VectorField(game)
    for k in range(STEPS):
        draws = Given(lambda rng: {}, 0, k)
        players, constants, state, info = solver.step(field, players, constants, state, draws)
        anchor = psi
        if reset:
            rules["critic"] = Rule(rule, h)
        for j in range(T):
            batch, tiny = data(k, j if fresh else 0), 1e-150
            g = critic_loss(psi + 1j * tiny, theta, batch, anchor).imag / tiny
            last = float(np.real(critic_loss(psi + 0j, theta, batch, anchor)))
            psi = float((psi + rules["critic"].change(np.array([g]), slice(0, 1)))[0])
        slope = psi + 2 * psi**2 * theta
        g = -sigmoid(-score(psi, theta)) * slope  # of softplus(-D(theta))
        theta = float((theta + rules["generator"].change(np.array([g]), slice(0, 1)))[0])
        found = tree.flatten(players).numpy()
        np.testing.assert_allclose(found, [theta, psi], rtol=2e-11, atol=1e-12)
        assert float(info["loss"]["critic"]) == pytest.approx(last, rel=1e-11)
    assert abs(psi + 0.6) > 0.05
