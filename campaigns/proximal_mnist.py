"""Proximal training against regular training on MNIST (Farnia and Ozdaglar 2020, section 6.2), at DIM 16.

    python campaigns/proximal_mnist.py train                 # every run, one after the other; goes on if interrupted
    python campaigns/proximal_mnist.py audit                 # the same audit of each
    python campaigns/proximal_mnist.py report                # a table and the samples side by side

The paper trains an SN-GAN with 20 inner critic steps on V_prox and compares with 5 critic steps of regular
training. Here are both, regular training with the same 20 critic steps, and 5 critic steps for as
many iterations as fill proximal training's time; lambda, which the paper does not give, is swept. lambda
is that of equation 11 (twice the one that Algorithm 1 prints halved).

Scores see samples through `pixels-8x8`, and through a LeNet where --classifier names its weights (a safetensors file
with conv1, conv2, fc1, fc2, fc3 for 32x32 images in [-1, 1]).
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from pathlib import Path

import torch
from PIL import Image, ImageDraw
from torch import Tensor, nn
from torch.nn import functional

import equilibrist as eq
from equilibrist import scores
from equilibrist.core import draws as drawing
from equilibrist.core.draws import Stream
from equilibrist.run import samples
from equilibrist.solvers import Alternating, Proximal

RULE = eq.Adam(2e-4, 0.5, 0.9)
STEPS = 1000
LAMBDAS = (0.01, 0.1, 1.0, 10.0)
# name: (solver, iterations as a multiple of STEPS)
RUNS = {
    "regular, 5 critic steps": (Alternating(5, RULE), 1),
    "regular, 20 critic steps": (Alternating(20, RULE), 1),
    **{
        f"proximal, 20, lambda {lam:g}": (Proximal(20, lam=lam, optimizer=RULE), 1)
        for lam in (0.1, 1.0, 10.0, 0.01)
    },
    "regular, 5 critic steps, 5 times as long": (Alternating(5, RULE), 5),
}


class LeNet(nn.Module):
    """Convolutions 1-16-32 of 5x5 with pooling, then 800-128-96-10; `features` stops at 96."""

    def __init__(self, features: bool) -> None:
        super().__init__()
        self.features = features
        self.conv1, self.conv2 = nn.Conv2d(1, 16, 5), nn.Conv2d(16, 32, 5)
        self.fc1, self.fc2, self.fc3 = nn.Linear(800, 128), nn.Linear(128, 96), nn.Linear(96, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.max_pool2d(self.conv1(x).relu(), 2)
        x = functional.max_pool2d(self.conv2(x).relu(), 2).flatten(1)
        x = self.fc2(self.fc1(x).relu()).relu()
        return x if self.features else self.fc3(x)


def recipe(name: str, steps: int) -> eq.Recipe:
    """The run's recipe: everything but the solver and its length is shared."""
    solver, times = RUNS[name]
    base = eq.resolve("mnist-sngan", {"steps": steps * times}).build()
    return dataclasses.replace(
        base,
        solver=solver,
        title=f"SN-GAN on MNIST (DIM 16): {name}",
        scores=(),
        checkpoint_every=500,
    )


def folder(root: Path, name: str, seed: int) -> Path:
    """Where that run lives."""
    short = name.replace(",", "").replace(" ", "-")
    return root / f"{short}-{seed}"


def judges(classifier: Path | None) -> list[scores.Score]:
    """What looks at the samples."""
    found: list[scores.Score] = [scores.Frechet()]
    if classifier:
        seen = {"size": 32, "value_range": (-1, 1)}
        found += [
            scores.Frechet(
                scores.from_safetensors(LeNet(True), classifier, "mnist-lenet-96", **seen)
            ),
            scores.ClassScore(
                scores.from_safetensors(LeNet(False), classifier, "mnist-lenet", **seen),
                logits=True,
            ),
        ]
    return found


def train(root: Path, steps: int, seeds: range) -> None:
    for seed in seeds:
        for name in RUNS:
            begun = time.monotonic()
            run = eq.train(recipe(name, steps), folder(root, name, seed), seed=seed)
            print(
                f"{name}, seed {seed}: {run.step} steps, {time.monotonic() - begun:.0f} s",
                flush=True,
            )


def audit(root: Path, steps: int, seeds: range) -> None:
    for seed in seeds:
        for name in RUNS:
            where = folder(root, name, seed)
            if where.exists() and not (where / "audit" / "audit.json").exists():
                run = eq.load(where, recipe(name, steps))
                eq.audit(run, checks=("stationary", "nash"), starts=2, steps=500)
                print(name, seed, flush=True)


def report(root: Path, steps: int, seeds: range, classifier: Path | None) -> None:
    tiles: list[tuple[str, Image.Image]] = []
    rows = {}
    for name in RUNS:
        for seed in seeds:
            where = folder(root, name, seed)
            if not where.exists():
                continue
            made = recipe(name, steps)
            run = eq.load(where, made)
            fake = samples.generate(made.game, run.players, run.constants, 5000, seed, batch=50)
            found = {}
            for judge in judges(classifier):
                result = judge(fake, run.data, drawing.generator(0, Stream.SAMPLE, 2))
                found[judge.name] = str(result)
            proof = json.loads((where / "audit" / "audit.json").read_text())
            claims = {c["claim"]: c for c in proof["certificates"]}
            seconds = sum(
                json.loads(line).get("seconds", 0.0)
                for line in (where / "metrics.jsonl").read_text().splitlines()[-1:]
            )
            line = [f"{name}, seed {seed}: {run.step} steps, {seconds:.0f} s"]
            line += [f"{k}: {v}" for k, v in found.items()]
            for player in ("generator", "critic"):
                c = claims[f"nash/{player}"]
                e = c["evidence"]
                line.append(f"{player}'s gain {e['gain']:.3g} {e['interval']} {c['verdict']}")
                s = claims[f"stationary/{player}"]
                line.append(f"{player}'s residual {s['evidence']['residual']:.3g} {s['verdict']}")
            rows[f"{name}, seed {seed}"] = {"scores": found, "steps": run.step}
            print("\n  ".join(line), flush=True)
            if seed == seeds[0]:
                tiles.append((name, sheet(fake[:64])))
    picture = Image.new("L", (4 * 240, 270 * -(-len(tiles) // 4)), 255)
    for i, (name, tile) in enumerate(tiles):
        x, y = 240 * (i % 4), 270 * (i // 4)
        picture.paste(tile, (x + 8, y + 24))
        ImageDraw.Draw(picture).text((x + 8, y + 6), name, fill=0)
    picture.save(root / "samples.png")
    (root / "summary.json").write_text(json.dumps(rows, indent=1))
    print(root / "samples.png")


def sheet(images: Tensor) -> Image.Image:
    """Eight by eight samples."""
    grid = images.reshape(8, 8, 28, 28).permute(0, 2, 1, 3).reshape(224, 224)
    return Image.fromarray((255 * grid.clamp(0, 1)).byte().numpy())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("train", "audit", "report"))
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--dir", type=Path, default=Path("runs/proximal-mnist"))
    parser.add_argument("--classifier", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    seeds = range(options.seeds)
    if options.what == "train":
        train(options.dir, options.steps, seeds)
    elif options.what == "audit":
        audit(options.dir, options.steps, seeds)
    else:
        report(options.dir, options.steps, seeds, options.classifier)


if __name__ == "__main__":
    main()
