"""Rates of mirror methods on random matrix games: log-log slopes of the averages' duality gap over T = 10^3 to 10^5.

    python campaigns/matrix_rates.py [--games 20] [--sizes 10 30] [--laws uniform normal sign skew] [--repeats 4]

One run for every T, with the step stated for that T; all games of a row run as one batch. The slope is fitted by
least squares game by game; a row has the mean over games with Student's 95% interval, the game farthest from the
rate, how many games lie within 0.07 of it, and the largest ratio gap / guarantee over all games and recorded
times. With noise (standard deviation 1, payoffs of size 1) both the slope and the ratio are those of a mean gap, over
`repeats` independent noises a game (slope) or these and all games (ratio): it is the expectation that is bounded.
The anytime steps and the optimistic method have a guarantee of that rate but no stated slope: theirs may be steeper.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass

import numpy as np
import torch
from scipy.special import stdtrit

from equilibrist.mixed.matrix import LAWS, MatrixGame
from equilibrist.mixed.mirror import MirrorDescent, MirrorProx, OptimisticMirror
from equilibrist.progress import Progress, showing

TIMES = (1000, 3162, 10000, 31623, 100000)
MARGIN = 0.07


@dataclass(frozen=True)
class Row:
    """A method, the noise on its payoffs and the rate that its averages must show (`steeper`: or beat)."""

    name: str
    method: MirrorDescent | MirrorProx | OptimisticMirror
    noise: float
    rate: float
    steeper: bool = False


ROWS = (
    Row("mirror descent", MirrorDescent(), 0.0, -0.5),
    Row("mirror descent, anytime", MirrorDescent(anytime=True), 0.0, -0.5, steeper=True),
    Row("mirror descent, noise", MirrorDescent(), 1.0, -0.5),
    Row("mirror-prox", MirrorProx(), 0.0, -1.0),
    Row("mirror-prox, noise", MirrorProx(), 1.0, -0.5),
    Row("optimistic", OptimisticMirror(), 0.0, -1.0, steeper=True),
)


@dataclass(frozen=True)
class Found:
    """What one row found: slopes [games], and the largest ratio of a gap to its guarantee."""

    slopes: np.ndarray
    ratio: float


def play(row: Row, games: list[MatrixGame], repeats: int, bar: Progress, done: int) -> Found:
    """All runs of a row; `done` iterations are behind the bar already."""
    times = repeats if row.noise else 1
    batch = [game for game in games for _ in range(times)]
    gaps, ratio = [], 0.0
    for T in TIMES:
        trace = row.method.run_many(batch, T, noise=row.noise, seed=T)
        gaps.append(trace.gap_average[-1].reshape(len(games), times).mean(1).numpy())
        ratios = trace.gap_average / trace.bound
        ratio = max(ratio, float((ratios.mean(1) if row.noise else ratios).max()))
        done += T
        bar.update(done, {"gap": float(gaps[-1].mean())})
    slopes = np.polyfit(np.log(TIMES), np.log(np.array(gaps)), 1)[0]
    return Found(slopes, ratio)


def line(row: Row, law: str, size: int, found: Found) -> tuple[str, bool]:
    """The table's line, and whether the rate and the guarantees hold."""
    slopes, n = found.slopes, len(found.slopes)
    mean = float(slopes.mean())
    reach = float(stdtrit(n - 1, 0.975)) * float(slopes.std(ddof=1)) / np.sqrt(n)
    worst = float(slopes[np.abs(slopes - row.rate).argmax()])
    within = int((np.abs(slopes - row.rate) <= MARGIN).sum())
    off = mean - row.rate
    good = off <= MARGIN and (off >= -MARGIN or row.steeper) and found.ratio <= 1
    text = (
        f"{row.name:24} {law:8} {size:4d} {row.rate:5.1f} {mean:7.3f}  {mean - reach:6.3f} to {mean + reach:6.3f} "
        f"{worst:7.3f} {within:4d}/{n:<3d} {found.ratio:9.3f}  {'holds' if good else 'MISSED'}"
    )
    return text, good


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--games", type=int, default=20)
    parser.add_argument(
        "--sizes", type=int, nargs="+", default=[10, 30], help="strategies a player"
    )
    parser.add_argument("--laws", nargs="+", default=list(LAWS), choices=LAWS)
    parser.add_argument("--repeats", type=int, default=4, help="noises a game")
    parser.add_argument("--only", default="", help="rows whose name contains this")
    parser.add_argument("--progress", default="auto", choices=("auto", "bar", "lines", "none"))
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    if options.games < 2:
        parser.error("--games must be at least 2: an interval needs a spread")
    torch.set_num_threads(options.threads)
    rows = [row for row in ROWS if options.only in row.name]
    cases = [(row, law, size) for row in rows for law in options.laws for size in options.sizes]
    begun, missed, a_case = time.monotonic(), 0, sum(TIMES)
    print(f"{options.games} games a row, T = {', '.join(str(T) for T in TIMES)}")
    print(
        f"{'method':24} {'law':8} {'size':>4} {'rate':>5} {'slope':>7}  {'95% interval':16} "
        f"{'worst':>7} {'within':>8} {'gap/bound':>9}",
        flush=True,
    )
    with showing(options.progress, "rates", a_case * len(cases)) as bar:
        for k, (row, law, size) in enumerate(cases):
            games = [MatrixGame.random(size, size, seed=g, law=law) for g in range(options.games)]
            text, good = line(row, law, size, play(row, games, options.repeats, bar, k * a_case))
            print(text, flush=True)
            missed += not good
    print(f"{time.monotonic() - begun:.0f} s, {options.threads} thread(s)")
    print(
        f"every mean slope is within {MARGIN} of its rate (or steeper, where that may be), every guarantee holds"
        if not missed
        else f"{missed} row(s) missed"
    )
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
