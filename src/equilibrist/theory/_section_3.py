"""Section 3 of Farnia and Ozdaglar 2020 on numbers: formulations, Proposition 1, Theorem 1, Remark 1."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
from scipy.stats import norm

from equilibrist.theory import _raw
from equilibrist.theory._raw_f import f_values
from equilibrist.theory._statement import (
    CheckedStatement,
    Number,
    Setting,
    game_in_words,
    verdict_on,
)
from equilibrist.theory.fgan import NAMES, FGaussian, condition
from equilibrist.theory.w2gan import W2Gaussian
from equilibrist.theory.wgan1d import WGaussian1d


def _direction(setting: Setting) -> Iterator[CheckedStatement]:
    game = FGaussian("kl", setting.d, setting.wide.s, setting.t)
    earned, paid, _ = f_values("kl", game.d, game.s, game.t)
    reverse = replace(game, name="reverse_kl").optimal_value
    yield verdict_on(
        "direction",
        "Section 3.1, definition of d_f",
        "(7) with f minimises d_f(P, Q), the integral of p f(q/p).",
        f"d = {game.d}, s = {game.s:g}, f = t log t, Q = N(0, I)",
        [
            Number(
                "max over D of (7): KL(P || Q)",
                game.optimal_value,
                earned - paid,
                "quadrature of (7) at D*",
            )
        ],
        abs(game.optimal_value - reverse) < 1e-9,
        f"(7) gives the integral of q f(p/q), here KL(P || Q) = {game.optimal_value:.6g}; the integral as printed is "
        f"KL(Q || P) = {reverse:.6g}. Only symmetric divergences hide it.",
    )


def _proposition_1(setting: Setting) -> Iterator[CheckedStatement]:
    game = W2Gaussian(setting.d, 1.0, setting.eta, setting.t)
    unit, zero = np.eye(game.d), np.zeros(game.d)
    best, _, _ = _raw.v_prox(1.0, game.eta, unit, zero, -0.5 * game.eta * unit, zero + 0.1, 0.0)
    least = _raw.least_value(1.0, game.eta, game.t, 0 * unit, zero)
    line = WGaussian1d(1.0, setting.t)
    numbers = [
        Number(
            "W2GAN: max over D at the realising G",
            game.max_value(unit, zero),
            best,
            "search over (A, b)",
        ),
        Number(
            "W2GAN: min over G against D = 0",
            game.best_generator(0 * unit, zero).value,
            least,
            "search over (W, u)",
        ),
        Number(
            "WGAN (d = 1): W_1(P, P)",
            line.max_value(1.0, 0.0),
            _raw.transport(1.0, 1.0, 0.0),
            "quadrature",
        ),
    ]
    yield verdict_on(
        "proposition-1",
        "Proposition 1",
        "If some G realises P, then G with a constant D is a Nash equilibrium.",
        f"d = {game.d}, s = 1 (W = I realises it), eta = {game.eta:g}, t = {game.t:g}",
        numbers,
        all(abs(n.closed) < 1e-12 for n in numbers),
        "Neither player gains anything: the duality gap is 0.",
    )


def _theorem_1_f(setting: Setting) -> Iterator[CheckedStatement]:
    games = [FGaussian(name, setting.d, setting.wide.s, setting.t) for name in NAMES]
    for game in games:
        yield _shift_gains(game) if game.finite else _value_infinite(game)
    yield _condition([game.name for game in games if not condition(game.name)[0]])


def _of_theorem_1_f(
    game: FGaussian, numbers: list[Number], holds: bool, why: str
) -> CheckedStatement:
    met, _, _ = condition(game.name)
    return verdict_on(
        f"theorem-1-{game.name}",
        f"Theorem 1, f-GAN: {game.f.name}",
        "No Nash equilibrium.",
        f"d = {game.d}, s = {game.s:g}, t = {game.t:g}",
        numbers,
        holds,
        why,
        met,
    )


def _condition_in_words(game: FGaussian) -> str:
    met, _, _ = condition(game.name)
    return "t^2 f'' does not fall" if met else "t^2 f'' FALLS, against the theorem's condition"


def _value_infinite(game: FGaussian) -> CheckedStatement:
    s = game.s
    numbers = [
        Number("V* = min over G of max over D", math.inf, None, "the integral of p^2 / q diverges"),
        Number(
            "log(p^2 / q) over |x|^2 far out at W = I, 1/2 - 1/s^2 >= 0",
            0.5 - s**-2,
            float((2 * norm.logpdf(1e4, scale=s) - norm.logpdf(1e4)) / 1e8),
            "log densities at |x| = 10^4",
        ),
    ]
    why = (
        "The value is infinite at every feasible G (s^2 >= 2): no critic is best, so no pair is Nash; "
        f"{_condition_in_words(game)}."
    )
    return _of_theorem_1_f(game, numbers, True, why)


def _shift_gains(game: FGaussian) -> CheckedStatement:
    gain = game.nash_gain
    earned, paid, moved = f_values(game.name, game.d, game.s, game.t)
    how = "quadrature of E D* - E f*(D*)"
    numbers = [
        Number("V* = min over G of max over D", game.optimal_value, _known(earned - paid), how),
        Number(f"gain of the shift |u| = {game.t:g} against D*", gain, _known(moved - paid), how),
    ]
    below = game.max_min_value
    most = "" if below is None else f" max-min is {below:.6g}, below it: no pair at all is Nash."
    why = (
        f"At the optimum, the only place for a Nash equilibrium, the shift gains {gain:.6g} > 0.{most} "
        f"Here {_condition_in_words(game)}."
    )
    return _of_theorem_1_f(game, numbers, gain > 0, why)


def _condition(broken: list[str]) -> CheckedStatement:
    """Of the theorem's condition; `broken`: the divergences whose t^2 f'' falls."""
    reverse = ", ".join(n for n in NAMES if not condition(n, reverse=True)[0])
    return verdict_on(
        "condition",
        "Theorem 1, after its proof",
        "The condition (t^2 f''(t) never falls) holds for all f-GAN examples of Nowozin et al. 2016.",
        "t from 0.001 to 1000; f'' by automatic differentiation",
        [
            Number(
                "Neyman: t^2 f''(t) at t = 2, closed form 2 / t",
                1.0,
                _second("neyman", 2.0) * 4,
                "differentiation",
            )
        ],
        not broken,
        f"It falls for {', '.join(broken)} in the direction of (7); in the paper's own direction, the integral of "
        f"p f(q/p), it falls for {reverse}. It is sufficient only: a shift gains for every strictly convex f.",
    )


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value


