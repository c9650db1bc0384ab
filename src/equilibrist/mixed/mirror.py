"""Entropic mirror descent, mirror-prox and optimistic mirror descent on matrix games, with their guarantees.

Notation of all: M [n, m] is the payoff, R = max M - min M, L = ln n + ln m, s the standard deviation of the noise,
e_x and e_y one draw of it. Both players move at once (simultaneously); the start is uniform unless given.

In expectation, noise adds tail(t) = s (sqrt(2 ln n) + sqrt(2 ln m)) / sqrt(t) to every guarantee below: the expected
maximum of a mean of t normal vectors bounds it, as the noise does not depend on the iterates.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor

from equilibrist.mixed._play import MatrixPlay, Start, logits
from equilibrist.mixed.matrix import MatrixGame
from equilibrist.progress import showing


@dataclass(frozen=True, eq=False)
class Trace:
    """What a run recorded. Leading dimensions: [records], or [records, games] where several games ran at once.

    Attributes:
        method: the method, its step and the noise, in words.
        steps: iterations T of the whole run.
        eta: the step [games] (a number where one game ran), in 1 / units of the payoff; with anytime steps, that of
            the first iteration.
        times: after how many iterations t, int64 [records].
        gap_average, gap_last: duality gap of the averages and of the last iterates, in units of the payoff.
        bound: the guarantee for `gap_average` at these times (in expectation where there is noise); inf where none
            is known.
        average_x, average_y: averages [..., n], [..., m] of what the t first iterations played.
        last_x, last_y: the point after t iterations, which the averages do not hold yet.
    """

    method: str
    steps: int
    eta: Tensor
    times: Tensor
    gap_average: Tensor
    gap_last: Tensor
    bound: Tensor
    average_x: Tensor
    average_y: Tensor
    last_x: Tensor
    last_y: Tensor


@dataclass(frozen=True)
class _Method(ABC):
    """What the methods share.

    Attributes:
        eta: the step, in 1 / units of the payoff; None: the one stated for the game and the number of iterations.
    """

    eta: float | None = None

    title: ClassVar[str]
    evaluations: ClassVar[int] = 1  # of the payoff vectors (M y, M^T x), in one iteration

    def __post_init__(self) -> None:
        if self.eta is not None and not (math.isfinite(self.eta) and self.eta > 0):
            raise ValueError(
                f"{type(self).__name__} needs a finite step above 0, not eta={self.eta}"
            )

    def step(self, game: MatrixGame, steps: int, noise: float = 0.0) -> float:
        """The step that a run of `steps` iterations takes: `eta`, or the stated one."""
        _positive(steps)
        if self.eta is not None:
            return self.eta
        # A constant payoff (R = 0, no noise) or a game of one strategy each: any step does.
        size = math.hypot(game.spread, 2 * noise)
        return (self._stated(game.spread, noise, _log(game), steps) if size else 0.0) or 1.0

    def bound(
        self, game: MatrixGame, steps: int, noise: float = 0.0, at: int | None = None
    ) -> float:
        """Guaranteed duality gap of the average after `at` (None: all) of `steps` iterations from the uniform start.

        In units of the payoff; inf where nothing is guaranteed. With noise it bounds the expectation.
        """
        t = steps if at is None else at
        if not 1 <= t <= steps:
            raise ValueError(f"a run of {steps} iterations has no average after {t}")
        return self._bound(game, self.step(game, steps, noise), noise, t, _log(game))

    def run(
        self,
        game: MatrixGame,
        steps: int,
        noise: float = 0.0,
        seed: int = 0,
        start: Start | None = None,
        record: int | Sequence[int] | None = None,
        progress: str = "none",
    ) -> Trace:
        """Play `steps` iterations of one game.

        `noise` is the standard deviation of independent normal errors on every entry of M y and M^T x, at every
        evaluation; `seed` addresses them. `start` is (x [n], y [m]); strategies that it gives 0 stay there. `record`
        has the times to record, or about how many (None: ten a decade), evenly spaced on a log scale. `progress` is
        "auto", "bar", "lines" or "none".

        Raises:
            ValueError: an argument does not fit.
        """
        trace = self.run_many([game], steps, noise, seed, start, record, progress)
        return replace(
            trace,
            eta=trace.eta[0],
            gap_average=trace.gap_average[:, 0],
            gap_last=trace.gap_last[:, 0],
            bound=trace.bound[:, 0],
            average_x=trace.average_x[:, 0],
            average_y=trace.average_y[:, 0],
            last_x=trace.last_x[:, 0],
            last_y=trace.last_y[:, 0],
        )

    def run_many(
        self,
        games: Sequence[MatrixGame],
        steps: int,
        noise: float = 0.0,
        seed: int = 0,
        start: Start | None = None,
        record: int | Sequence[int] | None = None,
        progress: str = "none",
    ) -> Trace:
        """Play several games of one shape at once; each has its own step and its own noise.

        As `run`; `start` holds for every game, or has a leading dimension of games.
        """
        _positive(steps)
        if not (math.isfinite(noise) and noise >= 0):
            raise ValueError(f"noise is a standard deviation, at least 0 and finite, not {noise}")
        if (
            not games
            or len({(g.payoff.shape, g.payoff.dtype, g.payoff.device) for g in games}) != 1
        ):
            raise ValueError("run_many needs at least one game, all of one shape, dtype and device")
        times = record_times(steps, record)
        steps_of = [self.step(game, steps, noise) for game in games]
        play = MatrixPlay(games, steps_of, noise, seed, self.evaluations, logits(start, games))
        play.check(steps)
        kept: list[tuple[Tensor, ...]] = []
        done, chunk = 0, min(max(1, steps // 200), 1024)
        self._begin(play)
        with showing(progress, self.title, steps) as bar:
            for time in times:
                while done < time:
                    count = min(chunk, time - done)
                    self._advance(play, done, count)
                    play.fold()
                    done += count
                    shown = {"gap": float(kept[-1][0].mean())} if kept else {}
                    bar.update(done, shown)
                kept.append(play.look())
        stacked = [torch.stack(column) for column in zip(*kept, strict=True)]
        logs = play.logs.tolist()
        bounds = [
            [
                self._bound(g, e, noise, t, log)
                for g, e, log in zip(games, steps_of, logs, strict=True)
            ]
            for t in times
        ]
        return Trace(
            self._words(steps_of, noise),
            steps,
            torch.tensor(steps_of, dtype=torch.float64),
            torch.tensor(times),
            stacked[0],
            stacked[1],
            torch.tensor(bounds, dtype=torch.float64),
            *stacked[2:],
        )

    def _words(self, etas: list[float], noise: float) -> str:
        low, high = min(etas), max(etas)
        step = f"{low:.4g}" if low == high else f"{low:.4g} to {high:.4g}"
        given = "given" if self.eta is not None else "stated"
        return f"{self.title}, {given} step {step}, " + (
            f"noise {noise:g}" if noise else "exact payoffs"
        )

    def _begin(self, play: MatrixPlay) -> None:
        """Set the buffers that the iterations start from."""
        play.point(play.log_x, play.log_y)

    @abstractmethod
    def _stated(self, R: float, s: float, L: float, T: int) -> float: ...

    @abstractmethod
    def _bound(self, game: MatrixGame, eta: float, s: float, t: int, L: float) -> float: ...

    @abstractmethod
    def _advance(self, play: MatrixPlay, done: int, count: int) -> None:
        """Take iterations done + 1 ... done + count."""


@dataclass(frozen=True)
class MirrorDescent(_Method):
    """Entropic mirror descent: x+ ∝ x exp(-eta (M y + e_x)), y+ ∝ y exp(eta (M^T x + e_y)); average the iterates,
    the start included and the point after the last update not.

    Stated step for T iterations: eta = 2 sqrt(L / T) / sqrt(R^2 + 4 s^2). Its guarantee, for any step and any t <= T,
    is L / (eta t) + eta (R^2 / 4 + s^2) + tail(t): R sqrt(L / T) at t = T without noise. The last iterate does not
    converge (Bailey and Piliouras 2018): it spirals towards the boundary.

    Attributes:
        eta: the step; with `anytime`, that of the first iteration.
        anytime: steps eta / sqrt(t) that need no T, in the form of dual averaging: iterate t (1, 2, ...) is
            x ∝ x_1 exp(-(eta / sqrt(t)) sum of M y + e_x so far). Stated: eta = sqrt(L / (2 (R^2 / 4 + s^2)));
            its guarantee at every t is L / (eta sqrt(t)) + 2 eta (R^2 / 4 + s^2) / sqrt(t) + tail(t), which is
            R sqrt(2 L / t) without noise.

    Source: Freund and Schapire 1999, section 3 (multiplicative weights); Hoeffding's lemma gives R^2 / 8 a player,
    the normal moment generating function s^2 / 2, and the two regrets add up to the gap.
    """

    anytime: bool = False

    title: ClassVar[str] = "mirror descent"

    def _stated(self, R: float, s: float, L: float, T: int) -> float:
        if self.anytime:
            return math.sqrt(L / 2) / math.hypot(R / 2, s)
        return 2 * math.sqrt(L / T) / math.hypot(R, 2 * s)

    def _bound(self, game: MatrixGame, eta: float, s: float, t: int, L: float) -> float:
        rate, square = _tail(game, s, t), game.spread**2 / 4 + s**2
        if self.anytime:
            return (L / eta + 2 * eta * square) / math.sqrt(t) + rate
        return L / (eta * t) + eta * square + rate

    def _words(self, etas: list[float], noise: float) -> str:
        words = super()._words(etas, noise)
        return words.replace(" step ", " steps 1/sqrt(t) times ") if self.anytime else words

    def _begin(self, play: MatrixPlay) -> None:
        if self.anytime:  # what is summed starts at 0, what it is added to stays
            play.base = play.log_x.clone(), play.log_y.clone()
            play.log_x.zero_()
            play.log_y.zero_()
            play.point(*play.base)
        else:
            super()._begin(play)

    def _advance(self, play: MatrixPlay, done: int, count: int) -> None:
        for t in range(done, done + count):
            play.sum()
            play.push(play.log_x, play.log_y, play.log_x, play.log_y, t)
            play.settle()
            if self.anytime:
                rate = 1 / math.sqrt(t + 2)  # the next iterate is number t + 2
                torch.add(play.base[0], play.log_x, alpha=rate, out=play.half_x)
                torch.add(play.base[1], play.log_y, alpha=rate, out=play.half_y)
                play.point(play.half_x, play.half_y)
            else:
                play.point(play.log_x, play.log_y)


@dataclass(frozen=True)
class MirrorProx(_Method):
    """Entropic mirror-prox: a half-step to (x', y') with the payoffs at (x, y), then the whole step from (x, y) with
    those at (x', y'); average the half-steps.

    Stated step: eta = 2 / R. Its guarantee, for any step up to that, is L / (eta t) at every t: R L / (2 t). With
    noise (two independent draws an iteration): eta = min(1 / R, sqrt(L / T) / (2 s)), and for any step up to 1 / R
    the expected gap is at most L / (eta t) + 4 eta s^2 + tail(t).

    Source: Nemirovski 2004 (exact); Juditsky, Nemirovski and Tauvel 2011 (stochastic mirror-prox), whose step of
    order T^(-1/2) this is. Its constants are our own, as the noise is normal and independent here: half of
    D(z+, z') takes up the error e' - e, at a cost of 2 eta^2 s^2 a player and iteration instead of one that grows
    with ln n. (E ln sum x' exp(-2 eta e') <= 2 eta^2 s^2; the parts with e cancel by symmetry, up to
    -E <e, x'> <= eta s^2.)

    Examples:
        >>> from equilibrist import MatrixGame, MirrorProx
        >>> trace = MirrorProx().run(MatrixGame.random(5, 4, seed=0), steps=100)
        >>> bool(trace.gap_average[-1] <= trace.bound[-1])
        True
    """

    title: ClassVar[str] = "mirror-prox"
    evaluations: ClassVar[int] = 2

    def _stated(self, R: float, s: float, L: float, T: int) -> float:
        if not s:
            return 2 / R
        return min(1 / R if R else math.inf, math.sqrt(L / T) / (2 * s))

    def _bound(self, game: MatrixGame, eta: float, s: float, t: int, L: float) -> float:
        # A step at the limit itself may lie above it by rounding.
        if eta * game.spread > (1 if s else 2) * (1 + 1e-12):
            return math.inf
        return L / (eta * t) + 4 * eta * s**2 + _tail(game, s, t)

    def _advance(self, play: MatrixPlay, done: int, count: int) -> None:
        for t in range(done, done + count):
            play.push(play.half_x, play.half_y, play.log_x, play.log_y, 2 * t)
            play.point(play.half_x, play.half_y)
            play.sum()
            play.push(play.log_x, play.log_y, play.log_x, play.log_y, 2 * t + 1)
            play.settle()
            play.point(play.log_x, play.log_y)


@dataclass(frozen=True)
class OptimisticMirror(_Method):
    """Optimistic multiplicative weights: x+ ∝ x exp(-eta (2 g - g_before)), g = M y + e_x, and likewise y; g_before
    is 0 at the start. One evaluation an iteration; average the iterates, the start included.

    Stated step: eta = 1 / (4 R) (with noise no more than sqrt(L / T) / (2 s)). Without noise the last iterate
    converges linearly where the equilibrium is unique (Daskalakis and Panageas 2019; for a step of 1/8 and payoffs in
    [-1, 1], which is this one: Wei, Lee, Zhang and Luo 2021, Theorem 3). The average of any step up to 1 / R has
    gap <= (L / eta + eta R^2 / 2) / t (regret bounded by variation in utilities, Syrgkanis, Agarwal, Luo and Schapire
    2015, Proposition 7, with g_before = 0: the variations of one player pay for the other's). With noise no
    guarantee is stated.
    """

    title: ClassVar[str] = "optimistic mirror descent"

    def _stated(self, R: float, s: float, L: float, T: int) -> float:
        small = math.sqrt(L / T) / (2 * s) if s else math.inf
        return min(1 / (4 * R) if R else math.inf, small)

    def _bound(self, game: MatrixGame, eta: float, s: float, t: int, L: float) -> float:
        if s or eta * game.spread > 1 + 1e-12:
            return math.inf
        return (L / eta + eta * game.spread**2 / 2) / t

    def _advance(self, play: MatrixPlay, done: int, count: int) -> None:
        for t in range(done, done + count):
            play.sum()
            # With G the sum of all g so far, g included, the next iterate is that of G + g.
            play.push(play.half_x, play.half_y, None, None, t)
            play.log_x.add_(play.half_x)
            play.log_y.add_(play.half_y)
            play.settle()
            play.half_x.add_(play.log_x)
            play.half_y.add_(play.log_y)
            play.point(play.half_x, play.half_y)


def record_times(steps: int, record: int | Sequence[int] | None = None) -> list[int]:
    """Increasing times from 1 to `steps`, both included, evenly spaced on a log scale: about `record` of them
    (None: ten a decade); or the given ones, checked."""
    if record is None:
        record = 1 + math.ceil(10 * math.log10(steps))
    if isinstance(record, int):
        if record < 1:
            raise ValueError(f"record needs at least one time, not {record}")
        ratio = math.log(steps) / max(record - 1, 1)
        return sorted({*(round(math.exp(k * ratio)) for k in range(record - 1)), steps})
    times = [int(t) for t in record]
    if not times or times[0] < 1 or times[-1] > steps or any(a >= b for a, b in pairwise(times)):
        raise ValueError(f"record needs increasing times within 1 to {steps}, not {times}")
    return times


def _positive(steps: int) -> None:
    if steps < 1:
        raise ValueError(f"a run needs at least one iteration, not {steps}")


def _log(game: MatrixGame) -> float:
    return math.log(game.n) + math.log(game.m)


def _tail(game: MatrixGame, s: float, t: int) -> float:
    return s * (math.sqrt(2 * math.log(game.n)) + math.sqrt(2 * math.log(game.m))) / math.sqrt(t)
