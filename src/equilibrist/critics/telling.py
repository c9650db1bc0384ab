"""Indistinguishable: whether generated samples can be told from real ones, by which columns, and which rows most."""

from __future__ import annotations

import math

import numpy as np
import torch
from scipy import stats

from equilibrist.certificates import Json
from equilibrist.checks import Certificate, Chart, Interval, Tolerance, Verdict, decide
from equilibrist.critics._case import CriticCase
from equilibrist.critics._groups import groups_of, tested
from equilibrist.critics._samples import joined
from equilibrist.critics.blind import ROWS, by_row, sample_shape

CLAIM = "indistinguishable"
MOST = 10  # columns and rows that are named
BEYOND = 0.02  # of pairs above one half
TOLERANCE = Tolerance(BEYOND, "of pairs, above one half", "less than two in a hundred pairs")
LIMITS = (
    "critics of this class, trained by the stated number of gradients: another class may do better",
)


def telling(case: CriticCase) -> Certificate:
    """The certificate: the best critic's separation, the columns and rows that give generated samples away."""
    names = ["own", *(name for name, _ in case.of_class())]
    best = max(names, key=case.order_on_select)
    apart = case.separation(best, case.settings.confidence)
    excess = Interval(apart.mean - 0.5, apart.low - 0.5, apart.high - 0.5)
    columns, rows = _columns(case), _rows(case, best)
    alone = _alone(case, columns)
    by_column = decide(excess, BEYOND).verdict is not Verdict.REFUTED and alone.low > BEYOND
    if by_column:
        excess = alone
    verdict = decide(excess, BEYOND).verdict
    evidence: Json = {
        "excess": excess.mean,
        "interval": excess.ends,
        "confidence": case.settings.confidence,
        "unit": TOLERANCE.unit,
        "by": columns[0]["name"] if by_column else best,
        "columns": columns,
        "rows": rows,
        "budget": {"gradients": sum(t.steps for _, t in case.of_class())},
    }
    shown = ", ".join(f"{c['name']} ({0.5 + c['effect']:.0%} of pairs)" for c in columns[:3])
    who = {"own": "this critic"}.get(best, f"a critic of its class ({best})")
    by = f"; most by {shown}" if shown else ""
    orders = (
        f"{who} orders {apart.mean:.1%} ({apart.low:.1%} to {apart.high:.1%}) of held-out pairs{by}"
    )
    if by_column:
        orders = (
            f"{columns[0]['name']} alone orders {0.5 + alone.mean:.0%} of held-out pairs; {orders}"
        )
    summary = {
        Verdict.REFUTED: f"Generated samples can be told from real ones: {orders}.",
        Verdict.UNASSESSED: f"Cannot say whether generated samples can be told from real ones: {orders}.",
    }.get(
        verdict,
        f"No critic of the class was found that tells generated samples from real ones: the best orders "
        f"{apart.mean:.1%} of held-out pairs{by}.",
    )
    return Certificate(
        CLAIM,
        verdict,
        summary,
        evidence,
        TOLERANCE,
        case.scope(),
        LIMITS,
        player="generator",
        chart=_chart(case),
    )


def _alone(case: CriticCase, columns: list[Json]) -> Interval:
    """What the most telling column orders by itself, above one half.

    The width is one that no law of the column exceeds: the share of ordered pairs has a variance of at most
    1 / (4 min(m, n)) (Birnbaum and Klose, 1957), at a level that is shared among all columns and both of their tests.
    """
    if not columns:
        return Interval(0.0, -0.5, 0.5)
    effect = float(columns[0]["effect"])
    rows = min(min(len(b), ROWS) for b in case.held_out) * case.judge.pack
    tests = 2 * math.prod(sample_shape(case, case.held_out[0]))
    width = float(stats.norm.isf((1 - case.settings.confidence) / (2 * tests))) / math.sqrt(
        4 * rows
    )
    return Interval(effect, max(effect - width, -0.5), min(effect + width, 0.5))


def _columns(case: CriticCase) -> list[Json]:
    """The columns that tell real from generated samples by themselves, the largest effect first."""
    real, fake = (b.rows(slice(ROWS)) for b in case.held_out)
    both = joined(real, fake)
    groups = groups_of(sample_shape(case, both), case.columns, case.samples.real.names)
    kinds = np.arange(len(both)) < len(real)
    tests = tested(*by_row(case, both, kinds, np.zeros(len(both), dtype=np.int64)), groups)
    level = 1 - case.settings.confidence
    found: list[Json] = [
        {"name": g.name, "effect": t.effect, "p": t.p}
        for g, t in zip(groups, tests, strict=True)
        if t.p < level
    ]
    return sorted(found, key=lambda c: -c["effect"])[:MOST]


def _rows(case: CriticCase, best: str) -> list[Json]:
    """The generated rows that the best critic scores lowest, none of which it was trained on."""
    parts = ("select", "score") if best != "own" else ("optimise", "select", "score")
    index = torch.cat([case.samples.indices[part][1] for part in parts])
    scores = case.sign * case.scores(case.module(best), case.samples.fake.batch.rows(index))
    order = scores.argsort()[:MOST]
    places = case.samples.fake.places[index[order]].reshape(len(order), -1)
    return [
        {"row": p[0] if len(p) == 1 else p, "score": float(s)}
        for p, s in zip(places.tolist(), scores[order], strict=True)
    ]


def _chart(case: CriticCase) -> Chart | None:
    """The own critic's scores of real and generated samples, as shares below each score."""
    real, fake = (np.sort(s.cpu().numpy()) for s in case.own_scores)
    low, high = min(real[0], fake[0]), max(real[-1], fake[-1])
    if not high > low:
        return None
    at = np.linspace(low, high, 60)
    return Chart(
        tuple(map(float, at)),
        {
            "real": tuple(float(v) for v in np.searchsorted(real, at, side="right") / len(real)),
            "generated": tuple(
                float(v) for v in np.searchsorted(fake, at, side="right") / len(fake)
            ),
        },
        "score of the critic under audit",
        "Shares of real and of generated samples whose score is below each value",
    )
