"""What the solvers' steps cost, as ratios to a simultaneous or alternating step on the same game.

Interleaved blocks A B A B ..., the order alternating: medians and quartiles of the pairs. The gradient rule is
Adam everywhere, drawing included. The game is the usual one, the non-saturating loss; rows marked "zero-sum"
have the saturating one, whose simultaneous step needs one backward pass instead of two. The last rows are
ensembles: milliseconds per seed of one stacked step over a hand-written lean step of one network; "foreign"
networks are modules that the library does not know how to stack, so that their losses are plainly vmapped.

By operations alone (matrix products of a deep network; a gradient is three forward passes), consensus is three
simultaneous steps and consensus on two minibatches six.

    python benchmarks/solver_steps.py [--pairs 11] [--only NAME] [--threads 1]
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable
from typing import Any

import torch
from bench_rows import Row, arguments, keep
from torch import nn
from training_step import CASES, Case, lean, ratios, reals

from equilibrist import tree
from equilibrist.core.draws import Batches, StackedDraws
from equilibrist.core.field import VectorField
from equilibrist.data import ArraySource
from equilibrist.formulations import Vanilla
from equilibrist.games import GAN, Mixture
from equilibrist.langevin import SGLD
from equilibrist.optimizers import Adam
from equilibrist.solvers import (
    Alternating,
    Consensus,
    Extragradient,
    MirrorGAN,
    Proximal,
    Simultaneous,
)

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


class Foreign(nn.Module):
    """The same layers in a module of its own, whose forward pass nobody but itself knows."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.parts = nn.ModuleList(network.layers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for part in self.parts:
            x = part(x)
        return x


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
    "consensus, 3x128, zero-sum": (MLP, Consensus(RULE), Simultaneous(RULE), 3.0),
    "consensus, DCGAN, zero-sum": (CONV, Consensus(RULE), Simultaneous(RULE), 3.4),
    "extragradient, 3x128, zero-sum": (MLP, Extragradient(RULE), Simultaneous(RULE), 2.05),
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
# name: (case, seeds, whether its networks are foreign, the bound)
ENSEMBLES = {
    f"32 seeds, {SMALL}": (SMALL, 32, False, 0.10),
    f"8 seeds, {MLP}": (MLP, 8, False, 0.90),
    "32 seeds, 4x16, foreign": (SMALL, 32, True, 0.13),
    "8 seeds, 3x128, foreign": (MLP, 8, True, 1.08),
}


# name: (case, particles a player, the bound): a particle of a mixture, one opponent each, over a lone chain.
PARTICLES = {
    f"16 particles, {SMALL}": (SMALL, 16, 0.15),
    f"8 particles, {MLP}": (MLP, 8, None),
}


def particles(case: Case, count: int) -> Callable[[int], None]:
    """One inner step of Mirror-GAN, drawing included: of a mixture, each pair on a minibatch of its own, or of one."""
    lone = GAN(case.generator, case.critic, Vanilla(), latent=case.latent)
    game = Mixture(lone, count) if count > 1 else lone
    data = ArraySource(reals(case), kind="points")
    solver, field = MirrorGAN(SGLD(1e-4, 1e-3), inner=1), VectorField(game)
    batches = Batches(lambda rng, n: game.draw(rng, data, n), count * case.batch, 0)
    held: dict[str, Any] = {}
    held["players"], held["constants"] = game.init(0)
    held["state"] = solver.init(held["players"])

    def step(k: int) -> None:
        held["players"], held["constants"], held["state"], _ = solver.step(
            field, held["players"], held["constants"], held["state"], batches.at(k)
        )

    return step


def stepper(
    case: Case, solver: Any, members: int = 0, zero_sum: bool = False, foreign: bool = False
) -> Callable[[int], None]:
    """One step of the solver, drawing included; of `members` stacked seeds where that is not 0."""
    generator: Any = (lambda: Foreign(case.generator())) if foreign else case.generator
    critic: Any = (lambda: Foreign(case.critic())) if foreign else case.critic
    game = GAN(generator, critic, Vanilla(saturating=zero_sum), latent=case.latent)
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


def _plain(base: Any) -> str:
    return f"{type(base).__name__.lower()} step"


def main() -> int:
    parser = arguments(__doc__, 11)
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
            short,
            options.pairs,
            stepper(case, solver, zero_sum="zero-sum" in name),
            stepper(case, base, zero_sum="zero-sum" in name),
        )
        low, middle, high = statistics.quantiles(found, n=4)
        missed += middle > bound
        rival = "recomputed slopes" if isinstance(base, Recomputing) else _plain(base)
        keep(Row("Solvers", name.strip(), rival, middle, low, high, bound, mine, theirs))
        print(
            f"{name:34} {mine:8.2f} {theirs:8.2f} {middle:6.3f} {low:6.3f}-{high:5.3f} {bound:6.2f}",
            flush=True,
        )
    for name, (which, members, foreign, bound) in ENSEMBLES.items():
        if options.only not in name:
            continue
        case = CASES[which]
        short = Case(**{**vars(case), "steps": max(2, case.steps // 6)})
        found, mine, theirs = ratios(
            short,
            options.pairs,
            stepper(case, Alternating(1, RULE), members, foreign=foreign),
            lean(case),
        )
        found = [ratio / members for ratio in found]
        low, middle, high = statistics.quantiles(found, n=4)
        missed += middle > bound
        label, each = f"{name}, each", mine / members
        keep(Row("Solvers", label, "lean eager loop", middle, low, high, bound, each, theirs))
        print(
            f"{name:34} {mine / members:8.2f} {theirs:8.2f} {middle:6.3f} {low:6.3f}-{high:5.3f} {bound:6.2f}",
            flush=True,
        )
    for name, (which, count, bound) in PARTICLES.items():
        if options.only not in name:
            continue
        case = CASES[which]
        short = Case(**{**vars(case), "steps": max(2, case.steps // 4)})
        found, mine, theirs = ratios(
            short, options.pairs, particles(case, count), particles(case, 1)
        )
        found = [ratio / count for ratio in found]
        low, middle, high = statistics.quantiles(found, n=4)
        missed += bound is not None and middle > bound
        label, each = f"{name}, each", mine / count
        keep(Row("Solvers", label, "one chain", middle, low, high, bound, each, theirs))
        shown = "none" if bound is None else f"{bound:.2f}"
        print(
            f"{name:34} {mine / count:8.2f} {theirs:8.2f} {middle:6.3f} {low:6.3f}-{high:5.3f} {shown:>6}",
            flush=True,
        )
    print("every ratio is within its bound" if not missed else f"{missed} ratio(s) above the bound")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
