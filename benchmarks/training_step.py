"""Our training step against a hand-written lean PyTorch loop of the same algorithm.

The lean loop is what a careful engineer writes for one network: nn.Module, gradients of the moving
player only, real and generated samples in one pass, fused Adam, zero_grad(set_to_none). Both sides
draw their own minibatches, take the same steps and are timed in turn, A B A B ..., so that a
machine whose speed drifts slows both alike. Figures are ratios, ours / lean: the median of the
pairs, with quartiles. Peak memory is that of a process of its own for each side (resident set).

A second table has the price of the gradient penalty: our critic's step of WGAN-GP over that of WGAN,
drawing, generator's pass and update included.

    python benchmarks/training_step.py [--pairs 15] [--only NAME] [--threads 1]
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from bench_rows import Row, arguments, keep
from memory import held
from torch import nn
from torch.nn.functional import softplus

from equilibrist.core.draws import Batches
from equilibrist.core.field import VectorField
from equilibrist.data import ArraySource
from equilibrist.formulations import WGAN, Vanilla
from equilibrist.games import GAN
from equilibrist.networks import (
    DigitsCritic,
    DigitsGenerator,
    MixtureCritic,
    MixtureGenerator,
    MNISTCritic,
    MNISTGenerator,
)
from equilibrist.optimizers import Adam
from equilibrist.penalties import GradientPenalty
from equilibrist.solvers import Alternating

LR, BETAS = 1e-4, (0.5, 0.9)
PENALTY_BOUND = 1.95


@dataclass(frozen=True)
class Case:
    """A pair of networks, a batch, and the ratio that it must not exceed."""

    generator: Callable[[], nn.Module]
    critic: Callable[[], nn.Module]
    latent: int
    batch: int
    shape: tuple[int, ...]
    bound: float
    steps: int  # in one timed block
    penalty_bound: bool = False  # whether the price of the gradient penalty is bounded too


CASES = {
    "4x16 MLPs, batch 64": Case(
        lambda: MixtureGenerator(16, 16, 4), lambda: MixtureCritic(16, 4), 16, 64, (2,), 1.15, 60
    ),
    "3x128 MLPs, batch 512": Case(
        lambda: MixtureGenerator(16, 128, 3),
        lambda: MixtureCritic(128, 3),
        16,
        512,
        (2,),
        1.05,
        30,
        True,
    ),
    "digits pair, batch 64": Case(
        lambda: DigitsGenerator(32, 32), lambda: DigitsCritic(32), 32, 64, (1, 8, 8), 1.05, 12
    ),
    "MNIST DCGAN, dim 16, batch 50": Case(
        lambda: MNISTGenerator(16), lambda: MNISTCritic(16), 128, 50, (1, 28, 28), 1.05, 6, True
    ),
}


def reals(case: Case) -> torch.Tensor:
    """Real samples of the case's shape: their values do not matter to the clock."""
    return torch.rand(4096, *case.shape, generator=torch.Generator().manual_seed(0))


def ours(case: Case) -> Callable[[int], None]:
    """One alternating step of the library, drawing included."""
    game = GAN(case.generator, case.critic, Vanilla(), latent=case.latent)
    solver, field = Alternating(1, Adam(LR, *BETAS)), VectorField(game)
    kind = "points" if case.shape == (2,) else "images"
    data = ArraySource(reals(case), kind=kind)  # both sides draw rows of one tensor
    held: dict = {}
    held["players"], held["constants"] = game.init(0)
    held["state"] = solver.init(held["players"])

    batches = Batches(lambda rng, n: game.draw(rng, data, n), case.batch, 0)

    def step(k: int) -> None:
        held["players"], held["constants"], held["state"], _ = solver.step(
            field, held["players"], held["constants"], held["state"], batches.at(k)
        )

    return step


def lean(case: Case) -> Callable[[int], None]:
    """The same step by hand."""
    torch.manual_seed(0)
    generator, critic, data = case.generator(), case.critic(), reals(case)
    rules = [
        torch.optim.Adam(m.parameters(), lr=LR, betas=BETAS, fused=True)
        for m in (generator, critic)
    ]

    def step(k: int) -> None:
        for p in critic.parameters():
            p.requires_grad_(True)
        with torch.no_grad():
            fake = generator(torch.randn(case.batch, case.latent))
        real = data[torch.randint(len(data), (case.batch,))]
        scores = critic(torch.cat([real, fake])).flatten()
        loss = softplus(-scores[: case.batch]).mean() + softplus(scores[case.batch :]).mean()
        rules[1].zero_grad(set_to_none=True)
        loss.backward()
        rules[1].step()
        for p in critic.parameters():
            p.requires_grad_(False)
        loss = softplus(-critic(generator(torch.randn(case.batch, case.latent))).flatten()).mean()
        rules[0].zero_grad(set_to_none=True)
        loss.backward()
        rules[0].step()

    return step


