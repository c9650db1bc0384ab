"""N6, an open question: which equilibrium does each training method reach?

Every method is tuned on a grid of six settings and trained at equal compute, and every pair is audited.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from equilibrist.checks import audit
from equilibrist.errors import EquilibristError, NonFiniteError
from equilibrist.files.atomic import write_json
from equilibrist.files.reading import parse_json
from equilibrist.papers.looks import looks
from equilibrist.papers.model import (
    Claim,
    Experiment,
    Measures,
    Outcome,
    Place,
    Records,
    Size,
    Unit,
)
from equilibrist.papers.sources import OPEN
from equilibrist.papers.statistics import estimate, holm, paired
from equilibrist.papers.training import folder, last, relative_cost, taken_up, trained
from equilibrist.recipe_lookup import resolve
from equilibrist.run.recipe import Recipe
from equilibrist.scores import MixtureQuality, Score
from equilibrist.solvers.named import named

BASELINE = "alternating"
TUNING = 1000  # the seed of the grid, which the table does not use
RATES = (0.3, 1.0, 3.0)
WIDE_RATES = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
PROX_LAMBDA = 0.1  # of section 6.1
PROFILE = {
    "prox_lambdas": (PROX_LAMBDA, 1.0),
    "prox_steps": 12,
    "prox_starts": 1,
    "inner_steps": 20,
}


class Method(NamedTuple):
    """A solver's name and two values of what it has to choose; without any, six step sizes are tried."""

    solver: str
    key: str = ""
    values: tuple[float, ...] = ()

    def grid(self) -> list[tuple[float, str]]:
        """(factor of the step size, solver's text), six of them."""
        if not self.key:
            return [(rate, self.solver) for rate in WIDE_RATES]
        return [(rate, f"{self.solver}:{self.key}={v:g}") for v in self.values for rate in RATES]


METHODS = {
    "simultaneous": Method("simultaneous"),
    "alternating": Method("alternating", "critic_steps", (1, 5)),
    "extragradient": Method("extragradient"),
    "past extragradient": Method("past-extragradient"),
    "optimistic": Method("optimistic"),
    "consensus": Method("consensus", "gamma", (0.1, 1.0)),
    "symplectic": Method("symplectic", "strength", (0.3, 1.0)),
    "competitive": Method("competitive"),
    "follow the ridge": Method("ridge"),
    "unrolled": Method("unrolled", "unroll", (2, 5)),
    "proximal": Method("proximal", "lam", (0.1, 1.0)),
    "lookahead": Method("lookahead", "k", (5, 20)),
    "averaged": Method("recipe:average=exponential", "", ()),
    "mirror": Method("mirror", "inner", (2, 5)),
    "mirror-prox": Method("mirror-prox", "inner", (2, 5)),
}


@dataclasses.dataclass(frozen=True)
class Scale:
    """A domain at a size: its recipe, the compute of a run in steps of alternating descent, and how it is audited."""

    recipe: str
    settings: Mapping[str, Any]
    steps: int
    seeds: tuple[int, ...]
    gradients: int
    minutes: float

    def made(self) -> Recipe:
        """The recipe."""
        found: Recipe = resolve(self.recipe, self.settings, builtin=True).build()
        return found

    def scores(self, weights: Path | None) -> tuple[Score, ...]:
        """What tells good samples from bad ones; the first figure of the last one decides."""
        if self.recipe == "eight-gaussians":
            return (MixtureQuality(transport=500),)
        return looks(self.recipe.partition("-")[0], weights)


_PLANE = {"width": 32, "depth": 2, "batch": 128, "sigma": 0.05, "lr": 1e-3, "saturating": False}
DOMAINS: dict[Size, dict[str, Scale]] = {
    "tiny": {
        "plane": Scale("eight-gaussians", _PLANE, 6000, tuple(range(5)), 800, 6),
        "digits": Scale("digits-sngan", {"dim": 8, "latent": 16}, 3000, tuple(range(5)), 800, 12),
    },
    "small": {
        "mnist": Scale("mnist-sngan", {"dim": 16}, 5000, tuple(range(5)), 800, 55),
    },
    "paper": {
        "mnist": Scale("mnist-sngan", {"dim": 64}, 200_000, tuple(range(5)), 4000, 40_000),
    },
}


def units(size: Size) -> tuple[Unit, ...]:
    """A unit a domain and method; the baseline first."""
    order = [BASELINE, *(name for name in METHODS if name != BASELINE)]
    return tuple(
        Unit(
            f"{domain}-{name.replace(' ', '-')}",
            f"{domain}: {name}, tuned, {len(scale.seeds)} seeds, audited",
            scale.minutes,
            partial(_reach, scale, METHODS[name]),
        )
        for domain, scale in DOMAINS[size].items()
        for name in order
    )


