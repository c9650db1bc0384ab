"""Does the choice of a checkpoint beat the last one, and the one with the lowest generator loss?

    python campaigns/checkpoint_choice.py run      # 27 runs, resumable; about eight minutes of one core
    python campaigns/checkpoint_choice.py report   # the section of docs/results.md

Three laws (scikit-learn's digits, its breast-cancer table of 30 columns, eight Gaussians in the plane), three ways to
train, three seeds each:

- `steady`: spectral norm, alternating Adam with beta1 = 0;
- `scarce`: a third of the training rows (90 of the table), a large critic without any penalty: it may learn them;
- `swinging`: simultaneous RMSProp at a large step size, which may circle or blow up late.

Finite data are cut into three parts by the seed: rows to train on, rows on which the choice is made, rows that judge.
Judged are the checkpoints that are taken by the score (the default), by the gap, by the lowest generator loss in the
run's own record, and the last; by the Frechet distance of pixels or coordinates, which no choice saw, on the rows that
judge.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import equilibrist as eq
from equilibrist.checkpoints import EnergyScore
from equilibrist.data import ArraySource, Source
from equilibrist.errors import NonFiniteError
from equilibrist.progress import showing
from equilibrist.run import Run, load, samples
from equilibrist.scores import coordinates, frechet_distance, pixels
from equilibrist.statistics import estimate

LAWS = ("digits", "table", "plane")
WAYS = ("steady", "scarce", "swinging")
SEEDS = 3
STEPS, LOOKS = 1800, 15
RULES = ("score", "gap", "loss", "last")
GAP = 120  # minibatch gradients for the gap of a checkpoint
JUDGES = 4096  # generated samples, and rows of a law


def parts(law: str, seed: int, way: str) -> tuple[Source, Source, Source]:
    """Rows to train on, to choose by, to judge by."""
    if law == "plane":
        return (eq.eight_gaussians(),) * 3
    if law == "digits":
        rows, kind = eq.digits().all(), "images"
    else:
        from sklearn.datasets import load_breast_cancer

        x = load_breast_cancer().data
        rows = torch.from_numpy((x - x.mean(0)) / x.std(0)).float()
        kind = "points"
    order = torch.from_numpy(np.random.default_rng([seed, 7]).permutation(len(rows)))
    third = len(rows) // 3
    train, choose, judge = (rows[order[k * third : (k + 1) * third]] for k in range(3))
    if way == "scarce":
        train = train[: max(third // 3, 90)]
    return tuple(  # type: ignore[return-value]
        ArraySource(part, kind=kind, name=f"{law}: {what}")  # type: ignore[arg-type]
        for part, what in ((train, "training"), (choose, "choice"), (judge, "judges"))
    )


def recipe(law: str, way: str, data: Source) -> eq.Recipe:
    """What is trained."""
    shape = tuple(data.shape)
    d = math.prod(shape)
    wide = 256 if way == "scarce" else 128

    def generator() -> nn.Module:
        end = [nn.Sigmoid(), nn.Unflatten(1, shape)] if law == "digits" else []
        return nn.Sequential(
            nn.Linear(16, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, d), *end
        )

    def critic() -> nn.Module:
        return nn.Sequential(
            nn.Flatten(),
            nn.Linear(d, wide),
            nn.LeakyReLU(0.2),
            nn.Linear(wide, wide),
            nn.LeakyReLU(0.2),
            nn.Linear(wide, 1),
        )

    solver: Any = {
        "steady": eq.Alternating(optimizer=eq.Adam(2e-3, beta1=0.0)),
        "scarce": eq.Alternating(optimizer=eq.Adam(1e-3, beta1=0.5)),
        "swinging": eq.Simultaneous(eq.RMSProp(2e-3)),
    }[way]
    game = eq.GAN(generator, critic, eq.Vanilla(), latent=16, spectral_norm=way == "steady")
    every = STEPS // LOOKS
    return eq.Recipe(
        game, data, solver, steps=STEPS, batch=64, checkpoint_every=every, log_every=20, keep=LOOKS
    )


def trained(law: str, way: str, seed: int, folder: Path) -> tuple[Run, Source, Source]:
    """A run, and rows of choice and judges. One that met numbers that are not finite ends at its last checkpoint."""
    train, choose, judge = parts(law, seed, way)
    made = recipe(law, way, train)
    try:
        run = eq.train(made, folder, seed=seed, progress="none")
    except NonFiniteError:
        run = load(folder, made)
    return run, choose, judge


def by_loss(run: Run, steps: list[int]) -> int:
    """The checkpoint with the lowest generator loss, the mean of the rows that were logged since the one before."""
    lines = (run.directory / "metrics.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    means: dict[int, float] = {}
    for before, step in zip([0, *steps], steps, strict=False):
        seen = [r["loss"].get("generator") for r in rows if before < r["step"] <= step]
        values = [v for v in seen if v is not None]
        means[step] = float(np.mean(values)) if values else math.inf
    return min(steps, key=lambda step: means[step])


def judged(run: Run, step: int, judge: Source) -> dict[str, float]:
    """What the rows that judge say of a checkpoint: latents of their own, too."""
    at = load(run.directory, run.recipe, step=step)
    game = run.recipe.game
    fake = samples.generate(game, at.players, at.constants, JUDGES, run.seed, index=99)
    rng = np.random.default_rng([run.seed, 11])
    real = judge.sample(rng, JUDGES) if judge.size is None else judge.all()
    see = pixels() if judge.kind == "images" else coordinates()
    if not bool(torch.isfinite(fake).all()):
        return {"frechet": math.inf, "energy": math.inf}
    x, y = see(real, judge.value_range), see(fake, judge.value_range)
    n = min(len(real), 1024)
    energy = EnergyScore(per_row=JUDGES // n).on(real[:n], judge.kind, judge.value_range)
    return {
        "frechet": frechet_distance(x, y),
        "energy": float(energy(fake[: n * (JUDGES // n)]).mean()),
    }


def one(law: str, way: str, seed: int) -> dict[str, Any]:
    """A run, the four choices, and what the judges say of every checkpoint."""
    begun = time.process_time()
    folder = Path(tempfile.mkdtemp())
    try:
        run, choose, judge = trained(law, way, seed, folder)
        ready = time.process_time()
        score = eq.choose_checkpoint(
            run, held_out=choose, gradients=GAP, progress="none", seed=seed
        )
        steps = [look.step for look in score.looks]
        sound = [look for look in score.looks if look.gap is not None]
        gap = min(sound, key=lambda look: look.gap.mean).step if sound else steps[-1]  # type: ignore[union-attr]
        return {
            "law": law,
            "way": way,
            "seed": seed,
            "advice": score.advice,
            "reason": score.reason,
            "steps": steps,
            "chosen": {
                "score": score.step or steps[-1],
                "gap": gap,
                "loss": by_loss(run, steps),
                "last": steps[-1],
            },
            "judged": [judged(run, step, judge) for step in steps],
            "seconds": [round(ready - begun, 1), round(time.process_time() - ready, 1)],
        }
    finally:
        shutil.rmtree(folder)


def run(folder: Path, seeds: list[int]) -> None:
    """Every run that is not kept yet."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    path = folder / "runs.jsonl"
    kept = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    done = {(r["law"], r["way"], r["seed"]) for r in kept}
    todo = [(law, way, s) for s in seeds for law in LAWS for way in WAYS]
    todo = [key for key in todo if key not in done]
    with showing("auto", "runs", len(todo)) as bar, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a run that diverges says so in its record
        for k, key in enumerate(todo):
            found = one(*key)
            with path.open("a") as out:
                out.write(json.dumps(found) + "\n")
            bar.update(k + 1, {})