def _second(name: str, at: float) -> float:
    import torch

    from equilibrist.formulations.divergences import divergence

    t = torch.tensor(at, dtype=torch.float64, requires_grad=True)
    (found,) = torch.autograd.grad(divergence(name).derivative(t), t)
    return float(found)


def _theorem_1_w2(setting: Setting) -> Iterator[CheckedStatement]:
    game = setting.wide
    W, u, A, b = game.optimum()
    best, _, _ = _raw.v_prox(game.s, game.eta, W, u, 0 * A, b + 0.1, 0.0)
    least = _raw.least_value(game.s, game.eta, game.t, A, b)
    uu, _, _, _ = _raw.shift_blocks(game.s, game.eta, game.d, A, b)
    mixed, zero = game.max_min_critic()
    worst = _raw.least_value(game.s, game.eta, game.t, mixed, zero)
    yield verdict_on(
        "theorem-1-w2gan",
        "Theorem 1, W2GAN",
        "With a quadratic critic there is no local Nash equilibrium.",
        game_in_words(game),
        [
            Number("V* = eta d (s - 1)^2", game.optimal_value, best, "search over (A, b)"),
            Number(
                "generator's best deviation, eta (s - 1) t^2",
                game.nash_gain,
                best - least,
                "search over (W, u)",
            ),
            Number(
                "curvature in u at the optimum, -2 eta (s - 1)",
                game.curvature(math.inf),
                float(np.linalg.eigvalsh(uu)[0]),
                "automatic differentiation",
            ),
            Number(
                "max-min, eta (s sqrt d - sqrt(d + t^2))^2 or 0",
                game.max_min_value,
                worst,
                "search over (W, u)",
            ),
        ],
        game.nash_gain > 0
        and game.curvature(math.inf) < 0
        and game.max_min_value < game.optimal_value,
        f"The shift u = t e gains {game.nash_gain:.6g}; V curves down in u; max-min {game.max_min_value:.6g} lies "
        f"below min-max {game.optimal_value:.6g}, so no pair is Nash.",
    )


