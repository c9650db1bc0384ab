"""Mirror-GAN and Mirror-Prox-GAN against SGD, Adam and RMSProp in the plane, at equal compute (Hsieh et al. 2019).

    python campaigns/mirror_plane.py run                  # tunes, then trains; goes on where it was interrupted
    python campaigns/mirror_plane.py report               # tables, and a picture a law
    python campaigns/mirror_plane.py run --only eight-gaussians --gradients 2000 --seeds 3    # a small one

WGAN with gradient penalty, two perceptrons; the laws are eight and 25 Gaussians and the Swiss roll. Every run spends
the same number of minibatch gradients, generator's and critic's together, on minibatches of the same size. Every
method is tuned by itself on a grid of six settings: by the mean exact 2-Wasserstein distance of two seeds that the
table does not use. The table has ten further seeds, all of them, those that diverged too.

"mean network" is the paper's summary, one network a player; "mixture of 8" is a stack of eight particles a player that
share the minibatch and are paired at random.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw
from scipy.special import stdtrit

import equilibrist as eq
from equilibrist import data, scores
from equilibrist.core.draws import Stream, generator
from equilibrist.errors import NonFiniteError
from equilibrist.files.atomic import write_atomically
from equilibrist.formulations import WGAN
from equilibrist.games import GAN, Mixture
from equilibrist.langevin import RMSPropSGLD
from equilibrist.networks import MixtureCritic, MixtureGenerator
from equilibrist.penalties import GradientPenalty
from equilibrist.run import Recipe, ensemble
from equilibrist.solvers import Alternating, MirrorGAN, MirrorProxGAN, Solver

LAWS = ("eight-gaussians", "twenty-five-gaussians", "swiss-roll")
RATES = (3e-4, 1e-3, 3e-3)
WIDTH, DEPTH, LATENT, BATCH, PARTICLES, INNER = 64, 2, 2, 128, 8, 5
NOISE = 1e-3
TUNING = (100, 101)
SHOWN = 1000
Setting = tuple[float, float]


def plain(rule: Callable[[float], Any], scale: float = 1.0) -> Callable[[Setting], Solver]:
    """Alternating steps: settings are (step size, critic steps)."""
    return lambda setting: Alternating(int(setting[1]), rule(scale * setting[0]))


def mirror(kind: type[MirrorGAN]) -> Callable[[Setting], Solver]:
    """Settings are (the generator's step size, how many times larger the critic's is)."""

    def rule(lr: float) -> RMSPropSGLD:
        return RMSPropSGLD(lr, NOISE, decay=0.9)

    return lambda setting: kind(
        rule(setting[0]), {"critic": rule(setting[0] * setting[1])}, inner=INNER
    )


# name: (solver of a setting, grid, gradients in a step of that setting, particles)
STEPPED = tuple(itertools.product(RATES, (1, 5)))
PACED = tuple(itertools.product(RATES, (1, 5)))
METHODS: dict[str, tuple[Any, tuple[Setting, ...], Callable[[Setting], int], int]] = {
    "SGD": (plain(eq.SGD, 30.0), STEPPED, lambda s: 1 + int(s[1]), 1),
    "RMSProp": (plain(lambda lr: eq.RMSProp(lr, 0.9)), STEPPED, lambda s: 1 + int(s[1]), 1),
    "Adam": (plain(lambda lr: eq.Adam(lr, 0.5, 0.9)), STEPPED, lambda s: 1 + int(s[1]), 1),
    "Mirror-GAN, mean network": (mirror(MirrorGAN), PACED, lambda s: 2 * INNER, 1),
    "Mirror-Prox-GAN, mean network": (mirror(MirrorProxGAN), PACED, lambda s: 4 * INNER, 1),
    "Mirror-GAN, mixture of 8": (mirror(MirrorGAN), PACED, lambda s: 2 * INNER, PARTICLES),
    "Mirror-Prox-GAN, mixture of 8": (
        mirror(MirrorProxGAN),
        PACED,
        lambda s: 4 * INNER,
        PARTICLES,
    ),
}


def recipe(law: str, name: str, setting: Setting, gradients: int) -> Recipe:
    """One method with one setting, `gradients` minibatch gradients long."""
    build, _, price, particles = METHODS[name]
    lone = GAN(
        lambda: MixtureGenerator(LATENT, WIDTH, DEPTH),
        lambda: MixtureCritic(WIDTH, DEPTH),
        WGAN(),
        latent=LATENT,
        penalties=[GradientPenalty(1.0)],
    )
    steps = max(1, gradients // price(setting))
    return Recipe(
        game=Mixture(lone, particles) if particles > 1 else lone,
        data=getattr(data, law.replace("-", "_"))(),
        solver=build(setting),
        steps=steps,
        batch=BATCH,
        title=f"{law}: {name} {setting}",
        log_every=max(1, steps // 10),
        sample_every=steps,
        checkpoint_every=steps,
    )


def trained(
    law: str, name: str, setting: Setting, gradients: int, seeds: tuple[int, ...], folder: Path
) -> dict[int, torch.Tensor | None]:
    """Samples of each seed's end; None where it diverged."""
    made = recipe(law, name, setting, gradients)
    found: dict[int, torch.Tensor | None] = {}
    shutil.rmtree(folder, ignore_errors=True)
    if METHODS[name][3] == 1:
        done = ensemble(made, folder, seeds, progress="none")
        for seed, run in zip(seeds, done.runs, strict=True):
            found[seed] = None if seed in done.diverged else run.samples(SHOWN)
    else:
        for seed in seeds:
            try:
                run = eq.train(made, folder / f"seed_{seed}", seed=seed, progress="none")
                found[seed] = run.samples(SHOWN)
            except NonFiniteError:
                found[seed] = None
    shutil.rmtree(folder, ignore_errors=True)
    return found


