"""How time and memory grow with width, batch, seeds, inner steps, Krylov dimension and parameters of an audited pair.

Every point is measured in a process of its own, on one thread: the median seconds of a step (of a whole audit, once),
and the most memory beyond what the process held with its libraries loaded. Exponents are those of fits a + b x^p to
the whole of each curve; where that of memory reaches 24 GiB, they end.

    python benchmarks/scale_curves.py [--only NAME]
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from audit_cost import Case as Pair
from audit_cost import convolutions, perceptrons
from bench_rows import Curve, keep
from compiled_steps import Training
from memory import Peak
from scipy.optimize import nnls
from solver_steps import RULE
from torch import nn
from training_step import Case

import equilibrist as eq
from equilibrist.checks import Settings
from equilibrist.networks import MixtureCritic, MixtureGenerator
from equilibrist.solvers import Alternating, Proximal

LIMIT = 24 * 2**30
FLAT = 1.1  # largest over smallest, below which a curve is flat
BLOCKS, ENOUGH = 5, 0.3  # timed blocks of a step, and the seconds that one should last
Measured = tuple[float, int]  # seconds, bytes


@dataclass(frozen=True)
class Scale:
    """A curve: what is done, along which axis, at which points, and how a point is measured.

    `measure` returns seconds and bytes; `axis_of` turns a point into the number on the axis (parameters of a width).
    """

    what: str
    axis: str
    points: Sequence[int]
    measure: Callable[[int], Measured]
    axis_of: Callable[[int], int] = int


def mlp(width: int, depth: int, batch: int) -> Case:
    """Perceptrons in the plane."""
    return Case(
        lambda: MixtureGenerator(16, width, depth),
        lambda: MixtureCritic(width, depth),
        16, batch, (2,), 0.0, 1,
    )  # fmt: skip


def step(case: Case, solver: object, seeds: int = 0) -> Measured:
    """An eager step of a solver."""
    with Peak() as peak:
        training = Training(case, solver, seeds)
        take = training.step(compiled=False)
        take(0)
        begun = time.perf_counter()
        take(1)
        count = max(1, int(ENOUGH / (time.perf_counter() - begun)))
        blocks = []
        for _ in range(BLOCKS):
            begun = time.perf_counter()
            for k in range(2, 2 + count):
                take(k)
            blocks.append((time.perf_counter() - begun) / count)
    return statistics.median(blocks), peak.bytes


def audited(pair: Pair, **asked: object) -> Measured:
    """An audit of random weights; what it costs hardly depends on them."""
    data = torch.rand(2000, *pair.shape) * 2 - 1
    options = {"latent": pair.latent, "batch": pair.batch, "progress": "none"}
    with Peak() as peak:
        generator, critic = pair.generator(), pair.critic()
        begun = time.perf_counter()
        eq.audit_pair(generator, critic, data, eq.Vanilla(), **options, **asked)  # type: ignore[arg-type]
        spent = time.perf_counter() - begun
    return spent, peak.bytes


def parameters(kind: Callable[[int], Pair]) -> Callable[[int], int]:
    """How many parameters both players of such a pair have, by its width."""

    def count(width: int) -> int:
        pair = kind(width)
        networks: tuple[nn.Module, ...] = (pair.generator(), pair.critic())
        return sum(p.numel() for network in networks for p in network.parameters())

    return count


PLAIN = Alternating(1, RULE)
WHOLE = Settings.within(400)
SCALES: dict[str, Scale] = {
    "width": Scale(
        "alternating step, three hidden layers, batch 512", "width",
        (32, 64, 128, 256, 512, 1024, 2048), lambda n: step(mlp(n, 3, 512), PLAIN),
    ),
    "batch": Scale(
        "alternating step, three hidden layers of 128", "batch",
        (64, 256, 1024, 4096, 16384, 65536, 262144), lambda n: step(mlp(128, 3, n), PLAIN),
    ),
    "seeds": Scale(
        "alternating step of an ensemble, four hidden layers of 16, batch 64", "seeds",
        (1, 4, 16, 64, 256), lambda n: step(mlp(16, 4, 64), PLAIN, n),
    ),
    "inner steps": Scale(
        "proximal step, three hidden layers of 128, batch 512", "inner steps",
        (1, 2, 5, 10, 20, 40), lambda n: step(mlp(128, 3, 512), Proximal(n, optimizer=RULE)),
    ),
    "Krylov dimension": Scale(
        "the check of stability, perceptrons of 0.8 million parameters, batch 16", "products",
        (10, 20, 40, 80, 160),
        lambda n: audited(perceptrons(600), checks=("stable",), settings=Settings(spectrum_products=n)),
    ),
    "audit of perceptrons": Scale(
        "a whole audit of 400 gradients, perceptrons, batch 16", "parameters",
        (60, 200, 600, 1800, 3900), lambda n: audited(perceptrons(n), settings=WHOLE),
        parameters(perceptrons),
    ),
    "audit of DCGANs": Scale(
        "a whole audit of 400 gradients, 32 x 32 images, batch 32", "parameters",
        (8, 16, 32, 64, 128), lambda n: audited(convolutions(n), settings=WHOLE),
        parameters(convolutions),
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Growth:
    """constant + factor x^power."""

    constant: float
    factor: float
    power: float

    def reaches(self, limit: float) -> float:
        """Where it is `limit`; infinity if it does not grow."""
        if not self.factor:
            return math.inf
        return ((limit - self.constant) / self.factor) ** (1 / self.power)


def growth(x: Sequence[float], y: Sequence[float]) -> Growth:
    """The fit with the least squared relative error, of powers between 0.3 and 3 in steps of 0.01.

    Neither constant nor factor is below zero.
    """
    if max(y) < FLAT * min(y):
        return Growth(statistics.median(y), 0.0, 0.0)
    found, least = Growth(0.0, 1.0, 1.0), math.inf
    for power in np.linspace(0.3, 3.0, 271):
        terms = np.stack([np.ones(len(x)), np.power(x, power)], 1) / np.array(y)[:, None]
        (constant, factor), error = nnls(terms, np.ones(len(x)))
        if factor > 0 and error < least:
            found, least = Growth(float(constant), float(factor), float(power)), error
    return found


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="", help="curves whose name holds this")
    parser.add_argument("--point", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.point is not None:
        torch.set_num_threads(1)
        torch.manual_seed(0)
        print(json.dumps(SCALES[options.only].measure(options.point)))
        return 0
    for name, scale in SCALES.items():
        if options.only not in name:
            continue
        seconds, held = [], []
        for point in scale.points:
            call = [sys.executable, __file__, "--only", name, "--point", str(point)]
            done = subprocess.run(call, capture_output=True, text=True, check=True).stdout
            took, most = json.loads(done)
            seconds.append(took)
            held.append(most)
            at = scale.axis_of(point)
            print(f"{name:24} {at:12,} {took:12.5f} s {most / 2**20:10.1f} MiB", flush=True)
        x = [scale.axis_of(point) for point in scale.points]
        time_of, memory_of = growth(x, seconds), growth(x, held)
        end = memory_of.reaches(LIMIT)
        last = end if math.isfinite(end) else None
        keep(
            Curve(
                name, scale.what, scale.axis, x, seconds, held, time_of.power, memory_of.power, last
            )
        )
        print(
            f"{name:24} seconds ~ x^{time_of.power:.2f}, memory ~ x^{memory_of.power:.2f}, "
            f"24 GiB end at {end:.3g}",
            flush=True,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
