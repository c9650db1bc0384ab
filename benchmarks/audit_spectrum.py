"""What an audit's spectrum costs, in gradients of both players on the same minibatch.

Three claims: one J^T u takes at most 2.5 gradients; ten eigenvalues of a game of 75,000 parameters, five at the
largest-modulus and five at the extreme-imaginary end, at most 100; ten smallest real parts at most 2,000, or
the search says that they did not converge. Residuals are at most 1e-6 of the largest modulus. Times are
wall-clock, orthogonalisation included, against a gradient timed between them. The pair is trained for a while
first: untrained Jacobians are easier.

OMP_NUM_THREADS=1 python benchmarks/audit_spectrum.py
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from bench_rows import Row, keep

from equilibrist import JacobianOperator, VectorField, train, tree
from equilibrist.core.exact import Exact
from equilibrist.run import Recipe
from equilibrist.spectra.krylov import ENDS, krylov
from equilibrist.spectra.products import product_with
from equilibrist_recipes.digits import digits_sngan, digits_wgan_gp

DIM = 27  # 76,628 parameters
RECIPES = {"sn-gan": digits_sngan, "wgan-gp": digits_wgan_gp}
PRODUCT, OUTER, INNER = 2.5, 100.0, 2000.0


def once(action: Callable[[], object]) -> float:
    begun = time.perf_counter()
    action()
    return time.perf_counter() - begun


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--pairs", type=int, default=11)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(f"torch {torch.__version__}, {options.threads} thread(s), float64, one minibatch of 64")
    missed = 0
    for name, recipe in RECIPES.items():
        if options.only not in name:
            continue
        missed += measured(name, replace(recipe(dim=DIM, steps=options.steps), scores=()), options)
    print("every cost is within its bound" if not missed else f"{missed} cost(s) above the bound")
    return 1 if missed else 0


def measured(name: str, recipe: Recipe, options: argparse.Namespace) -> int:
    """Prints one game's costs; how many are above their bounds."""
    wide = torch.float64
    with tempfile.TemporaryDirectory() as folder:
        run = train(recipe, Path(folder) / "run", device="cpu", progress="none")
        players = tree.to(run.players, dtype=wide)
        constants = tree.to(run.constants, dtype=wide)
    game, data = run.recipe.game, run.data.to("cpu", wide)
    constants = game.refresh(players, constants, {}, exact=True)
    draw = game.draw(np.random.Generator(np.random.SFC64(0)), data, 64, wide, "cpu")
    plain, n = VectorField(game), tree.count(players)
    operator = JacobianOperator(VectorField(Exact(game)), players, constants, [draw])
    backward, u = product_with(operator.T), np.random.default_rng(0).standard_normal(n)

    def gradient() -> object:
        return plain(players, constants, draw)

    backward(u)
    gradient()
    pairs = [(once(lambda: backward(u)), once(gradient)) for _ in range(options.pairs)]
    ratios = sorted(a / b for a, b in pairs)
    low, middle, high = statistics.quantiles(ratios, n=4)
    one = statistics.median(b for _, b in pairs)
    print(f"{name}: {n:,} parameters, a gradient {1e3 * one:.1f} ms")
    print(f"  J^T u: {middle:.2f} gradients ({low:.2f}-{high:.2f}; at most {PRODUCT:g})")
    missed = int(middle > PRODUCT)
    keep(Row("Products of an audit", f"J^T u, {name}", "a gradient", middle, low, high, PRODUCT))
    searches = (
        (("largest modulus", "largest imaginary part"), OUTER, 5),
        (("smallest real part",), INNER, 10),
    )
    for ends, bound, k in searches:
        products = int(0.9 * bound / middle)
        before = statistics.median(once(gradient) for _ in range(5))
        begun = time.perf_counter()
        found = krylov(backward, n, k=k, products=products, ends=ends)
        spent = time.perf_counter() - begun
        after = statistics.median(once(gradient) for _ in range(5))
        cost = 2 * spent / (before + after)
        counts = ", ".join(f"{found.converged[end]} at the {end}" for end in ends)
        worst = float(found.residuals.max()) / found.size if len(found.values) else float("nan")
        print(
            f"  {k} wanted at each end: {counts}; {found.products} products, {cost:.0f} gradients (at most "
            f"{bound:g}), residuals up to {worst:.1e} of the largest modulus"
        )
        for end in ends:
            i = found.outermost(end)
            value = "not converged" if i is None else f"{found.values[i]:.6g}"
            print(f"    {end}: {value}")
        complete = min(found.converged.values()) >= k
        missed += int(cost > bound or (not complete and "smallest real part" not in ends))
    assert set(ENDS) >= {end for ends, _, _ in searches for end in ends}
    return missed


if __name__ == "__main__":
    sys.exit(main())
