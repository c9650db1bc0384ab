"""Rates of mirror methods, as log-log slopes of the averages' duality gap over the horizon T: on random matrix games
and, by exact recursions, on measures.

One run for every T, with the step stated for that T; all games of a cell (a law of payoffs and a size) run as one
batch. The slope is fitted by least squares game by game. With noise (standard deviation 1, payoffs of size 1) both
the slope and the ratio gap / guarantee are those of a mean gap, over independent noises a game (slope), or these and
all games (ratio): it is the expectation that is bounded. The anytime step and the optimistic method have a guarantee of
that rate but no stated slope: theirs may be steeper.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from equilibrist.core.draws import Stream, generator
from equilibrist.mixed import GridDescent, GridProx, squared_distance_game
from equilibrist.mixed.matrix import LAWS, MatrixGame
from equilibrist.mixed.mirror import MirrorDescent, MirrorProx, OptimisticMirror
from equilibrist.mixed.truths import von_mises_moment
from equilibrist.papers.model import ClaimOutcome, Measures, Records, Unit, Workspace
from equilibrist.statistics import estimate

MARGIN = 0.07
SEED = 2019


@dataclass(frozen=True)
class RateRow:
    """A method, the noise on its payoffs, the rate of its averages' gap, and what the paper says of it, if it does."""

    key: str
    title: str
    method: MirrorDescent | MirrorProx | OptimisticMirror
    noise: float
    rate: float
    claim: str = ""


NOISY = "With noisy payoffs the expected gap of the averages is O(T^-1/2)."
ROWS = (
    RateRow(
        "descent",
        "mirror descent",
        MirrorDescent(),
        0.0,
        -0.5,
        "The averages' duality gap is O(T^-1/2).",
    ),
    RateRow(
        "prox",
        "mirror-prox",
        MirrorProx(),
        0.0,
        -1.0,
        "With exact payoffs the averages' duality gap is O(1/T).",
    ),
    RateRow("descent-noise", "mirror descent, noisy payoffs", MirrorDescent(), 1.0, -0.5, NOISY),
    RateRow("prox-noise", "mirror-prox, noisy payoffs", MirrorProx(), 1.0, -0.5, NOISY),
    RateRow(
        "descent-anytime", "mirror descent, anytime step", MirrorDescent(anytime=True), 0.0, -0.5
    ),
    RateRow("optimistic", "optimistic mirror descent", OptimisticMirror(), 0.0, -1.0),
)


@dataclass(frozen=True)
class Scale:
    """Horizons, games a cell, strategies a player, and independent noises a game."""

    times: tuple[int, ...]
    games: int
    sizes: tuple[int, ...] = (10, 30)
    repeats: int = 4

    def cell(self, row: RateRow, law: str, size: int) -> Measures:
        """Slopes by game, and the largest ratio of a gap to its guarantee."""
        games = [MatrixGame.random(size, size, seed=g, law=law) for g in range(self.games)]
        times = self.repeats if row.noise else 1
        batch = [game for game in games for _ in range(times)]
        gaps, largest = [], []
        for T in self.times:
            trace = row.method.run_many(batch, T, noise=row.noise, seed=T)
            gaps.append(trace.gap_average[-1].reshape(len(games), times).mean(1).numpy())
            ratios = trace.gap_average / trace.bound
            largest.append(float((ratios.mean(1) if row.noise else ratios).max()))
        return {
            "law": law,
            "size": size,
            "slopes": log_log_slopes(self.times, gaps),
            "ratio": float(np.max(largest)),
        }


def log_log_slopes(times: tuple[int, ...], gaps: ArrayLike) -> list[float]:
    """Least-squares slopes of log gap [times, cases] over log T, case by case."""
    found: list[float] = np.polyfit(np.log(times), np.log(np.asarray(gaps)), 1)[0].tolist()
    return found


def recorded(records: Records, unit: str) -> Measures:
    """What a unit measured; nothing where it was not run."""
    return records[unit].measures if unit in records else {}


def units(scale: Scale, minutes: float) -> tuple[Unit, ...]:
    """A unit a method: all laws and sizes. Noise costs the most, by its repeats and its random numbers."""
    return tuple(
        Unit(
            f"rates-{row.key}",
            f"{row.title}: {scale.games} random games of each law and size, T to {scale.times[-1]:,}",
            minutes * (10.0 if row.noise else 1.0),
            partial(_work, scale, row),
        )
        for row in ROWS
    )


def _work(scale: Scale, row: RateRow, place: Workspace) -> Measures:
    return {
        "cells": [scale.cell(row, law, size) for size in scale.sizes for law in LAWS],
        "times": list(scale.times),
    }


RULE = (
    "slopes of log gap over log T, game by game, averaged over the games of a law and a size. Holds: no average slope "
    f"lies more than {MARGIN} above the rate, and no gap exceeds its guarantee at any recorded time. Holds in part: "
    "the guarantees do, and some slope does not. Does not hold: a guarantee is broken"
)


def judge(row: RateRow, records: Records) -> ClaimOutcome:
    """The rule above."""
    cells = recorded(records, f"rates-{row.key}").get("cells")
    if cells is None:
        return ClaimOutcome("not tried", "no run yet")
    means = [estimate(cell["slopes"]).mean for cell in cells]
    ratio = max(cell["ratio"] for cell in cells)
    why = (
        f"rate {row.rate:g}; average slopes {min(means):.3f} to {max(means):.3f} in {len(cells)} cells, largest gap "
        f"{ratio:.2f} times its guarantee"
    )
    if not all(cell["ratio"] <= 1 for cell in cells):
        return ClaimOutcome("does not hold", why)
    return ClaimOutcome("holds" if max(means) <= row.rate + MARGIN else "holds in part", why)


