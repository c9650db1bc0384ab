"""Farnia and Ozdaglar 2020, sections 2 and 6.1, on MNIST at DIM 16: the generator alone, on V and on V_prox.

    python campaigns/farnia_sections_2_and_6.py train        # three GANs, half an hour to an hour each
    python campaigns/farnia_sections_2_and_6.py experiment   # 500 generator steps both ways, half an hour to an hour each
    python campaigns/farnia_sections_2_and_6.py report       # numbers, curves and samples: curves.svg, samples.webp

Section 2 freezes the trained critic and trains the generator on; section 6.1 lets the critic answer each step by 50
Adam steps at the price lambda = 0.1. Finished parts are not made again. `--only wgan-gp` does one GAN.

WGAN-WC's critic goes without batch norm here (its generator keeps it): a critic whose scores depend on the batch has no
gradient at a sample, which V_prox needs.
"""

from __future__ import annotations

import argparse
import io
import time
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw

import equilibrist as eq
from equilibrist.run.recipe import Recipe

# name: (recipe, its settings)
RUNS: dict[str, tuple[str, dict[str, int | bool]]] = {
    "sngan": ("mnist-sngan", {"steps": 5000}),
    "wgan-gp": ("mnist-wgan-gp", {"steps": 4000}),
    "wgan-wc": ("mnist-wgan-wc", {"steps": 6000, "critic_batch_norm": False}),
}
TITLES = {"sngan": "SN-GAN", "wgan-gp": "WGAN-GP", "wgan-wc": "WGAN-WC"}
WAYS = {"frozen": "critic frozen, V", "proximal": "critic answers, V_prox"}
COLORS = {"frozen": "#b45309", "proximal": "#1d4ed8"}
STEPS = 500


def recipe(name: str) -> Recipe:
    which, settings = RUNS[name]
    return eq.resolve(which, settings).build()


def train(root: Path, names: list[str]) -> None:
    for name in names:
        begun = time.monotonic()
        run = eq.train(recipe(name), root / name, seed=0)
        print(f"{name}: {run.step} steps, {time.monotonic() - begun:.0f} s", flush=True)


def experiment(root: Path, names: list[str], steps: int) -> None:
    for name in names:
        run, begun = eq.load(root / name, recipe(name)), time.monotonic()
        found = eq.audit(run, checks=("section-6.1",), experiment_steps=steps, looks=20)
        print(f"{name}, {time.monotonic() - begun:.0f} s: {found['section-6.1'].summary}")


def report(root: Path, names: list[str]) -> None:
    sheets, curves = [], []
    for name in names:
        certificate = eq.load_audit(root / name)["section-6.1"]
        evidence = certificate.evidence
        print(f"{name}: {certificate.verdict.value}. {certificate.summary}")
        print(f"  tolerance {certificate.tolerance.value:.3g} {evidence['unit']}")
        for key in ("frozen", "proximal"):
            prefix = "frozen_" if key == "frozen" else ""
            fall, (low, high) = evidence[prefix + "fall"], evidence[prefix + "interval"]
            curve = evidence["curves"][key]
            print(f"  {WAYS[key]}: falls by {fall:.4g} ({low:.4g} to {high:.4g})", curve["failed"])
        print("  at the end, V_prox by inner effort:", evidence["inner_values_at_the_end"])
        curves.append((TITLES[name], evidence))
        sheets.append((TITLES[name], tiles(root / name)))
    (root / "curves.svg").write_text(drawn(curves))
    together(sheets).save(root / "samples.webp", quality=60, method=6)
    print(root / "curves.svg", root / "samples.webp")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("train", "experiment", "report"))
    parser.add_argument("--only", choices=tuple(RUNS))
    parser.add_argument("--steps", type=int, default=STEPS, help="generator steps each way")
    parser.add_argument("--dir", type=Path, default=Path("runs/farnia"))
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    names = [options.only] if options.only else list(RUNS)
    if options.what == "train":
        train(options.dir, names)
    elif options.what == "experiment":
        experiment(options.dir, names, options.steps)
    else:
        report(options.dir, names)


if __name__ == "__main__":
    main()