def figures(law: str, points: torch.Tensor | None) -> dict[str, float]:
    """Modes covered, share of good samples, exact 2-Wasserstein distance to as many real samples."""
    if points is None or not bool(torch.isfinite(points).all()):
        return {"diverged": 1.0}
    source = getattr(data, law.replace("-", "_"))()
    real = source.sample(generator(0, Stream.STUDY, 7), SHOWN)
    found = {"w2": scores.wasserstein2(points.double().numpy(), real.double().numpy())}
    if hasattr(source, "modes"):
        seen = scores.mode_figures(points.double().numpy(), source.modes, source.sigma)
        found |= {"modes": float(seen.covered), "good": seen.good}
    return found


def run(root: Path, laws: tuple[str, ...], gradients: int, seeds: int) -> None:
    for law in laws:
        for name in METHODS:
            path = root / law / f"{name.replace(', ', '-').replace(' ', '-')}.json"
            if path.exists():
                continue
            begun, tried = time.monotonic(), {}
            for setting in METHODS[name][1]:
                ends = trained(law, name, setting, gradients, TUNING, root / "work")
                rows = [figures(law, points) for points in ends.values()]
                tried[setting] = float(np.mean([row.get("w2", math.inf) for row in rows]))
            best = min(tried, key=lambda s: tried[s])
            ends = trained(law, name, best, gradients, tuple(range(seeds)), root / "work")
            value = {
                "law": law,
                "method": name,
                "gradients": gradients,
                "tuning": [[*setting, w2] for setting, w2 in tried.items()],
                "best": best,
                "seeds": {seed: figures(law, points) for seed, points in ends.items()},
                "points": None if ends[0] is None else ends[0].tolist(),
                "seconds": time.monotonic() - begun,
            }
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, json.dumps(value).encode())
            print(f"{law}: {name}, best {best}, {value['seconds']:.0f} s", flush=True)


def interval(values: list[float]) -> str:
    """Mean +- half of Student's 95% interval."""
    if not values:
        return "none"
    n = len(values)
    reach = float(stdtrit(n - 1, 0.975)) * float(np.std(values, ddof=1)) / n**0.5 if n > 1 else 0.0
    return f"{np.mean(values):.3f} +- {reach:.3f}"


def report(root: Path, laws: tuple[str, ...]) -> None:
    for law in laws:
        found = {
            value["method"]: value
            for path in sorted((root / law).glob("*.json"))
            for value in [json.loads(path.read_text())]
        }
        print(f"\n{law}, {next(iter(found.values()))['gradients']} gradients")
        print(
            "| method | best of six | W2 | modes | good | less than the best plain W2 | diverged |"
        )
        print("|---|---|---|---|---|---|---|")
        plains = [n for n in ("SGD", "RMSProp", "Adam") if n in found]
        best = min(plains, key=lambda n: mean(found[n], "w2"))
        for name in METHODS:
            if name not in found:
                continue
            rows = found[name]["seeds"]
            ends = {
                key: [r[key] for r in rows.values() if key in r] for key in ("w2", "modes", "good")
            }
            base = found[best]["seeds"]
            paired = [
                base[s]["w2"] - r["w2"] for s, r in rows.items() if "w2" in r and "w2" in base[s]
            ]
            lost = sum("diverged" in r for r in rows.values())
            shown = " | ".join(interval(ends[key]) for key in ("w2", "modes", "good"))
            setting = ", ".join(f"{v:g}" for v in found[name]["best"])
            print(f"| {name} | {setting} | {shown} | {interval(paired)} | {lost} of {len(rows)} |")
        picture(law, [found[n] for n in METHODS if n in found]).save(
            root / f"{law}.webp", quality=70
        )
        print(root / f"{law}.webp")


def mean(value: dict[str, Any], key: str) -> float:
    return float(np.mean([row.get(key, math.inf) for row in value["seeds"].values()]))


def picture(law: str, values: list[dict[str, Any]]) -> Image.Image:
    """Samples of seed 0 by method, over real ones in grey."""
    cell, head = 190, 20
    source = getattr(data, law.replace("-", "_"))()
    real = source.sample(generator(0, Stream.STUDY, 7), SHOWN).numpy()
    low, high = real.min(0) - 0.4, real.max(0) + 0.4
    page = Image.new("RGB", (4 * cell, 2 * (cell + head)), "white")
    draw = ImageDraw.Draw(page)

    def put(points: np.ndarray, x: int, y: int, color: str) -> None:
        place = (points - low) / (high - low) * cell
        for a, b in place[((place > 0) & (place < cell)).all(1)]:
            draw.point((x + a, y + cell - b), fill=color)

    for i, value in enumerate(values):
        x, y = i % 4 * cell, i // 4 * (cell + head)
        draw.text((x + 4, y + 4), value["method"], fill="black")
        put(real, x, y + head, "#bbbbbb")
        if value["points"]:
            put(np.array(value["points"]), x, y + head, "#1d4ed8")
    return page


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("run", "report"))
    parser.add_argument("--only", choices=LAWS)
    parser.add_argument("--gradients", type=int, default=2000)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--dir", type=Path, default=Path("runs/mirror-plane"))
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    laws = (options.only,) if options.only else LAWS
    if options.what == "run":
        run(options.dir, laws, options.gradients, options.seeds)
    else:
        report(options.dir, laws)


if __name__ == "__main__":
    main()