def markdown_tables(records: Records) -> list[str]:
    """Slopes by law, one number for each size."""
    found = [(row, recorded(records, f"rates-{row.key}")) for row in ROWS]
    found = [(row, measures) for row, measures in found if "cells" in measures]
    if not found:
        return []
    first = found[0][1]
    sizes = list(dict.fromkeys(cell["size"] for cell in first["cells"]))
    shapes = " and ".join(f"{n} x {n}" for n in sizes)
    horizons = ", ".join(f"{T:,}" for T in first["times"])
    lines = [
        f"Slopes of log gap over log T of the averages, T = {horizons}: means "
        f"over {len(first['cells'][0]['slopes'])} random games a cell, for {shapes} games; "
        "in brackets the widest half of a 95% interval in the row.",
        "",
        f"| method (rate) | {' | '.join(LAWS)} | largest gap / guarantee |",
        "|---|" + "---|" * (len(LAWS) + 1),
    ]
    for row, measures in found:
        cells, parts, widest = measures["cells"], [], 0.0
        for law in LAWS:
            ests = [estimate(cell["slopes"]) for cell in cells if cell["law"] == law]
            widest = max([widest, *(one.high - one.mean for one in ests if one.high is not None)])
            parts.append(", ".join(f"{one.mean:.3f}" for one in ests))
        ratio = max(cell["ratio"] for cell in cells)
        lines.append(
            f"| {row.title} ({row.rate:g}) | {' | '.join(parts)} | {ratio:.2f} ({widest:.3f}) |"
        )
    return lines


# -- rates on measures ----------------------------------------------------------------------------------

RATES = {"descent": -0.5, "prox": -1.0}


def starts(count: int) -> list[tuple[Tensor, Tensor]]:
    """Von Mises parameters (nu, mu) away from the equilibrium."""
    rng = generator(SEED, Stream.STUDY, 300)
    drawn = torch.from_numpy(rng.standard_normal((count, 2, 2)))
    return [(one[0], one[1]) for one in drawn]


def circle_gap(method: str, nu: Tensor, mu: Tensor, T: int) -> float:
    """The gap |m(average nu)| + |m(average mu)| after T steps from von Mises laws, by the exact recursion: descent at
    eta = 1 / sqrt(T), prox at eta = 1/2."""
    eta = 0.5 if method == "prox" else 1 / math.sqrt(T)
    sums = torch.zeros(2, 2, dtype=torch.float64)
    for _ in range(T):
        m_nu, m_mu = von_mises_moment(nu), von_mises_moment(mu)
        if method == "prox":
            m_nu, m_mu = von_mises_moment(nu - eta * m_mu), von_mises_moment(mu + eta * m_nu)
        sums[0] += m_nu
        sums[1] += m_mu
        nu, mu = nu - eta * m_mu, mu + eta * m_nu
    return float((sums / T).norm(dim=1).sum())


def square_gap(method: str, nodes: int, T: int) -> float:
    """The gap of the averages in (x - y)^2 on [0, 1] after T steps from uniform laws, with exact best responses on
    the interval: descent at eta = 2 / sqrt(T), prox at eta = 1."""
    rule = GridProx(1.0) if method == "prox" else GridDescent(2 / math.sqrt(T))
    return float(rule.run(squared_distance_game(), T, nodes=nodes, record=(T,)).gap_average[-1])


def on_measures(times: tuple[int, ...], count: int, nodes: int, place: Workspace) -> Measures:
    found: Measures = {"times": list(times)}
    for method in RATES:
        gaps = [[circle_gap(method, *start, T) for start in starts(count)] for T in times]
        square = [square_gap(method, nodes, T) for T in times]
        found[method] = {
            "circle": log_log_slopes(times, gaps),
            "square": log_log_slopes(times, [[gap] for gap in square])[0],
            "square over log": log_log_slopes(
                times, [[gap / math.log(T)] for gap, T in zip(square, times, strict=True)]
            )[0],
            "square gaps": square,
        }
    return found


ON_MEASURES_RULE = (
    f"slopes of log gap over log T. Holds: at most the rate + {MARGIN} on the circle (mean over starts) and in "
    "(x - y)^2. Holds in part: on the circle alone, where an equilibrium has a density; in (x - y)^2 it has none, so "
    "its relative entropy to the start is infinite, and a factor log T is expected. Does not hold: otherwise"
)


def judge_on_measures(method: str, records: Records) -> ClaimOutcome:
    found = recorded(records, "rates-on-measures").get(method)
    if found is None:
        return ClaimOutcome("not tried", "no run yet")
    rate = RATES[method] + MARGIN
    circle = estimate(found["circle"])
    why = (
        f"rate {RATES[method]:g}; slope {circle} on the circle, {found['square']:.3f} in (x - y)^2, "
        f"{found['square over log']:.3f} there for gap / log T"
    )
    if circle.mean <= rate and found["square"] <= rate:
        return ClaimOutcome("holds", why)
    if circle.mean <= rate:
        return ClaimOutcome("holds in part", why)
    return ClaimOutcome("does not hold", why)
