"""What listening costs a training run that it only records: the same loop with and without it.

Both sides are plain PyTorch loops, a step of the critic and one of the generator, timed in blocks in turn,
A B A B ..., so that a machine whose speed drifts slows both alike. Figures are ratios, heard / alone: the
median of the pairs, with quartiles. The bound is 1.03. Timed blocks begin when the players are known and the
critic's first rounds, all of which are recorded, are over.

    python benchmarks/listening.py [--pairs 15] [--only NAME] [--threads 1]
"""

from __future__ import annotations

import contextlib
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from bench_rows import Row, arguments, keep
from torch import nn
from torch.nn.functional import softplus

from equilibrist.interop import listen
from equilibrist.networks import (
    DigitsCritic,
    DigitsGenerator,
    MixtureCritic,
    MixtureGenerator,
    MNISTCritic,
    MNISTGenerator,
)

BOUND = 1.03
WARM = 70  # steps


class Tabular(nn.Module):
    """A critic of packs of ten rows with dropout, as synthesisers of tables have it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width * 10
        self.net = nn.Sequential(
            nn.Linear(self.width, 256),
            nn.LeakyReLU(0.2),
            nn.Dropout(0.5),
            nn.Linear(256, 256),
            nn.LeakyReLU(0.2),
            nn.Dropout(0.5),
            nn.Linear(256, 1),
        )

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return self.net(rows.view(-1, self.width))


@dataclass(frozen=True)
class Case:
    """A pair of networks, a batch, and how the loop is written.

    Attributes:
        graph: the critic's step sees an activated batch with the generator's graph, and takes a gradient
            penalty; otherwise a detached one.
    """

    generator: Callable[[], nn.Module]
    critic: Callable[[], nn.Module]
    latent: int
    batch: int
    shape: tuple[int, ...]
    steps: int  # in one timed block
    graph: bool = False


CASES = {
    "4x16 MLPs, batch 64": Case(
        lambda: MixtureGenerator(16, 16, 4), lambda: MixtureCritic(16, 4), 16, 64, (2,), 160
    ),
    "3x128 MLPs, batch 512": Case(
        lambda: MixtureGenerator(16, 128, 3), lambda: MixtureCritic(128, 3), 16, 512, (2,), 64
    ),
    "table of 60 columns, packs of 10": Case(
        lambda: nn.Sequential(nn.Linear(128, 256), nn.ReLU(), nn.Linear(256, 60)),
        lambda: Tabular(60),
        128,
        500,
        (60,),
        32,
        True,
    ),
    "digits pair, batch 64": Case(
        lambda: DigitsGenerator(32, 32), lambda: DigitsCritic(32), 32, 64, (1, 8, 8), 24
    ),
    "MNIST DCGAN, dim 16, batch 50": Case(
        lambda: MNISTGenerator(16), lambda: MNISTCritic(16), 128, 50, (1, 28, 28), 16
    ),
}


def loop(case: Case) -> Callable[[int], None]:
    """A trainer of its own; it is called with a number of steps to take."""
    torch.manual_seed(0)
    generator, critic = case.generator(), case.critic()
    data = torch.rand(4096, *case.shape)
    rules = [torch.optim.Adam(m.parameters(), lr=1e-4) for m in (generator, critic)]

    def fake() -> torch.Tensor:
        made = generator(torch.randn(case.batch, case.latent))
        return torch.tanh(made) if case.graph else made

    def steps(count: int) -> None:
        for _ in range(count):
            real = data[torch.randint(len(data), (case.batch,))]
            made = fake() if case.graph else fake().detach()
            loss = softplus(-critic(real)).mean() + softplus(critic(made)).mean()
            if case.graph:
                mixed = real + torch.rand(case.batch, 1) * (made - real)
                slope = torch.autograd.grad(critic(mixed).sum(), mixed, create_graph=True)[0]
                loss = loss + 10 * (slope.norm(dim=1) - 1).square().mean()
            rules[1].zero_grad()
            loss.backward()
            rules[1].step()
            loss = softplus(-critic(fake())).mean()
            rules[0].zero_grad()
            loss.backward()
            rules[0].step()

    return steps


def seconds(steps: Callable[[int], None], count: int, heard: bool) -> float:
    """Processor time of a block."""
    with listen() if heard else contextlib.nullcontext():
        if heard:
            steps(WARM)
        begun = time.process_time()
        steps(count)
        return time.process_time() - begun


def main() -> int:
    parser = arguments(__doc__, 15)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    chosen = {name: case for name, case in CASES.items() if options.only in name}
    print(
        f"torch {torch.__version__}, {options.threads} thread(s), {options.pairs} interleaved pairs"
    )
    print(
        f"{'case':34} {'heard ms':>8} {'alone ms':>8} {'ratio':>6} {'quartiles':>13} {'bound':>6}"
    )
    missed = 0
    for name, case in chosen.items():
        steps = loop(case)
        steps(10)
        found = []
        for _ in range(options.pairs):
            mine = seconds(steps, case.steps, heard=True)
            theirs = seconds(steps, case.steps, heard=False)
            found.append((mine / theirs, mine, theirs))
        low, middle, high = statistics.quantiles([ratio for ratio, *_ in found], n=4)
        mine, theirs = (
            1000 * statistics.median(one[i] for one in found) / case.steps for i in (1, 2)
        )
        missed += middle > BOUND
        keep(Row("Listening", name, "the loop alone", middle, low, high, BOUND, mine, theirs))
        print(
            f"{name:34} {mine:8.2f} {theirs:8.2f} {middle:6.3f} {low:6.3f}-{high:5.3f} {BOUND:6.2f}",
            flush=True,
        )
    print("every ratio is within its bound" if not missed else f"{missed} ratio(s) above the bound")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