def _theorem_1_w1(setting: Setting) -> Iterator[CheckedStatement]:
    game = WGaussian1d(setting.wide.s, setting.t)
    gain = _raw.modulus(1.0, game.t) - _raw.modulus(1.0, 0.0)
    numbers = [
        Number(
            "V* = (s - 1) sqrt(2/pi)",
            game.optimal_value,
            _raw.transport(game.s, 1.0, 0.0),
            "quadrature of W_1",
        ),
        Number(f"gain of the shift u = {game.t:g} against |x|", game.nash_gain, gain, "quadrature"),
    ]
    below = game.max_min_value
    most = ""
    if below is not None:
        found = _raw.max_min_wgan(game.s, game.t)
        numbers.append(
            Number(
                "max-min, s sqrt(2/pi) - E|z + t|", below, found, "linear programme on a grid", 1e-3
            )
        )
        most = f" max-min {below:.6g} lies below min-max {game.optimal_value:.6g}: no pair is Nash."
    yield verdict_on(
        "theorem-1-wgan",
        "Theorem 1, WGAN, d = 1",
        "No Nash equilibrium.",
        f"d = 1, s = {game.s:g}, t = {game.t:g}",
        numbers,
        game.nash_gain > 0,
        f"Against D* = |x| the shift gains {game.nash_gain:.6g}.{most}",
    )


def _remark_1(setting: Setting) -> Iterator[CheckedStatement]:
    game, line = setting.narrow, WGaussian1d(setting.narrow.s, setting.t)
    W, u, A, b = game.optimum()
    best, _, _ = _raw.v_prox(game.s, game.eta, W, u, A / 2, b + 0.1, 0.0)
    least = _raw.least_value(game.s, game.eta, game.t, A, b)
    grid = [
        _raw.modulus(w, v) - _raw.modulus(game.s, 0.0)
        for w in (1.0, 1.1, 2.0)
        for v in (-game.t, -game.t / 3, 0.0, game.t / 2)
    ]
    yield verdict_on(
        "remark-1",
        "Remark 1",
        "For s < 1 and sigma_min(W) >= 1 the distance-minimising pair is Nash, for WGAN and W2GAN.",
        game_in_words(game),
        [
            Number(
                "W2GAN: duality gap at the optimum",
                game.duality_gap(W, u, A, b),
                best - least,
                "two searches",
            ),
            Number("W2GAN: V*", game.optimal_value, least, "search over (W, u)"),
            Number(
                "WGAN, d = 1: V* against D* = -|x|",
                line.optimal_value,
                min(grid),
                "quadrature on a grid of (w, u)",
            ),
        ],
        game.duality_gap(W, u, A, b) < 1e-9 and line.duality_gap(*line.optimum) < 1e-12,
        "No feasible deviation gains: the gap is 0. (The same holds for every f-GAN with a finite value: "
        "psi(p/q) falls with |x|, and every feasible change moves mass outwards.)",
    )


def _c_concave(setting: Setting) -> Iterator[CheckedStatement]:
    low = replace(setting.narrow, s=min(setting.narrow.s, 0.4))
    W, u, A, b = low.optimum()
    held = low.eta * low.d * (0.5 - low.s**2)
    cut = -low.eta * np.eye(low.d)
    found, a, _ = _raw.v_prox(low.s, low.eta, W, u, cut / 2, b, 0.0)
    yield verdict_on(
        "c-concave",
        "Section 3.1 and Remark 1, c-concave critics",
        "c-concave read as A >= -eta I (a c-transform of something) leaves a best critic in.",
        game_in_words(low),
        [
            Number(
                "largest eigenvalue of A* / eta, 1 - 1/s",
                1 - 1 / low.s,
                float(np.linalg.eigvalsh(a)[-1]) / low.eta,
                "search over (A, b)",
            ),
            Number("V* over all A < eta I", low.optimal_value, found, "search over (A, b)"),
            Number(
                "V at A = -eta I, the best of A >= -eta I",
                held,
                float(_raw.gan_value(low.s, low.eta, *_raw.tensors(W, u, cut, b))),
                "the definition",
            ),
        ],
        bool(A[0, 0] >= -low.eta),
        f"For s < 1/2 Remark 1's optimum has A* = {A[0, 0]:.6g} I below -eta I; projecting onto A >= -eta I "
        "would exclude it. What duality needs is A < eta I, where D^c is finite.",
        printed=False,
    )


PARTS: tuple[Callable[[Setting], Iterator[CheckedStatement]], ...] = (
    _direction,
    _proposition_1,
    _theorem_1_f,
    _theorem_1_w2,
    _theorem_1_w1,
    _remark_1,
    _c_concave,
)
