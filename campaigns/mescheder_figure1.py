"""Figure 1 of Mescheder, Nowozin and Geiger (2017): eight Gaussians, SimGA against consensus.

    python campaigns/mescheder_figure1.py train --solver simga       # a third of an hour on one core
    python campaigns/mescheder_figure1.py train --solver consensus   # three times as long
    python campaigns/mescheder_figure1.py report                     # densities, spectra, modes, a table

Circle of radius 1, sigma 0.01, batch 512 with 64 points of each mode, z in 16 dimensions, both players of 4
hidden ReLU layers of 16, RMSProp 1e-4 in TensorFlow's form, gamma 10, saturating losses; 20,000
iterations, looked at after 0, 5,000, 10,000 and 20,000. Sixteen seeds, all at once. Interrupted training goes on
when the command is given again.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from scipy.stats import gaussian_kde, t

import equilibrist as eq
from equilibrist import tree
from equilibrist.run import checkpoint, ensemble, samples
from equilibrist.scores import mode_figures
from equilibrist.solvers import Consensus, Simultaneous

RULE = eq.TFRMSProp(1e-4)
SOLVERS = {"simga": Simultaneous(RULE), "consensus": Consensus(RULE, gamma=10.0)}
LOOKS = (0, 5000, 10000, 20000)
POINTS = 2560


def recipe(solver: str) -> eq.Recipe:
    """The recipe of the figure; scores are computed from the checkpoints afterwards."""
    base = eq.resolve("eight-gaussians", {"steps": LOOKS[-1], "method": "simultaneous"}).build()
    return dataclasses.replace(
        base, solver=SOLVERS[solver], scores=(), checkpoint_every=5000, keep=5, log_every=100
    )


def pair_at(made: eq.Recipe, folder: Path, seed: int, step: int) -> tuple[dict, dict]:
    """Players and constants of one member at one look; step 0 is the initial pair."""
    start = made.game.init(seed, dtype=made.dtype)
    if step == 0:
        return start
    flat, _, _ = checkpoint.read(checkpoint.path_of(folder / f"seed_{seed}" / "checkpoints", step))
    like = {"players": start.players, "constants": start.constants}
    values = checkpoint.fit(flat, like, folder)
    return values["players"], values["constants"]


def density(points: np.ndarray) -> Image.Image:
    """A kernel density estimate on [-1.6, 1.6]^2, dark where there is more."""
    grid = np.linspace(-1.6, 1.6, 96)
    where = np.stack(np.meshgrid(grid, grid[::-1])).reshape(2, -1)
    try:
        values = gaussian_kde(points.T, bw_method=0.08)(where).reshape(96, 96)
    except np.linalg.LinAlgError:  # all samples on one line or point
        values = np.histogram2d(points[:, 1], points[:, 0], bins=96, range=[[-1.6, 1.6]] * 2)[0][
            ::-1
        ]
    shade = 255 * (1 - np.sqrt(values / max(values.max(), 1e-12)))
    return Image.fromarray(shade.astype(np.uint8)).resize((192, 192))


def spectrum(made: eq.Recipe, players: dict, constants: dict) -> np.ndarray:
    """Eigenvalues of J (own losses: stable is Re > 0) in float64, over eight minibatches."""
    from equilibrist._draws import Stream, generator

    wide, fixed = (tree.to(x, dtype=torch.float64) for x in (players, constants))
    source = made.data.to(dtype=torch.float64)
    draws = [
        made.game.draw(generator(0, Stream.AUDIT, k), source, made.batch, torch.float64)
        for k in range(8)
    ]
    operator = eq.JacobianOperator(eq.VectorField(made.game), wide, fixed, draws)
    return np.linalg.eigvals(operator.dense().numpy())


def interval(values: list[float]) -> str:
    """Mean and 95% Student interval."""
    x = np.array(values, dtype=float)
    reach = t.ppf(0.975, len(x) - 1) * x.std(ddof=1) / len(x) ** 0.5 if len(x) > 1 else np.nan
    return f"{x.mean():.3f} +- {reach:.3f}"


def report(root: Path, seeds: range) -> None:
    """Densities, spectra and the table, from the checkpoints."""
    rows, summary = [], {}
    for solver in SOLVERS:
        made, folder = recipe(solver), root / solver
        tiles = []
        for step in LOOKS:
            modes, good = [], []
            for seed in seeds:
                players, constants = pair_at(made, folder, seed, step)
                made_of = samples.generate(made.game, players, constants, POINTS, seed)
                covered, _, share = mode_figures(made_of, made.data.modes, made.data.sigma)
                modes.append(covered)
                good.append(share)
                if seed == seeds[0]:
                    tiles.append(density(made_of.numpy()))
                    values = spectrum(made, players, constants)
                    np.save(root / f"spectrum_{solver}_{step}.npy", values)
            centred = [1 for m in modes if m == 8]
            summary[f"{solver} {step}"] = {"modes": modes, "good": good}
            ratio = np.abs(values.imag) / np.maximum(np.abs(values.real), 1e-12)
            print(
                f"{solver:10} {step:6}  modes {interval(modes)}  good {interval(good)}  all eight in "
                f"{len(centred)} of {len(modes)}  | seed {seeds[0]}: Re {values.real.min():.3g} .. "
                f"{values.real.max():.3g}, max |Im| {np.abs(values.imag).max():.3g}, "
                f"largest |Im/Re| of |l| > 1e-3: {ratio[np.abs(values) > 1e-3].max(initial=0):.3g}",
                flush=True,
            )
        rows.append(tiles)
    sheet = Image.new("L", (192 * len(LOOKS), 192 * len(rows)), 255)
    for i, tiles in enumerate(rows):
        for j, tile in enumerate(tiles):
            sheet.paste(tile, (192 * j, 192 * i))
    sheet.save(root / "densities.png")
    (root / "summary.json").write_text(json.dumps(summary, indent=1))
    print(f"{root / 'densities.png'}: rows {', '.join(SOLVERS)}; columns {LOOKS}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("train", "report"))
    parser.add_argument("--solver", choices=tuple(SOLVERS), default="simga")
    parser.add_argument("--seeds", type=int, default=16)
    parser.add_argument("--dir", type=Path, default=Path("runs/mescheder-figure1"))
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    seeds = range(options.seeds)
    if options.what == "train":
        found = ensemble(recipe(options.solver), options.dir / options.solver, seeds)
        print(f"{found.seconds:.0f} s; diverged: {found.diverged or 'none'}")
    else:
        report(options.dir, seeds)


if __name__ == "__main__":
    main()