def _reach(scale: Scale, method: Method, place: Place) -> Measures:
    base = scale.made()
    scores = scale.scores(place.weights)
    chosen = _tuned(scale, base, method, scores, place)
    if chosen["solver"] is None:
        return {"tuning": chosen, "seeds": {}, "pairs": {}}
    solver = _solver(base, chosen["solver"], chosen["rate"])
    steps = _steps(scale.steps, chosen["cost"])
    made = dataclasses.replace(base, solver=solver, steps=steps)
    inner = dataclasses.replace(place, runs=place.runs / "trained")
    found = trained(inner, made, scale.seeds, scores=scores, looks=10, stacked=True)
    pairs = {
        str(seed): _audited(inner, made, scores, seed, scale.gradients)
        for seed in scale.seeds
        if found["seeds"][str(seed)]["diverged"] is None
    }
    return {**found, "tuning": chosen, "steps": steps, "pairs": pairs}


def _steps(budget: float, cost: float) -> int:
    """As many steps as the budget of reference steps pays for, to two digits: costs are measured."""
    steps = max(1.0, budget / max(cost, 1e-9))
    digits = max(0, int(math.log10(steps)) - 1)
    return int(round(steps / 10**digits) * 10**digits)


def _solver(base: Recipe, text: str, rate: float) -> Any:
    lr = base.solver.optimizer.lr  # type: ignore[attr-defined]
    joined = "," if ":" in text else ":"
    return named(f"{text}{joined}lr={lr * rate:g}", base.solver)


def _tuned(
    scale: Scale, base: Recipe, method: Method, scores: Sequence[Score], place: Place
) -> dict[str, Any]:
    """The setting whose samples are best after a quarter of the budget, on a seed of its own. Kept beside the runs."""
    path = place.runs / "tuning.json"
    if path.exists():
        held: dict[str, Any] = parse_json(path.read_bytes())
        return held
    tried: list[dict[str, Any]] = []
    for i, (rate, text) in enumerate(method.grid()):
        solver = _solver(base, text, rate)
        made = dataclasses.replace(base, solver=solver)
        try:
            cost = relative_cost(made)["ratio"]
            made = dataclasses.replace(made, steps=_steps(scale.steps / 4, cost))
            there = dataclasses.replace(place, runs=place.runs / f"grid_{i}")
            found = trained(there, made, (TUNING,), scores=scores[:1], looks=3)
        except NonFiniteError:
            tried.append({"solver": text, "rate": rate, "score": None})
            continue
        one = found["seeds"][str(TUNING)]
        name = deciding(one["scores"])
        tried.append({"solver": text, "rate": rate, "cost": cost, "score": last(one, name)})
    sound = [one for one in tried if one["score"] is not None]
    none: dict[str, Any] = {"solver": None, "rate": None}
    best = min(sound, key=lambda one: float(one["score"])) if sound else none
    chosen = {**best, "tried": tried}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, chosen)
    return chosen


def deciding(names: Any) -> str:
    """The figure that says how good samples are; lower is better for all of them."""
    for part in ("features", "frechet_distance", "w2", "W2", "transport"):
        for name in names:
            if part in name:
                return str(name)
    return next(iter(names), "")


def _audited(
    place: Place, recipe: Recipe, scores: Sequence[Score], seed: int, gradients: int
) -> dict[str, Any]:
    """The audit of one pair as plain numbers; None where a number could not be had."""
    path = folder(place.runs, seed) / "reached.json"
    if path.exists():
        held: dict[str, Any] = parse_json(path.read_bytes())
        return held
    made = dataclasses.replace(recipe, scores=tuple(scores))
    run = taken_up(place.runs, made, seed, place.device)
    # Every pair is held to the same yardstick, whatever rule it was trained with.
    plain: dict[str, Any] = {"optimizers": {}, "step_sizes": {}}
    whole = audit(run, gradients=gradients, settings=plain, progress="none", write=False)
    numbers: dict[str, Any] = {"verdicts": {}}
    for certificate in whole.certificates:
        numbers["verdicts"][certificate.claim] = str(certificate.verdict.value)
        evidence = certificate.evidence
        for key in ("gain", "interval", "residual", "smallest", "schur_smallest", "leftmost"):
            if key in evidence:
                numbers[f"{certificate.claim}: {key}"] = evidence[key]
    try:
        profile = audit(
            run,
            checks=("profile",),
            settings={
                **plain,
                "prox_lambdas": (PROX_LAMBDA, 1.0),
                "prox_steps": 12,
                "prox_starts": 1,
                "inner_steps": 20,
            },
            progress="none",
            write=False,
        )["profile"]
        numbers["profile"] = {
            k: profile.evidence.get(k) for k in ("lambda", "r", "low", "high", "slack")
        }
    except (EquilibristError, KeyError) as error:
        numbers["profile"] = {"failed": str(error)}
    write_json(path, numbers)
    return numbers


# -- what became of it ------------------------------------------------------------------------------

