"""Farnia and Ozdaglar 2020, sections 2 and 6.1, on MNIST at DIM 16: the generator alone, on V and on V_prox.

    python campaigns/farnia_sections_2_and_6.py train        # three GANs, 15 to 30 minutes each
    python campaigns/farnia_sections_2_and_6.py experiment   # 500 generator steps both ways, half an hour each
    python campaigns/farnia_sections_2_and_6.py report       # numbers, and curves and samples as figure.webp

Section 2 freezes the trained critic and trains the generator on; section 6.1 lets the critic answer each step by 50
Adam steps at the price lambda = 0.1. What is finished is not made again. `--only wgan-gp` does one GAN.

WGAN-WC's critic goes without batch norm here (its generator keeps it): a critic whose scores depend on the batch has no
gradient at a sample, which V_prox needs.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch
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
WAYS = {"frozen": "V, D frozen", "proximal": "V_prox, D answers"}
COLORS = {"frozen": "#b45309", "proximal": "#1d4ed8"}
STEPS = 500
CELL, GAP = 230, 12


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
    rows = []
    for name in names:
        audit = json.loads((root / name / "audit" / "audit.json").read_text())
        (certificate,) = (c for c in audit["certificates"] if c["claim"] == "section-6.1")
        evidence = certificate["evidence"]
        print(f"{name}: {certificate['verdict']}. {certificate['summary']}")
        print(f"  tolerance {certificate['tolerance']['value']:.3g} {evidence['unit']}")
        for way, words in WAYS.items():
            prefix = "frozen_" if way == "frozen" else ""
            fall, (low, high) = evidence[prefix + "fall"], evidence[prefix + "interval"]
            curve = evidence["curves"][way]
            print(f"  {words}: falls by {fall:.4g} ({low:.4g} to {high:.4g})", curve["failed"])
        print("  V_prox at the end by inner effort:", evidence["inner_values_at_the_end"])
        rows.append((TITLES[name], evidence, root / name / "audit"))
    figure(rows).save(root / "figure.webp", quality=70, method=6)
    print(root / "figure.webp")


def figure(rows: list[tuple[str, dict[str, Any], Path]]) -> Image.Image:
    """A row a GAN: the curves, and 25 samples before, after V and after V_prox."""
    page = Image.new("RGB", (4 * (CELL + GAP) + GAP, len(rows) * (CELL + 3 * GAP) + GAP), "white")
    draw = ImageDraw.Draw(page)
    for i, (title, evidence, folder) in enumerate(rows):
        y = i * (CELL + 3 * GAP) + 2 * GAP
        heads = (
            f"{title}, {evidence['unit']}",
            "before",
            f"after {evidence['generator_steps']} steps on V",
            "after as many on V_prox",
        )
        page.paste(curves(evidence), (GAP, y))
        for j, head in enumerate(heads):
            draw.text((GAP + j * (CELL + GAP), y - 14), head, fill="black")
        for j, key in enumerate(("before", "frozen-after", "after"), 1):
            with Image.open(folder / evidence["samples"][key]) as sheet:
                page.paste(tile(sheet), (GAP + j * (CELL + GAP), y))
    return page


def tile(sheet: Image.Image) -> Image.Image:
    """The sheet's first 25 of 64 samples."""
    side = sheet.width * 5 // 8
    return sheet.convert("RGB").crop((0, 0, side, side)).resize((CELL, CELL), Image.Resampling.BOX)


def curves(evidence: dict[str, Any]) -> Image.Image:
    """Both objectives less their starts, over the generator's steps."""
    panel = Image.new("RGB", (CELL, CELL), "white")
    draw = ImageDraw.Draw(panel)
    lines = {
        way: [v - curve["objective"][0] for v in curve["objective"]]
        for way, curve in evidence["curves"].items()
    }
    values = [v for line in lines.values() for v in line]
    low, high = min(values), max(values)
    span = (high - low) or 1.0
    last = max(max(c["step"]) for c in evidence["curves"].values()) or 1
    left, top, bottom = 46, 8, CELL - 34

    def at(step: float, value: float) -> tuple[float, float]:
        x = left + (CELL - left - 8) * step / last
        return x, top + (bottom - top) * (high - value) / span

    draw.rectangle((left, top, CELL - 8, bottom), outline="#999999")
    for value in (high, low):
        draw.text((2, at(0, value)[1] - 6), f"{value:.3g}", fill="black")
    draw.text((left, bottom + 4), "0", fill="black")
    draw.text((CELL - 30, bottom + 4), str(last), fill="black")
    for k, (way, words) in enumerate(WAYS.items()):
        points = [
            at(step, value)
            for step, value in zip(evidence["curves"][way]["step"], lines[way], strict=True)
        ]
        draw.line(points, fill=COLORS[way], width=2)
        draw.text((left + k * 92, CELL - 14), words, fill=COLORS[way])
    return panel


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
