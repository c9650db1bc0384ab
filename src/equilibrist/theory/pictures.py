"""Charts of the theory's page, as hand-written SVG with the report's means."""

from __future__ import annotations

import math

import numpy as np

from equilibrist.formulations.divergences import divergence
from equilibrist.report.charts import BROAD, Size, render_sizes, svg_path, svg_text
from equilibrist.report.formatting import format_number
from equilibrist.report.lines import Line, legend, line_chart
from equilibrist.theory.fgan import FGaussian, condition
from equilibrist.theory.statements import Setting
from equilibrist.theory.w2gan import W2Gaussian
from equilibrist.theory.wgan1d import WGaussian1d


def deviations(setting: Setting) -> str:
    """Theorem 1: what a shift of length |u| gains the generator, in units of the optimal value."""
    wide = setting.wide
    rho = np.linspace(0, setting.t, 61)
    first = np.eye(wide.d)[0]
    line = WGaussian1d(wide.s, setting.t)
    lines = [
        Line(
            "W2GAN",
            rho,
            np.array([wide.shift_gain(x * first) for x in rho]) / wide.optimal_value,
            0,
        ),
        Line(
            "WGAN, d = 1",
            rho,
            np.array([line.shift_gain(float(x)) for x in rho]) / line.optimal_value,
            1,
        ),
    ]
    for colour, name in (
        (2, "reverse_kl"),
        (3, "jensen_shannon"),
        (4, "squared_hellinger"),
        (5, "neyman"),
    ):
        game = FGaussian(name, wide.d, wide.s, setting.t)
        gains = np.array([game.shift_gain(float(x)) for x in rho])
        lines.append(Line(f"f-GAN, {game.f.name}", rho, gains / game.optimal_value, colour))
    words = "Gain of a shift at the optimum as a share of the optimal value; positive in every formulation"
    return legend(lines) + line_chart(lines, "length of the shift |u|", words)


def values_chart(setting: Setting) -> str:
    """Min-max and max-min of the W2GAN over the bound t: apart for t > 0, so that no pair is Nash."""
    s, d, eta = setting.wide.s, setting.d, setting.eta
    t = np.linspace(0, max(setting.t, 1.1 * math.sqrt(d * (s**2 - 1))), 101)
    games = [W2Gaussian(d, s, eta, float(x)) for x in t]
    lines = [
        Line("min-max", t, np.array([game.optimal_value for game in games]), 0),
        Line("max-min", t, np.array([game.max_min_value for game in games]), 1),
    ]
    words = "Min-max and max-min value of the W2GAN over t: equal at t = 0 only"
    own = f"t = {format_number(setting.t)}"
    return legend(lines, own) + line_chart(lines, "bound t on the shift", words, (setting.t,))


def prox_along_shift(setting: Setting) -> str:
    """V_prox(I, u; D*) - V* along the shift, for several lambda."""
    game = setting.wide
    W, _, A, b = game.optimum()
    first = np.eye(game.d)[0]
    rho = np.linspace(-game.t, game.t, 81)
    star = game.lambda_star
    chosen = {
        "0 (Stackelberg)": 0.0,
        "lambda*/2": 0.5 * star,
        "lambda*": star,
        "2 lambda*": 2 * star,
        "infinity (Nash)": math.inf,
    }
    lines = [
        Line(
            f"lambda = {name}",
            rho,
            np.array([game.v_prox(W, x * first, A, b, lam) for x in rho]) - game.optimal_value,
            colour,
        )
        for colour, (name, lam) in enumerate(chosen.items())
    ]
    words = "V_prox along the shift, less V*: least at u = 0 up to lambda*, lower elsewhere beyond"
    return legend(lines) + line_chart(lines, "shift u along one direction", words)


def profile_chart(setting: Setting) -> str:
    """r(lambda) of the W2GAN optimum, with Theorem 2's bound and the exact lambda*."""
    game = setting.wide
    lams = np.unique(
        np.concatenate([np.geomspace(0.1, 1000, 97), np.geomspace(1, 1.2, 21)]) * game.lambda_star
    )
    lams = np.unique(np.append(lams, game.theorem_2 * np.array([0.5, 1.0])))
    r = np.array([game.profile(float(lam)) for lam in lams])
    lines = [
        Line("r(lambda)", lams, r, 0),
        Line(
            f"Nash gain {format_number(game.nash_gain)}",
            lams[[0, -1]],
            np.full(2, game.nash_gain),
            1,
        ),
    ]
    marks = (game.theorem_2, game.lambda_star)
    dashed = f"1/(4 eta) = {format_number(marks[0])}, then lambda* = {format_number(marks[1])}"
    words = (
        f"Profile r of the W2GAN optimum: 0 up to lambda* = {format_number(game.lambda_star)}, then rising to the "
        f"Nash gain {format_number(game.nash_gain)}"
    )
    return legend(lines, dashed) + line_chart(lines, "lambda", words, marks, log_x=True)


