"""Measured coverages and error rates of the audit: minutes of work, run by hand.

OMP_NUM_THREADS=1 python tests/checks/measure_audit.py [name ...]
"""

from __future__ import annotations

import sys

import numpy as np
import torch
from audit_games import F64, Affine, Gaussian, Linear, Shift, Unit, audited, boxed, context, points
from scipy import stats
from torch import nn

from equilibrist import GAN, SGD, Vanilla, Verdict
from equilibrist.checks import deviation
from equilibrist.checks.context import student
from equilibrist.checks.stationarity import gram_of, squared_norm


def floor_and_jackknife(trials: int = 1000, K: int = 10, seed: int = 0) -> None:
    """squared_norm on N(m, I_n): ratio = |m|^2 / sd of the estimate under m = 0."""
    rng = np.random.default_rng(seed)
    print(
        "n ratio | coverage of |m|^2, P(low > |m|^2), P(high < |m|^2), width / ideal | P(est > floor), floor / ideal floor"  # noqa: E501
    )
    for n in (1, 10, 100, 10_000):
        null = np.sqrt(2 * n / (K * (K - 1)))
        for ratio in (0.0, 1.0, 5.0, 50.0):
            m = np.zeros(n)
            m[0] = np.sqrt(ratio * null)
            size = trials if n < 1000 else 200
            out = np.array(
                [
                    squared_norm(gram_of(torch.from_numpy(m + rng.standard_normal((K, n)))), 0.95)
                    for _ in range(size)
                ]
            )
            e, low, high, floor = out.T
            t = stats.t.ppf(0.975, K - 1)
            ideal = t * np.sqrt(null**2 + 4 * m[0] ** 2 / K)
            print(
                f"{n:6d} {ratio:5.1f} | {np.mean((low <= m[0] ** 2) & (m[0] ** 2 <= high)):.3f} {np.mean(low > m[0] ** 2):.3f} "  # noqa: E501
                f"{np.mean(high < m[0] ** 2):.3f} {np.mean(high - low) / 2 / ideal:.2f} | {np.mean(e > floor):.3f} "
                f"{np.mean(floor) / (stats.t.ppf(0.95, K - 1) * null):.2f}"
            )


def stationary_verdicts(trials: int = 300) -> None:
    """Rates of the verdicts at a true residual of 0 to 1.5 tolerances (critic of V = -w . u)."""
    for d in (2, 50):
        for ratio in (0.0, 0.5, 0.98, 1.02, 1.5):
            counts: dict[str, int] = {}
            for seed in range(trials):
                u = np.zeros(d)
                u[0] = ratio * 0.2
                # unit = move |w| = 0.1, tolerance 0.02 = 0.1 * 0.2
                game = GAN(Shift(list(u)), Linear(list(np.ones(d) / d**0.5)), Unit(), latent=d)
                c = audited(
                    game,
                    Gaussian(d),
                    checks=("stationary",),
                    move=0.1,
                    seed=seed,
                    batch=64,
                    group_batches=8,
                )
                v = c["stationary/critic"].verdict.value
                counts[v] = counts.get(v, 0) + 1
            print(f"d={d} residual/tolerance={ratio}: {counts}")


def gain_coverage(trials: int = 300) -> None:
    """A fixed witness of Vanilla's critic (a shifted logit) and of an affine generator; truth from 4e6 samples."""
    critic = nn.Sequential(nn.Linear(1, 6), nn.Tanh(), nn.Linear(6, 1)).double()
    torch.manual_seed(0)
    with torch.no_grad():
        for p in critic.parameters():
            p.normal_()
    game = GAN(Affine(1.0, [0.4]), critic, Vanilla(), latent=1)
    start = game.init()
    torch.manual_seed(1)
    deviations = {
        "critic": {k: v + 0.3 * torch.randn_like(v) for k, v in start.players["critic"].items()},
        "generator": {"w": torch.tensor(0.8, dtype=F64), "u": torch.tensor([0.1], dtype=F64)},
    }
    big = context(game, Gaussian(1), 99, batch=4096, batches=1000)
    for player, moved in deviations.items():
        truth = student(deviation.gain(big, player, moved, "score"), 0.95).mean
        for n in (None, 40, 200, 500, 1797, 20_000):
            hits, widths, estimates = [], [], []
            for seed in range(trials):
                rng = np.random.default_rng(10_000 + seed)
                data = Gaussian(1) if n is None else points(rng.standard_normal((n, 1)))
                found = student(
                    deviation.gain(context(game, data, seed), player, moved, "score"), 0.95
                )
                hits.append(found.low <= truth <= found.high)
                widths.append(found.half_width)
                estimates.append(found.mean)
            print(
                f"{player:9s} data n={n}: coverage {np.mean(hits):.3f}  mean half width {np.mean(widths):.4f}  "
                f"sd of the estimate {np.std(estimates):.4f}  bias {np.mean(estimates) - truth:+.5f} (truth {truth:.4f})"  # noqa: E501
            )