def critic_step(case: Case, penalised: bool) -> Callable[[int], None]:
    """One critic step of WGAN, with or without gradient penalty."""
    penalties = [GradientPenalty()] if penalised else []
    game = GAN(case.generator, case.critic, WGAN(), latent=case.latent, penalties=penalties)
    field, rule = VectorField(game), Adam(LR, *BETAS)
    data = ArraySource(reals(case), kind="points" if case.shape == (2,) else "images")
    batches = Batches(lambda rng, n: game.draw(rng, data, n), case.batch, 0)
    players, constants = game.init(0)
    state = rule.init(players["critic"])

    def step(k: int) -> None:
        v, _ = field(players, constants, batches.at(k).batch(), only="critic")
        with torch.no_grad():
            rule.update(v["critic"], state, players["critic"])

    return step


def block(step: Callable[[int], None], start: int, count: int) -> float:
    """Seconds for `count` steps."""
    begun = time.perf_counter()
    for k in range(start, start + count):
        step(k)
    return time.perf_counter() - begun


def ratios(
    case: Case, pairs: int, a: Callable[[int], None], b: Callable[[int], None]
) -> tuple[list[float], float, float]:
    """Ratios a / b of interleaved blocks, and the median milliseconds of one step of each side."""
    for side in (a, b):
        block(side, 0, case.steps)
    times = []
    for pair in range(pairs):
        start = (pair + 1) * case.steps
        # Who goes first alternates too.
        first, second = (a, b) if pair % 2 else (b, a)
        t1, t2 = block(first, start, case.steps), block(second, start, case.steps)
        times.append((t1, t2) if pair % 2 else (t2, t1))
    per_step = [statistics.median(t[i] for t in times) / case.steps * 1e3 for i in (0, 1)]
    return [x / y for x, y in times], per_step[0], per_step[1]


def peak(name: str, side: str) -> float:
    """Peak resident memory in MiB of a fresh process that takes 20 steps of one side."""
    output = subprocess.run(
        [sys.executable, __file__, "--peak", side, "--only", name],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return float(output) / 1024


def main() -> int:
    parser = arguments(__doc__, 21)
    parser.add_argument("--peak", choices=("ours", "lean"))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    chosen = {n: c for n, c in CASES.items() if options.only in n}
    if options.peak:
        case = chosen[options.only]
        block((ours if options.peak == "ours" else lean)(case), 0, 20)
        # Not getrusage: its maximum survives exec, so that a child inherits its parent's.
        print(held("VmHWM") // 1024)
        return 0
    print(
        f"torch {torch.__version__}, {options.threads} thread(s), {options.pairs} interleaved pairs"
    )
    print(
        f"{'case':32} {'ours ms':>8} {'lean ms':>8} {'ratio':>6} {'quartiles':>13} {'bound':>6} {'memory':>7}"
    )
    missed = 0
    for name, case in chosen.items():
        found, mine, theirs = ratios(case, options.pairs, ours(case), lean(case))
        low, middle, high = statistics.quantiles(found, n=4)
        memory = peak(name, "ours") / peak(name, "lean")
        missed += middle > case.bound
        note = f"memory {memory:.2f} of the loop's"
        found_row = (middle, low, high, case.bound, mine, theirs, note)
        keep(Row("Eager steps", name, "lean eager loop", *found_row))
        print(
            f"{name:32} {mine:8.2f} {theirs:8.2f} {middle:6.3f} {low:6.3f}-{high:5.3f} {case.bound:6.2f} {memory:7.3f}",
            flush=True,
        )
    print(
        f"\n{'gradient penalty':32} {'with ms':>8} {'plain ms':>8} {'ratio':>6} {'quartiles':>13} {'bound':>6}"
    )
    for name, case in chosen.items():
        found, mine, theirs = ratios(
            case, options.pairs, critic_step(case, True), critic_step(case, False)
        )
        low, middle, high = statistics.quantiles(found, n=4)
        bound = PENALTY_BOUND if case.penalty_bound else None
        missed += bound is not None and middle > bound
        label, rival = f"critic's step with a gradient penalty, {name}", "without it"
        keep(Row("Eager steps", label, rival, middle, low, high, bound, mine, theirs))
        print(
            f"{name:32} {mine:8.2f} {theirs:8.2f} {middle:6.3f} {low:6.3f}-{high:5.3f} "
            f"{'none' if bound is None else f'{bound:.2f}':>6}",
            flush=True,
        )
    print("every ratio is within its bound" if not missed else f"{missed} ratio(s) above the bound")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
