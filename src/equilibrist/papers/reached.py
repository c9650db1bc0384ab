"""What became of N6: measures of the audited pairs, judged and set beside the quality of their samples."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from equilibrist.certificates import Json
from equilibrist.papers.model import Claim, ClaimOutcome, Experiment, Records
from equilibrist.papers.reach import BASELINE, METHODS, PROX_LAMBDA, deciding, units
from equilibrist.papers.sources import OPEN
from equilibrist.papers.training import last
from equilibrist.statistics import estimate, holm, paired

MEASURES: dict[str, Callable[[Json], float | None]] = {
    "generator's gain alone": lambda pair: pair.get("nash/generator: gain"),
    "critic's gain alone": lambda pair: pair.get("nash/critic: gain"),
    "both gains": lambda pair: _sum(
        pair.get("nash/generator: gain"), pair.get("nash/critic: gain")
    ),
    "gain against an answering critic, lambda 0.1": lambda pair: _at_lambda(pair, PROX_LAMBDA),
    "generator at rest: a 1% move gains": lambda pair: pair.get("stationary/generator: residual"),
    "critic at rest: a 1% move gains": lambda pair: pair.get("stationary/critic: residual"),
    "leftmost eigenvalue": lambda pair: _real(pair.get("stable: leftmost")),
    "generator's smallest curvature": lambda pair: pair.get("local-nash/generator: smallest"),
}


def _sum(*values: float | None) -> float | None:
    return None if any(v is None for v in values) else sum(v for v in values if v is not None)


def _at_lambda(pair: Json, lam: float) -> float | None:
    profile = pair.get("profile") or {}
    for at, r in zip(profile.get("lambda") or (), profile.get("r") or (), strict=False):
        if isinstance(at, int | float) and abs(at - lam) < 1e-9 and isinstance(r, int | float):
            return float(r)
    return None


def _real(value: object) -> float | None:
    """The real part of an eigenvalue as evidence holds it."""
    if isinstance(value, Mapping):
        value = value.get("real", value.get("value"))
    if isinstance(value, list | tuple):
        value = value[0] if value else None
    return float(value) if isinstance(value, int | float) else None


def measure_by_seed(
    records: Records, domain: str, method: str, measure: str
) -> dict[int, float | None]:
    """A measure by seed."""
    record = records.get(f"{domain}-{method.replace(' ', '-')}")
    pairs = record.measures.get("pairs", {}) if record is not None else {}
    found = {int(seed): MEASURES[measure](pair) for seed, pair in pairs.items()}
    return {s: v if v is None or math.isfinite(v) else None for s, v in found.items()}


def quality_by_seed(records: Records, domain: str, method: str) -> dict[int, float | None]:
    """The last score by seed, lower is better."""
    record = records.get(f"{domain}-{method.replace(' ', '-')}")
    seeds = record.measures.get("seeds", {}) if record is not None else {}
    return {int(s): last(one, deciding(one["scores"])) for s, one in seeds.items()}


def domains(records: Records) -> list[str]:
    """The domains that records are of."""
    return list(dict.fromkeys(key.partition("-")[0] for key in records))


def _against(method: str, measure: str, records: Records) -> ClaimOutcome:
    """Whether a method ends lower than the baseline in a measure, in every domain."""
    found = {}
    for domain in domains(records):
        one = paired(
            measure_by_seed(records, domain, method, measure),
            measure_by_seed(records, domain, BASELINE, measure),
        )
        if one.n >= 2:
            found[domain] = one
    if not found:
        return ClaimOutcome("not tried", f"no two seeds of {method} and {BASELINE} yet")
    corrected = dict(zip(found, holm([one.p for one in found.values()]), strict=True))
    why = f"{measure}, {method} less {BASELINE}: " + "; ".join(
        f"{domain}: {one}, p {corrected[domain]:.2g}" for domain, one in found.items()
    )
    nearer = [d for d, one in found.items() if one.mean < 0 and corrected[d] < 0.05]
    farther = [d for d, one in found.items() if one.mean > 0 and corrected[d] < 0.05]
    if len(nearer) == len(found):
        return ClaimOutcome("holds", why)
    if nearer and not farther:
        return ClaimOutcome("holds in part", why)
    if farther and not nearer:
        return ClaimOutcome("does not hold", why)
    return ClaimOutcome("undecided", why)


def correlations(records: Records, domain: str) -> dict[str, tuple[float, float, int]]:
    """Spearman's rank correlation of each measure with the score over methods' means: (rho, p after Holm, methods).

    Methods count, not pairs: seeds of a method are alike.
    """
    from scipy import stats

    found = {}
    for measure in MEASURES:
        points = []
        for method in METHODS:
            x = estimate(list(measure_by_seed(records, domain, method, measure).values()))
            y = estimate(list(quality_by_seed(records, domain, method).values()))
            if x.n and y.n:
                points.append((x.mean, y.mean))
        # Ranks of numbers that are all alike have no correlation.
        if len(points) >= 5 and all(len(set(column)) > 1 for column in zip(*points, strict=True)):
            answer = stats.spearmanr([x for x, _ in points], [y for _, y in points])
            found[measure] = (float(answer.statistic), float(answer.pvalue), len(points))
    corrected = holm([p for _, p, _ in found.values()])
    return {m: (rho, p, n) for (m, (rho, _, n)), p in zip(found.items(), corrected, strict=True)}


def _predicts(records: Records) -> ClaimOutcome:
    found = {domain: correlations(records, domain) for domain in domains(records)}
    found = {domain: one for domain, one in found.items() if one}
    if not found:
        return ClaimOutcome("not tried", "fewer than five methods yet")
    strong = {d: [m for m, (_, p, _) in one.items() if p < 0.05] for d, one in found.items()}
    words = []
    for domain, one in found.items():
        measure, (rho, p, n) = max(one.items(), key=lambda item: abs(item[1][0]))
        words.append(f"{domain}: strongest is {measure}, rho {rho:.2f}, p {p:.2g} over {n} methods")
    shared = set.intersection(*(set(one) for one in strong.values()))
    why = "; ".join(words)
    if shared:
        return ClaimOutcome("holds", f"{', '.join(sorted(shared))} in every domain; {why}")
    if any(strong.values()):
        return ClaimOutcome("holds in part", why)
    return ClaimOutcome("undecided", why)


def markdown_tables(records: Records, folder: Path) -> list[str]:
    """A table a domain: score, gains, profile, rest, spectrum, by method."""
    lines: list[str] = []
    for domain in domains(records):
        shown = [m for m in METHODS if f"{domain}-{m.replace(' ', '-')}" in records]
        count = sum(
            len(records[f"{domain}-{m.replace(' ', '-')}"].measures.get("pairs", {})) for m in shown
        )
        lines += [
            "",
            f"**{domain}**, {count} pairs audited. Means over seeds with 95% intervals; the score is lower for "
            "better samples; gains are lower bounds, in the loss's own unit.",
            "",
            "| method (setting) | score | "
            + " | ".join(MEASURES)
            + " | Nash refuted | stable refuted | diverged |",
            "|---|---|" + "---|" * (len(MEASURES) + 3),
        ]
        for method in sorted(
            shown, key=lambda m: estimate(list(quality_by_seed(records, domain, m).values())).mean
        ):
            lines.append(_line(records, domain, method))
        found = correlations(records, domain)
        if found:
            lines += ["", "Rank correlation with the score over methods: " + "; ".join(
                f"{m}: {rho:.2f} (p {p:.2g})" for m, (rho, p, _) in found.items()) + "."]  # fmt: skip
    return lines


def _line(records: Records, domain: str, method: str) -> str:
    record = records[f"{domain}-{method.replace(' ', '-')}"]
    pairs, tuning = record.measures.get("pairs", {}), record.measures.get("tuning", {})
    setting = (
        f"{tuning.get('solver')}, lr x {tuning.get('rate')}, {record.measures.get('steps')} steps"
    )
    cells = [str(estimate(list(quality_by_seed(records, domain, method).values())))]
    cells += [
        str(estimate(list(measure_by_seed(records, domain, method, m).values()))) for m in MEASURES
    ]
    for claim in ("nash", "stable"):
        refuted = sum(pair["verdicts"].get(claim) == "REFUTED" for pair in pairs.values())
        cells.append(f"{refuted} of {len(pairs)}")
    gone = sum(one["diverged"] is not None for one in record.measures.get("seeds", {}).values())
    return f"| {method} ({setting}) | {' | '.join(cells)} | {gone} |"


_RULE = (
    "paired differences from alternating descent over seeds, each method tuned on six settings by its samples on "
    "another seed, at equal compute; p < 0.05 after Holm's correction over domains. Holds: lower in every domain; in "
    "part: in one, higher in none; does not hold: higher in one, lower in none"
)
N6 = Experiment(
    "which-equilibrium",
    "Which equilibrium does each training method reach",
    OPEN,
    (
        Claim(
            "N6, proximal",
            "Proximal training ends nearer to a proximal equilibrium: against an answering critic the generator gains "
            "less.",
            _RULE,
            partial(_against, "proximal", "gain against an answering critic, lambda 0.1"),
        ),
        Claim(
            "N6, consensus",
            "Consensus optimisation ends nearer to a Nash equilibrium: both players gain less alone.",
            _RULE,
            partial(_against, "consensus", "both gains"),
        ),
        Claim(
            "N6, mixtures",
            "Mirror descent with Langevin dynamics lowers the duality gap.",
            _RULE,
            partial(_against, "mirror", "both gains"),
        ),
        Claim(
            "N6, samples",
            "Some measure of equilibrium predicts the quality of samples.",
            "rank correlation over methods with p < 0.05 after Holm's correction over measures; holds: the same "
            "measure in every domain; in part: in one",
            _predicts,
        ),
    ),
    units,
    {
        "tiny": "eight Gaussians with small perceptrons, and 8x8 digits with small convolutions.",
        "small": "MNIST at width 16.",
        "paper": "MNIST at width 64.",
    },
    markdown_tables,
)