MEASURES: dict[str, Callable[[Mapping[str, Any]], float | None]] = {
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


def _at_lambda(pair: Mapping[str, Any], lam: float) -> float | None:
    profile = pair.get("profile") or {}
    for at, r in zip(profile.get("lambda") or (), profile.get("r") or (), strict=False):
        if isinstance(at, int | float) and abs(at - lam) < 1e-9 and isinstance(r, int | float):
            return float(r)
    return None


def _real(value: Any) -> float | None:
    """The real part of an eigenvalue as evidence holds it."""
    if isinstance(value, Mapping):
        value = value.get("real", value.get("value"))
    if isinstance(value, list | tuple):
        value = value[0] if value else None
    return float(value) if isinstance(value, int | float) else None


def values(records: Records, domain: str, method: str, measure: str) -> dict[int, float | None]:
    """A measure by seed."""
    record = records.get(f"{domain}-{method.replace(' ', '-')}")
    pairs = record.measures.get("pairs", {}) if record is not None else {}
    found = {int(seed): MEASURES[measure](pair) for seed, pair in pairs.items()}
    return {s: v if v is None or math.isfinite(v) else None for s, v in found.items()}


def quality(records: Records, domain: str, method: str) -> dict[int, float | None]:
    """The last score by seed, lower is better."""
    record = records.get(f"{domain}-{method.replace(' ', '-')}")
    seeds = record.measures.get("seeds", {}) if record is not None else {}
    return {int(s): last(one, deciding(one["scores"])) for s, one in seeds.items()}


def domains(records: Records) -> list[str]:
    """The domains that records are of."""
    return list(dict.fromkeys(key.partition("-")[0] for key in records))


def _against(method: str, measure: str, records: Records) -> Outcome:
    """Whether a method ends lower than the baseline in a measure, in every domain."""
    found = {}
    for domain in domains(records):
        one = paired(
            values(records, domain, method, measure), values(records, domain, BASELINE, measure)
        )
        if one.n >= 2:
            found[domain] = one
    if not found:
        return Outcome("not tried", f"no two seeds of {method} and {BASELINE} yet")
    corrected = dict(zip(found, holm([one.p for one in found.values()]), strict=True))
    why = f"{measure}, {method} less {BASELINE}: " + "; ".join(
        f"{domain}: {one}, p {corrected[domain]:.2g}" for domain, one in found.items()
    )
    nearer = [d for d, one in found.items() if one.mean < 0 and corrected[d] < 0.05]
    farther = [d for d, one in found.items() if one.mean > 0 and corrected[d] < 0.05]
    if len(nearer) == len(found):
        return Outcome("holds", why)
    if nearer and not farther:
        return Outcome("holds in part", why)
    if farther and not nearer:
        return Outcome("does not hold", why)
    return Outcome("undecided", why)


def correlations(records: Records, domain: str) -> dict[str, tuple[float, float, int]]:
    """Spearman's rank correlation of each measure with the score over methods' means: (rho, p after Holm, methods).

    Methods count, not pairs: seeds of a method are alike.
    """
    from scipy import stats

    found = {}
    for measure in MEASURES:
        points = []
        for method in METHODS:
            x = estimate(list(values(records, domain, method, measure).values()))
            y = estimate(list(quality(records, domain, method).values()))
            if x.n and y.n:
                points.append((x.mean, y.mean))
        if len(points) >= 5:
            answer = stats.spearmanr([x for x, _ in points], [y for _, y in points])
            found[measure] = (float(answer.statistic), float(answer.pvalue), len(points))
    corrected = holm([p for _, p, _ in found.values()])
    return {m: (rho, p, n) for (m, (rho, _, n)), p in zip(found.items(), corrected, strict=True)}


def _predicts(records: Records) -> Outcome:
    found = {domain: correlations(records, domain) for domain in domains(records)}
    found = {domain: one for domain, one in found.items() if one}
    if not found:
        return Outcome("not tried", "fewer than five methods yet")
    strong = {d: [m for m, (_, p, _) in one.items() if p < 0.05] for d, one in found.items()}
    words = []
    for domain, one in found.items():
        measure, (rho, p, n) = max(one.items(), key=lambda item: abs(item[1][0]))
        words.append(f"{domain}: strongest is {measure}, rho {rho:.2f}, p {p:.2g} over {n} methods")
    shared = set.intersection(*(set(one) for one in strong.values()))
    why = "; ".join(words)
    if shared:
        return Outcome("holds", f"{', '.join(sorted(shared))} in every domain; {why}")
    if any(strong.values()):
        return Outcome("holds in part", why)
    return Outcome("undecided", why)


def table(records: Records, folder: Path) -> list[str]:
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
            shown, key=lambda m: estimate(list(quality(records, domain, m).values())).mean
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
    cells = [str(estimate(list(quality(records, domain, method).values())))]
    cells += [str(estimate(list(values(records, domain, method, m).values()))) for m in MEASURES]
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
    table,
)
