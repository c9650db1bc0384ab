"""Mirror-prox on a large matrix game against its matrix products alone.

An iteration evaluates M y and M^T x twice: four products. Ours is `MirrorProx().run(...)` entire: scaling the
payoffs, the iterations (four exponentials, four normalisations, two sums) and the gap at the end. The other side is
the same number of products by `torch.mv` into given memory. Blocks of 1,000 iterations are timed in turn,
A B A B ..., the order alternating; the figure is the ratio ours / products, the median of the pairs with quartiles.

The second table is why the library keeps no transposed copy of M: milliseconds for one product M y and one M^T x in
turn, M^T as a transposed view or as a contiguous copy.

    python benchmarks/mirror_prox.py [--pairs 7] [--dtype float64] [--size 2000] [--iterations 1000] [--threads 1]
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor

from equilibrist.mixed.matrix import MatrixGame
from equilibrist.mixed.mirror import MirrorProx

BOUND = 1.3


def seconds(block: Callable[[], object]) -> float:
    """What one call of `block` takes."""
    begun = time.perf_counter()
    block()
    return time.perf_counter() - begun


def interleaved(
    a: Callable[[], object], b: Callable[[], object], pairs: int
) -> list[tuple[float, float]]:
    """Seconds of a and of b, in turn; who goes first alternates."""
    times = []
    for pair in range(pairs):
        first, second = (a, b) if pair % 2 else (b, a)
        t1, t2 = seconds(first), seconds(second)
        times.append((t1, t2) if pair % 2 else (t2, t1))
    return times


def quartiles(values: list[float]) -> tuple[float, float, float]:
    low, middle, high = statistics.quantiles(values, n=4)
    return low, middle, high


def products(M: Tensor, MT: Tensor, count: int) -> Callable[[], None]:
    """`count` times M y and M^T x."""
    x, y = M.new_full((M.shape[0],), 1 / M.shape[0]), M.new_full((M.shape[1],), 1 / M.shape[1])
    rows, columns = torch.empty_like(x), torch.empty_like(y)

    def block() -> None:
        for _ in range(count):
            torch.mv(M, y, out=rows)
            torch.mv(MT, x, out=columns)

    return block


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--dtype", choices=("float64", "float32"), default="float64")
    parser.add_argument("--size", type=int, default=2000)
    parser.add_argument("--iterations", type=int, default=1000)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    drawn = MatrixGame.random(options.size, options.size, seed=0).payoff
    game = MatrixGame(drawn.to(getattr(torch, options.dtype)))
    M, count = game.payoff, options.iterations
    method = MirrorProx()
    print(
        f"torch {torch.__version__}, {options.threads} thread(s), {options.size} x {options.size} {options.dtype}, "
        f"{options.pairs} interleaved pairs of {count} iterations",
        flush=True,
    )
    alone, copied = products(M, M.mT, 2 * count), products(M, M.mT.contiguous(), 2 * count)

    def ours() -> None:
        method.run(game, count, record=1)

    method.run(game, max(1, count // 20), record=1)
    products(M, M.mT, max(1, count // 10))()
    times = interleaved(ours, alone, options.pairs)
    low, middle, high = quartiles([a / b for a, b in times])
    mine, theirs = (statistics.median(t[k] for t in times) / count * 1e3 for k in (0, 1))
    print(
        f"{'an iteration':32} {'ours ms':>8} {'products':>8} {'ratio':>6} {'quartiles':>13} {'bound':>6}"
    )
    print(
        f"{'mirror-prox':32} {mine:8.2f} {theirs:8.2f} {middle:6.3f} {low:6.3f}-{high:5.3f} {BOUND:6.2f}",
        flush=True,
    )
    layouts = interleaved(copied, alone, options.pairs)
    low, ratio, high = quartiles([a / b for a, b in layouts])
    copy, view = (statistics.median(t[k] for t in layouts) / (2 * count) * 1e3 for k in (0, 1))
    print(f"{'M y and M^T x':32} {'copy ms':>8} {'view ms':>8} {'ratio':>6} {'quartiles':>13}")
    print(
        f"{'M^T copied, M^T viewed':32} {copy:8.2f} {view:8.2f} {ratio:6.3f} {low:6.3f}-{high:5.3f}"
    )
    trace = method.run(game, count, record=1)
    print(
        f"gap of the average {float(trace.gap_average[-1]):.3g}, guaranteed {float(trace.bound[-1]):.3g}"
    )
    print("the ratio is within its bound" if middle <= BOUND else "the ratio is above its bound")
    return 0 if middle <= BOUND else 1


if __name__ == "__main__":
    sys.exit(main())
