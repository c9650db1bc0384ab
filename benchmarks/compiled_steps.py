"""Compiled steps against the lean eager loop, against our own eager steps, and what compiling takes.

Interleaved blocks A B A B ..., the order alternating: medians and quartiles of the pairs, drawing included.

    python benchmarks/compiled_steps.py [--pairs 15] [--only NAME] [--threads 1]
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any

import torch
from bench_rows import Row, arguments, row
from solver_steps import RULE, particles
from training_step import CASES, Case, lean, ratios, reals

from equilibrist import tree
from equilibrist.compiled import CompiledStep
from equilibrist.core.draws import Batches, StackedDraws
from equilibrist.core.field import VectorField
from equilibrist.data import ArraySource
from equilibrist.formulations import Vanilla
from equilibrist.games import GAN, Mixture
from equilibrist.langevin import SGLD
from equilibrist.solvers import (
    Alternating,
    Consensus,
    Extragradient,
    MirrorGAN,
    Optimistic,
    Proximal,
    SymplecticAdjustment,
)

SMALL, MLP = "4x16 MLPs, batch 64", "3x128 MLPs, batch 512"
LEAN = {
    SMALL: 0.45,
    MLP: 0.80,
    "digits pair, batch 64": 0.9,
    "MNIST DCGAN, dim 16, batch 50": 0.9,
}
SOLVERS: dict[str, tuple[Any, tuple[str, ...]]] = {
    "consensus": (Consensus(RULE), (SMALL, MLP)),
    "extragradient": (Extragradient(RULE), (SMALL, MLP)),
    "optimistic": (Optimistic(RULE), (SMALL, MLP)),
    "symplectic adjustment": (SymplecticAdjustment(optimizer=RULE), (SMALL,)),
    "proximal, T = 5": (Proximal(5, optimizer=RULE), (SMALL,)),
}
SEEDS = {SMALL: (32, 0.06), MLP: (8, None)}


class Training:
    """One game, trained eagerly and compiled from the same start."""

    def __init__(self, case: Case, solver: Any, seeds: int = 0, count: int = 1) -> None:
        lone = GAN(case.generator, case.critic, Vanilla(), latent=case.latent)
        game: Any = Mixture(lone, count) if count > 1 else lone
        data = ArraySource(reals(case), kind="points" if case.shape == (2,) else "images")
        numbers = range(max(1, seeds))
        self.batches = [
            Batches(lambda rng, n: game.draw(rng, data, n), count * case.batch, s) for s in numbers
        ]
        starts = [game.init(s) for s in numbers]
        whole = [tree.stack([s[i] for s in starts]) if seeds else starts[0][i] for i in (0, 1)]
        self.solver, self.field, self.seeds = (
            solver,
            VectorField(game, stacked=seeds or None),
            seeds,
        )
        self.start = (*whole, solver.init(whole[0]))
        self.compiled = CompiledStep(solver, self.field)

    def draws(self, k: int) -> Any:
        drawn = [b.at(k) for b in self.batches]
        return StackedDraws(drawn) if self.seeds else drawn[0]

    def step(self, compiled: bool) -> Callable[[int], None]:
        """A step of either kind, from tensors of its own."""
        held: list[Any] = [tree.clone(part) for part in self.start]

        def eager(k: int) -> None:
            held[:] = self.solver.step(self.field, *held, self.draws(k))[:3]

        def quick(k: int) -> None:
            self.compiled(*held, self.draws(k))

        return quick if compiled else eager


def shorter(case: Case, by: int) -> Case:
    return Case(**{**vars(case), "steps": max(2, case.steps // by)})


def against_lean(pairs: int, wanted: str) -> Iterator[Row]:
    for name, bound in LEAN.items():
        if wanted not in name:
            continue
        case = CASES[name]
        training = Training(case, Alternating(1, RULE))
        mine = training.step(compiled=True)
        mine(0)
        found, *times = ratios(case, pairs, mine, lean(case))
        note = f"{training.compiled.seconds:.0f} s to compile"
        yield row(
            "Compiled steps", name, "lean eager loop", found, bound, (times[0], times[1]), note
        )


def against_eager(pairs: int, wanted: str) -> Iterator[Row]:
    for name, (solver, cases) in SOLVERS.items():
        for which in cases:
            label = f"{name}, {which}"
            if wanted not in label:
                continue
            training, case = Training(CASES[which], solver), shorter(CASES[which], 4)
            mine = training.step(compiled=True)
            mine(0)
            found, *times = ratios(case, pairs, mine, training.step(compiled=False))
            note = f"{training.compiled.operations:,} operations, {training.compiled.seconds:.0f} s to compile"
            yield row(
                "Compiled steps", label, "our eager step", found, None, (times[0], times[1]), note
            )


def of_many(pairs: int, wanted: str) -> Iterator[Row]:
    for which, (seeds, bound) in SEEDS.items():
        label = f"{seeds} seeds, {which}, each"
        if wanted in label:
            training = Training(CASES[which], Alternating(1, RULE), seeds)
            mine = training.step(compiled=True)
            mine(0)
            # Minibatches are drawn for 16 steps at a time.
            case = Case(**{**vars(CASES[which]), "steps": 32 if which == SMALL else 16})
            found, *times = ratios(case, pairs, mine, lean(CASES[which]))
            each = [ratio / seeds for ratio in found]
            yield row(
                "Compiled steps",
                label,
                "lean eager loop",
                each,
                bound,
                (times[0] / seeds, times[1]),
            )
    label = f"16 particles, {SMALL}, each"
    if wanted in label:
        case = shorter(CASES[SMALL], 4)
        training = Training(CASES[SMALL], MirrorGAN(SGLD(1e-4, 1e-3), inner=1), count=16)
        mine = training.step(compiled=True)
        mine(0)
        found, *times = ratios(case, pairs, mine, particles(CASES[SMALL], 1))
        each = [ratio / 16 for ratio in found]
        rival = "one chain, eager"
        yield row("Compiled steps", label, rival, each, 0.10, (times[0] / 16, times[1]))


def main() -> int:
    parser = arguments(__doc__, 15)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(f"torch {torch.__version__}, {options.threads} thread(s), {options.pairs} pairs")
    rows = [
        found
        for part in (against_lean, against_eager, of_many)
        for found in part(options.pairs, options.only)
    ]
    missed = sum(found.missed for found in rows)
    print("every ratio is within its bound" if not missed else f"{missed} ratio(s) above the bound")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
