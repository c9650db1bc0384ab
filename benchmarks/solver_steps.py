"""What the solvers' steps cost, as ratios to a simultaneous or alternating step on the same game.

Interleaved blocks A B A B ..., the order alternating: medians and quartiles of the pairs. The gradient rule is
Adam everywhere, drawing included. Rows below the line are ensembles: milliseconds per seed of one stacked
step over a hand-written lean step of one network.

    python benchmarks/solver_steps.py [--pairs 11] [--only NAME] [--threads 1]
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable
from typing import Any

import torch
from training_step import CASES, Case, lean, ratios, reals

from equilibrist import tree
from equilibrist._draws import Batches, StackedDraws
from equilibrist._field import VectorField
from equilibrist.data import ArraySource
from equilibrist.formulations import Vanilla
from equilibrist.games import GAN
from equilibrist.optimizers import Adam
from equilibrist.solvers import Alternating, Consensus, Extragradient, Proximal, Simultaneous

RULE = Adam(1e-4)
MLP, CONV = "3x128 MLPs, batch 512", "MNIST DCGAN, dim 16, batch 50"
SMALL = "4x16 MLPs, batch 64"


class Recomputing(Proximal):
    """Proximal training that forgets the anchor's slopes after every inner step: what keeping saves."""

    def step(self, field: Any, players: Any, constants: Any, state: Any, draws: Any) -> Any:
        taken = super().step(field, players, constants, state, draws)
        frozen = tree.clone(players)
        for _ in range(self.steps - 1):
            self._held(field, frozen, constants, draws.batch(0))
        return taken


# name: (case, solver, what it is compared with, the ratio that it must not exceed)
ROWS: dict[str, tuple[str, Any, Any, float]] = {
    "consensus, 3x128": (MLP, Consensus(RULE), Simultaneous(RULE), 3.0),
    "consensus, DCGAN": (CONV, Consensus(RULE), Simultaneous(RULE), 3.4),
    "consensus, 2 minibatches, 3x128": (
        MLP,
        Consensus(RULE, batches=2),
        Simultaneous(RULE),
        5.2,
    ),
    "extragradient, 3x128": (MLP, Extragradient(RULE), Simultaneous(RULE), 2.05),
    "extragradient, DCGAN": (CONV, Extragradient(RULE), Simultaneous(RULE), 2.05),
    "proximal T = 20, 3x128": (
        MLP,
        Proximal(20, optimizer=RULE),
        Alternating(1, RULE),
        18.0,
    ),
    "  kept / recomputed slopes": (
        MLP,
        Proximal(20, optimizer=RULE),
        Recomputing(20, optimizer=RULE),
        0.87,
    ),
}
ENSEMBLES = {SMALL: (32, 0.13), MLP: (8, 1.08)}


def stepper(case: Case, solver: Any, members: int = 0) -> Callable[[int], None]:
    """One step of the solver, drawing included; of `members` stacked seeds where that is not 0."""
    game = GAN(case.generator, case.critic, Vanilla(), latent=case.latent)
    data = ArraySource(reals(case), kind="points" if case.shape == (2,) else "images")
    seeds = range(max(1, members))
    batches = [Batches(lambda rng, n: game.draw(rng, data, n), case.batch, s) for s in seeds]
    starts = [game.init(s) for s in seeds]
    held: dict[str, Any] = {}
    if members:
        held["players"], held["constants"] = (
            tree.stack([start[i] for start in starts]) for i in (0, 1)
        )
    else:
        held["players"], held["constants"] = starts[0]
    held["state"] = solver.init(held["players"])
    field = VectorField(game, stacked=members or None)

    def step(k: int) -> None:
        draws: Any = StackedDraws([b.at(k) for b in batches]) if members else batches[0].at(k)
        held["players"], held["constants"], held["state"], _ = solver.step(
            field, held["players"], held["constants"], held["state"], draws
        )

    return step


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--pairs", type=int, default=11)
    parser.add_argument("--only", default="")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(f"torch {torch.__version__}, {options.threads} thread(s), {options.pairs} pairs")
    print(f"{'solver':34} {'ms':>8} {'base ms':>8} {'ratio':>6} {'quartiles':>13} {'bound':>6}")
    missed = 0
    for name, (which, solver, base, bound) in ROWS.items():
        if options.only not in name:
            continue
        case = CASES[which]
        slow = 1 if isinstance(base, Recomputing) else max(1, case.steps // 6)
        short = Case(
            **{
                **vars(case),
                "steps": slow if isinstance(solver, Proximal) else case.steps // 2 or 1,
            }
        )
        found, mine, theirs = ratios(
            short, options.pairs, stepper(case, solver), stepper(case, base)
        )
        low, middle, high = statistics.quantiles(found, n=4)
        missed += middle > bound
        print(
            f"{name:34} {mine:8.2f} {theirs:8.2f} {middle:6.3f} {low:6.3f}-{high:5.3f} {bound:6.2f}",
            flush=True,
        )
    for which, (members, bound) in ENSEMBLES.items():
        name = f"{members} seeds, {which}"
        if options.only not in name:
            continue
        case = CASES[which]
        short = Case(**{**vars(case), "steps": max(2, case.steps // 6)})
        found, mine, theirs = ratios(
            short, options.pairs, stepper(case, Alternating(1, RULE), members), lean(case)
        )
        found = [ratio / members for ratio in found]
        low, middle, high = statistics.quantiles(found, n=4)
        missed += middle > bound
        print(
            f"{name:34} {mine / members:8.2f} {theirs:8.2f} {middle:6.3f} {low:6.3f}-{high:5.3f} {bound:6.2f}",
            flush=True,
        )
    print("every ratio is within its bound" if not missed else f"{missed} ratio(s) above the bound")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
