"""What a wiring check costs, in rounds of the loop itself: a dozen watched rounds and the verdict over twelve alone.

Both are plain PyTorch loops, run in turn from the same start, A B A B ...; figures are ratios of processor time, the
median of the pairs, with quartiles. The bound is 3. What is fixed in a check weighs most on the smallest loop.

    python benchmarks/wiring_check.py [--pairs 15] [--only NAME]
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from bench_rows import Row, keep
from torch import Tensor, nn
from torch.nn.functional import softplus

from equilibrist import WGAN, GradientPenalty, Vanilla
from equilibrist.diagnosis import check_wiring
from equilibrist.networks import DigitsCritic, DigitsGenerator, MNISTCritic, MNISTGenerator

BOUND = 3.0
ROUNDS = 12


@dataclass(frozen=True)
class Case:
    """A pair of networks, a batch, and whether the critic pays a gradient penalty in each of several steps a round."""

    generator: Callable[[], nn.Module]
    critic: Callable[[], nn.Module]
    latent: int
    batch: int
    shape: tuple[int, ...]
    penalised: bool = False


def mlp(first: int, width: int, last: int) -> nn.Module:
    return nn.Sequential(
        nn.Linear(first, width),
        nn.LeakyReLU(0.2),
        nn.Linear(width, width),
        nn.LeakyReLU(0.2),
        nn.Linear(width, last),
    )


CASES = {
    "2x64 MLPs, batch 128": Case(lambda: mlp(8, 64, 2), lambda: mlp(2, 64, 1), 8, 128, (2,)),
    "2x128 MLPs, WGAN-GP": Case(
        lambda: mlp(16, 128, 64), lambda: mlp(64, 128, 1), 16, 64, (64,), True
    ),
    "digits pair, batch 64": Case(
        lambda: DigitsGenerator(32, 32), lambda: DigitsCritic(32), 32, 64, (1, 8, 8)
    ),
    "MNIST DCGAN, dim 16, batch 50": Case(
        lambda: MNISTGenerator(16), lambda: MNISTCritic(16), 128, 50, (1, 28, 28)
    ),
}


def loop(case: Case, data: Tensor) -> tuple[dict[str, nn.Module], Callable[[int], None]]:
    """Players, and one round of a trainer of its own."""
    torch.manual_seed(0)
    generator, critic = case.generator(), case.critic()
    rules = [torch.optim.Adam(m.parameters(), lr=1e-4) for m in (generator, critic)]

    def critics(real: Tensor, fake: Tensor) -> Tensor:
        if not case.penalised:
            return softplus(-critic(real)).mean() + softplus(critic(fake)).mean()
        share = torch.rand(len(real), *[1] * (real.ndim - 1))
        mixed = (share * real + (1 - share) * fake).requires_grad_()
        slope = torch.autograd.grad(critic(mixed).sum(), mixed, create_graph=True)[0]
        paid = 10 * (slope.flatten(1).norm(dim=1) - 1).square().mean()
        return critic(fake).mean() - critic(real).mean() + paid

    def step(i: int) -> None:
        for _ in range(2 if case.penalised else 1):
            real = data[torch.randint(len(data), (case.batch,))]
            fake = generator(torch.randn(case.batch, case.latent)).detach()
            rules[1].zero_grad()
            critics(real, fake).backward()
            rules[1].step()
        score = critic(generator(torch.randn(case.batch, case.latent)))
        rules[0].zero_grad()
        (-score.mean() if case.penalised else softplus(-score).mean()).backward()
        rules[0].step()

    return {"generator": generator, "critic": critic}, step


def seconds(case: Case, watched: bool) -> float:
    """Processor time of twelve rounds, and of the verdict where they are watched."""
    data = torch.rand(4096, *case.shape)
    train, held_out = data[:3072], data[3072:]
    players, step = loop(case, train)
    for i in range(3):
        step(i)
    loss = WGAN() if case.penalised else Vanilla()
    penalties = [GradientPenalty(10.0)] if case.penalised else []
    check = check_wiring(
        players, loss, rounds=ROUNDS, penalties=penalties, real=held_out, train=train
    )
    begun = time.process_time()
    if watched:
        check.run(step)
        if not check.ok:
            sys.exit(f"a healthy loop got findings: {check}")
    else:
        for i in range(ROUNDS):
            step(i)
    return time.process_time() - begun


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=15)
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(
        f"torch {torch.__version__}, 1 thread, {options.pairs} interleaved pairs of {ROUNDS} rounds"
    )
    print(f"{'case':<34}{'ms a round':>12}{'watched / alone':>17}{'quartiles':>14}{'bound':>7}")
    above = 0
    for name, case in CASES.items():
        if options.only not in name:
            continue
        seconds(case, True)  # what is made once
        pairs = [(seconds(case, True), seconds(case, False)) for _ in range(options.pairs)]
        ratios = [a / b for a, b in pairs]
        low, median, high = statistics.quantiles(ratios, n=4)
        alone = 1e3 * statistics.median(b for _, b in pairs) / ROUNDS
        print(f"{name:<34}{alone:>12.2f}{median:>17.2f}{f'{low:.2f}-{high:.2f}':>14}{BOUND:>7}")
        above += median > BOUND
        keep(Row("The wiring check", name, "the loop alone", median, low, high, BOUND))
    print("every ratio is within its bound" if not above else f"{above} ratio(s) above the bound")
    return int(above > 0)


if __name__ == "__main__":
    sys.exit(main())
