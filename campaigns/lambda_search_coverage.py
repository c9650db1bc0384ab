"""Does lambda* by search, on samples, hold the truth? Gaussian W2GANs of random settings.

    python campaigns/lambda_search_coverage.py              # the table of docs/results.md
    python campaigns/lambda_search_coverage.py --settings 8 --out /tmp/few.json

Each setting is the optimum of the Gaussian W2GAN as plain modules on samples: dimension 1 to 4, s in [1.3, 4], eta in
[0.2, 2], the ball of the shift t in [0.5, 2] (uniform, the last two in logarithm), redrawn until the shift alone gains
at least 10 tolerances against the frozen critic. Rules are Adam and plain gradient steps in turn, their step
size log-uniform in [1e-3, 0.3]: both unsuitable ones and good ones. The truth is lambda* = s / (4 eta (s - 1)).

An interrupted campaign goes on where it stopped: every setting's result is written to the output file when it is known.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import binomtest

from equilibrist import SGD, Adam, audit_pair
from equilibrist.checks import Settings
from equilibrist.data import Gaussian
from equilibrist.formulations import W2GAN
from equilibrist.games import GaussianW2GAN
from equilibrist.networks import LinearGenerator, QuadraticCritic
from equilibrist.projections import EigenvalueCap, NormBall, SpectralBall

F64 = torch.float64
TOLERANCE = 5e-3
RULES = {"Adam": Adam, "plain steps": SGD}


def drawn(seed: int, i: int) -> dict[str, Any]:
    """Setting number i."""
    rng = np.random.default_rng([seed, i])
    while True:
        s = rng.uniform(1.3, 4.0)
        eta, t = (math.exp(rng.uniform(*np.log(ends))) for ends in ((0.2, 2.0), (0.5, 2.0)))
        if eta * (s - 1) * t**2 >= 10 * TOLERANCE:
            break
    return {
        "dim": 1 + i % 4,
        "s": s,
        "eta": eta,
        "t": t,
        "rule": list(RULES)[i // 4 % 2],
        "lr": math.exp(rng.uniform(*np.log((1e-3, 0.3)))),
        "batch": int(rng.choice([128, 256])),
        "truth": s / (4 * eta * (s - 1)),
    }


def searched(setting: dict[str, Any], seed: int) -> dict[str, Any]:
    """What the search says of it."""
    dim, s, eta, t = (setting[k] for k in ("dim", "s", "eta", "t"))
    generator, critic = LinearGenerator(dim, dim, dtype=F64), QuadraticCritic(dim, dtype=F64)
    game = GaussianW2GAN(s=s, dim=dim, eta=eta, t=t)
    optimum = game.points()[0].players
    generator.load_state_dict(optimum["generator"])
    critic.load_state_dict(optimum["critic"])
    rule = RULES[setting["rule"]](setting["lr"])
    settings = Settings(
        batch=setting["batch"],
        batches=32,
        look_batches=8,
        absolute=TOLERANCE,
        perturbation=0.1,
        prox_steps=30,
        inner_steps=30,
        prox_track=2,
        prox_trials=8,
        optimizers={"generator": rule, "critic": rule},
    )
    begun = time.process_time()
    audit = audit_pair(
        generator,
        critic,
        Gaussian(np.zeros(dim), s * s * np.eye(dim), dtype=F64),
        W2GAN(eta),
        latent=dim,
        projections=(
            SpectralBall("generator", "W", 1.0),
            NormBall("generator", "u", t),
            EigenvalueCap("critic", "A", game.ceiling),
        ),
        checks=("lambda-search",),
        settings=settings,
        seed=seed,
        progress="none",
    )
    found = audit["lambda-search"]
    low, high = (float(x) for x in found.evidence.get("interval", (math.nan, math.nan)))
    return setting | {
        "verdict": found.verdict.value,
        "low": low if math.isfinite(low) else str(low),
        "high": high if math.isfinite(high) else str(high),
        "seconds": round(time.process_time() - begun, 2),
    }


def rate(hits: int, n: int) -> str:
    """Per cent with the Clopper-Pearson 95% interval."""
    span = binomtest(hits, n).proportion_ci(0.95, "exact")
    return f"{hits} of {n}, {100 * hits / n:.0f}% ({100 * span.low:.0f} to {100 * span.high:.0f})"


def table(rows: Sequence[dict[str, Any]]) -> str:
    """A line for every dimension and rule, and for all together."""
    groups = [(f"d = {d}", [r for r in rows if r["dim"] == d]) for d in (1, 2, 3, 4)]
    groups += [(rule, [r for r in rows if r["rule"] == rule]) for rule in RULES]
    lines = [
        "| | holds the truth | lower end above it | upper end below it | upper end finite | median upper / lower end "
        "| median lower end, upper end / truth | median CPU time |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, group in [*groups, ("all", list(rows))]:
        if not group:
            continue
        truth = np.array([r["truth"] for r in group])
        low, high = (np.array([float(r[k]) for r in group]) for k in ("low", "high"))
        with np.errstate(divide="ignore"):
            ratio = np.where(low > 0, high / np.where(low > 0, low, 1.0), np.inf)
        n = len(group)
        over, under = int((low > truth).sum()), int((high < truth).sum())
        cells = (
            rate(int(((low <= truth) & (truth <= high)).sum()), n),
            str(over),
            str(under),
            f"{int(np.isfinite(high).sum())} of {n}",
            f"{np.median(ratio):.2f}",
            f"{np.median(low / truth):.2f}, {np.median(high / truth):.2f}",
            f"{np.median([r['seconds'] for r in group]):.0f} s",
        )
        lines.append(f"| {' | '.join((name, *cells))} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Search, and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--settings", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/lambda-search-coverage.json"))
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    known: dict[str, dict[str, Any]] = {}
    if options.out.exists():
        known = json.loads(options.out.read_text())
    options.out.parent.mkdir(parents=True, exist_ok=True)
    for i in range(options.settings):
        key = f"{options.seed}/{i}"
        if key in known:
            continue
        known[key] = searched(drawn(options.seed, i), options.seed + i)
        part = options.out.with_suffix(".part")
        part.write_text(json.dumps(known, indent=1))
        os.replace(part, options.out)
        print(key, json.dumps(known[key]), flush=True)
    print(table([known[f"{options.seed}/{i}"] for i in range(options.settings)]))


if __name__ == "__main__":
    main()