def false_refutations(trials: int = 100) -> None:
    """Proposition 1's pair (u = 0, constant critic): verdicts over seeds, infinite and finite data."""
    from test_audit_truth import constant_critic

    for saturating in (True, False):
        for n in (None, 400, 1797):
            counts: dict[str, int] = {}
            worst = -1.0
            for seed in range(trials):
                rng = np.random.default_rng(50_000 + seed)
                data = Gaussian(1, 2.0) if n is None else points(2 * rng.standard_normal((n, 1)))
                game = GAN(
                    Affine(2.0, [0.0]), constant_critic(), Vanilla(saturating=saturating), latent=1
                )
                found = audited(
                    game,
                    data,
                    seed=seed,
                    steps=40,
                    looks=4,
                    optimizers={"generator": SGD(lr=0.1), "critic": SGD(lr=0.5)},
                )
                for player in ("generator", "critic"):
                    c = found[f"nash/{player}"]
                    counts[f"{player} {c.verdict.value}"] = (
                        counts.get(f"{player} {c.verdict.value}", 0) + 1
                    )
                    worst = max(worst, c.evidence["interval"][0])
            print(
                f"saturating={saturating} n={n}: {counts}; largest lower end {worst:.4f} (tolerance 0.02)"
            )


def false_refutations_at_zero_tolerance(trials: int = 200) -> None:
    """The level of the score alone: tolerance 0 at a Nash pair; nominal 2.5% per player."""
    refuted = 0
    for seed in range(trials):
        found = audited(
            boxed([0.0], [0.0], formulation=Unit()),
            Gaussian(),
            seed=seed,
            steps=20,
            looks=4,
            tolerance=0.0,
            optimizers={"critic": SGD(lr=0.5), "generator": SGD(lr=0.1)},
        )
        refuted += found["nash/critic"].verdict is Verdict.REFUTED
    print(f"critic's lower end above 0 where no gain exists: {refuted}/{trials}")


class Normed(nn.Module):
    """D(x) = w relu(batch norm(x)): losses of whole batches."""

    def __init__(self) -> None:
        super().__init__()
        self.bn = nn.BatchNorm1d(1, dtype=F64)
        self.w = nn.Parameter(torch.ones(1, dtype=F64))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.w * torch.relu(self.bn(x)).flatten()


def batch_norm_coverage(trials: int = 300) -> None:
    """Gain of a fixed critic under batch norm; truth: the mean over 20,000 whole batches."""
    game = GAN(Shift([0.3]), Normed(), Vanilla(), latent=1)
    start = game.init()
    moved = {k: v.clone() for k, v in start.players["critic"].items()}
    moved["w"] += 0.5
    moved["bn.bias"] += 0.2
    for batch, n in ((16, 200), (16, 480), (16, 600), (64, 1797), (16, 4000)):
        truth = student(
            deviation.gain(
                context(game, Gaussian(), 12_345, batch=batch, batches=20_000),
                "critic",
                moved,
                "score",
            ),
            0.95,
        ).mean
        hits, widths, estimates = [], [], []
        for seed in range(trials):
            data = points(np.random.default_rng(1000 + seed).normal(size=(n, 1)))
            b = context(game, data, seed, batch=batch)
            found = student(deviation.gain(b, "critic", moved, "score"), 0.95)
            hits.append(found.low <= truth <= found.high)
            widths.append(found.half_width)
            estimates.append(found.mean)
        print(
            f"batch {batch}, n={n}: {len(b.bank('score'))} batches of a score part of {b.parts['score'].size}: "
            f"coverage {np.mean(hits):.3f}  mean half width {np.mean(widths):.4f}  sd of the estimate {np.std(estimates):.4f}"  # noqa: E501
        )


EVERYTHING = (
    floor_and_jackknife,
    stationary_verdicts,
    gain_coverage,
    false_refutations,
    false_refutations_at_zero_tolerance,
    batch_norm_coverage,
)

if __name__ == "__main__":
    for measure in EVERYTHING:
        if len(sys.argv) < 2 or measure.__name__ in sys.argv[1:]:
            print(f"\n{measure.__name__}: {(measure.__doc__ or '').splitlines()[0]}", flush=True)
            measure()
