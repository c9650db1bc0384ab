"""Section 4 of Farnia and Ozdaglar 2020 on numbers: proximal equilibria, Propositions 2 to 4, Theorems 2 and 3."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator

import numpy as np
from scipy.optimize import brentq

from equilibrist.errors import GameError
from equilibrist.theory import _raw
from equilibrist.theory._statement import (
    CheckedStatement,
    Number,
    Setting,
    game_in_words,
    in_general_position,
    verdict_on,
)
from equilibrist.theory.fgan import NAMES, FGaussian
from equilibrist.theory.w2gan import W2Gaussian
from equilibrist.theory.wgan1d import WGaussian1d


def _proposition_2(setting: Setting) -> Iterator[CheckedStatement]:
    game = setting.wide
    W, u, A, b = game.optimum()
    numbers = []
    for factor in (0.5, 1.5):
        lam = factor * game.lambda_star
        numbers.append(
            Number(
                f"gain on V_prox at {factor:g} lambda*",
                game.profile(lam),
                game.optimal_value - _raw.least_v_prox(game.s, game.eta, game.t, A, b, lam, 1),
                "nested search over (W, u) and (A~, b~)",
                1e-5,
            )
        )
    slack = game.max_value(W, u) - game.value(W, u, A, b)
    best, _, _ = _raw.v_prox(game.s, game.eta, W, u, 0 * A, b + 0.1, 0.0)
    here = float(_raw.gan_value(game.s, game.eta, *_raw.tensors(W, u, A, b)))
    yield verdict_on(
        "proposition-2",
        "Definition 1 and Proposition 2",
        "(G*, D*) is a lambda-proximal equilibrium iff V(G*, D) <= V(G*, D*) <= V_prox(G, D*) for all G, D.",
        game_in_words(game),
        [
            Number(
                "critic's slack, max over D of V(G*, D) - V*",
                slack,
                best - here,
                "search over (A, b)",
            ),
            *numbers,
        ],
        abs(slack) < 1e-12 and numbers[0].closed == 0 < numbers[1].closed,
        "The critic has nothing to gain; the generator gains nothing below lambda* and "
        f"{numbers[1].closed:.6g} at 1.5 lambda*.",
    )


def _corollary_1(setting: Setting) -> Iterator[CheckedStatement]:
    game = setting.wide
    W, u, A, b = game.optimum()
    least = _raw.least_v_prox(game.s, game.eta, game.t, A, b, 0.0, 2)
    there = game.max_value(W, u)
    yield verdict_on(
        "corollary-1",
        "Corollary 1",
        "A lambda-proximal equilibrium with lambda > 0 is a Stackelberg equilibrium.",
        game_in_words(game),
        [
            Number(
                "max over D at W = I, against the least over G", there, least, "nested search", 1e-5
            )
        ],
        there <= least + 1e-5,
        "The pair that is a proximal equilibrium up to lambda* minimises the distance.",
    )


def _proposition_3(setting: Setting) -> Iterator[CheckedStatement]:
    game = setting.wide
    lams = game.lambda_star * np.geomspace(0.1, 100, 25)
    r = [game.profile(float(lam)) for lam in lams]
    W, u, A, b = in_general_position(game.d, game.eta)
    v = [game.v_prox(W, u, A, b, float(lam)) for lam in lams]
    checked = [_raw.v_prox(game.s, game.eta, W, u, A, b, float(lam))[0] for lam in lams[::8]]
    *_, A, b = game.optimum()
    found = game.optimal_value - _raw.least_value(game.s, game.eta, game.t, A, b)
    yield verdict_on(
        "proposition-3",
        "Proposition 3 and figure 3",
        "Proximal equilibria are nested: what is one for lambda is one for every smaller lambda.",
        f"{game_in_words(game)}; 25 values of lambda from 0.1 to 100 lambda*",
        [
            Number(
                "V_prox of a random pair at the largest lambda",
                v[-1],
                checked[-1],
                "search over (A~, b~)",
            ),
            Number(
                "largest rise of V_prox between neighbours",
                max(0.0, *np.diff(v)),
                max(0.0, *np.diff(checked)),
                "search over (A~, b~)",
            ),
            Number(
                "r at infinity: the Nash gain", game.profile(math.inf), found, "search over (W, u)"
            ),
        ],
        bool((np.diff(r) >= -1e-12).all() and (np.diff(v) <= 1e-12).all()),
        "V_prox never rises with lambda, so r(lambda) never falls: 0 up to lambda*, then up to the Nash gain.",
    )


def _proposition_4(setting: Setting) -> Iterator[CheckedStatement]:
    game = setting.wide
    W, u, A, b = in_general_position(game.d, game.eta, 3)
    lam = 0.8 * game.lambda_star
    by_w, by_u = game.v_prox_gradient(W, u, A, b, lam)
    rng = np.random.default_rng(5)
    E, e, h = rng.standard_normal((game.d, game.d)), rng.standard_normal(game.d), 1e-4
    ends = [
        _raw.v_prox(game.s, game.eta, W + k * h * E, u + k * h * e, A, b, lam)[0] for k in (1, -1)
    ]
    yield verdict_on(
        "proposition-4",
        "Proposition 4, equation (14)",
        "The gradient of V_prox in the generator is V's own at the critic that answers.",
        f"{game_in_words(game)}, lambda = {lam:.4g}, a random pair and direction",
        [
            Number(
                "slope of V_prox along the direction",
                float((by_w * E).sum() + by_u @ e),
                (ends[0] - ends[1]) / (2 * h),
                "central difference of searches",
                1e-5,
            )
        ],
        True,  # where the two agree
        "The envelope formula is right.",
    )
    # f(w) = w_1^2 - w_2^2 on pairs of points: |grad f(w) - grad f(w')| / |w - w'|, and the midpoint of (0, +-1).
    pairs = rng.standard_normal((200, 2, 2))
    moved = 2 * (pairs[:, 0] - pairs[:, 1]) * np.array([1.0, -1.0])
    ratio = np.linalg.norm(moved, axis=1) / np.linalg.norm(pairs[:, 0] - pairs[:, 1], axis=1)
    yield verdict_on(
        "strong-convexity",
        "Proposition 4, its conditions as printed",
        "|grad f(w) - grad f(w')| >= eta_1 |w - w'| makes f eta_1-strongly convex.",
        "f(w) = w_1^2 - w_2^2, eta_1 = 2",
        [
            Number(
                "least |grad f(w) - grad f(w')| / |w - w'|",
                2.0,
                float(ratio.min()),
                "200 random pairs",
            ),
            Number(
                "f at the midpoint of (0, 1) and (0, -1), less the mean",
                1.0,
                0.0 - (-1.0 - 1.0) / 2,
                "the definition",
            ),
        ],
        False,
        "f meets the inequality and is not convex. Meant is (grad f(w) - grad f(w')) . (w - w') >= eta_1 |w - w'|^2. "
        "The smoothness condition as printed compares a gradient with itself and bounds it by |w - w'|^2; "
        "meant is |grad V(w) - grad V(w')| <= eta_2 |w - w'|.",
    )


def _theorem_2(setting: Setting) -> Iterator[CheckedStatement]:
    game = setting.wide
    *_, A, b = game.optimum()
    star = _raw.lambda_star(game.s, game.eta, game.d, A, b)
    lam = game.theorem_2
    found = game.optimal_value - _raw.least_v_prox(game.s, game.eta, game.t, A, b, lam, 1)
    yield verdict_on(
        "theorem-2",
        "Theorem 2",
        "If the optimal critics form a convex set, the W2GAN optimum is a 1/(4 eta)-proximal equilibrium.",
        game_in_words(game),
        [
            Number(
                "exact lambda* = s / (4 eta (s - 1))",
                game.lambda_star,
                star,
                "eigenvalues of V_uu + V_uw (2 lambda M - V_ww)^+ V_wu",
            ),
            Number(
                f"gain on V_prox at 1/(4 eta) = {lam:.6g}",
                game.profile(lam),
                found,
                "nested search",
                1e-5,
            ),
        ],
        game.lambda_star >= lam,
        f"The bound 1/(4 eta) = {lam:.6g} lies below the exact lambda* = {game.lambda_star:.6g}, a factor "
        f"s / (s - 1) = {game.s / (game.s - 1):.4g}; it is reached as s grows.",
    )
    yield from _translations(setting)


def two_shifts(game: W2Gaussian, near: float, far: float) -> float:
    """lambda* where the generator has two choices only, W = I with u = near e or u = -far e, near < far: the root of
    V_prox(far; D_near) = V(near). The set of optimal critics is two points, not convex."""
    return _two_shifts(game, near, far, game.v_prox)


def _two_shifts(game: W2Gaussian, near: float, far: float, prox: Callable[..., float]) -> float:
    unit, first = np.eye(game.d), np.eye(game.d)[0]
    A, b = game.best_critic(unit, near * first)
    best = game.max_value(unit, near * first)

    def over(log: float) -> float:
        return prox(unit, -far * first, A, b, math.exp(log)) - best

    low, high = math.log(1e-7 / game.eta), math.log(1e5 / game.eta)
    return math.exp(float(brentq(over, low, high, xtol=1e-12)))


def _translations(setting: Setting) -> Iterator[CheckedStatement]:
    game = setting.wide
    near, far = game.t, 1.25 * game.t

    def raw(*args: object) -> float:
        return _raw.v_prox(game.s, game.eta, *args)[0]  # type: ignore[arg-type]

    closed, checked = two_shifts(game, near, far), _two_shifts(game, near, far, raw)
    yield verdict_on(
        "theorem-2-convexity",
        "Theorem 2 without its hypothesis",
        "The W2GAN optimum is a 1/(4 eta)-proximal equilibrium, whatever the set of optimal critics.",
        f"{game_in_words(game)}; generators z + u with u = {near:g} e or u = {-far:g} e only",
        [
            Number(
                "lambda* of the pair at the nearer shift",
                closed,
                checked,
                "root of a searched V_prox",
                1e-5,
            )
        ],
        closed >= game.theorem_2,
        f"Counterexample: with these two shifts, whose optimal critics are two points, lambda* = {closed:.6g}, below "
        f"1/(4 eta) = {game.theorem_2:.6g}. The theorem's hypothesis is needed.",
        printed=False,
    )


def _theorem_3(setting: Setting) -> Iterator[CheckedStatement]:
    near = setting.t / 2
    still = WGaussian1d(1.0, setting.t)
    far = 60.0 + setting.t  # D = -x wherever there is mass, written a |x - c|
    shifts = np.linspace(near, setting.t, 9)
    least = min(still.v_prox(1.0, float(u), 1.0, far, near) for u in shifts)
    yield verdict_on(
        "theorem-3",
        "Theorem 3",
        "If the transport moves every point at least eta, and the fields alpha grad D are convex, the WGAN optimum is "
        "an eta-proximal equilibrium.",
        f"d = 1, s = 1, generators z + u with {near:g} <= u <= {setting.t:g}, D* = -x: every point moves u >= {near:g}",
        [
            Number(
                f"least V_prox at lambda = {near:g}, V* = {near:g}",
                near,
                least,
                "quadrature on a grid of u",
                1e-8,
            )
        ],
        least >= near - 1e-9,
        "Both hypotheses hold, and so does the conclusion (the pair is even Nash: D* is best against every u).",
    )
    line = WGaussian1d(setting.wide.s, setting.t)
    lam = 1e-3 * setting.t
    fixed = brentq(lambda x: x - x / line.s, -1.0, 1.5)
    small = line.small_lambda(lam)
    found = line.profile(lam)
    yield verdict_on(
        "theorem-3-theorem-1",
        "Theorem 3 in Theorem 1's setting",
        "The WGAN optimum of Theorem 1 is a lambda-proximal equilibrium for some lambda > 0.",
        f"d = 1, s = {line.s:g}, t = {line.t:g}",
        [
            Number("least displacement |x - x/s|", 0.0, abs(float(fixed)), "root"),
            Number(
                f"r({lam:g}) / lambda^2, the law for small lambda",
                small / lam**2,
                found / lam**2,
                "quadrature and search",
                1e-3,
            ),
        ],
        line.lambda_star > 0,
        "Theorem 3's hypothesis fails there, for the transport leaves 0 in place; and r(lambda) > 0 for "
        "every lambda > 0, so lambda* = 0: the pair is a Stackelberg equilibrium and no proximal one.",
        printed=False,
    )


def _f_gans(setting: Setting) -> Iterator[CheckedStatement]:
    games = [FGaussian(name, setting.d, setting.wide.s, setting.t) for name in NAMES]
    local = {}
    for game in games:
        with contextlib.suppress(GameError):  # infinite, or almost
            local[game.f.name] = game.local_lambda_star
    star = FGaussian("kl", setting.d, setting.wide.s, setting.t).lambda_star
    assert star is not None
    listed = ", ".join(f"{name} {value:.3g}" for name, value in local.items())
    yield verdict_on(
        "f-gan-proximal",
        "Theorem 2 for f-GANs",
        "The f-GAN optimum of Theorem 1 too is a lambda-proximal equilibrium for some lambda > 0.",
        f"d = {setting.d}, s = {setting.wide.s:g}, t = {setting.t:g}; both inequalities of Proposition 2",
        [
            Number(
                "KL: lambda* = s^2 / (2 (s^2 - 1))",
                star,
                local["KL"],
                "finite elements, among small shifts",
                1e-3,
            )
        ],
        star > 0,
        f"For KL up to lambda* = {star:.6g}. Among small shifts, by finite elements, up to: {listed}.",
        printed=False,
    )


PARTS: tuple[Callable[[Setting], Iterator[CheckedStatement]], ...] = (
    _proposition_2,
    _corollary_1,
    _proposition_3,
    _proposition_4,
    _theorem_2,
    _theorem_3,
    _f_gans,
)
