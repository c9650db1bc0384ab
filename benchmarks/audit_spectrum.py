"""What an audit's spectrum costs, in gradients of both players on the same minibatch.

Three claims: one J^T u takes at most 2.5 gradients, 2.3 compiled; ten eigenvalues of a game of 75,000 parameters, five
at the largest-modulus and five at the extreme-imaginary end, at most 100; ten smallest real parts at most 2,000, or the
search says that they did not converge. Residuals are at most 1e-6 of the largest modulus. Times are wall-clock,
orthogonalisation included, against a gradient timed between them. The pair is trained for a while first: untrained
Jacobians are easier.

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
from bench_rows import row
from training_step import CASES, reals

from equilibrist import (
    GAN,
    ArraySource,
    CompiledJacobian,
    JacobianOperator,
    Vanilla,
    VectorField,
    train,
    tree,
)
from equilibrist.core.exact import Exact
from equilibrist.run import Recipe
from equilibrist.spectra.krylov import ENDS, krylov
from equilibrist.spectra.products import product_with
from equilibrist_recipes.digits import digits_sngan, digits_wgan_gp

DIM = 27  # 76,628 parameters
RECIPES = {"sn-gan": digits_sngan, "wgan-gp": digits_wgan_gp}
BLOCK = 0.05  # seconds of one timed block, at least
PRODUCT, COMPILED, OUTER, INNER = 2.5, 2.3, 100.0, 2000.0


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
    missed = sum(of_networks(name, options) for name in CASES if options.only in name)
    for name, recipe in RECIPES.items():
        if options.only not in name:
            continue
        missed += measured(name, replace(recipe(dim=DIM, steps=options.steps), scores=()), options)
    print("every cost is within its bound" if not missed else f"{missed} cost(s) above the bound")
    return 1 if missed else 0


def of_products(
    name: str, operator: JacobianOperator, gradient: Callable[[], object], pairs: int
) -> int:
    """J^T u, eager and compiled, in gradients; how many are above their bounds."""
    u = torch.randn(operator.shape[0], dtype=operator.dtype)
    compiled = CompiledJacobian(operator).T
    sides = (lambda: operator.T @ u, lambda: compiled @ u, gradient)
    counts = []
    for side in sides:
        side()
        counts.append(max(1, int(BLOCK / once(side))))
    times = [
        [
            once(lambda s=side, k=k: [s() for _ in range(k)]) / k
            for side, k in zip(sides, counts, strict=True)
        ]
        for _ in range(pairs)
    ]
    compilation = f"{compiled.seconds:.0f} s to compile"
    table, rival, missed = "Products of an audit", "a gradient", 0
    for i, (kind, bound, note) in enumerate(
        (("", PRODUCT, ""), (", compiled", COMPILED, compilation))
    ):
        label = f"J^T u, {name}{kind}"
        missed += row(table, label, rival, [t[i] / t[2] for t in times], bound, note=note).missed
    return missed


def of_networks(name: str, options: argparse.Namespace) -> int:
    """Random weights of a pair that steps are measured on."""
    case, wide = CASES[name], torch.float64
    game = GAN(case.generator, case.critic, Vanilla(), latent=case.latent)
    players, constants = game.init(0, dtype=wide)
    data = ArraySource(reals(case).double(), kind="points" if case.shape == (2,) else "images")
    draw = game.draw(np.random.Generator(np.random.SFC64(0)), data, case.batch, wide, "cpu")
    operator = JacobianOperator(VectorField(game), players, constants, [draw])
    plain = VectorField(game)
    return of_products(name, operator, lambda: plain(players, constants, draw), options.pairs)


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

    print(f"{name}: {n:,} parameters")
    missed = of_products(name, operator, gradient, options.pairs)
    pairs = [(once(lambda: backward(u)), once(gradient)) for _ in range(options.pairs)]
    middle = statistics.median(a / b for a, b in pairs)
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