def profile_wgan_chart(setting: Setting) -> str:
    """r(lambda) of the 1-d WGAN optimum, with its law for small lambda."""
    game = WGaussian1d(setting.wide.s, setting.t)
    lams = np.geomspace(1e-3, 100, 26) * game.t
    r = np.array([game.profile(float(lam)) for lam in lams])
    law = np.array([game.small_lambda(float(lam)) for lam in lams])
    law[law > 2 * game.nash_gain] = np.nan
    lines = [
        Line("r(lambda)", lams, r, 0),
        Line("law for small lambda", lams, law, 2),
        Line(
            f"Nash gain {format_number(game.nash_gain)}",
            lams[[0, -1]],
            np.full(2, game.nash_gain),
            1,
        ),
    ]
    words = "Profile r of the 1-d WGAN optimum: positive for every lambda, so that lambda* is 0"
    return legend(lines) + line_chart(lines, "lambda", words, log_x=True, log_y=True)


def conditions() -> str:
    """t^2 f''(t) of every divergence, scaled to 1 at t = 1."""
    lines = []
    names = ("kl", "reverse_kl", "jensen_shannon", "pearson", "neyman", "squared_hellinger")
    for colour, name in enumerate(names):
        met, t, values = condition(name)
        kept = (t >= 1e-2) & (t <= 1e2)
        scaled = values / values[len(values) // 2]
        words = divergence(name).name + ("" if met else " (falls)")
        lines.append(Line(words, t[kept], scaled[kept], colour))
    words = "t^2 f''(t) over t: rising or level for all but Neyman, which falls"
    return legend(lines) + line_chart(lines, "t", words, log_x=True, log_y=True)


def nested(setting: Setting) -> str:
    """Figure 3: for which lambda the W2GAN optimum is a proximal equilibrium, for several s."""
    own = setting.wide.s
    several = sorted({round(1 / own, 6), 1.1, 1.5, round(own, 6), 4.0, 16.0})
    games = [W2Gaussian(setting.d, s, setting.eta, setting.t) for s in several]
    bound = games[0].theorem_2
    stars = [game.lambda_star for game in games]
    low = math.log10(bound / 4)
    high = math.log10(max([x for x in stars if x < math.inf] + [bound]) * 2.5)

    def draw(size: Size) -> str:
        left, right, row = (150.0, 84.0, 34.0) if size.kind == "wide" else (62.0, 48.0, 34.0)
        width = size.width - left - right

        def x(lam: float) -> float:
            return left + width * min(max((math.log10(lam) - low) / (high - low), 0), 1)

        parts = [
            svg_text(left, 14, "0: Stackelberg", "middle" if size.kind == "wide" else "start"),
            svg_text(size.width - 4, 14, "infinity: Nash", "end"),
        ]
        for i, (game, star) in enumerate(zip(games, stars, strict=True)):
            y = 40 + row * i
            end = size.width - right if star == math.inf else x(star)
            parts.append(svg_path([(left, y), (size.width - right, y)], "grid"))
            parts.append(
                svg_path([(left, y), (end, y)], f"bar {'verified' if star == math.inf else 'open'}")
            )
            parts.append(svg_text(left - 10, y + 4, f"s = {game.s:g}", "end"))
            label = "always" if star == math.inf else format_number(star)
            parts.append(svg_text(end + 8, y + 4, label))
        base = 40 + row * len(games)
        parts.append(svg_path([(x(bound), 24), (x(bound), base - 6)], "tolerance"))
        parts.append(svg_text(x(bound), base + 8, f"1/(4 eta) = {format_number(bound)}", "middle"))
        return "".join(parts)

    tall = 40 + 34 * len(games) + 24
    sizes = [Size(size.kind, size.width, tall, 0) for size in BROAD]
    words = (
        "The values of lambda for which the W2GAN optimum is a proximal equilibrium: "
        + "; ".join(
            f"s = {g.s:g}: up to {format_number(x)}" for g, x in zip(games, stars, strict=True)
        )
    )
    return render_sizes(draw, sizes, words)