def figure(row: dict[str, Any], rule: str, what: str) -> float:
    """What the judges say of the checkpoint that a rule takes."""
    return float(row["judged"][row["steps"].index(row["chosen"][rule])][what])


def gains(rows: list[dict[str, Any]], rule: str, other: str) -> list[float]:
    """log(Frechet distance by the rule / by the other) for every run: below zero the rule is better."""
    pairs = [(figure(r, rule, "frechet"), figure(r, other, "frechet")) for r in rows]
    return [
        math.log(min(a, 1e9) / min(b, 1e9)) if math.isfinite(a) or math.isfinite(b) else 0.0
        for a, b in pairs
    ]


def cell(rows: list[dict[str, Any]], rule: str, other: str) -> str:
    """The ratio of Frechet distances, its interval over runs, and better : same : worse."""
    values = gains(rows, rule, other)
    found = estimate(values)
    better, worse = sum(v < -1e-12 for v in values), sum(v > 1e-12 for v in values)
    count = f"{better} : {len(values) - better - worse} : {worse}"
    if found.low is None or found.high is None:
        return f"{math.exp(found.mean):.2f}, {count}"
    return f"{math.exp(found.mean):.2f} ({math.exp(found.low):.2f} to {math.exp(found.high):.2f}), {count}"


def report(folder: Path) -> None:
    """The section."""
    path = folder / "runs.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    groups = [(law, [r for r in rows if r["law"] == law]) for law in LAWS]
    groups += [(way, [r for r in rows if r["way"] == way]) for way in WAYS]
    groups += [("**all**", rows)]
    print("| runs | n | score / last | score / lowest generator loss | gap / last | score / gap |")
    print("|---|---|---|---|---|---|")
    for name, group in groups:
        if group:
            cells = [
                cell(group, a, b)
                for a, b in (
                    ("score", "last"),
                    ("score", "loss"),
                    ("gap", "last"),
                    ("score", "gap"),
                )
            ]
            print(f"| {name} | {len(group)} | {' | '.join(cells)} |")
    advice = {a: sum(r["advice"] == a for r in rows) for a in ("go on", "stop", "take")}
    print(f"\nAdvice: {advice}")
    took = [r for r in rows if r["advice"] == "take"]
    if took:
        print(
            f"Where the advice was to take an earlier step, score / last: {cell(took, 'score', 'last')}"
        )
    energy = estimate([figure(r, "score", "energy") - figure(r, "last", "energy") for r in rows])
    print(f"Energy distance on the rows that judge, score - last: {energy}")
    best = [min(j["frechet"] for j in r["judged"]) for r in rows]
    for rule in RULES:
        over = [math.log(figure(r, rule, "frechet") / b) for r, b in zip(rows, best, strict=True)]
        print(f"Above the best of all checkpoints, by {rule}: {math.exp(np.mean(over)):.2f} times")
    seconds = np.array([r["seconds"] for r in rows]).sum(0)
    print(f"CPU seconds: training {seconds[0]:.0f}, choosing and judging {seconds[1]:.0f}")


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("run", "report"))
    parser.add_argument("--folder", type=Path, default=Path("runs/checkpoint_choice"))
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    options = parser.parse_args()
    if options.what == "run":
        run(options.folder, list(range(options.first, options.first + options.seeds)))
    report(options.folder)


if __name__ == "__main__":
    main()
