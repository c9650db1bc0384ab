"""What a whole audit costs: seconds over (gradients asked for) x (seconds of a gradient of both players), and memory.

A gradient is one minibatch's, of both players, by plain autograd in the pair's own precision, timed before and after.
Memory is the largest resident set beyond what the process held when the audit began, over the size of the weights; each
case runs in a process of its own. Random weights: what an audit costs hardly depends on them.

    python benchmarks/audit_cost.py [--only NAME] [--gradients 400]
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from bench_rows import Row, keep
from memory import Peak
from torch import Tensor, nn
from torch.nn.functional import softplus

import equilibrist as eq
from equilibrist.checks import Settings
from equilibrist.networks import MNISTCritic, MNISTGenerator

BOUND = 1.5


@dataclass(frozen=True)
class Case:
    """A pair, its latent size, the shape of a sample and the batch."""

    generator: Callable[[], nn.Module]
    critic: Callable[[], nn.Module]
    latent: int
    shape: tuple[int, ...]
    batch: int


def convolutions(width: int) -> Case:
    """A DCGAN of 32 x 32 images without batch norm."""
    a, b, c = 4 * width, 2 * width, width
    return Case(
        lambda: nn.Sequential(
            nn.Linear(64, a * 16), nn.ReLU(), nn.Unflatten(1, (a, 4, 4)),
            nn.ConvTranspose2d(a, b, 4, 2, 1), nn.ReLU(), nn.ConvTranspose2d(b, c, 4, 2, 1), nn.ReLU(),
            nn.ConvTranspose2d(c, 3, 4, 2, 1), nn.Tanh(),
        ),
        lambda: nn.Sequential(
            nn.Conv2d(3, c, 4, 2, 1), nn.LeakyReLU(0.2), nn.Conv2d(c, b, 4, 2, 1), nn.LeakyReLU(0.2),
            nn.Conv2d(b, a, 4, 2, 1), nn.LeakyReLU(0.2), nn.Flatten(), nn.Linear(a * 16, 1),
        ),
        64, (3, 32, 32), 32,
    )  # fmt: skip


def perceptrons(width: int) -> Case:
    """Two hidden layers each: many weights for few operations, the worst case for everything but gradients."""

    def network(first: int, last: int) -> nn.Module:
        return nn.Sequential(
            nn.Linear(first, width), nn.LeakyReLU(0.2), nn.Linear(width, width), nn.LeakyReLU(0.2),
            nn.Linear(width, last),
        )  # fmt: skip

    return Case(lambda: network(64, 12), lambda: network(12, 1), 64, (12,), 16)


CASES = {
    "MNIST DCGAN, dim 16": Case(
        lambda: MNISTGenerator(16), lambda: MNISTCritic(16), 128, (1, 28, 28), 64
    ),
    "DCGAN of 0.2 million": convolutions(16),
    "DCGAN of 3.4 million": convolutions(96),
    "perceptrons of 6.6 million": perceptrons(1800),
    "perceptrons of 30.8 million": perceptrons(3900),
}


def seconds_of_a_gradient(case: Case, g: nn.Module, d: nn.Module, data: Tensor) -> float:
    """The median of five."""

    def gradient() -> None:
        fake = g(torch.randn(case.batch, case.latent))
        critic = softplus(-d(data[: case.batch])).mean() + softplus(d(fake.detach())).mean()
        torch.autograd.grad(critic, list(d.parameters()))
        torch.autograd.grad(softplus(-d(fake)).mean(), list(g.parameters()))

    gradient()
    times = []
    for _ in range(5):
        begun = time.perf_counter()
        gradient()
        times.append(time.perf_counter() - begun)
    return statistics.median(times)


def measured(case: Case, gradients: int) -> dict[str, float]:
    """One audit, in this process."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    g, d = case.generator(), case.critic()
    weights = 4 * sum(p.numel() for m in (g, d) for p in m.parameters())
    data = torch.rand(2000, *case.shape) * 2 - 1
    before = seconds_of_a_gradient(case, g, d, data)
    settings = Settings.within(gradients)
    options = {"latent": case.latent, "batch": case.batch, "progress": "none"}
    with Peak() as peak:
        begun = time.perf_counter()
        eq.audit_pair(g, d, data, eq.Vanilla(), settings=settings, **options)
        spent = time.perf_counter() - begun
    after = seconds_of_a_gradient(case, g, d, data)
    unit = (before + after) / 2
    ends = sorted((before, after))
    return {
        "ratio": spent / (gradients * unit),
        "low": spent / (gradients * ends[1]),
        "high": spent / (gradients * ends[0]),
        "seconds": spent,
        "unit": unit,
        "weights": weights,
        "memory": peak.bytes,
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="")
    parser.add_argument("--gradients", type=int, default=400)
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.here:
        print(json.dumps(measured(CASES[options.only], options.gradients)))
        return 0
    missed = 0
    for name in CASES:
        if options.only not in name:
            continue
        call = [
            sys.executable,
            __file__,
            "--here",
            "--only",
            name,
            "--gradients",
            str(options.gradients),
        ]
        found = json.loads(subprocess.run(call, capture_output=True, text=True, check=True).stdout)
        size = found["memory"] / found["weights"]
        note = (
            f"{found['seconds']:.0f} s, {found['memory'] / 2**30:.2f} GiB more than before: {size:.0f} times "
            f"the weights"
        )
        row = Row(
            "Audits",
            name,
            f"{options.gradients} gradients",
            found["ratio"],
            found["low"],
            found["high"],
            BOUND,
            note=note,
        )
        keep(row)
        missed += row.missed
        print(
            f"{name:32} {row.ratio:.2f} of its gradients' time (at most {BOUND}), {note}",
            flush=True,
        )
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
