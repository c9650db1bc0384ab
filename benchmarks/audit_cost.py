"""What a whole audit costs: seconds over those that it accounts for, and memory.

It accounts for (gradients counted) x (seconds of a gradient) and, by their own time, for self-tests and for losses
looked at without gradients (on batches of a split, in float64). A gradient is one minibatch's, of both players, by
plain autograd in the pair's own precision, timed before and after.
Memory is the largest resident set beyond what the process held when the audit began, over what it may take: twelve
times the weights, the Krylov basis that the search for eigenvalues kept, and what one product with J^T takes by plain
autograd on one batch in float64. Each case runs in a process of its own, in which a small pair was audited before
(libraries are loaded then: a second, once a process). Random weights: what an audit costs hardly depends on them.

The last row is an audit with its default settings, on two threads, in seconds over the five minutes that it may take.

    python benchmarks/audit_cost.py [--only NAME] [--gradients 400]
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from bench_rows import Row, keep
from memory import Peak
from torch import Tensor, nn
from torch.nn.functional import softplus

import equilibrist as eq
from equilibrist.checks import Settings
from equilibrist.checks.context import AuditContext, rows_in
from equilibrist.networks import MNISTCritic, MNISTGenerator
from equilibrist.spectra import krylov

BOUND = 1.5
WEIGHTS = 12  # times the weights, that an audit may hold beyond activations and its basis
MINUTES = 5
DEFAULT = "MNIST DCGAN, dim 16"
MEMORY = "Memory of an audit"
LIBRARIES = 400  # gradients of the audit that loads them


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


def bytes_of_a_product(case: Case, g: nn.Module, d: nn.Module, data: Tensor) -> int:
    """The most that J^T u of both players takes on one batch in float64, beyond copies of the weights."""
    wide = [copy.deepcopy(m).double() for m in (g, d)]
    sizes = [list(m.parameters()) for m in wide]
    u = [torch.randn_like(p) for part in sizes for p in part]
    with Peak() as peak:
        fake = wide[0](torch.randn(case.batch, case.latent, dtype=torch.float64))
        real = wide[1](data[: case.batch].double())
        critic = softplus(-real).mean() + softplus(wide[1](fake)).mean()
        first = torch.autograd.grad(softplus(-wide[1](fake)).mean(), sizes[0], create_graph=True)
        second = torch.autograd.grad(critic, sizes[1], create_graph=True)
        along = sum((a * b).sum() for a, b in zip((*first, *second), u, strict=True))
        torch.autograd.grad(along, sizes[0] + sizes[1])
    return peak.bytes


def load_libraries() -> None:
    """Audit a small pair: what an audit imports is loaded afterwards."""
    small = perceptrons(8)
    eq.audit_pair(
        small.generator(), small.critic(), torch.randn(500, *small.shape), eq.Vanilla(),
        settings=Settings.within(LIBRARIES), latent=small.latent, batch=small.batch, progress="none",
    )  # fmt: skip


class Basis:
    """The largest basis of a search for eigenvalues, in bytes."""

    bytes = 0

    def __enter__(self) -> Basis:
        self._extend = krylov._extend

        def extended(product: Any, basis: Any, H: Any, j: int, rng: Any) -> Any:
            self.bytes = max(self.bytes, basis[: j + 2].nbytes)
            return self._extend(product, basis, H, j, rng)

        krylov._extend = extended
        return self

    def __exit__(self, *_: object) -> None:
        krylov._extend = self._extend


class Looks:
    """Losses looked at without gradients: their seconds, and the gradients that they are counted as."""

    seconds = gradients = 0.0

    def __enter__(self) -> Looks:
        self._losses_on = AuditContext.losses_on

        def timed(context: AuditContext, player: str, *pair: Any) -> Tensor:
            begun = time.perf_counter()
            found = self._losses_on(context, player, *pair)
            self.seconds += time.perf_counter() - begun
            self.gradients += sum(map(rows_in, pair[-1])) / context.settings.batch / 3
            return found

        AuditContext.losses_on = timed  # type: ignore[method-assign]
        return self

    def __exit__(self, *_: object) -> None:
        AuditContext.losses_on = self._losses_on  # type: ignore[method-assign]


def default_audit(case: Case) -> float:
    """Seconds of an audit with default settings, on two threads."""
    torch.set_num_threads(2)
    torch.manual_seed(0)
    data = torch.rand(6000, *case.shape)
    begun = time.perf_counter()
    eq.audit_pair(
        case.generator(), case.critic(), data, eq.Vanilla(),
        latent=case.latent, batch=case.batch, progress="none",
    )  # fmt: skip
    return time.perf_counter() - begun


def measured(case: Case, gradients: int) -> dict[str, float]:
    """One audit, in this process."""
    torch.set_num_threads(1)
    load_libraries()
    torch.manual_seed(0)
    g, d = case.generator(), case.critic()
    weights = 4 * sum(p.numel() for m in (g, d) for p in m.parameters())
    data = torch.rand(2000, *case.shape) * 2 - 1
    before = seconds_of_a_gradient(case, g, d, data)
    settings = Settings.within(gradients)
    options = {"latent": case.latent, "batch": case.batch, "progress": "none"}
    activations = bytes_of_a_product(case, g, d, data)
    with Basis() as basis, Looks() as looks, Peak() as peak:
        begun = time.perf_counter()
        found = eq.audit_pair(g, d, data, eq.Vanilla(), settings=settings, **options)
        spent = time.perf_counter() - begun
    after = seconds_of_a_gradient(case, g, d, data)
    tests = found.work["self-tests"]
    counted = sum(one["gradients"] for one in found.work.values())
    counted -= looks.gradients + tests["gradients"]
    by_time = looks.seconds + tests["seconds"]
    unit, (low, high) = (before + after) / 2, sorted((before, after))
    return {
        "ratio": spent / (counted * unit + by_time),
        "low": spent / (counted * high + by_time),
        "high": spent / (counted * low + by_time),
        "seconds": spent,
        "gradients": counted,
        "by_time": by_time,
        "unit": unit,
        "weights": weights,
        "memory": peak.bytes,
        "allowed": WEIGHTS * weights + activations + basis.bytes,
        "activations": activations,
        "basis": basis.bytes,
    }


def child(*more: str) -> Any:
    """What this script prints in a process of its own."""
    call = [sys.executable, __file__, "--here", *more]
    return json.loads(subprocess.run(call, capture_output=True, text=True, check=True).stdout)


def gib(size: float) -> str:
    return f"{size / 2**30:.2f} GiB"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="")
    parser.add_argument("--gradients", type=int, default=400)
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.here:
        case = CASES[options.only]
        gradients = options.gradients
        found = measured(case, gradients) if gradients else {"seconds": default_audit(case)}
        print(json.dumps(found))
        return 0
    missed = 0
    for name in CASES:
        if options.only not in name:
            continue
        found = child("--only", name, "--gradients", str(options.gradients))
        asked = f"{options.gradients} gradients"
        ends = found["ratio"], found["low"], found["high"]
        took = (
            f"{found['seconds']:.0f} s: {found['gradients']:.0f} gradients of {1e3 * found['unit']:.0f} ms, "
            f"{found['by_time']:.1f} s by their own time"
        )
        row = Row("Audits", name, asked, *ends, BOUND, note=took)
        over = found["memory"] / found["allowed"]
        note = (
            f"{gib(found['memory'])} more than before; weights {gib(found['weights'])}, a product "
            f"{gib(found['activations'])}, the basis {gib(found['basis'])}"
        )
        kept = Row(MEMORY, name, "what it may take", over, over, over, 1.0, note=note)
        for one in (row, kept):
            keep(one)
            missed += one.missed
        print(f"{name:32} {row.ratio:.2f} of what it accounts for (at most {BOUND}), {row.note}")
        print(f"{'':32} {over:.2f} of the memory that it may take: {note}", flush=True)
    if options.only in DEFAULT:
        over = child("--only", DEFAULT, "--gradients", "0")["seconds"] / (60 * MINUTES)
        row = Row(
            "Audits", f"{DEFAULT}, default settings", f"{MINUTES} minutes", over, over, over, 1.0,
            note=f"{60 * MINUTES * over:.0f} s on two threads",
        )  # fmt: skip
        keep(row)
        missed += row.missed
        print(f"{row.name:32} {over:.2f} of {MINUTES} minutes", flush=True)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
