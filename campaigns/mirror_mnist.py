"""Mirror-GAN against RMSProp on MNIST at DIM 16, WGAN with gradient penalty, at equal compute (Hsieh et al. 2019).

    python campaigns/mirror_mnist.py run        # two methods, two step sizes each; goes on where it was interrupted
    python campaigns/mirror_mnist.py report     # a table, and samples side by side

Both are preconditioned as RMSProp is and spend the same number of minibatch gradients, generator's and critic's
together: RMSProp alternates one generator step with five critic steps; Mirror-GAN takes five Langevin steps of both
players against the frozen opponent and keeps the mean network, as the paper does.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from pathlib import Path

import torch
from PIL import Image, ImageDraw

import equilibrist as eq
from equilibrist.langevin import RMSPropSGLD
from equilibrist.run import Recipe
from equilibrist.scores import Frechet
from equilibrist.solvers import Alternating, MirrorGAN

RATES = (1e-4, 5e-4)
NOISE, INNER, GRADIENTS = 1e-4, 5, 4200
RUNS = {
    **{f"RMSProp, lr {lr:g}": (Alternating(5, eq.RMSProp(lr, 0.9)), 6) for lr in RATES},
    **{
        f"Mirror-GAN, lr {lr:g}": (
            MirrorGAN(RMSPropSGLD(lr, NOISE, 0.9), inner=INNER),
            2 * INNER,
        )
        for lr in RATES
    },
}


def recipe(name: str, gradients: int) -> Recipe:
    """The run's recipe: everything but the solver and its number of steps is shared."""
    solver, price = RUNS[name]
    steps = gradients // price
    base = eq.resolve("mnist-wgan-gp", {"steps": steps}).build()
    return dataclasses.replace(
        base,
        solver=solver,
        title=f"WGAN-GP on MNIST (DIM 16): {name}",
        scores=(Frechet(samples=2000),),
        score_every=max(1, steps // 4),
    )


def folder(root: Path, name: str) -> Path:
    return root / name.replace(", ", "-").replace(" ", "-")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("run", "report"))
    parser.add_argument("--gradients", type=int, default=GRADIENTS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dir", type=Path, default=Path("runs/mirror-mnist"))
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.what == "run":
        for name in RUNS:
            begun = time.monotonic()
            made = recipe(name, options.gradients)
            eq.train(made, folder(options.dir, name), seed=options.seed)
            print(f"{name}: {made.steps} steps, {time.monotonic() - begun:.0f} s", flush=True)
        return
    cell = 224
    page = Image.new("L", (len(RUNS) * (cell + 8), cell + 24), 255)
    for i, name in enumerate(RUNS):
        where = folder(options.dir, name)
        rows = [json.loads(line) for line in (where / "scores.jsonl").read_text().splitlines()]
        seen = ", ".join(f"{r['step']}: {r['values']['frechet_distance']:.3g}" for r in rows)
        print(f"{name}: Frechet distance by step {seen}; floor {rows[-1]['floor']}")
        with Image.open(sorted(where.glob("samples/step_*.png"))[-1]) as sheet:
            page.paste(sheet.convert("L").resize((cell, cell)), (i * (cell + 8), 24))
        ImageDraw.Draw(page).text((i * (cell + 8) + 4, 6), name, fill=0)
    page.save(options.dir / "samples.png")
    print(options.dir / "samples.png")


if __name__ == "__main__":
    main()
