"""The paper's size on a GPU: SN-GAN of dim 64 on MNIST-sized images, extrapolated from 2,000 steps to 200,000.

A step is five critic steps and one of the generator, batch 50, drawing included, by `equilibrist.train` itself: as it
is, with TF32 (`torch.set_float32_matmul_precision("high")`), and with losses in bfloat16. The goal is 8 minutes on one
H200.

    python benchmarks/gpu_steps.py [--device cuda] [--steps 2000]
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import torch
from bench_rows import Row, keep

from equilibrist.data import ArraySource
from equilibrist.formulations import Vanilla
from equilibrist.games import GAN
from equilibrist.networks import MNISTCritic, MNISTGenerator
from equilibrist.optimizers import Adam
from equilibrist.run import Recipe, train
from equilibrist.solvers import Alternating

GOAL, WHOLE = 480.0, 200_000  # seconds; steps of the paper


def recipe(dim: int, steps: int) -> Recipe:
    """The paper's, on images whose values do not matter to the clock."""
    images = torch.rand(60_000, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    game = GAN(
        lambda: MNISTGenerator(dim, batch_norm=True),
        lambda: MNISTCritic(dim),
        Vanilla(),
        latent=128,
        spectral_norm=True,
    )
    rule = Alternating(5, Adam(2e-4, 0.5, 0.9))
    data = ArraySource(images, kind="images")
    return Recipe(game, data, rule, steps, batch=50, sample_every=steps)


def seconds_a_step(made: Recipe, device: str) -> float:
    """Of the second half of a run."""
    with tempfile.TemporaryDirectory() as folder:
        train(made, Path(folder) / "run", device=device, progress="none", compile="off")
        lines = (Path(folder) / "run" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    half = rows[len(rows) // 2]
    return float((rows[-1]["seconds"] - half["seconds"]) / (rows[-1]["step"] - half["step"]))


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--dim", type=int, default=64)
    options = parser.parse_args()
    if options.device.startswith("cuda") and not torch.cuda.is_available():
        print("no GPU: torch.cuda.is_available() is false")
        return 0
    name = torch.cuda.get_device_name() if options.device.startswith("cuda") else options.device
    made = recipe(options.dim, options.steps)
    fastest = float("inf")
    for kind, precision, mixed in (
        ("float32", "highest", False),
        ("TF32", "high", False),
        ("bfloat16 losses", "highest", True),
    ):
        torch.set_float32_matmul_precision(precision)
        took = seconds_a_step(replace(made, mixed_precision=mixed), options.device)
        torch.set_float32_matmul_precision("highest")
        minutes, fastest = took * WHOLE / 60, min(fastest, took)
        ratio = took * WHOLE / GOAL
        print(
            f"{kind:16} {1e3 * took:8.3f} ms a step, {minutes:8.1f} min for {WHOLE:,}", flush=True
        )
        label = f"dim {options.dim}, {kind}, {WHOLE:,} steps"
        note = f"{minutes:.1f} min, from {options.steps:,} steps on {name}"
        keep(Row("On a GPU", label, "8 minutes", ratio, ratio, ratio, note=note))
    return int(fastest * WHOLE > GOAL)


if __name__ == "__main__":
    sys.exit(main())
