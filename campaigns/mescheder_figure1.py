"""Figure 1 of Mescheder, Nowozin and Geiger (2017): eight Gaussians, SimGA against consensus.

    python campaigns/mescheder_figure1.py train --solver simga       # 13 minutes on one busy core
    python campaigns/mescheder_figure1.py train --solver consensus   # half an hour
    python campaigns/mescheder_figure1.py report                     # figure1.webp, tables, spectra

Circle of radius 1, sigma 0.01, batch 512 with 64 points of each mode, z in 16 dimensions, both players of 4
hidden ReLU layers of 16, RMSProp 1e-4 in TensorFlow's form, gamma 10, saturating losses; 20,000
iterations, looked at after 0, 5,000, 10,000 and 20,000. Sixteen seeds, all at once. Interrupted training goes on
when the command is given again.

The report takes spectra of seed 0 at every look and of the other seeds at the last: 37 Jacobians of 4 minibatches,
each 4 seconds a minibatch on an idle core. They are kept in DIR/spectra, so a report that was interrupted goes on as
well; --spectra 1 takes those of seed 0 alone.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from scipy.ndimage import gaussian_filter
from scipy.stats import t
from threadpoolctl import threadpool_limits

import equilibrist as eq
from equilibrist import tree
from equilibrist.core.draws import Batches, StackedDraws, Stream, generator
from equilibrist.progress import showing
from equilibrist.run import checkpoint, ensemble, samples
from equilibrist.scores import mode_figures
from equilibrist.solvers import Consensus, Simultaneous

RULE = eq.TFRMSProp(1e-4)
GAMMA = 10.0
SOLVERS = {"simga": Simultaneous(RULE), "consensus": Consensus(RULE, gamma=GAMMA)}
NAMES = {"simga": "SimGA", "consensus": "consensus"}
LOOKS = (0, 5000, 10000, 20000)
SHEETS = 2500  # iterations from one recorded sample sheet to the next
POINTS = 2560
BATCHES = 4  # minibatches that a Jacobian is averaged over

# The picture, in pixels. Densities: window [-REACH, REACH]^2, kernel of standard deviation KERNEL.
REACH, KERNEL, FINE = 1.6, 0.04, 0.01
TILE, SMALL, GAP, LEFT, TOP = 216, 104, 8, 80, 30
SHARP = 3  # drawn so many times larger, then reduced
# Spectra: axes in asinh(x / UNIT), linear near 0 and logarithmic far from it, up to +-FAR.
UNIT, FAR, TICKS = 0.01, 40.0, (-10.0, -1.0, -0.1, 0.0, 0.1, 1.0, 10.0)
INK, PALE, RING = (34, 34, 34), (150, 150, 150), (213, 94, 0)
COLOURS = {"simga": (0, 90, 160), "consensus": (0, 120, 90), "direction": (150, 70, 130)}


@functools.cache
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
    flat, _, _ = checkpoint.read_checkpoint(
        checkpoint.path_of(folder / f"seed_{seed}" / "checkpoints", step)
    )
    like = {"players": start.players, "constants": start.constants}
    values = checkpoint.fit(flat, like, folder)
    return values["players"], values["constants"]


# ---- figures -------------------------------------------------------------------------------------


def points_at(root: Path, solver: str, seed: int, step: int) -> torch.Tensor:
    """The 2,560 samples of one member at one look."""
    made = recipe(solver)
    players, constants = pair_at(made, root / solver, seed, step)
    return samples.generate(made.game, players, constants, POINTS, seed)


def sheet_at(root: Path, solver: str, seed: int, step: int) -> torch.Tensor:
    """The 2,048 samples that the run itself recorded."""
    return torch.from_numpy(
        np.load(root / solver / f"seed_{seed}" / "samples" / f"step_{step:08d}.npy")
    )


def figures_of(points: Sequence[torch.Tensor]) -> dict[str, np.ndarray]:
    """Of each seed's samples: modes covered, share of good ones, spread.

    The spread is sqrt(tr Cov / 2), 0.707 for the data.
    """
    data = recipe("simga").data
    found = [mode_figures(x, data.modes, data.sigma) for x in points]
    return {
        "modes": np.array([f.covered for f in found], dtype=float),
        "good": np.array([f.good for f in found]),
        "spread": np.array([float(x.double().var(0).mean().sqrt()) for x in points]),
    }


def interval(values: Sequence[float] | np.ndarray) -> str:
    """Mean and 95% Student interval."""
    x = np.asarray(values, dtype=float)
    reach = t.ppf(0.975, len(x) - 1) * x.std(ddof=1) / len(x) ** 0.5 if len(x) > 1 else np.nan
    return f"{x.mean():.3f} +- {reach:.3f}"


def cost(seeds: Sequence[int], pairs: int = 9, steps: int = 8) -> list[float]:
    """CPU seconds of a consensus step over those of a SimGA step, drawing included, in interleaved blocks.

    Several seeds are stacked, as `train` does; one is stepped as a single network.
    """
    stacked = len(seeds) if len(seeds) > 1 else None

    def stepper(solver: str) -> Callable[[int], None]:
        made = recipe(solver)
        game, data = made.game, made.data
        batches = [Batches(lambda rng, n: game.draw(rng, data, n), made.batch, s) for s in seeds]
        starts = [game.init(s, dtype=made.dtype) for s in seeds]
        pair = (
            [tree.stack([start[i] for start in starts]) for i in (0, 1)] if stacked else starts[0]
        )
        held: list[Any] = [*pair, made.solver.init(pair[0])]
        field = eq.VectorField(game, stacked=stacked)

        def step(k: int) -> None:
            draws: Any = StackedDraws([b.at(k) for b in batches]) if stacked else batches[0].at(k)
            held[:] = made.solver.step(field, *held, draws)[:3]

        return step

    moving = {solver: stepper(solver) for solver in SOLVERS}
    taken: dict[str, list[float]] = {solver: [] for solver in SOLVERS}
    with showing("auto", f"cost of a step, {len(seeds)} at once", pairs) as bar:
        for pair in range(-1, pairs):  # the first pair warms up
            # Turn and turn about: neither is always the one that comes second.
            for solver in list(moving)[:: 1 if pair % 2 else -1]:
                begun = time.process_time()
                for k in range(steps):
                    moving[solver](steps * (pair + 1) + k)
                taken[solver].append(time.process_time() - begun)
            bar.update(max(0, pair + 1), {})
    both = zip(taken["consensus"][1:], taken["simga"][1:], strict=True)
    return [mine / theirs for mine, theirs in both]


def recorded(root: Path, seed: int) -> float:
    """Seconds that the runs recorded for all their iterations, consensus over SimGA."""

    def seconds(solver: str) -> float:
        lines = (root / solver / f"seed_{seed}" / "metrics.jsonl").read_text().splitlines()
        return json.loads(lines[-1])["seconds"]

    return seconds("consensus") / seconds("simga")


# ---- spectra -------------------------------------------------------------------------------------


def jacobian(made: eq.Recipe, players: dict, constants: dict) -> np.ndarray:
    """J = dv/dx [n, n] in float64, v the gradients of own losses (stable: Re > 0), mean over `BATCHES` minibatches.

    Row i is J^T e_i. 32 rows at a time: one by one they take twice as long, more at a time do not help.
    """
    wide, fixed = (tree.to(x, dtype=torch.float64) for x in (players, constants))
    wide = {player: wide[player] for player in made.game.players}
    source = made.data.to(dtype=torch.float64)
    unit = torch.eye(tree.count(wide), dtype=torch.float64)
    field, total = eq.VectorField(made.game), torch.zeros_like(unit)
    for k in range(BATCHES):
        rng = generator(0, Stream.STUDY, k)
        graph = field.linearize(wide, fixed, made.game.draw(rng, source, made.batch, torch.float64))

        def row(e: torch.Tensor, graph: Any = graph) -> torch.Tensor:
            return tree.flatten(graph.pullback(tree.unflatten(e, wide)))

        total += torch.cat([torch.func.vmap(row)(e) for e in unit.split(32)])
    return (total / BATCHES).numpy()


def spectra(root: Path, solver: str, seed: int, step: int) -> dict[str, np.ndarray]:
    """Eigenvalues of J ("jacobian") and of J + gamma J^T J ("direction"), computed once and kept.

    The second is the Jacobian of consensus's direction v + gamma J^T v where v = 0. Elsewhere it lacks
    gamma sum_i v_i Hessian(v_i), and with J averaged over minibatches it is the direction of one large minibatch.
    """
    solver = solver if step else "simga"  # the initial pair is the same
    path = root / "spectra" / f"{solver}_{seed}_{step}.npz"
    if not path.exists():
        made = recipe(solver)
        J = jacobian(made, *pair_at(made, root / solver, seed, step))
        found = {
            "jacobian": np.linalg.eigvals(J),
            "direction": np.linalg.eigvals(J + GAMMA * J.T @ J),
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        with part.open("wb") as file:
            np.savez(file, **found)
        part.replace(path)
    with np.load(path) as kept:
        return {name: kept[name] for name in ("jacobian", "direction")}


def described(values: np.ndarray) -> dict[str, float]:
    """Extremes of a spectrum; of its eigenvalues that are at least a hundredth of the largest: how many there are,
    how many have Re < 0, and q, the largest |Im/Re|."""
    size = np.abs(values)
    large = values[size >= size.max() / 100]
    return {
        "least Re": float(values.real.min()),
        "most Re": float(values.real.max()),
        "most |Im|": float(np.abs(values.imag).max()),
        "q": float((np.abs(large.imag) / np.maximum(np.abs(large.real), 1e-12)).max()),
        "negative": int((large.real < 0).sum()),
        "large": len(large),
    }


# ---- the picture ---------------------------------------------------------------------------------


def density(points: np.ndarray, size: int) -> Image.Image:
    """A kernel density estimate on [-1.6, 1.6]^2, dark where there is more; how many points lie outside.

    Kernel: Gaussian of standard deviation 0.04, the points binned to 0.01. Every picture has its own scale.
    """
    reach = REACH + 4 * KERNEL  # points near the window's edge reach into it
    bins = round(2 * reach / FINE)
    counts, _, _ = np.histogram2d(
        -points[:, 1], points[:, 0], bins=bins, range=[[-reach, reach]] * 2
    )
    margin = round(4 * KERNEL / FINE)
    values = gaussian_filter(counts, KERNEL / FINE, mode="constant")[margin:-margin, margin:-margin]
    shade = np.sqrt(values / max(values.max(), 1e-12))[..., None]
    pixels = 255 + shade * (np.array([8, 29, 88]) - 255)
    big = Image.fromarray(pixels.round().astype(np.uint8)).resize((SHARP * size, SHARP * size))
    pen = ImageDraw.Draw(big)
    for x, y in recipe("simga").data.modes.tolist():
        at = [(1 + v / REACH) * SHARP * size / 2 for v in (x, -y)]
        r = SHARP * max(3.5, size / 40)
        pen.ellipse([at[0] - r, at[1] - r, at[0] + r, at[1] + r], outline=RING, width=SHARP)
    picture = big.resize((size, size), Image.Resampling.LANCZOS)
    pen = ImageDraw.Draw(picture)
    outside = float((np.abs(points) > REACH).any(1).mean())
    if outside >= 0.005:
        pen.text((4, size - 16), f"{outside:.0%} outside", fill=INK, font=font(11))
    pen.rectangle([0, 0, size - 1, size - 1], outline=PALE)
    return picture


def plane(values: np.ndarray, colour: tuple[int, int, int], size: int) -> Image.Image:
    """Eigenvalues in the complex plane, both axes in asinh; the half-plane Re < 0, where v repels, is shaded."""

    wide = SHARP * size

    def at(v: Any) -> Any:
        return place(v, wide)

    big = Image.new("RGB", (wide, wide), "white")
    pen = ImageDraw.Draw(big, "RGBA")
    pen.rectangle([0, 0, wide / 2, wide], fill=(247, 232, 226))
    for tick in TICKS:
        shade = (90, 90, 90) if tick == 0 else (218, 218, 218)
        pen.line([at(tick), 0, at(tick), wide], fill=shade, width=SHARP)
        pen.line([0, wide - at(tick), wide, wide - at(tick)], fill=shade, width=SHARP)
    r = 1.7 * SHARP
    for x, y in zip(at(values.real), wide - at(values.imag), strict=True):
        pen.ellipse([x - r, y - r, x + r, y + r], fill=(*colour, 130))
    picture = big.resize((size, size), Image.Resampling.LANCZOS)
    ImageDraw.Draw(picture).rectangle([0, 0, size - 1, size - 1], outline=PALE)
    return picture


def place(v: Any, size: int) -> Any:
    """Where a real or imaginary part stands on an axis of `size` pixels."""
    return (1 + np.arcsinh(np.asarray(v) / UNIT) / np.arcsinh(FAR / UNIT)) * size / 2


def font(size: int) -> Any:
    """Pillow's own letters."""
    return ImageFont.load_default(size)


def figure(root: Path, seeds: range, last: dict[str, dict[str, np.ndarray]]) -> Image.Image:
    """Seed 0: densities and spectra at the looks; below, the last densities of every seed."""
    seed, columns = seeds[0], len(LOOKS)
    rows: list[tuple[str, str, list[Image.Image]]] = []
    for solver in SOLVERS:
        tiles = [density(points_at(root, solver, seed, s).numpy(), TILE) for s in LOOKS]
        rows.append((NAMES[solver], "density", tiles))
    for solver, what, words in (
        ("simga", "jacobian", "eigenvalues of J"),
        ("consensus", "jacobian", "eigenvalues of J"),
        ("consensus", "direction", f"of J + {GAMMA:g} J'J"),
    ):
        colour = COLOURS["direction" if what == "direction" else solver]
        tiles = [plane(spectra(root, solver, seed, s)[what], colour, TILE) for s in LOOKS]
        rows.append((NAMES[solver], words, tiles))

    wide = LEFT + columns * (TILE + GAP)
    across = (wide - LEFT) // (SMALL + GAP)
    deep = -(-len(seeds) // across)
    small_row = SMALL + 16 + GAP // 2
    axes = 34  # below the spectra
    high = TOP + len(rows) * (TILE + GAP) + axes + 2 * (24 + deep * small_row)
    sheet = Image.new("RGB", (wide, high), "white")
    pen = ImageDraw.Draw(sheet)
    pen.text((28, 16), f"seed {seed}", fill=INK, font=font(13), anchor="mm")
    for j, step in enumerate(LOOKS):
        middle = LEFT + j * (TILE + GAP) + TILE / 2
        pen.text((middle, 16), f"{step:,} iterations", fill=INK, font=font(15), anchor="mm")
    for i, (name, words, tiles) in enumerate(rows):
        y = TOP + i * (TILE + GAP)
        side = Image.new("RGB", (TILE, 44), "white")
        write = ImageDraw.Draw(side)
        write.text((TILE / 2, 12), name, fill=INK, font=font(15), anchor="mm")
        write.text((TILE / 2, 32), words, fill=INK, font=font(13), anchor="mm")
        sheet.paste(side.rotate(90, expand=True), (4, y))
        for j, tile in enumerate(tiles):
            sheet.paste(tile, (LEFT + j * (TILE + GAP), y))
        if words != "density":
            for tick in (-10.0, -0.1, 0.0, 0.1, 10.0):
                at = place(tick, TILE)
                pen.text(
                    (LEFT - 3, y + TILE - at), f"{tick:g}", fill=INK, font=font(10), anchor="rm"
                )
    y = TOP + len(rows) * (TILE + GAP) - GAP
    for j in range(columns):
        for tick in TICKS:
            at = place(tick, TILE)
            x = LEFT + j * (TILE + GAP) + at
            pen.text((x, y + 9), f"{tick:g}", fill=INK, font=font(10), anchor="mm")
        middle = LEFT + j * (TILE + GAP) + TILE / 2
        pen.text(
            (middle, y + 24), "real part (up: imaginary)", fill=INK, font=font(11), anchor="mm"
        )
    y += axes + GAP
    for solver in SOLVERS:
        words = f"{NAMES[solver]}, every seed after {LOOKS[-1]:,} iterations (seed: modes covered, good samples)"
        pen.text((LEFT, y + 12), words, fill=INK, font=font(15), anchor="lm")
        y += 24
        for k, one in enumerate(seeds):
            x = LEFT + (k % across) * (SMALL + GAP)
            top = y + (k // across) * small_row
            points = points_at(root, solver, one, LOOKS[-1]).numpy()
            sheet.paste(density(points, SMALL), (x, top))
            found = last[solver]
            line = f"{one}: {found['modes'][k]:.0f} of 8, {found['good'][k]:.0%}"
            pen.text((x + SMALL / 2, top + SMALL + 8), line, fill=INK, font=font(11), anchor="mm")
        y += deep * small_row
    return sheet


# ---- the report ----------------------------------------------------------------------------------


def report(root: Path, seeds: range, pairs: int, spectral: int) -> None:
    """Tables, spectra and the picture, from the checkpoints."""
    n, last = len(seeds), LOOKS[-1]
    rule = f"within 3 sigma, {POINTS} samples a seed, {n} seeds"
    print(f"Modes covered and good samples ({rule}); means with 95% intervals over seeds")
    print(
        "Difference: consensus less SimGA, paired seed by seed. Spread: least and most over seeds"
    )
    print(f"{'iterations':>10}  {'solver':10} {'modes':>18} {'good':>18} {'all 8':>6}  spread")
    found: dict[str, dict[int, dict[str, np.ndarray]]] = {solver: {} for solver in SOLVERS}
    for step in LOOKS:
        for solver in SOLVERS:
            of = figures_of([points_at(root, solver, seed, step) for seed in seeds])
            found[solver][step] = of
            whole = int((of["modes"] == 8).sum())
            print(
                f"{step:10,}  {solver:10} {interval(of['modes']):>18} {interval(of['good']):>18} "
                f"{whole:>3}/{n}  {of['spread'].min():.2f} .. {of['spread'].max():.2f}"
            )
        difference = {
            what: found["consensus"][step][what] - found["simga"][step][what]
            for what in ("modes", "good")
        }
        ahead = ", ".join(f"{what} {int((d > 0).sum())}" for what, d in difference.items())
        print(
            f"{'':10}  {'difference':10} {interval(difference['modes']):>18} "
            f"{interval(difference['good']):>18}  consensus ahead in: {ahead} of {n}"
        )
    for solver in SOLVERS:
        of = found[solver][last]
        print(f"{solver} at {last:,}, seed by seed: modes {of['modes'].astype(int).tolist()}")
        print(f"  good {[round(float(g), 3) for g in of['good']]}")

    equal_compute(root, seeds, pairs)
    wanted = [(solver, seeds[0], step) for step in LOOKS for solver in SOLVERS]
    some = seeds[:spectral]
    wanted += [(solver, seed, last) for seed in some[1:] for solver in SOLVERS]
    with showing("auto", "spectra", len(wanted)) as bar:
        for done, one in enumerate(wanted, 1):
            spectra(root, *one)
            bar.update(done, {})
    print(
        f"\nEigenvalues ({BATCHES} minibatches; stable is Re > 0). Large: at least 1/100 of the largest. q: largest "
        "|Im/Re| of the large"
    )
    kinds = [("simga", "jacobian"), ("consensus", "jacobian"), ("consensus", "direction")]
    for step in LOOKS:
        for solver, what in kinds:
            of_one = described(spectra(root, solver, seeds[0], step)[what])
            print(f"seed {seeds[0]}, {step:6,}  {solver:10} {what:10} " + spelled(of_one))
    for solver, what in kinds:
        every = [described(spectra(root, solver, seed, last)[what]) for seed in some]
        middle = {key: float(np.median([d[key] for d in every])) for key in every[0]}
        print(f"median of {len(some)}, {last:,}  {solver:10} {what:10} " + spelled(middle))
        for key in ("least Re", "most |Im|", "q"):
            values = [d[key] for d in every]
            print(f"    {key} over seeds: {min(values):.3g} .. {max(values):.3g}")

    summary = {
        solver: {step: {what: v.tolist() for what, v in of.items()} for step, of in looks.items()}
        for solver, looks in found.items()
    }
    (root / "summary.json").write_text(json.dumps(summary, indent=1))
    path = root / "figure1.webp"
    picture = figure(root, seeds, {solver: found[solver][last] for solver in SOLVERS})
    picture.save(path, lossless=True, method=6)
    print(f"\n{path}: {picture.width} x {picture.height}, {path.stat().st_size / 1000:.0f} kB")


def equal_compute(root: Path, seeds: range, pairs: int) -> None:
    """SimGA's last look against consensus where it has cost about as much."""
    last = LOOKS[-1]
    print("\nCost of a consensus step, in SimGA steps")
    ratios = {}
    for words, which in ((f"{len(seeds)} seeds stacked", seeds), ("one seed alone", seeds[:1])):
        low, middle, high = statistics.quantiles(
            cost(which, pairs, 8 * len(seeds) // len(which)), n=4
        )
        ratios[words] = middle
        print(
            f"  {words}: {middle:.2f} (CPU seconds, median of {pairs} interleaved pairs, quartiles "
            f"{low:.2f}-{high:.2f}); {last:,} of SimGA cost {last / middle:,.0f} of consensus"
        )
    ratios["training as recorded"] = ratio = recorded(root, seeds[0])
    print(f"  training as recorded: {ratio:.2f}; {last / ratio:,.0f} of consensus")
    print(
        "Equal compute, on the 2,048 samples that the runs recorded (differences: paired, seed by seed)"
    )
    theirs = figures_of([sheet_at(root, "simga", seed, last) for seed in seeds])
    print(
        f"{'simga':10} {last:6,}  modes {interval(theirs['modes'])}  good {interval(theirs['good'])}"
    )
    for step in range(SHEETS, LOOKS[2] + 1, SHEETS):
        mine = figures_of([sheet_at(root, "consensus", seed, step) for seed in seeds])
        shares = [step * ratio / last for ratio in ratios.values()]
        print(
            f"{'consensus':10} {step:6,}  modes {interval(mine['modes'])}  good {interval(mine['good'])}  "
            f"difference: modes {interval(mine['modes'] - theirs['modes'])}, "
            f"good {interval(mine['good'] - theirs['good'])}  "
            f"cost {min(shares):.2f}-{max(shares):.2f} of SimGA's"
        )


def spelled(values: dict[str, float]) -> str:
    """`described`'s figures in one line."""
    return (
        f"Re {values['least Re']:8.3g} .. {values['most Re']:<7.3g} most |Im| {values['most |Im|']:<8.3g} "
        f"q {values['q']:<8.3g} Re < 0: {values['negative']:g} of {values['large']:g} large"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("train", "report"))
    parser.add_argument("--solver", choices=tuple(SOLVERS), default="simga")
    parser.add_argument("--seeds", type=int, default=16)
    parser.add_argument("--pairs", type=int, default=9, help="of the measurement of cost")
    parser.add_argument(
        "--spectra", type=int, default=16, help="seeds whose last spectra are taken"
    )
    parser.add_argument("--dir", type=Path, default=Path("runs/mescheder-figure1"))
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    seeds = range(options.seeds)
    # NumPy's eigenvalues on two threads take four times as long as on one, twenty times on a busy machine.
    with threadpool_limits(options.threads):
        if options.what == "train":
            found = ensemble(recipe(options.solver), options.dir / options.solver, seeds)
            print(f"{found.seconds:.0f} s; diverged: {found.diverged or 'none'}")
        else:
            report(options.dir, seeds, options.pairs, options.spectra)


if __name__ == "__main__":
    main()
